//! Receiving and settling: who has the current token of a lease may end or extend it.

use crate::command::{Ack, Extend, Lease, Nack, Receive};
use crate::key;
use crate::lifecycle::Return;
use crate::limits::LEASES_MAX;
use crate::machine::Step;
use crate::record::{self, DeathReason};
use crate::reply::{Refusal, Reply};
use crate::store::{Store, StoreError, Table};

impl<S: Store> Step<'_, S> {
    pub fn receive(&mut self, command: &Receive) -> Result<Reply, StoreError> {
        let Some(queue_id) = self.machine.queue_names.get(&command.queue).copied() else {
            return Ok(Reply::Refused(Refusal::QueueNotFound { queue: command.queue.clone() }));
        };
        if self.queue(queue_id).settings.single_active_consumer {
            return Ok(Reply::Refused(Refusal::SingleActiveConsumer { queue: command.queue.clone() }));
        }
        self.touch(queue_id);
        if self.machine.leases_promised() + command.messages_max as usize > LEASES_MAX {
            return Ok(Reply::Refused(Refusal::TooManyLeases { limit: LEASES_MAX }));
        }
        let timeout_ms = self.timeout_or_default(queue_id, command.lease_timeout_ms);
        let mut deliveries = Vec::new();
        while deliveries.len() < command.messages_max as usize {
            let Some((position, ticket)) = self.take_ready(queue_id)? else { break };
            deliveries.push(self.grant(queue_id, 0, timeout_ms, position, ticket)?);
        }
        Ok(Reply::Received { queue: queue_id, deliveries })
    }

    pub fn ack(&mut self, command: &Ack) -> Result<Reply, StoreError> {
        let Some(queue_id) = self.machine.queue_names.get(&command.queue).copied() else {
            return Ok(Reply::Refused(Refusal::QueueNotFound { queue: command.queue.clone() }));
        };
        let mut lost = Vec::new();
        for lease in &command.leases {
            if !self.holds(queue_id, lease) {
                lost.push(*lease);
            } else if let Some(row) = self.end_lease(queue_id, lease.sequence) {
                self.queue(queue_id).totals.acknowledged += 1;
                self.end(queue_id, lease.sequence, &row.ticket, None)?;
            }
        }
        self.dispatch(queue_id)?;
        Ok(Reply::Settled { lost })
    }

    pub fn nack(&mut self, command: &Nack) -> Result<Reply, StoreError> {
        let Some(queue_id) = self.machine.queue_names.get(&command.queue).copied() else {
            return Ok(Reply::Refused(Refusal::QueueNotFound { queue: command.queue.clone() }));
        };
        let way = match command.delay_ms {
            0 if command.immediate => Return::AtOnce,
            0 => Return::AfterBackoff,
            delay_ms => Return::After(delay_ms),
        };
        let mut lost = Vec::new();
        for lease in &command.leases {
            if !self.holds(queue_id, lease) {
                lost.push(*lease);
            } else if let Some(row) = self.end_lease(queue_id, lease.sequence) {
                if command.reject {
                    self.queue(queue_id).totals.rejected += 1;
                    self.end(queue_id, lease.sequence, &row.ticket, Some(DeathReason::Rejected))?;
                } else {
                    self.bring_back(queue_id, lease.sequence, row, way)?;
                }
            }
        }
        self.dispatch(queue_id)?;
        let comes_at_once =
            way == Return::AtOnce || (way == Return::AfterBackoff && self.queue(queue_id).settings.backoff.is_none());
        if lost.len() < command.leases.len() && comes_at_once && !command.reject {
            self.wake(queue_id);
        }
        Ok(Reply::Settled { lost })
    }

    pub fn extend(&mut self, command: &Extend) -> Reply {
        let Some(queue_id) = self.machine.queue_names.get(&command.queue).copied() else {
            return Reply::Refused(Refusal::QueueNotFound { queue: command.queue.clone() });
        };
        let timeout_ms = self.timeout_or_default(queue_id, command.lease_timeout_ms);
        let deadline_ms = self.now_ms().saturating_add(timeout_ms);
        let mut lost = Vec::new();
        for lease in &command.leases {
            if !self.holds(queue_id, lease) {
                lost.push(*lease);
            } else if let Some(row) = self.queue(queue_id).leases.get_mut(&lease.sequence) {
                let before_ms = std::mem::replace(&mut row.deadline_ms, deadline_ms);
                let value = record::encode(row);
                self.store.put(Table::Leases, &key::message(queue_id, lease.sequence), value);
                self.machine.lease_deadlines.remove(&(before_ms, queue_id, lease.sequence));
                self.machine.lease_deadlines.insert((deadline_ms, queue_id, lease.sequence));
            }
        }
        Reply::Settled { lost }
    }

    fn holds(&self, queue_id: u64, lease: &Lease) -> bool {
        self.held(queue_id, lease).is_some()
    }

    fn timeout_or_default(&self, queue_id: u64, timeout_ms: u64) -> u64 {
        if timeout_ms > 0 {
            return timeout_ms;
        }
        self.machine.queues.get(&queue_id).map_or(0, |queue| queue.settings.lease_timeout_ms)
    }
}
