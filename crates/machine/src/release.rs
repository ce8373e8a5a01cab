//! What moves by time alone: releases, expiries, lease and session timeouts, and the sweeping of deleted
//! queues. All of it happens here, in answer to a pulse, and in bounded steps.

use bytes::Bytes;

use crate::key::{self, Position, Timer, TimerKind};
use crate::lifecycle::{Return, expires_scheduled, release_timer};
use crate::limits::RELEASE_STEP_MAX;
use crate::machine::{Step, malformed};
use crate::record::{self, ExpiryRecord, ForgetRecord, MessageRecord, PlaceRecord, Ticket};
use crate::reply::Reply;
use crate::store::{Store, StoreError, Table};

/// A sweep reads messages with their bodies, so it goes by bytes too, and in pages that fit in memory even with
/// the largest bodies.
const SWEEP_BYTES_MAX: usize = 8 * 1024 * 1024;
const SWEEP_PAGE: usize = 8;

impl<S: Store> Step<'_, S> {
    pub fn release(&mut self) -> Result<Reply, StoreError> {
        let mut budget = RELEASE_STEP_MAX;
        budget -= self.fire_timers(budget)?;
        budget -= self.end_overdue_leases(budget)?;
        budget -= self.end_overdue_sessions(budget)?;
        // What has ended must be worked off before its queue may go.
        self.settle()?;
        self.sweep_deleted(budget)?;
        Ok(Reply::Done)
    }

    fn fire_timers(&mut self, limit: usize) -> Result<usize, StoreError> {
        let now_ms = self.now_ms();
        if self.machine.next_timer_ms.is_none_or(|next| next > now_ms) {
            return Ok(0);
        }
        let until = key::timers_from(now_ms.saturating_add(1));
        let due = self.store.scan(Table::Timers, &self.machine.meta.timer_floor, &until, limit)?;
        let fired = due.len();
        for (row_key, value) in due {
            let timer = Timer::parse(&row_key).ok_or_else(|| malformed(Table::Timers, &row_key))?;
            // An earlier one of this step may have taken it away; releases are not taken away by time.
            if timer.kind != TimerKind::Release && self.store.get(Table::Timers, &row_key)?.is_none() {
                continue;
            }
            self.store.delete(Table::Timers, &row_key);
            self.raise_timer_floor(&row_key);
            let forget = |value| record::decode::<ForgetRecord>(Table::Timers, value);
            match timer.kind {
                TimerKind::Release => self.fire_release(timer, value)?,
                TimerKind::Expire => self.fire_expiry(timer, value)?,
                TimerKind::Dedupe => self.fire_dedupe(timer, &forget(value)?)?,
                TimerKind::Producer => self.fire_producer(&forget(value)?)?,
                TimerKind::Schedule => self.fire_schedule(timer.queue)?,
                TimerKind::IdleQueue => self.fire_idle(timer.queue),
            }
        }
        self.machine.find_next_timer(self.store)?;
        Ok(fired)
    }

    /// From here on no timer stands at or before this one.
    fn raise_timer_floor(&mut self, row_key: &Bytes) {
        let mut floor = row_key.to_vec();
        floor.push(0);
        self.machine.meta.timer_floor = floor.into();
    }

    fn fire_release(&mut self, timer: Timer, value: Bytes) -> Result<(), StoreError> {
        if self.machine.queue_name(timer.queue).is_none() {
            return Ok(());
        }
        let ticket: Ticket = record::decode(Table::Timers, value)?;
        self.queue(timer.queue).counts.scheduled -= 1;
        self.applied.released_due_ms.push(timer.at_ms);
        let position = Position { ready_at_ms: timer.at_ms, sequence: timer.sequence };
        self.remove_due(timer.queue, position);
        self.admit(timer.queue, position, ticket, None)
    }

    fn fire_expiry(&mut self, timer: Timer, value: Bytes) -> Result<(), StoreError> {
        let Some(queue) = self.machine.queues.get(&timer.queue).filter(|queue| !queue.deleted) else { return Ok(()) };
        if queue.leases.contains_key(&timer.sequence) {
            return Ok(());
        }
        let expiry: ExpiryRecord = record::decode(Table::Timers, value)?;
        let position = Position { ready_at_ms: expiry.ready_at_ms, sequence: timer.sequence };
        if expires_scheduled(position, &expiry.ticket) {
            self.queue(timer.queue).counts.scheduled -= 1;
            self.remove_due(timer.queue, position);
        } else {
            // Its release timer has fired before: releases come first, in order of time.
            self.remove_ready(timer.queue, position, &expiry.ticket)?;
        }
        self.expire(timer.queue, timer.sequence, &expiry.ticket)
    }

    fn end_overdue_leases(&mut self, limit: usize) -> Result<usize, StoreError> {
        let now_ms = self.now_ms();
        let mut ended = 0;
        while ended < limit
            && let Some((deadline_ms, queue_id, sequence)) = self.machine.lease_deadlines.first().copied()
            && deadline_ms <= now_ms
        {
            ended += 1;
            let Some(lease) = self.end_lease(queue_id, sequence) else {
                return Err(StoreError::Corrupt {
                    table: Table::Leases,
                    reason: format!("no lease of message {sequence} in queue {queue_id}, though it has a deadline"),
                });
            };
            if self.machine.queue_name(queue_id).is_some() {
                self.bring_back(queue_id, sequence, lease, Return::AfterBackoff)?;
                self.dispatch(queue_id)?;
                self.wake(queue_id);
            }
        }
        Ok(ended)
    }

    fn end_overdue_sessions(&mut self, limit: usize) -> Result<usize, StoreError> {
        let now_ms = self.now_ms();
        let mut spent = 0;
        while spent < limit
            && let Some((deadline_ms, consumer_key)) = self.machine.session_deadlines.first().copied()
            && deadline_ms <= now_ms
        {
            // At least one, so that sessions without leases are bounded too.
            spent += self.end_session(consumer_key, limit - spent, Return::AfterBackoff)?.max(1);
        }
        Ok(spent)
    }

    /// Removes rows of deleted queues: up to `limit` messages and queues, and no more bytes than
    /// [`SWEEP_BYTES_MAX`] and one page.
    fn sweep_deleted(&mut self, mut limit: usize) -> Result<(), StoreError> {
        let mut bytes = 0;
        while limit > 0
            && bytes < SWEEP_BYTES_MAX
            && let Some(queue_id) = self.machine.sweeps.first().copied()
        {
            let from = key::message(queue_id, self.queue(queue_id).swept_below);
            let until = key::message(queue_id, u64::MAX);
            let rows = self.store.scan(Table::Messages, &from, &until, limit.min(SWEEP_PAGE))?;
            limit -= rows.len().max(1);
            if rows.is_empty() {
                self.machine.sweeps.remove(&queue_id);
                self.machine.queues.remove(&queue_id);
                self.store.delete(Table::Queues, &key::id(queue_id));
            }
            for (row_key, value) in rows {
                bytes += value.len();
                let (_, sequence) = key::parse_message(&row_key).ok_or_else(|| malformed(Table::Messages, &row_key))?;
                self.sweep_message(queue_id, sequence, record::decode(Table::Messages, value)?)?;
                self.queue(queue_id).swept_below = sequence + 1;
            }
        }
        Ok(())
    }

    fn sweep_message(&mut self, queue_id: u64, sequence: u64, message: MessageRecord) -> Result<(), StoreError> {
        let message_key = key::message(queue_id, sequence);
        self.store.delete(Table::Messages, &message_key);
        let (mut ready_at_ms, mut expires_at_ms) = (message.ready_at_ms, message.expires_at_ms);
        if let Some(value) = self.store.get(Table::Places, &message_key)? {
            let place: PlaceRecord = record::decode(Table::Places, value)?;
            ready_at_ms = place.ready_at_ms;
            expires_at_ms = place.expires_at_ms.unwrap_or(expires_at_ms);
            self.store.delete(Table::Places, &message_key);
        }
        let position = Position { ready_at_ms, sequence };
        let priority = u8::try_from(message.priority).unwrap_or(u8::MAX);
        self.end_lease(queue_id, sequence);
        self.delete_if_there(Table::Ready, &key::ready(queue_id, priority, position))?;
        self.delete_if_there(Table::Timers, &release_timer(queue_id, position).key())?;
        let ticket = Ticket { expires_at_ms, ..Ticket::default() };
        self.disarm_expiry(queue_id, sequence, &ticket);
        if self.delete_if_there(Table::Due, &key::due(queue_id, position))? {
            self.machine.count_due(queue_id, ready_at_ms, -1);
        }
        if !message.group.is_empty() {
            let group = key::hash(&message.group);
            self.delete_if_there(Table::Waiting, &key::waiting(queue_id, group, priority, position))?;
            self.delete_if_there(Table::Groups, &key::group(queue_id, group))?;
        }
        if !message.content.message_id.is_empty() {
            let hash = key::hash(&message.content.message_id);
            self.delete_if_there(Table::MessageIds, &key::message_id(queue_id, hash, sequence))?;
        }
        self.drop_share(message.shared_body)
    }

    fn delete_if_there(&mut self, table: Table, row_key: &[u8]) -> Result<bool, StoreError> {
        let is_there = self.store.get(table, row_key)?.is_some();
        if is_there {
            self.store.delete(table, row_key);
        }
        Ok(is_there)
    }
}
