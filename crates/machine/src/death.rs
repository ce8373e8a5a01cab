//! Dead letters: what becomes of messages that end without having been wanted.

use std::collections::BTreeSet;

use crate::body::read_row;
use crate::limits::{DEATHS_MAX, TARGETS_MAX};
use crate::machine::Step;
use crate::publish::{Draft, Due};
use crate::record::{Death, DeathReason, MessageRecord, Ticket};
use crate::store::{Store, StoreError};

/// A message that has ended in its queue; its row is still there.
#[derive(Debug)]
pub(crate) struct PendingDeath {
    pub queue: u64,
    pub sequence: u64,
    pub ticket: Ticket,
    pub reason: DeathReason,
}

impl DeathReason {
    fn name(self) -> &'static str {
        match self {
            DeathReason::Expired => "expired",
            DeathReason::Rejected => "rejected",
            DeathReason::DeliveryLimit => "delivery-limit",
            DeathReason::Overflow => "overflow",
        }
    }

    /// A consumer had its say: going around again is a retry, not a circle.
    fn is_verdict(self) -> bool {
        matches!(self, DeathReason::Rejected | DeathReason::DeliveryLimit)
    }
}

impl<S: Store> Step<'_, S> {
    /// Works off what the command left behind: deaths, and queues in which others may now be delivered. Not
    /// recursive, because a death may lead to a delivery, and that to further deaths.
    pub fn settle(&mut self) -> Result<(), StoreError> {
        loop {
            if let Some(death) = self.deaths.pop_front() {
                self.work_off(death)?;
            } else if let Some(queue_id) = self.unsettled.pop_first() {
                if self.machine.queue_name(queue_id).is_some() {
                    self.dispatch(queue_id)?;
                    self.wake(queue_id);
                }
            } else {
                return Ok(());
            }
        }
    }

    fn work_off(&mut self, death: PendingDeath) -> Result<(), StoreError> {
        let PendingDeath { queue: queue_id, sequence, ticket, reason } = death;
        let queue = self.queue(queue_id);
        let (queue_name, dead_letter) = (queue.name.clone(), queue.settings.dead_letter.clone());
        if let Some(dead_letter) = dead_letter
            && let Some(mut message) = read_row(self.store, queue_id, sequence)?
        {
            let (came_by, came_with) = came_by(&message, &queue_name);
            let routing_key = dead_letter.routing_key.unwrap_or_else(|| came_with.clone());
            record_death(&mut message, queue_name, reason, (came_by, came_with), self.now_ms());
            let mut targets = self.dead_letter_targets(&dead_letter.exchange, &routing_key, &message);
            self.break_circles(&mut targets, &message.deaths);
            if !targets.is_empty() {
                self.queue(queue_id).totals.dead_lettered += 1;
                self.store_dead_letter(message, &ticket, dead_letter.exchange, routing_key, &targets)?;
            }
        }
        self.erase(queue_id, sequence, &ticket)
    }

    fn dead_letter_targets(&self, exchange: &str, routing_key: &str, message: &MessageRecord) -> BTreeSet<u64> {
        if exchange.is_empty() {
            return self.machine.queue_names.get(routing_key).copied().into_iter().collect();
        }
        // Without the exchange the letter has nowhere to go; nor with too many queues to go to.
        let found = self.machine.topology.route(exchange, routing_key, &message.content.headers).unwrap_or_default();
        found.into_iter().take(TARGETS_MAX).collect()
    }

    /// Leaves out queues that the message has died in, if no consumer has had a say since.
    fn break_circles(&self, targets: &mut BTreeSet<u64>, deaths: &[Death]) {
        targets.retain(|target| {
            let name = self.machine.queue_name(*target).unwrap_or_default();
            let Some(last) = deaths.iter().position(|death| death.queue == name) else { return true };
            deaths[..=last].iter().any(|death| death.reason().is_verdict())
        });
    }

    fn store_dead_letter(
        &mut self,
        mut message: MessageRecord,
        ticket: &Ticket,
        exchange: String,
        routing_key: String,
        targets: &BTreeSet<u64>,
    ) -> Result<(), StoreError> {
        if message.shared_body != 0 {
            self.add_shares(message.shared_body, targets.len())?;
        } else if targets.len() > 1 {
            let body = std::mem::take(&mut message.content.body);
            message.shared_body = self.share_body(body, targets.len());
        }
        let draft = Draft {
            content: message.content,
            body_bytes: ticket.bytes,
            shared_body: message.shared_body,
            priority: message.priority,
            due: Due::Unset,
            ttl_ms: 0,
            expire_at_ms: 0,
            routing_key: if exchange.is_empty() { String::new() } else { routing_key },
            exchange,
            group: message.group,
            deaths: message.deaths,
        };
        for target in targets {
            self.store_draft(*target, draft.clone())?;
        }
        Ok(())
    }
}

/// The exchange and key that a message came to its queue by.
pub(crate) fn came_by(message: &MessageRecord, queue_name: &str) -> (String, String) {
    if message.exchange.is_empty() {
        (String::new(), queue_name.to_owned())
    } else {
        (message.exchange.clone(), message.routing_key.clone())
    }
}

/// Adds a death to a message's history, the newest first, and tells of it in the headers.
fn record_death(
    message: &mut MessageRecord,
    queue: String,
    reason: DeathReason,
    (exchange, routing_key): (String, String),
    now_ms: u64,
) {
    let is_first = message.deaths.is_empty();
    let known = message.deaths.iter().position(|death| death.queue == queue && death.reason() == reason);
    let (count, first_at_ms) = match known.map(|position| message.deaths.remove(position)) {
        Some(before) => (before.count + 1, before.first_at_ms),
        None => (1, now_ms),
    };
    let headers = &mut message.content.headers;
    let mut tell = |which: &str| {
        headers.insert(format!("x-{which}-death-queue"), queue.clone());
        headers.insert(format!("x-{which}-death-reason"), reason.name().to_owned());
        headers.insert(format!("x-{which}-death-exchange"), exchange.clone());
    };
    tell("last");
    if is_first {
        tell("first");
    }
    let death = Death { queue, reason: reason.into(), exchange, routing_key, count, first_at_ms, last_at_ms: now_ms };
    message.deaths.insert(0, death);
    message.deaths.truncate(DEATHS_MAX);
    let count: u64 = message.deaths.iter().map(|death| death.count).sum();
    message.content.headers.insert("x-death-count".to_owned(), count.to_string());
}
