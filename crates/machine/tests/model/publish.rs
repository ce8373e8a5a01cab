//! The reference machine's rules for what comes in: publish, producers, duplicates, full queues, transactions.

use std::collections::{BTreeMap, BTreeSet};

use dwell_machine::{
    Death, DeathReason, MessageRecord, Overflow, ProducerSequence, Publish, PublishMessage, PublishResult, Refusal,
    Reply, RoutedCopy, Transact,
    limits::{DEDUPE_ENTRIES_MAX, DEDUPE_WINDOW_MS_DEFAULT, OVERFLOW_STEP_MAX, PRODUCER_WINDOW},
};

use crate::reference::{Message, Place, Queue, Reference};

/// Whether a full queue may refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Admission {
    IfItFits,
    InAnyCase,
}

impl Reference {
    pub fn publish(&mut self, publish: &Publish) -> Result<Reply, Refusal> {
        self.numbered(publish, |this| {
            let routes = this.routes(&publish.messages)?;
            Ok(this.store_all(&publish.messages, &routes, Admission::IfItFits))
        })
    }

    pub fn transact(&mut self, transact: &Transact) -> Result<Reply, Refusal> {
        let publish = &transact.publish;
        self.numbered(publish, |this| {
            let acknowledged = this.check_acks(transact)?;
            let routes = this.routes(&publish.messages)?;
            this.check_room(&publish.messages, &routes, &acknowledged)?;
            for ack in &transact.acks {
                this.ack(ack)?;
            }
            Ok(this.store_all(&publish.messages, &routes, Admission::InAnyCase))
        })
    }

    /// Does what a producer asks for the first time, and otherwise answers as then.
    fn numbered(
        &mut self,
        publish: &Publish,
        act: impl FnOnce(&mut Self) -> Result<Reply, Refusal>,
    ) -> Result<Reply, Refusal> {
        let Some(ProducerSequence { producer_id, sequence: got }) = publish.producer.clone() else {
            return act(self);
        };
        let none = Vec::new();
        let outcomes = self.producers.get(&producer_id).map_or(&none, |producer| &producer.outcomes);
        let expected = outcomes.len() as u64 + 1;
        let oldest = expected.saturating_sub(PRODUCER_WINDOW).max(1);
        if got > expected {
            return Err(Refusal::SequenceGap { producer_id, expected, got });
        }
        if got < oldest {
            return Err(Refusal::SequenceTooOld { producer_id, oldest, got });
        }
        if got < expected {
            return match outcomes[got as usize - 1].clone() {
                Reply::Published { results, .. } => Ok(Reply::Published { results, duplicate: true }),
                refused => Ok(refused),
            };
        }
        let outcome = act(self).unwrap_or_else(Reply::Refused);
        let now_ms = self.now_ms;
        let producer = self.producers.entry(producer_id).or_default();
        producer.outcomes.push(outcome.clone());
        producer.last_seen_ms = now_ms;
        Ok(outcome)
    }

    fn store_all(&mut self, messages: &[PublishMessage], routes: &[BTreeSet<u64>], admission: Admission) -> Reply {
        let stored = messages.iter().zip(routes).map(|(message, targets)| self.store(message, targets, admission));
        Reply::Published { results: stored.collect(), duplicate: false }
    }

    /// Publishes a message of the machine's own.
    pub fn publish_own(&mut self, message: &PublishMessage) -> Result<PublishResult, Refusal> {
        let routes = self.routes(std::slice::from_ref(message))?;
        Ok(self.store(message, &routes[0], Admission::IfItFits))
    }

    fn store(&mut self, message: &PublishMessage, targets: &BTreeSet<u64>, admission: Admission) -> PublishResult {
        if targets.is_empty() {
            return PublishResult::Unroutable;
        }
        let rejected_by = |this: &mut Self, queue: u64| {
            this.totals(queue).refused += 1;
            PublishResult::Rejected { queue: this.queue(queue).name.clone() }
        };
        let mut known = BTreeMap::new();
        for &queue in targets {
            if let Some(first) = self.known(queue, &message.dedupe_id) {
                self.totals(queue).deduplicated += 1;
                known.insert(queue, first);
            } else if self.is_memory_full(queue, message) {
                return rejected_by(self, queue);
            }
        }
        for &queue in targets.iter().filter(|queue| !known.contains_key(queue)) {
            if !self.make_room(queue, message) && admission == Admission::IfItFits {
                return rejected_by(self, queue);
            }
        }
        let mut copies = Vec::new();
        for &queue in targets {
            let name = self.queue(queue).name.clone();
            let copy = match known.get(&queue) {
                Some(&sequence) => RoutedCopy { queue: name, sequence, duplicate: true },
                None => RoutedCopy { queue: name, sequence: self.store_copy(message, queue), duplicate: false },
            };
            copies.push(copy);
        }
        match copies.as_slice() {
            [RoutedCopy { sequence, duplicate: false, .. }] if message.exchange.is_empty() => {
                PublishResult::Stored { sequence: *sequence }
            }
            _ => PublishResult::Routed(copies),
        }
    }

    /// The first message with this `dedupe_id`, while the queue remembers it.
    fn known(&self, queue: u64, dedupe_id: &str) -> Option<u64> {
        let (first, until_ms) = self.dedupe.get(&(queue, dedupe_id.to_owned()))?;
        (*until_ms > self.now_ms).then_some(*first)
    }

    fn is_memory_full(&self, queue: u64, message: &PublishMessage) -> bool {
        let remembered = self.dedupe.keys().filter(|(of, _)| *of == queue).count() as u64;
        !message.dedupe_id.is_empty() && remembered >= DEDUPE_ENTRIES_MAX
    }

    fn store_copy(&mut self, message: &PublishMessage, queue: u64) -> u64 {
        let now_ms = self.now_ms;
        let settings = self.queue(queue).settings.clone();
        let ready_at_ms = match message {
            PublishMessage { deliver_at_ms: 1.., .. } => message.deliver_at_ms.max(now_ms),
            PublishMessage { delay_ms: 1.., .. } => now_ms + message.delay_ms,
            PublishMessage { immediate: true, .. } => now_ms,
            _ => now_ms + settings.default_delay_ms,
        };
        let (exchange, routing_key) = match message.exchange.as_str() {
            "" => (String::new(), String::new()),
            exchange => (exchange.to_owned(), message.routing_key.clone()),
        };
        let ttl_ms = earliest([message.ttl_ms, settings.message_ttl_ms]);
        let record = MessageRecord {
            content: message.content.clone(),
            priority: message.priority.min(settings.priority_max.unwrap_or(255)),
            published_at_ms: now_ms,
            ready_at_ms,
            expires_at_ms: expiry(ready_at_ms, ttl_ms, message.expire_at_ms),
            exchange,
            routing_key,
            group: message.group.clone(),
            ttl_ms,
            expire_at_ms: message.expire_at_ms,
            shared_body: 0,
            deaths: Vec::new(),
        };
        let sequence = self.last_sequence + 1;
        if !message.dedupe_id.is_empty() {
            let window_ms = match settings.dedupe_window_ms {
                0 => DEDUPE_WINDOW_MS_DEFAULT,
                window_ms => window_ms,
            };
            let until_ms = now_ms + window_ms;
            self.dedupe.insert((queue, message.dedupe_id.clone()), (sequence, until_ms));
        }
        self.admit(queue, record, None)
    }

    /// Takes a message into a queue.
    pub fn admit(&mut self, queue: u64, record: MessageRecord, first_death: Option<Death>) -> u64 {
        self.last_sequence += 1;
        let sequence = self.last_sequence;
        self.totals(queue).published += 1;
        let (ready_at_ms, expires_at_ms) = (record.ready_at_ms, record.expires_at_ms);
        let place = Place::Scheduled;
        let message = Message { queue, record, ready_at_ms, expires_at_ms, delivery_count: 0, place, first_death };
        self.messages.insert(sequence, message);
        if self.is_over(sequence) {
            self.expire(sequence);
        } else if ready_at_ms <= self.now_ms {
            self.become_ready(sequence);
            self.dispatch_returned(queue);
        }
        sequence
    }

    fn fits(&self, queue: u64, messages: u64, bytes: u64) -> bool {
        let settings = &self.queue(queue).settings;
        let messages = self.total(queue) + messages;
        let bytes = self.counts(queue).bytes + bytes;
        (settings.messages_max == 0 || messages <= settings.messages_max)
            && (settings.bytes_max == 0 || bytes <= settings.bytes_max)
    }

    /// Pushes others out of a full queue as its policy allows. False if the message still does not fit.
    fn make_room(&mut self, queue: u64, message: &PublishMessage) -> bool {
        let bytes = message.content.body.len() as u64;
        let settings = self.queue(queue).settings.clone();
        let priority = message.priority.min(settings.priority_max.unwrap_or(255));
        let can_never_fit = settings.bytes_max != 0 && bytes > settings.bytes_max;
        if settings.overflow() == Overflow::Reject || can_never_fit {
            return self.fits(queue, 1, bytes);
        }
        for _ in 0..OVERFLOW_STEP_MAX {
            if self.fits(queue, 1, bytes) {
                return true;
            }
            let order =
                |victim: &u64| (self.messages[victim].record.priority, self.messages[victim].ready_at_ms, *victim);
            let first = self.eligible(queue).into_iter().min_by_key(order);
            let Some(victim) = first.filter(|victim| self.messages[victim].record.priority <= priority) else {
                return false;
            };
            self.totals(queue).overflowed += 1;
            if settings.overflow() == Overflow::DeadLetterHead {
                self.die(victim, DeathReason::Overflow);
            } else {
                self.take_away(victim);
            }
        }
        self.fits(queue, 1, bytes)
    }

    /// Messages and bytes that the acknowledgements of a transaction take from each queue, if all leases are held.
    fn check_acks(&self, transact: &Transact) -> Result<BTreeMap<u64, (u64, u64)>, Refusal> {
        let mut named = BTreeSet::new();
        let mut taken: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        for ack in &transact.acks {
            let queue = self.find(&ack.queue)?;
            for lease in &ack.leases {
                if !self.is_held(queue, *lease) || !named.insert(lease.sequence) {
                    return Err(Refusal::LeaseLost { queue: ack.queue.clone(), sequence: lease.sequence });
                }
                let (messages, bytes) = taken.entry(queue).or_default();
                *messages += 1;
                *bytes += self.messages[&lease.sequence].record.content.body.len() as u64;
            }
        }
        Ok(taken)
    }

    /// That queues which reject have room for all that the transaction brings.
    fn check_room(
        &self,
        messages: &[PublishMessage],
        routes: &[BTreeSet<u64>],
        acknowledged: &BTreeMap<u64, (u64, u64)>,
    ) -> Result<(), Refusal> {
        for queue in routes.iter().flatten().copied().collect::<BTreeSet<u64>>() {
            let Queue { name, settings, .. } = self.queue(queue);
            let comes = |message: &PublishMessage, targets: &BTreeSet<u64>| {
                targets.contains(&queue) && self.known(queue, &message.dedupe_id).is_none()
            };
            let coming = messages.iter().zip(routes).filter(|(message, targets)| comes(message, targets));
            let sizes: Vec<u64> = coming.map(|(message, _)| message.content.body.len() as u64).collect();
            let (messages_gone, bytes_gone) = acknowledged.get(&queue).copied().unwrap_or_default();
            let total = self.total(queue) - messages_gone + sizes.len() as u64;
            let bytes = self.counts(queue).bytes - bytes_gone + sizes.iter().sum::<u64>();
            let is_full = (settings.messages_max != 0 && total > settings.messages_max)
                || (settings.bytes_max != 0 && bytes > settings.bytes_max);
            if settings.overflow() == Overflow::Reject && !sizes.is_empty() && is_full {
                return Err(Refusal::QueueFull { queue: name.clone() });
            }
        }
        Ok(())
    }
}

/// The smallest of those that are set.
pub fn earliest(times_ms: [u64; 2]) -> u64 {
    times_ms.into_iter().filter(|time_ms| *time_ms != 0).min().unwrap_or(0)
}

/// When a message expires; 0: never.
pub fn expiry(ready_at_ms: u64, ttl_ms: u64, expire_at_ms: u64) -> u64 {
    earliest([if ttl_ms == 0 { 0 } else { ready_at_ms + ttl_ms }, expire_at_ms])
}
