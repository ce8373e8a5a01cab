//! The states of a message and the ways between them: scheduled → ready → leased → gone.
//!
//! A message that is not gone has its row in `Messages` and exactly one row that says where it stands: a
//! release timer (scheduled, unless it expires before it would be ready), a ready row or one of those that wait for
//! others of their group, or a lease. If it can
//! expire it has an expiry timer besides, until that fires; one that fires during a lease does nothing, and
//! the return looks at the time again.

use std::sync::Arc;

use crate::death::PendingDeath;
use crate::key::{self, Position, Timer, TimerKind};
use crate::limits::RELEASE_STEP_MAX;
use crate::machine::Step;
use crate::record::{self, DeathReason, ExpiryRecord, LeaseRecord, MessageRecord, PlaceRecord, Ticket};
use crate::reply::{Delivery, Effect};
use crate::store::{Store, StoreError, Table};

impl Ticket {
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.expires_at_ms != 0 && self.expires_at_ms <= now_ms
    }
}

impl<S: Store> Step<'_, S> {
    /// Makes a message wait for its time, which is in the future.
    pub fn schedule(&mut self, queue_id: u64, position: Position, ticket: Ticket) {
        self.queue(queue_id).counts.scheduled += 1;
        self.add_due(queue_id, position);
        self.arm_expiry(queue_id, position, ticket);
        if !expires_scheduled(position, &ticket) {
            let timer = release_timer(queue_id, position);
            self.put_timer(timer, record::encode(&ticket));
        }
    }

    /// Sets the timer that ends the message's life, if it is to end by time.
    pub fn arm_expiry(&mut self, queue_id: u64, position: Position, ticket: Ticket) {
        if ticket.expires_at_ms != 0 {
            let timer = expiry_timer(queue_id, position.sequence, &ticket);
            self.put_timer(timer, record::encode(&ExpiryRecord { ticket, ready_at_ms: position.ready_at_ms }));
        }
    }

    pub fn put_timer(&mut self, timer: Timer, value: bytes::Bytes) {
        self.store.put(Table::Timers, &timer.key(), value);
        let next = &mut self.machine.next_timer_ms;
        *next = Some(next.map_or(timer.at_ms, |next| next.min(timer.at_ms)));
    }

    /// Deletes a timer, unless it has fired.
    pub fn cancel_timer(&mut self, timer: Timer) {
        let timer_key = timer.key();
        if timer.at_ms != 0 && timer_key.as_slice() >= self.machine.meta.timer_floor.as_ref() {
            self.store.delete(Table::Timers, &timer_key);
        }
    }

    /// Deletes the expiry timer, unless it has fired.
    pub fn disarm_expiry(&mut self, queue_id: u64, sequence: u64, ticket: &Ticket) {
        self.cancel_timer(expiry_timer(queue_id, sequence, ticket));
    }

    /// Lets a message in among the ready ones; straight to a consumer if one waits.
    pub fn admit(
        &mut self,
        queue_id: u64,
        position: Position,
        ticket: Ticket,
        message: Option<Arc<MessageRecord>>,
    ) -> Result<(), StoreError> {
        if ticket.is_expired(self.now_ms()) {
            return self.expire(queue_id, position.sequence, &ticket);
        }
        if !self.take_turn(queue_id, position, &ticket)? {
            return Ok(());
        }
        let queue = self.queue(queue_id);
        // While a consumer has credit nothing that may be delivered is ready, so the newcomer is the first in order.
        if !queue.has_deliverable()
            && let Some(consumer_key) = queue.next_consumer()
        {
            return self.deliver(queue_id, consumer_key, position, ticket, message);
        }
        self.put_ready(queue_id, position, ticket);
        self.dispatch(queue_id)?;
        self.wake(queue_id);
        Ok(())
    }

    /// Adds a message to those that may be delivered.
    pub fn put_ready(&mut self, queue_id: u64, position: Position, ticket: Ticket) {
        if let Some(queue) = self.machine.changing(queue_id) {
            queue.put_ready(self.store, position, ticket);
        }
    }

    /// Gives ready messages to consumers with credit until one of the two is used up.
    pub fn dispatch(&mut self, queue_id: u64) -> Result<(), StoreError> {
        while self.queue(queue_id).has_available() {
            let Some((position, ticket)) = self.take_ready(queue_id)? else { break };
            let Some(consumer_key) = self.queue(queue_id).next_consumer() else { break };
            self.deliver(queue_id, consumer_key, position, ticket, None)?;
        }
        Ok(())
    }

    /// Tells waiting receive calls that something is left for them.
    pub fn wake(&mut self, queue_id: u64) {
        if self.queue(queue_id).has_deliverable() && self.woken.insert(queue_id) {
            self.effect(Effect::Wake { queue: queue_id });
        }
    }

    /// Takes the first ready message that is not over its time; those that are expire. Only so many of them in one
    /// command: the timer service finds the others.
    pub fn take_ready(&mut self, queue_id: u64) -> Result<Option<(Position, Ticket)>, StoreError> {
        let now_ms = self.now_ms();
        for _ in 0..RELEASE_STEP_MAX {
            let Some(queue) = self.machine.changing(queue_id) else { return Ok(None) };
            if queue.settings.paused {
                return Ok(None);
            }
            let Some((position, ticket)) = queue.take_ready(self.store, now_ms)? else { return Ok(None) };
            if !ticket.is_expired(now_ms) {
                return Ok(Some((position, ticket)));
            }
            self.expire(queue_id, position.sequence, &ticket)?;
        }
        Ok(None)
    }

    fn deliver(
        &mut self,
        queue_id: u64,
        consumer_key: u64,
        position: Position,
        ticket: Ticket,
        message: Option<Arc<MessageRecord>>,
    ) -> Result<(), StoreError> {
        let timeout_ms = self.queue(queue_id).settings.lease_timeout_ms;
        let delivery = Delivery { message, ..self.grant(queue_id, consumer_key, timeout_ms, position, ticket)? };
        // A consumer among the available ones is always in the table.
        if let Some(consumer) = self.machine.consumers.get(&consumer_key) {
            let attachment = consumer.attachment;
            self.effect(Effect::Deliver { consumer: consumer_key, attachment, delivery });
        }
        Ok(())
    }

    /// Leases a message that is in no other state any more. `consumer_key` 0: to a receive call.
    pub fn grant(
        &mut self,
        queue_id: u64,
        consumer_key: u64,
        timeout_ms: u64,
        position: Position,
        ticket: Ticket,
    ) -> Result<Delivery, StoreError> {
        let sequence = position.sequence;
        self.begin_turn(queue_id, sequence, &ticket)?;
        self.machine.meta.last_token += 1;
        let lease = LeaseRecord {
            ticket,
            ready_at_ms: position.ready_at_ms,
            token: self.machine.meta.last_token,
            consumer: consumer_key,
            deadline_ms: self.now_ms().saturating_add(timeout_ms),
        };
        self.store.insert(Table::Leases, &key::message(queue_id, sequence), record::encode(&lease));
        self.machine.lease_deadlines.insert((lease.deadline_ms, queue_id, sequence));
        let queue = self.queue(queue_id);
        queue.leases.insert(sequence, lease);
        queue.counts.leased += 1;
        queue.totals.delivered += 1;
        match self.machine.consumers.get_mut(&consumer_key) {
            Some(consumer) => {
                consumer.held.insert(sequence);
            }
            None => self.machine.leases_received += 1,
        }
        self.update_available(queue_id, consumer_key);
        Ok(delivery_of(queue_id, sequence, &lease))
    }

    /// Ends a lease; what becomes of the message is the caller's affair. `None` if it is not leased.
    pub fn end_lease(&mut self, queue_id: u64, sequence: u64) -> Option<LeaseRecord> {
        let queue = self.queue(queue_id);
        let lease = queue.leases.remove(&sequence)?;
        queue.counts.leased -= 1;
        self.machine.lease_deadlines.remove(&(lease.deadline_ms, queue_id, sequence));
        self.store.delete(Table::Leases, &key::message(queue_id, sequence));
        match self.machine.consumers.get_mut(&lease.consumer) {
            Some(consumer) => {
                let before = consumer.promised();
                consumer.held.remove(&sequence);
                self.machine.leases_of_consumers -= before - consumer.promised();
            }
            None => self.machine.leases_received -= 1,
        }
        self.update_available(queue_id, lease.consumer);
        Some(lease)
    }

    /// Notes anew whether a consumer can take another message, after what it holds or may hold has changed.
    pub fn update_available(&mut self, queue_id: u64, consumer_key: u64) {
        if let Some(consumer) = self.machine.consumers.get(&consumer_key)
            && let Some(queue) = self.machine.queues.get_mut(&queue_id)
        {
            queue.set_available(consumer_key, consumer);
        }
    }

    /// Brings a message whose lease ended back, or out if it came back too often or is over its time. The queue is
    /// to be dispatched afterwards.
    pub fn bring_back(
        &mut self,
        queue_id: u64,
        sequence: u64,
        lease: LeaseRecord,
        way: Return,
    ) -> Result<(), StoreError> {
        let now_ms = self.now_ms();
        let queue = self.queue(queue_id);
        queue.totals.returned += 1;
        let mut ticket = lease.ticket;
        ticket.delivery_count = ticket.delivery_count.saturating_add(1);
        let limit = queue.settings.delivery_limit;
        if limit > 0 && ticket.delivery_count > limit {
            queue.totals.exhausted += 1;
            return self.end(queue_id, sequence, &ticket, Some(DeathReason::DeliveryLimit));
        }
        if ticket.is_expired(now_ms) {
            return self.expire(queue_id, sequence, &ticket);
        }
        let delay_ms = match (way, &queue.settings.backoff) {
            (Return::After(delay_ms), _) => delay_ms,
            (Return::AfterBackoff, Some(backoff)) => backoff.wait_ms(now_ms, sequence, ticket.delivery_count),
            (Return::AfterBackoff | Return::AtOnce, _) => 0,
        };
        if delay_ms > 0 {
            let position = Position { ready_at_ms: now_ms.saturating_add(delay_ms), sequence };
            self.disarm_expiry(queue_id, sequence, &ticket);
            self.move_to(queue_id, position, &mut ticket);
            self.schedule(queue_id, position, ticket);
        } else {
            self.put_ready(queue_id, Position { ready_at_ms: lease.ready_at_ms, sequence }, ticket);
        }
        Ok(())
    }

    /// Notes that a message stands elsewhere, or expires at another time, than its publish said.
    pub fn move_to(&mut self, queue_id: u64, position: Position, ticket: &mut Ticket) {
        let place_key = key::message(queue_id, position.sequence);
        if ticket.moved {
            self.store.delete(Table::Places, &place_key);
        }
        ticket.moved = true;
        let place = PlaceRecord { ready_at_ms: position.ready_at_ms, expires_at_ms: Some(ticket.expires_at_ms) };
        self.store.put(Table::Places, &place_key, record::encode(&place));
    }

    /// Ends the life of a message that is in no state any more. With a reason it becomes a dead letter, if the queue
    /// has a use for those, before the command is over.
    pub fn end(
        &mut self,
        queue_id: u64,
        sequence: u64,
        ticket: &Ticket,
        reason: Option<DeathReason>,
    ) -> Result<(), StoreError> {
        self.disarm_expiry(queue_id, sequence, ticket);
        self.end_turn(queue_id, sequence, ticket)?;
        let queue = self.queue(queue_id);
        queue.counts.bytes -= ticket.bytes;
        match reason {
            Some(reason) if queue.settings.dead_letter.is_some() => {
                self.deaths.push_back(PendingDeath { queue: queue_id, sequence, ticket: *ticket, reason });
                Ok(())
            }
            _ => self.erase(queue_id, sequence, ticket),
        }
    }

    /// Deletes the rows of a message whose life has ended.
    pub fn erase(&mut self, queue_id: u64, sequence: u64, ticket: &Ticket) -> Result<(), StoreError> {
        let message_key = key::message(queue_id, sequence);
        self.store.delete(Table::Messages, &message_key);
        if ticket.moved {
            self.store.delete(Table::Places, &message_key);
        }
        if ticket.message_id != 0 {
            self.store.delete(Table::MessageIds, &key::message_id(queue_id, ticket.message_id, sequence));
        }
        self.drop_share(ticket.shared_body)
    }
}

/// How a message comes back whose lease ended without an ack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Return {
    /// To its old position.
    AtOnce,
    /// After a delay.
    After(u64),
    /// After what the queue's policy says; at once without one.
    AfterBackoff,
}

/// True if a message would expire before, or when, it becomes ready: then it has no release timer.
pub(crate) fn expires_scheduled(position: Position, ticket: &Ticket) -> bool {
    ticket.expires_at_ms != 0 && ticket.expires_at_ms <= position.ready_at_ms
}

pub(crate) fn release_timer(queue: u64, position: Position) -> Timer {
    Timer { at_ms: position.ready_at_ms, kind: TimerKind::Release, queue, sequence: position.sequence }
}

pub(crate) fn expiry_timer(queue: u64, sequence: u64, ticket: &Ticket) -> Timer {
    Timer { at_ms: ticket.expires_at_ms, kind: TimerKind::Expire, queue, sequence }
}

pub(crate) fn delivery_of(queue: u64, sequence: u64, lease: &LeaseRecord) -> Delivery {
    Delivery {
        queue,
        sequence,
        token: lease.token,
        delivery_count: lease.ticket.delivery_count,
        ready_at_ms: lease.ready_at_ms,
        deadline_ms: lease.deadline_ms,
        message: None,
    }
}
