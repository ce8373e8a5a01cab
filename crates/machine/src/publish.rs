//! Routing messages and storing them.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::command::{Content, Publish, PublishMessage};
use crate::key;
use crate::limits::{COPIES_MAX, TARGETS_MAX};
use crate::machine::Step;
use crate::producer::Outcome;
use crate::record::{self, Death, DeathReason, MessageRecord, Ticket};
use crate::reply::{PublishResult, Refusal, Reply, RoutedCopy};
use crate::store::{Store, StoreError, Table};

/// Where a message goes.
#[derive(Debug)]
pub(crate) enum Route {
    /// To the queue that its key names.
    Named(u64),
    /// To the queues that an exchange found.
    Found(BTreeSet<u64>),
}

impl Route {
    fn len(&self) -> usize {
        match self {
            Route::Named(_) => 1,
            Route::Found(ids) => ids.len(),
        }
    }

    /// Ids of the queues, ascending.
    pub fn queues(&self) -> impl Iterator<Item = u64> {
        let (named, found) = match self {
            Route::Named(id) => (Some(*id), None),
            Route::Found(ids) => (None, Some(ids)),
        };
        named.into_iter().chain(found.into_iter().flatten().copied())
    }
}

/// A message on its way into one queue.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub content: Content,
    /// Of the body, which may be a shared one and not in `content`.
    pub body_bytes: u64,
    pub shared_body: u64,
    pub priority: u32,
    pub due: Due,
    pub ttl_ms: u64,
    pub expire_at_ms: u64,
    pub exchange: String,
    pub routing_key: String,
    pub group: String,
    pub deaths: Vec<Death>,
}

/// When a message is to become ready.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Due {
    /// After the queue's default delay.
    Unset,
    After(u64),
    At(u64),
}

impl Due {
    fn of(message: &PublishMessage) -> Due {
        match (message.deliver_at_ms, message.delay_ms) {
            (0, 0) if message.immediate => Due::After(0),
            (0, 0) => Due::Unset,
            (0, delay_ms) => Due::After(delay_ms),
            (at_ms, _) => Due::At(at_ms),
        }
    }
}

/// The earlier of two times or durations, of which 0 means none.
pub(crate) fn earlier(one: u64, other: u64) -> u64 {
    match (one, other) {
        (0, set) | (set, 0) => set,
        (one, other) => one.min(other),
    }
}

impl<S: Store> Step<'_, S> {
    pub fn publish(&mut self, command: Publish) -> Result<Reply, StoreError> {
        let Publish { messages, producer } = command;
        self.once(producer, |step| step.publish_messages(messages))
    }

    /// Stores all messages that can be routed, or none if one is not to be accepted.
    pub fn publish_messages(&mut self, messages: Vec<PublishMessage>) -> Result<Outcome, StoreError> {
        let routes = match self.route_all(&messages) {
            Ok(routes) => routes,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let mut results = Vec::with_capacity(messages.len());
        for (message, route) in messages.into_iter().zip(routes) {
            results.push(self.store_message(message, &route)?);
        }
        Ok(Ok(results))
    }

    /// Finds the queues of all messages, before any of them is stored.
    pub fn route_all(&self, messages: &[PublishMessage]) -> Result<Vec<Route>, Refusal> {
        let routes: Vec<Route> = messages.iter().map(|message| self.route(message)).collect::<Result<_, _>>()?;
        let copies = routes.iter().map(Route::len).sum();
        if copies > COPIES_MAX {
            return Err(Refusal::TooManyCopies { copies, limit: COPIES_MAX });
        }
        Ok(routes)
    }

    fn route(&self, message: &PublishMessage) -> Result<Route, Refusal> {
        let PublishMessage { exchange, routing_key, .. } = message;
        if exchange.is_empty() {
            return match self.machine.queue_names.get(routing_key) {
                Some(id) => Ok(Route::Named(*id)),
                None => Err(Refusal::QueueNotFound { queue: routing_key.clone() }),
            };
        }
        let found = self.machine.topology.route(exchange, routing_key, &message.content.headers)?;
        if found.len() > TARGETS_MAX {
            return Err(Refusal::TooManyTargets { limit: TARGETS_MAX });
        }
        if found.is_empty() && message.mandatory {
            return Err(Refusal::Unroutable { exchange: exchange.clone(), routing_key: routing_key.clone() });
        }
        Ok(Route::Found(found))
    }

    fn store_message(&mut self, message: PublishMessage, route: &Route) -> Result<PublishResult, StoreError> {
        if let Route::Named(queue_id) = route
            && message.dedupe_id.is_empty()
        {
            return self.store_in_one(message, *queue_id);
        }
        let mut known = Vec::new();
        let mut targets = Vec::new();
        for queue_id in route.queues() {
            match self.find_duplicate(queue_id, &message.dedupe_id)? {
                Some(sequence) => {
                    self.queue(queue_id).totals.deduplicated += 1;
                    known.push((queue_id, sequence));
                }
                None if !self.in_transaction && !self.has_dedupe_room(queue_id, &message.dedupe_id) => {
                    self.queue(queue_id).totals.refused += 1;
                    return Ok(self.rejected(queue_id));
                }
                None => targets.push(queue_id),
            }
        }
        for queue_id in &targets {
            if !self.make_room(*queue_id, message.content.body.len() as u64, message.priority)? {
                return Ok(self.rejected(*queue_id));
            }
        }
        if targets.is_empty() && known.is_empty() {
            return Ok(PublishResult::Unroutable);
        }
        let is_plain = matches!(route, Route::Named(_)) && known.is_empty();
        let stored = self.store_in(message, &targets)?;
        if let (true, [(_, sequence)]) = (is_plain, stored.as_slice()) {
            return Ok(PublishResult::Stored { sequence: *sequence });
        }
        Ok(PublishResult::Routed(self.copies(stored, known)))
    }

    /// The usual case, with nothing to look up but the queue.
    fn store_in_one(&mut self, message: PublishMessage, queue_id: u64) -> Result<PublishResult, StoreError> {
        let body_bytes = message.content.body.len() as u64;
        if !self.make_room(queue_id, body_bytes, message.priority)? {
            return Ok(self.rejected(queue_id));
        }
        let sequence = self.store_draft(queue_id, draft_of(message, 0, body_bytes))?;
        Ok(PublishResult::Stored { sequence })
    }

    /// Stores a copy in each queue, and the body once. Queues and sequences, in order.
    fn store_in(&mut self, mut message: PublishMessage, targets: &[u64]) -> Result<Vec<(u64, u64)>, StoreError> {
        let body_bytes = message.content.body.len() as u64;
        let dedupe_id = std::mem::take(&mut message.dedupe_id);
        let shared_body = match targets.len() {
            0 | 1 => 0,
            copies => self.share_body(std::mem::take(&mut message.content.body), copies),
        };
        let draft = draft_of(message, shared_body, body_bytes);
        let mut stored = Vec::with_capacity(targets.len());
        for queue_id in targets {
            let sequence = self.store_draft(*queue_id, draft.clone())?;
            self.remember_dedupe_id(*queue_id, &dedupe_id, sequence)?;
            stored.push((*queue_id, sequence));
        }
        Ok(stored)
    }

    /// Stored ones and known ones, in the order of their queues' ids.
    fn copies(&self, stored: Vec<(u64, u64)>, known: Vec<(u64, u64)>) -> Vec<RoutedCopy> {
        let stored = stored.into_iter().map(|(queue, sequence)| (queue, sequence, false));
        let known = known.into_iter().map(|(queue, sequence)| (queue, sequence, true));
        let all: BTreeSet<(u64, u64, bool)> = stored.chain(known).collect();
        all.into_iter()
            .map(|(queue, sequence, duplicate)| {
                let queue = self.machine.queue_name(queue).unwrap_or_default().to_owned();
                RoutedCopy { queue, sequence, duplicate }
            })
            .collect()
    }

    fn rejected(&self, queue_id: u64) -> PublishResult {
        PublishResult::Rejected { queue: self.machine.queue_name(queue_id).unwrap_or_default().to_owned() }
    }

    /// Stores a message in a queue, whether or not there is room.
    pub fn store_draft(&mut self, queue_id: u64, draft: Draft) -> Result<u64, StoreError> {
        let now_ms = self.now_ms();
        self.machine.meta.last_sequence += 1;
        let sequence = self.machine.meta.last_sequence;
        let queue = self.queue(queue_id);
        queue.totals.published += 1;
        let ready_at_ms = match draft.due {
            Due::Unset => now_ms.saturating_add(queue.settings.default_delay_ms),
            Due::After(delay_ms) => now_ms.saturating_add(delay_ms),
            Due::At(at_ms) => at_ms.max(now_ms),
        };
        let ttl_ms = earlier(draft.ttl_ms, queue.settings.message_ttl_ms);
        let mut message = MessageRecord {
            priority: queue.clamped(draft.priority).into(),
            content: draft.content,
            published_at_ms: now_ms,
            ready_at_ms,
            expires_at_ms: 0,
            exchange: draft.exchange,
            routing_key: draft.routing_key,
            group: draft.group,
            ttl_ms,
            expire_at_ms: draft.expire_at_ms,
            shared_body: draft.shared_body,
            deaths: draft.deaths,
        };
        message.expires_at_ms = message.expiry_if_ready_at(ready_at_ms);
        let ticket = Ticket {
            priority: message.priority,
            delivery_count: 0,
            expires_at_ms: message.expires_at_ms,
            bytes: draft.body_bytes,
            moved: false,
            shared_body: message.shared_body,
            message_id: hash_of(&message.content.message_id),
            group: hash_of(&message.group),
        };
        queue.counts.bytes += ticket.bytes;
        self.write_message(queue_id, sequence, &message, &ticket);
        self.place(queue_id, key::Position { ready_at_ms, sequence }, ticket, message)?;
        Ok(sequence)
    }

    fn write_message(&mut self, queue_id: u64, sequence: u64, message: &MessageRecord, ticket: &Ticket) {
        self.store.put(Table::Messages, &key::message(queue_id, sequence), record::encode(message));
        if ticket.message_id != 0 {
            let row_key = key::message_id(queue_id, ticket.message_id, sequence);
            self.store.put(Table::MessageIds, &row_key, bytes::Bytes::new());
        }
    }

    /// Gives a new message its first place.
    fn place(
        &mut self,
        queue_id: u64,
        position: key::Position,
        ticket: Ticket,
        message: MessageRecord,
    ) -> Result<(), StoreError> {
        if ticket.is_expired(self.now_ms()) {
            self.queue(queue_id).totals.expired += 1;
            // There is no timer to be disarmed yet.
            let ticket = Ticket { expires_at_ms: 0, ..ticket };
            self.end(queue_id, position.sequence, &ticket, Some(DeathReason::Expired))
        } else if position.ready_at_ms > self.now_ms() {
            self.schedule(queue_id, position, ticket);
            Ok(())
        } else {
            self.arm_expiry(queue_id, position, ticket);
            // A shared body is not in the message: it is to be read.
            let whole = (message.shared_body == 0).then(|| Arc::new(message));
            self.admit(queue_id, position, ticket, whole)
        }
    }
}

impl MessageRecord {
    /// When it expires if it becomes ready at this time; 0: never.
    pub(crate) fn expiry_if_ready_at(&self, ready_at_ms: u64) -> u64 {
        let by_age = if self.ttl_ms == 0 { 0 } else { ready_at_ms.saturating_add(self.ttl_ms) };
        earlier(by_age, self.expire_at_ms)
    }
}

fn hash_of(name: &str) -> u64 {
    if name.is_empty() { 0 } else { key::hash(name) }
}

fn draft_of(message: PublishMessage, shared_body: u64, body_bytes: u64) -> Draft {
    let is_named = message.exchange.is_empty();
    Draft {
        due: Due::of(&message),
        content: message.content,
        body_bytes,
        shared_body,
        priority: message.priority,
        ttl_ms: message.ttl_ms,
        expire_at_ms: message.expire_at_ms,
        exchange: message.exchange,
        // With the default exchange it is the queue's name.
        routing_key: if is_named { String::new() } else { message.routing_key },
        group: message.group,
        deaths: Vec::new(),
    }
}
