//! The reference machine's rules for messages that end badly, and for dead letters.

use dwell_machine::{Content, Death, DeathReason, MessageRecord, limits::DEATHS_MAX};

use crate::publish::expiry;
use crate::reference::{Dead, Reference};

impl Reference {
    /// True if a message's time is over, whether or not it may expire where it stands.
    pub fn is_over(&self, sequence: u64) -> bool {
        let expires_at_ms = self.messages[&sequence].expires_at_ms;
        expires_at_ms != 0 && expires_at_ms <= self.now_ms
    }

    pub fn expire(&mut self, sequence: u64) {
        let queue = self.message(sequence).queue;
        self.totals(queue).expired += 1;
        self.die(sequence, DeathReason::Expired);
    }

    /// Takes a message away, to be worked off as a death after the command.
    pub fn die(&mut self, sequence: u64, reason: DeathReason) {
        let message = self.take_away(sequence);
        let queue = self.queue(message.queue);
        let (name, settings) = (queue.name.clone(), queue.settings.clone());
        self.deaths.push_back(Dead { message, reason, name, settings });
    }

    /// Publishes a dead message again, if there is a place for it.
    pub fn bury(&mut self, dead: &Dead) {
        let Some(letter) = &dead.settings.dead_letter else { return };
        let record = &dead.message.record;
        let came_with = if record.exchange.is_empty() { &dead.name } else { &record.routing_key };
        let routing_key = letter.routing_key.as_ref().unwrap_or(came_with).clone();
        let Ok(targets) = self.route(&letter.exchange, &routing_key, &record.content.headers) else { return };

        let present = Death {
            queue: dead.name.clone(),
            reason: dead.reason.into(),
            exchange: record.exchange.clone(),
            routing_key: came_with.clone(),
            count: 1,
            first_at_ms: self.now_ms,
            last_at_ms: self.now_ms,
        };
        let first = dead.message.first_death.clone().unwrap_or_else(|| present.clone());
        let deaths = with_death(&record.deaths, present);
        let content = with_headers(&record.content, &first, &deaths);
        let mut stored = 0;
        for queue in targets {
            if is_cycle(&deaths, &self.queue(queue).name) {
                continue;
            }
            let settings = &self.queue(queue).settings;
            let ready_at_ms = self.now_ms + settings.default_delay_ms;
            let by_default = letter.exchange.is_empty();
            let copy = MessageRecord {
                content: content.clone(),
                priority: record.priority.min(settings.priority_max.unwrap_or(255)),
                published_at_ms: self.now_ms,
                ready_at_ms,
                expires_at_ms: expiry(ready_at_ms, settings.message_ttl_ms, 0),
                exchange: letter.exchange.clone(),
                routing_key: if by_default { String::new() } else { routing_key.clone() },
                group: record.group.clone(),
                ttl_ms: settings.message_ttl_ms,
                expire_at_ms: 0,
                shared_body: 0,
                deaths: deaths.clone(),
            };
            self.admit(queue, copy, Some(first.clone()));
            stored += 1;
        }
        if stored > 0
            && let Some(queue) = self.queues.iter_mut().find(|queue| queue.id == dead.message.queue)
        {
            queue.totals.dead_lettered += 1;
        }
    }
}

/// The history with one more death in front.
fn with_death(history: &[Death], mut present: Death) -> Vec<Death> {
    let is_same = |death: &&Death| death.queue == present.queue && death.reason == present.reason;
    if let Some(before) = history.iter().find(is_same) {
        present.count += before.count;
        present.first_at_ms = before.first_at_ms;
    }
    let others = history.iter().filter(|death| !is_same(death)).cloned();
    std::iter::once(present.clone()).chain(others).take(DEATHS_MAX).collect()
}

fn with_headers(content: &Content, first: &Death, deaths: &[Death]) -> Content {
    let mut content = content.clone();
    let mut set = |name: &str, value: &str| content.headers.insert(format!("x-{name}"), value.to_owned());
    for (which, death) in [("first-death", first), ("last-death", &deaths[0])] {
        let reason = match death.reason() {
            DeathReason::Expired => "expired",
            DeathReason::Rejected => "rejected",
            DeathReason::DeliveryLimit => "delivery-limit",
            DeathReason::Overflow => "overflow",
        };
        set(&format!("{which}-queue"), &death.queue);
        set(&format!("{which}-reason"), reason);
        set(&format!("{which}-exchange"), &death.exchange);
    }
    let count: u64 = deaths.iter().map(|death| death.count).sum();
    set("death-count", &count.to_string());
    content
}

/// True if a message with this history has been in the queue, and no consumer gave a verdict on it since.
fn is_cycle(deaths: &[Death], queue: &str) -> bool {
    let is_verdict = |death: &Death| matches!(death.reason(), DeathReason::Rejected | DeathReason::DeliveryLimit);
    let upto = deaths.iter().position(|death| death.queue == queue);
    upto.is_some_and(|upto| !deaths[..=upto].iter().any(is_verdict))
}
