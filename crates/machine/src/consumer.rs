//! Consumers: who may hold how much, and for how long after their stream broke.

use crate::command::{Attach, Detach, SetCredit};
use crate::key;
use crate::lifecycle::{Return, delivery_of};
use crate::limits::{CONSUMERS_MAX, LEASES_MAX};
use crate::machine::Step;
use crate::record::{self, ConsumerRecord};
use crate::reply::{CloseReason, Effect, Refusal, Reply};
use crate::state::Consumer;
use crate::store::{Store, StoreError, Table};

impl<S: Store> Step<'_, S> {
    pub fn attach(&mut self, command: Attach) -> Result<Reply, StoreError> {
        let Some(queue_id) = self.machine.queue_names.get(&command.queue).copied() else {
            return Ok(Reply::Refused(Refusal::QueueNotFound { queue: command.queue }));
        };
        let existing = self.machine.consumer_ids.get(&command.consumer_id).copied();
        if let Err(refusal) = self.check_attach(&command, queue_id, existing) {
            return Ok(Reply::Refused(refusal));
        }
        let consumer_key = match existing {
            Some(consumer_key) => self.resume_consumer(consumer_key, &command),
            None => self.open_consumer(queue_id, &command),
        };
        self.write_consumer(consumer_key);
        self.choose_active(queue_id);
        self.update_available(queue_id, consumer_key);
        let lost = self.redeliver(queue_id, consumer_key, &command);
        self.dispatch(queue_id)?;
        Ok(Reply::Attached { consumer: consumer_key, resumed: existing.is_some(), lost })
    }

    fn check_attach(&self, command: &Attach, queue_id: u64, existing: Option<u64>) -> Result<(), Refusal> {
        let consumer = existing.and_then(|consumer_key| self.machine.consumers.get(&consumer_key));
        match consumer {
            Some(consumer) if consumer.queue != queue_id => {
                let queue = self.machine.queue_name(consumer.queue).unwrap_or_default().to_owned();
                Err(Refusal::ConsumerOfAnotherQueue { consumer_id: command.consumer_id.clone(), queue })
            }
            None if self.machine.consumers.len() >= CONSUMERS_MAX => {
                Err(Refusal::TooManyConsumers { limit: CONSUMERS_MAX })
            }
            _ => self.check_credit(consumer, command.credit),
        }
    }

    fn check_credit(&self, consumer: Option<&Consumer>, credit: u32) -> Result<(), Refusal> {
        let (held, before) = consumer.map_or((0, 0), |consumer| (consumer.held.len(), consumer.promised()));
        let after = held.max(credit as usize);
        if after > before && self.machine.leases_promised() - before + after > LEASES_MAX {
            return Err(Refusal::TooManyLeases { limit: LEASES_MAX });
        }
        Ok(())
    }

    fn change_credit(&mut self, consumer_key: u64, credit: u32) {
        if let Some(consumer) = self.machine.consumers.get_mut(&consumer_key) {
            let before = consumer.promised();
            consumer.credit = credit;
            let promised = &mut self.machine.leases_of_consumers;
            *promised = *promised - before + consumer.promised();
        }
    }

    fn open_consumer(&mut self, queue_id: u64, command: &Attach) -> u64 {
        self.machine.meta.last_consumer += 1;
        let consumer_key = self.machine.meta.last_consumer;
        let consumer = Consumer::restore(ConsumerRecord {
            consumer_id: command.consumer_id.clone(),
            queue: queue_id,
            attachment: command.attachment,
            credit: command.credit,
            session_timeout_ms: command.session_timeout_ms,
            session_deadline_ms: 0,
        });
        self.machine.leases_of_consumers += consumer.promised();
        self.machine.consumers.insert(consumer_key, consumer);
        self.machine.consumer_ids.insert(command.consumer_id.clone(), consumer_key);
        self.queue(queue_id).consumers.insert(consumer_key);
        consumer_key
    }

    fn resume_consumer(&mut self, consumer_key: u64, command: &Attach) -> u64 {
        let Some(consumer) = self.machine.consumers.get_mut(&consumer_key) else { return consumer_key };
        let displaced = consumer.is_attached().then_some(consumer.attachment);
        self.machine.session_deadlines.remove(&(consumer.session_deadline_ms, consumer_key));
        consumer.session_deadline_ms = 0;
        consumer.attachment = command.attachment;
        consumer.session_timeout_ms = command.session_timeout_ms;
        self.change_credit(consumer_key, command.credit);
        if let Some(attachment) = displaced {
            self.effect(Effect::CloseConsumer { consumer: consumer_key, attachment, reason: CloseReason::Displaced });
        }
        consumer_key
    }

    /// Delivers again what the consumer holds and does not say so; returns what it says and does not hold.
    fn redeliver(&mut self, queue_id: u64, consumer_key: u64, command: &Attach) -> Vec<crate::command::Lease> {
        let queue = self.queue(queue_id);
        let held = |lease: &crate::command::Lease| {
            queue
                .leases
                .get(&lease.sequence)
                .is_some_and(|row| row.consumer == consumer_key && row.token == lease.token)
        };
        let (kept, lost): (Vec<_>, Vec<_>) = command.holding.iter().copied().partition(held);
        let kept: std::collections::BTreeSet<u64> = kept.into_iter().map(|lease| lease.sequence).collect();
        let Some(consumer) = self.machine.consumers.get(&consumer_key) else { return lost };
        let again: Vec<u64> = consumer.held.difference(&kept).copied().collect();
        for sequence in again {
            if let Some(lease) = self.queue(queue_id).leases.get(&sequence) {
                let delivery = delivery_of(queue_id, sequence, lease);
                let attachment = command.attachment;
                self.effect(Effect::Deliver { consumer: consumer_key, attachment, delivery });
            }
        }
        lost
    }

    pub fn detach(&mut self, command: &Detach) -> Result<Reply, StoreError> {
        let current = self
            .machine
            .consumers
            .get(&command.consumer)
            .is_some_and(|consumer| consumer.is_attached() && consumer.attachment == command.attachment);
        if current {
            if command.close {
                self.end_session(command.consumer, usize::MAX, Return::AtOnce)?;
            } else {
                self.start_session_timeout(command.consumer);
            }
        }
        Ok(Reply::Done)
    }

    pub fn detach_all(&mut self) -> Result<Reply, StoreError> {
        let attached = self.machine.consumers.iter().filter(|(_, consumer)| consumer.is_attached());
        for consumer_key in attached.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.start_session_timeout(consumer_key);
        }
        Ok(Reply::Done)
    }

    fn start_session_timeout(&mut self, consumer_key: u64) {
        let now_ms = self.now_ms();
        if let Some(consumer) = self.machine.consumers.get_mut(&consumer_key) {
            // Zero would mean attached.
            consumer.session_deadline_ms = now_ms.saturating_add(consumer.session_timeout_ms).max(1);
            self.machine.session_deadlines.insert((consumer.session_deadline_ms, consumer_key));
            let queue_id = consumer.queue;
            self.write_consumer(consumer_key);
            self.update_available(queue_id, consumer_key);
        }
    }

    pub fn set_credit(&mut self, command: &SetCredit) -> Result<Reply, StoreError> {
        let Some(consumer) = self.machine.consumers.get(&command.consumer) else { return Ok(Reply::Done) };
        if !consumer.is_attached() || consumer.attachment != command.attachment {
            return Ok(Reply::Done);
        }
        let queue_id = consumer.queue;
        if let Err(refusal) = self.check_credit(Some(consumer), command.credit) {
            return Ok(Reply::Refused(refusal));
        }
        self.change_credit(command.consumer, command.credit);
        self.write_consumer(command.consumer);
        self.update_available(queue_id, command.consumer);
        self.dispatch(queue_id)?;
        Ok(Reply::Done)
    }

    /// Returns up to `leases_max` leases of a consumer, and removes it when none is left. Says how many.
    pub fn end_session(&mut self, consumer_key: u64, leases_max: usize, way: Return) -> Result<usize, StoreError> {
        let Some(consumer) = self.machine.consumers.get_mut(&consumer_key) else { return Ok(0) };
        let queue_id = consumer.queue;
        // From here on it takes nothing, whatever it has credit for.
        if consumer.is_attached() {
            self.start_session_timeout(consumer_key);
        }
        let Some(consumer) = self.machine.consumers.get(&consumer_key) else { return Ok(0) };
        let returned: Vec<u64> = consumer.held.iter().copied().take(leases_max).collect();
        let is_last = returned.len() == consumer.held.len();
        for sequence in &returned {
            if let Some(lease) = self.end_lease(queue_id, *sequence) {
                self.bring_back(queue_id, *sequence, lease, way)?;
            }
        }
        if is_last {
            self.queue(queue_id).remove_consumer(consumer_key);
            self.forget_consumer(consumer_key);
            self.choose_active(queue_id);
            self.touch(queue_id);
        }
        self.dispatch(queue_id)?;
        if !returned.is_empty() {
            self.wake(queue_id);
        }
        Ok(returned.len())
    }

    /// In a queue with a single active consumer: chooses one, if none is.
    fn choose_active(&mut self, queue_id: u64) {
        let Some(queue) = self.machine.queues.get(&queue_id) else { return };
        if !queue.settings.single_active_consumer || queue.consumers.contains(&queue.active_consumer) {
            return;
        }
        let is_attached = |key: &&u64| self.machine.consumers.get(key).is_some_and(Consumer::is_attached);
        let first = queue.consumers.iter().find(is_attached).copied();
        self.queue(queue_id).active_consumer = first.unwrap_or(0);
    }

    fn write_consumer(&mut self, consumer_key: u64) {
        if let Some(consumer) = self.machine.consumers.get(&consumer_key) {
            self.store.put(Table::Consumers, &key::id(consumer_key), record::encode(&consumer.record()));
        }
    }
}
