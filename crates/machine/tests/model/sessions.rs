//! The reference machine's rules for consumers.

use dwell_machine::{Attach, CloseReason, Detach, Effect, Lease, Refusal, Reply, SetCredit};

use crate::lifecycle::Return;
use crate::reference::{Consumer, Reference};

impl Reference {
    pub fn attach(&mut self, attach: &Attach) -> Result<Reply, Refusal> {
        let queue = self.find(&attach.queue)?;
        let existing = self.consumers.iter().find(|(_, consumer)| consumer.consumer_id == attach.consumer_id);
        let existing = existing.map(|(key, consumer)| (*key, consumer.clone()));
        if let Some((_, consumer)) = &existing
            && consumer.queue != queue
        {
            let other = self.queue(consumer.queue).name.clone();
            let consumer_id = attach.consumer_id.clone();
            return Err(Refusal::ConsumerOfAnotherQueue { consumer_id, queue: other });
        }
        let attachment = attach.attachment;
        let resumed = existing.is_some();
        let consumer = match existing {
            Some((consumer, before)) => {
                if before.session_deadline_ms.is_none() {
                    let reason = CloseReason::Displaced;
                    self.effects.push(Effect::CloseConsumer { consumer, attachment: before.attachment, reason });
                }
                consumer
            }
            None => {
                self.last_consumer += 1;
                self.last_consumer
            }
        };
        let session = Consumer {
            consumer_id: attach.consumer_id.clone(),
            queue,
            attachment,
            credit: attach.credit.into(),
            session_timeout_ms: attach.session_timeout_ms,
            session_deadline_ms: None,
        };
        self.consumers.insert(consumer, session);
        self.elect(queue);
        let lost = self.resume_leases(consumer, attachment, &attach.holding);
        self.dispatch(queue);
        Ok(Reply::Attached { consumer, resumed, lost })
    }

    /// Delivers again what the client does not hold, and lists what it holds no more.
    fn resume_leases(&mut self, consumer: u64, attachment: u64, holding: &[Lease]) -> Vec<Lease> {
        let mut held = Vec::new();
        for sequence in self.held_by(consumer) {
            let delivery = self.delivery(sequence);
            let lease = Lease { sequence, token: delivery.token };
            held.push(lease);
            if !holding.contains(&lease) {
                self.effects.push(Effect::Deliver { consumer, attachment, delivery });
            }
        }
        holding.iter().filter(|lease| !held.contains(lease)).copied().collect()
    }

    pub fn detach(&mut self, detach: &Detach) -> Reply {
        let now_ms = self.now_ms;
        if let Some(consumer) = self.consumers.get_mut(&detach.consumer)
            && consumer.attachment == detach.attachment
            // A stream ends once: its end noticed again, even as a close, changes nothing.
            && consumer.session_deadline_ms.is_none()
        {
            if detach.close {
                self.close(detach.consumer, Return::Close);
            } else {
                consumer.session_deadline_ms = Some(now_ms + consumer.session_timeout_ms);
            }
        }
        Reply::Done
    }

    pub fn detach_all(&mut self) -> Reply {
        for consumer in self.consumers.values_mut().filter(|consumer| consumer.session_deadline_ms.is_none()) {
            consumer.session_deadline_ms = Some(self.now_ms + consumer.session_timeout_ms);
        }
        Reply::Done
    }

    pub fn set_credit(&mut self, set: &SetCredit) -> Reply {
        if let Some(consumer) = self.consumers.get_mut(&set.consumer).filter(|at| at.attachment == set.attachment) {
            consumer.credit = set.credit.into();
            let queue = consumer.queue;
            self.dispatch(queue);
        }
        Reply::Done
    }

    /// Where one consumer gets everything: makes it the one that came first, if there is none.
    fn elect(&mut self, queue: u64) {
        let attached = |consumer: &Consumer| consumer.queue == queue && consumer.session_deadline_ms.is_none();
        let first = self.consumers.iter().find(|(_, consumer)| attached(consumer)).map(|(key, _)| *key);
        let queue = self.queue_mut(queue);
        if queue.settings.single_active_consumer && queue.active_consumer == 0 {
            queue.active_consumer = first.unwrap_or(0);
        }
    }

    /// Ends a consumer: its leases return, then others take them.
    pub fn close(&mut self, consumer: u64, how: Return) {
        let held = self.held_by(consumer);
        let Some(gone) = self.consumers.remove(&consumer) else { return };
        let now_ms = self.now_ms;
        if self.consumer_count(gone.queue) == 0 {
            self.queue_mut(gone.queue).last_used_ms = now_ms;
        }
        if self.queue(gone.queue).active_consumer == consumer {
            self.queue_mut(gone.queue).active_consumer = 0;
            self.elect(gone.queue);
        }
        for sequence in &held {
            self.give_back(*sequence, how);
        }
        if held.is_empty() {
            self.dispatch(gone.queue);
        } else {
            self.dispatch_returned(gone.queue);
        }
    }
}
