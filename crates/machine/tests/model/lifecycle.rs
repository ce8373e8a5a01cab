//! The reference machine's rules for messages: publish, settle, become due.

use dwell_machine::{
    Ack, Extend, Lease, MessageRecord, Nack, ProducerSequence, Publish, PublishMessage, Refusal, Reply,
    limits::PRODUCER_WINDOW,
};

use crate::reference::{Message, Place, Reference};

impl Reference {
    pub fn publish(&mut self, publish: &Publish) -> Reply {
        let Some(ProducerSequence { producer_id, sequence: got }) = publish.producer.clone() else {
            return self.publish_all(&publish.messages);
        };
        let outcomes = self.producers.entry(producer_id.clone()).or_default();
        let expected = outcomes.len() as u64 + 1;
        let oldest = expected.saturating_sub(PRODUCER_WINDOW).max(1);
        if got > expected {
            return Reply::Refused(Refusal::SequenceGap { producer_id, expected, got });
        }
        if got < oldest {
            return Reply::Refused(Refusal::SequenceTooOld { producer_id, oldest, got });
        }
        if got < expected {
            return match outcomes[got as usize - 1].clone() {
                Reply::Published { sequences, .. } => Reply::Published { sequences, duplicate: true },
                refused => refused,
            };
        }
        let outcome = self.publish_all(&publish.messages);
        self.producers.entry(producer_id).or_default().push(outcome.clone());
        outcome
    }

    fn publish_all(&mut self, messages: &[PublishMessage]) -> Reply {
        let queues: Result<Vec<u64>, Reply> = messages.iter().map(|message| self.find(&message.queue)).collect();
        match queues {
            Err(refusal) => refusal,
            Ok(queues) => {
                let sequences = messages.iter().zip(queues).map(|(message, queue)| self.publish_one(message, queue));
                Reply::Published { sequences: sequences.collect(), duplicate: false }
            }
        }
    }

    fn publish_one(&mut self, message: &PublishMessage, queue: u64) -> u64 {
        let now_ms = self.now_ms;
        let ready_at_ms = match message.deliver_at_ms {
            0 => now_ms + message.delay_ms,
            deliver_at_ms => deliver_at_ms.max(now_ms),
        };
        let by_age = (message.ttl_ms != 0).then_some(ready_at_ms + message.ttl_ms);
        let by_date = (message.expire_at_ms != 0).then_some(message.expire_at_ms);
        let expires_at_ms = by_age.into_iter().chain(by_date).min().unwrap_or(0);
        self.last_sequence += 1;
        let sequence = self.last_sequence;
        self.queue(queue).totals.published += 1;
        if expires_at_ms != 0 && expires_at_ms <= now_ms {
            self.queue(queue).totals.expired += 1;
            return sequence;
        }
        let record = MessageRecord {
            content: message.content.clone(),
            priority: message.priority,
            published_at_ms: now_ms,
            ready_at_ms,
            expires_at_ms,
        };
        let message = Message { queue, record, ready_at_ms, delivery_count: 0, place: Place::Scheduled };
        self.messages.insert(sequence, message);
        if ready_at_ms <= now_ms {
            self.become_ready(sequence);
            self.dispatch_returned(queue);
        }
        sequence
    }

    pub fn ack(&mut self, ack: &Ack) -> Reply {
        let settled = self.settle(&ack.queue, &ack.leases, |this, queue, sequence| {
            this.messages.remove(&sequence);
            this.queue(queue).totals.acknowledged += 1;
        });
        settled.map_or_else(
            |refusal| refusal,
            |(queue, reply)| {
                self.dispatch(queue);
                reply
            },
        )
    }

    pub fn nack(&mut self, nack: &Nack) -> Reply {
        let settled =
            self.settle(&nack.queue, &nack.leases, |this, _, sequence| this.give_back(sequence, nack.delay_ms));
        settled.map_or_else(
            |refusal| refusal,
            |(queue, reply)| {
                self.dispatch_returned(queue);
                reply
            },
        )
    }

    pub fn extend(&mut self, extend: &Extend) -> Reply {
        let settled = self.settle(&extend.queue, &extend.leases, |this, queue, sequence| {
            let timeout_ms = match extend.lease_timeout_ms {
                0 => this.queue(queue).settings.lease_timeout_ms,
                timeout_ms => timeout_ms,
            };
            let now_ms = this.now_ms;
            if let Place::Leased { deadline_ms, .. } = &mut this.message(sequence).place {
                *deadline_ms = now_ms + timeout_ms;
            }
        });
        settled.map_or_else(|refusal| refusal, |(_, reply)| reply)
    }

    /// Does something to each lease that is held, and lists those that are not.
    fn settle(
        &mut self,
        name: &str,
        leases: &[Lease],
        change: impl Fn(&mut Self, u64, u64),
    ) -> Result<(u64, Reply), Reply> {
        let queue = self.find(name)?;
        let mut lost = Vec::new();
        for lease in leases {
            let held = self.messages.get(&lease.sequence).is_some_and(|message| {
                message.queue == queue && matches!(message.place, Place::Leased { token, .. } if token == lease.token)
            });
            if held {
                change(self, queue, lease.sequence);
            } else {
                lost.push(*lease);
            }
        }
        Ok((queue, Reply::Settled { lost }))
    }

    /// Ends a lease without an acknowledgement.
    pub fn give_back(&mut self, sequence: u64, delay_ms: u64) {
        let now_ms = self.now_ms;
        let message = self.message(sequence);
        message.delivery_count += 1;
        let (queue, delivery_count) = (message.queue, message.delivery_count);
        self.queue(queue).totals.returned += 1;
        let delivery_limit = self.queue(queue).settings.delivery_limit;
        if delivery_limit > 0 && delivery_count > delivery_limit {
            self.queue(queue).totals.exhausted += 1;
            self.messages.remove(&sequence);
        } else if delay_ms > 0 && !self.is_over(sequence) {
            let message = self.message(sequence);
            message.ready_at_ms = now_ms + delay_ms;
            message.place = Place::Scheduled;
        } else {
            self.become_ready(sequence);
        }
    }

    /// Makes a message ready, unless its time is over.
    fn become_ready(&mut self, sequence: u64) {
        if self.is_over(sequence) {
            self.expire(sequence);
        } else {
            self.message(sequence).place = Place::Ready;
            self.fresh.insert(sequence);
        }
    }

    /// True if a message's time is over, whether or not it may expire where it stands.
    pub fn is_over(&self, sequence: u64) -> bool {
        let expires_at_ms = self.messages[&sequence].record.expires_at_ms;
        expires_at_ms != 0 && expires_at_ms <= self.now_ms
    }

    pub fn expire(&mut self, sequence: u64) {
        let queue = self.message(sequence).queue;
        self.queue(queue).totals.expired += 1;
        self.messages.remove(&sequence);
    }

    /// All that is due, without a bound: callers keep it below the bound of the machine's step.
    pub fn release(&mut self) -> Reply {
        while let Some((_, is_expiry, queue, sequence)) = self.timers().filter(|due| due.0 <= self.now_ms).min() {
            if is_expiry {
                self.expire(sequence);
            } else {
                // Also if it came so late that the message expired meanwhile.
                self.released_due_ms.push(self.messages[&sequence].ready_at_ms);
                self.become_ready(sequence);
            }
            self.dispatch_returned(queue);
        }
        while let Some((_, queue, sequence)) = self.lease_deadlines().filter(|due| due.0 <= self.now_ms).min() {
            self.give_back(sequence, 0);
            self.dispatch_returned(queue);
        }
        while let Some((_, consumer)) = self.session_deadlines().filter(|due| due.0 <= self.now_ms).min() {
            self.close(consumer);
        }
        Reply::Done
    }

    /// When something falls due next, if nothing else happens.
    pub fn next_due_ms(&self) -> Option<u64> {
        let timers = self.timers().map(|due| due.0);
        let leases = self.lease_deadlines().map(|due| due.0);
        let sessions = self.session_deadlines().map(|due| due.0);
        timers.chain(leases).chain(sessions).min()
    }

    /// Time, expiry or not, queue, sequence: in the order in which they are worked through.
    fn timers(&self) -> impl Iterator<Item = (u64, bool, u64, u64)> {
        self.messages.iter().filter_map(|(&sequence, message)| {
            let expires_at_ms = message.record.expires_at_ms;
            let ready_at_ms = message.ready_at_ms;
            let (time_ms, is_expiry) = match message.place {
                Place::Scheduled if expires_at_ms != 0 && expires_at_ms <= ready_at_ms => (expires_at_ms, true),
                Place::Scheduled => (ready_at_ms, false),
                Place::Ready if expires_at_ms != 0 => (expires_at_ms, true),
                Place::Ready | Place::Leased { .. } => return None,
            };
            Some((time_ms, is_expiry, message.queue, sequence))
        })
    }

    fn lease_deadlines(&self) -> impl Iterator<Item = (u64, u64, u64)> {
        self.messages.iter().filter_map(|(&sequence, message)| match message.place {
            Place::Leased { deadline_ms, .. } => Some((deadline_ms, message.queue, sequence)),
            Place::Scheduled | Place::Ready => None,
        })
    }

    fn session_deadlines(&self) -> impl Iterator<Item = (u64, u64)> {
        self.consumers.iter().filter_map(|(&key, consumer)| Some((consumer.session_deadline_ms?, key)))
    }
}
