//! Recalling, rescheduling and expiring messages that nobody has.

use crate::body::read_row;
use crate::command::{Lease, Reschedule, Revise, ReviseById, Revision};
use crate::key::{self, Position, Timer};
use crate::lifecycle::{expires_scheduled, release_timer};
use crate::limits::REVISE_HANDLES_MAX;
use crate::machine::{Step, malformed};
use crate::record::{self, DeathReason, ExpiryRecord, MessageRecord, PlaceRecord, Ticket};
use crate::reply::{Refusal, Reply, RevisionOutcome};
use crate::store::{Store, StoreError, StoreRead, Table};

/// A message that is not leased.
#[derive(Debug)]
pub(crate) struct Located {
    pub is_scheduled: bool,
    pub position: Position,
    pub ticket: Ticket,
}

impl<S: Store> Step<'_, S> {
    pub fn revise(&mut self, command: &Revise) -> Result<Reply, StoreError> {
        let (queue_id, revision) = match self.find_revision(&command.queue, command.revision) {
            Ok(found) => found,
            Err(refusal) => return Ok(Reply::Refused(refusal)),
        };
        let mut outcomes = Vec::with_capacity(command.sequences.len());
        for sequence in &command.sequences {
            outcomes.push((*sequence, self.revise_one(queue_id, *sequence, revision, command.revoke)?));
        }
        Ok(Reply::Revised { outcomes, has_more: false })
    }

    pub fn revise_by_id(&mut self, command: &ReviseById) -> Result<Reply, StoreError> {
        let (queue_id, revision) = match self.find_revision(&command.queue, command.revision) {
            Ok(found) => found,
            Err(refusal) => return Ok(Reply::Refused(refusal)),
        };
        let hash = key::hash(&command.message_id);
        let from = key::message_id(queue_id, hash, command.after.saturating_add(1));
        let until = key::message_id(queue_id, hash, u64::MAX);
        let mut rows = self.store.scan(Table::MessageIds, &from, &until, REVISE_HANDLES_MAX + 1)?;
        let has_more = rows.len() > REVISE_HANDLES_MAX;
        rows.truncate(REVISE_HANDLES_MAX);
        let mut outcomes = Vec::with_capacity(rows.len());
        for (row_key, _) in rows {
            let (_, sequence) = key::parse_triple(&row_key).ok_or_else(|| malformed(Table::MessageIds, &row_key))?;
            // Another id may have the same hash.
            let message = read_row(self.store, queue_id, sequence)?;
            if message.is_some_and(|message| message.content.message_id == command.message_id) {
                outcomes.push((sequence, self.revise_one(queue_id, sequence, revision, command.revoke)?));
            }
        }
        Ok(Reply::Revised { outcomes, has_more })
    }

    /// The queue that is named, and what is to be done.
    pub fn find_revision(&self, queue: &str, revision: Option<Revision>) -> Result<(u64, Revision), Refusal> {
        let Some(queue_id) = self.machine.queue_names.get(queue).copied() else {
            return Err(Refusal::QueueNotFound { queue: queue.to_owned() });
        };
        Ok((queue_id, revision.ok_or(Refusal::NothingToDo)?))
    }

    fn revise_one(
        &mut self,
        queue_id: u64,
        sequence: u64,
        revision: Revision,
        revoke: bool,
    ) -> Result<RevisionOutcome, StoreError> {
        if sequence == 0 || sequence > self.machine.meta.last_sequence {
            return Ok(RevisionOutcome::Unknown);
        }
        if self.queue(queue_id).leases.contains_key(&sequence) {
            return self.revise_leased(queue_id, sequence, revision, revoke);
        }
        let Some(located) = self.locate(queue_id, sequence)? else { return Ok(RevisionOutcome::Gone) };
        self.take_out(queue_id, &located)?;
        self.carry_out(queue_id, located.position, located.ticket, revision)?;
        Ok(RevisionOutcome::Done)
    }

    /// Cuts a lease, if that is asked for.
    pub fn revise_leased(
        &mut self,
        queue_id: u64,
        sequence: u64,
        revision: Revision,
        revoke: bool,
    ) -> Result<RevisionOutcome, StoreError> {
        if !revoke {
            return Ok(RevisionOutcome::Leased);
        }
        if let Some(lease) = self.end_lease(queue_id, sequence) {
            let position = Position { ready_at_ms: lease.ready_at_ms, sequence };
            self.carry_out(queue_id, position, lease.ticket, revision)?;
            // The consumer may take another one.
            self.unsettled.insert(queue_id);
        }
        Ok(RevisionOutcome::Done)
    }

    /// Finds where a message stands that is not leased.
    pub fn locate(&self, queue_id: u64, sequence: u64) -> Result<Option<Located>, StoreError> {
        locate(self.store, queue_id, sequence)
    }

    /// Takes a message out of its state.
    pub fn take_out(&mut self, queue_id: u64, located: &Located) -> Result<(), StoreError> {
        let Located { is_scheduled, position, ticket } = located;
        if !is_scheduled {
            return self.remove_ready(queue_id, *position, ticket);
        }
        if !expires_scheduled(*position, ticket) {
            self.store.delete(Table::Timers, &release_timer(queue_id, *position).key());
        }
        self.remove_due(queue_id, *position);
        self.queue(queue_id).counts.scheduled -= 1;
        Ok(())
    }

    /// Does what was asked for with a message that is in no state any more.
    pub fn carry_out(
        &mut self,
        queue_id: u64,
        position: Position,
        ticket: Ticket,
        revision: Revision,
    ) -> Result<(), StoreError> {
        match revision {
            Revision::Recall(_) => {
                self.queue(queue_id).totals.recalled += 1;
                self.end(queue_id, position.sequence, &ticket, None)
            }
            Revision::ExpireNow(_) => self.expire(queue_id, position.sequence, &ticket),
            Revision::Reschedule(to) => self.reschedule(queue_id, position, ticket, &to),
        }
    }

    fn reschedule(
        &mut self,
        queue_id: u64,
        position: Position,
        mut ticket: Ticket,
        to: &Reschedule,
    ) -> Result<(), StoreError> {
        let now_ms = self.now_ms();
        let position = Position { ready_at_ms: to.due_ms(now_ms).max(now_ms), ..position };
        self.end_turn(queue_id, position.sequence, &ticket)?;
        self.disarm_expiry(queue_id, position.sequence, &ticket);
        if let Some(message) = read_row(self.store, queue_id, position.sequence)? {
            ticket.expires_at_ms = message.expiry_if_moved_to(position.ready_at_ms);
        }
        self.move_to(queue_id, position, &mut ticket);
        if ticket.is_expired(now_ms) {
            // Its timer is disarmed already, and the new one not armed.
            let ticket = Ticket { expires_at_ms: 0, ..ticket };
            return self.expire(queue_id, position.sequence, &ticket);
        }
        if position.ready_at_ms > now_ms {
            self.schedule(queue_id, position, ticket);
            return Ok(());
        }
        self.arm_expiry(queue_id, position, ticket);
        if self.take_turn(queue_id, position, &ticket)? {
            self.put_ready(queue_id, position, ticket);
        }
        // It is delivered when the command is done, not while others of it are looked at.
        self.unsettled.insert(queue_id);
        Ok(())
    }
}

impl Reschedule {
    /// The new due time, if it is asked for now.
    pub(crate) fn due_ms(&self, now_ms: u64) -> u64 {
        if self.deliver_at_ms == 0 { now_ms.saturating_add(self.delay_ms) } else { self.deliver_at_ms }
    }
}

impl MessageRecord {
    /// When it expires if it is given this time to become ready; 0: never.
    fn expiry_if_moved_to(&self, ready_at_ms: u64) -> u64 {
        // Rows of the first version do not say what the time was made of.
        let is_old = self.ttl_ms == 0 && self.expire_at_ms == 0;
        if is_old { self.expires_at_ms } else { self.expiry_if_ready_at(ready_at_ms) }
    }
}

/// Finds where a message stands that is not leased. `None`: it is gone.
pub(crate) fn locate(store: &impl StoreRead, queue_id: u64, sequence: u64) -> Result<Option<Located>, StoreError> {
    let message_key = key::message(queue_id, sequence);
    let Some(message) = read_row(store, queue_id, sequence)? else { return Ok(None) };
    let place: Option<PlaceRecord> = match store.get(Table::Places, &message_key)? {
        Some(value) => Some(record::decode(Table::Places, value)?),
        None => None,
    };
    let ready_at_ms = place.map_or(message.ready_at_ms, |place| place.ready_at_ms);
    let expires_at_ms = place.and_then(|place| place.expires_at_ms).unwrap_or(message.expires_at_ms);
    let position = Position { ready_at_ms, sequence };
    if let Some(ticket) = scheduled_ticket(store, queue_id, position, expires_at_ms)? {
        return Ok(Some(Located { is_scheduled: true, position, ticket }));
    }
    let priority = u8::try_from(message.priority).unwrap_or(u8::MAX);
    let mut value = store.get(Table::Ready, &key::ready(queue_id, priority, position))?;
    if value.is_none() && !message.group.is_empty() {
        let group = key::hash(&message.group);
        value = store.get(Table::Waiting, &key::waiting(queue_id, group, priority, position))?;
    }
    let Some(value) = value else { return Ok(None) };
    let ticket = record::decode(Table::Ready, value)?;
    Ok(Some(Located { is_scheduled: false, position, ticket }))
}

/// The ticket of a message, if it is scheduled for this time.
pub(crate) fn scheduled_ticket(
    store: &impl StoreRead,
    queue_id: u64,
    position: Position,
    expires_at_ms: u64,
) -> Result<Option<Ticket>, StoreError> {
    if let Some(value) = store.get(Table::Timers, &release_timer(queue_id, position).key())? {
        return record::decode(Table::Timers, value).map(Some);
    }
    let ticket = Ticket { expires_at_ms, ..Ticket::default() };
    if !expires_scheduled(position, &ticket) {
        return Ok(None);
    }
    let timer: Timer = crate::lifecycle::expiry_timer(queue_id, position.sequence, &ticket);
    match store.get(Table::Timers, &timer.key())? {
        Some(value) => Ok(Some(record::decode::<ExpiryRecord>(Table::Timers, value)?.ticket)),
        None => Ok(None),
    }
}

impl<S: Store> Step<'_, S> {
    /// The lease, if this token holds it.
    pub fn held(&self, queue_id: u64, lease: &Lease) -> Option<crate::record::LeaseRecord> {
        let queue = self.machine.queues.get(&queue_id)?;
        queue.leases.get(&lease.sequence).filter(|row| row.token == lease.token).copied()
    }

    /// Ends a message's life because its time is over. It is in no state any more but for its timer.
    pub fn expire(&mut self, queue_id: u64, sequence: u64, ticket: &Ticket) -> Result<(), StoreError> {
        self.queue(queue_id).totals.expired += 1;
        self.end(queue_id, sequence, ticket, Some(DeathReason::Expired))
    }
}
