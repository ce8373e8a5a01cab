//! Ordering groups: of each group of a queue, one message at a time is under way.
//!
//! Of a group's ready messages only the first, its *candidate*, stands among the queue's ready ones; the others
//! wait in a table of their own, so that finding the next message to deliver never steps over blocked ones. From its
//! first delivery until it is gone, a message is its group's *current* one, and the group has no candidate.

use crate::key::{self, Position};
use crate::machine::{Step, malformed};
use crate::record::{self, CandidateRecord, GroupRecord, Ticket};
use crate::store::{Store, StoreError, Table};

impl CandidateRecord {
    fn of(position: Position, ticket: &Ticket) -> CandidateRecord {
        CandidateRecord { priority: ticket.priority, ready_at_ms: position.ready_at_ms, sequence: position.sequence }
    }

    fn position(&self) -> Position {
        Position { ready_at_ms: self.ready_at_ms, sequence: self.sequence }
    }

    /// Smaller goes first.
    fn order(&self) -> (std::cmp::Reverse<u32>, Position) {
        (std::cmp::Reverse(self.priority), self.position())
    }
}

impl GroupRecord {
    /// True if this message, being ready, stands among the queue's ready ones.
    fn is_next(&self, sequence: u64) -> bool {
        self.current == sequence || self.candidate.is_some_and(|candidate| candidate.sequence == sequence)
    }
}

impl<S: Store> Step<'_, S> {
    /// Looks whether a message that becomes ready may be delivered now. If not, it waits, and counts as ready.
    pub fn take_turn(&mut self, queue_id: u64, position: Position, ticket: &Ticket) -> Result<bool, StoreError> {
        if ticket.group == 0 {
            return Ok(true);
        }
        let mut group = self.read_group(queue_id, ticket.group)?.unwrap_or_default();
        if group.current == position.sequence {
            return Ok(true);
        }
        let newcomer = CandidateRecord::of(position, ticket);
        let is_first = group.candidate.is_none_or(|candidate| newcomer.order() < candidate.order());
        if group.current != 0 || !is_first {
            self.put_waiting(queue_id, position, *ticket);
            group.waiting += 1;
            self.write_group(queue_id, ticket.group, &group);
            return Ok(false);
        }
        if let Some(former) = group.candidate.replace(newcomer) {
            self.send_to_wait(queue_id, &former)?;
            group.waiting += 1;
        }
        self.write_group(queue_id, ticket.group, &group);
        Ok(true)
    }

    fn send_to_wait(&mut self, queue_id: u64, former: &CandidateRecord) -> Result<(), StoreError> {
        let priority = u8::try_from(former.priority).unwrap_or(u8::MAX);
        let ready_key = key::ready(queue_id, priority, former.position());
        let Some(value) = self.store.get(Table::Ready, &ready_key)? else {
            let reason = format!("message {} of queue {queue_id} is not there, though its group says", former.sequence);
            return Err(StoreError::Corrupt { table: Table::Ready, reason });
        };
        let ticket: Ticket = record::decode(Table::Ready, value)?;
        self.remove_from_lane(queue_id, former.position(), &ticket);
        self.put_waiting(queue_id, former.position(), ticket);
        Ok(())
    }

    fn put_waiting(&mut self, queue_id: u64, position: Position, ticket: Ticket) {
        let priority = u8::try_from(ticket.priority).unwrap_or(u8::MAX);
        let row_key = key::waiting(queue_id, ticket.group, priority, position);
        self.store.put(Table::Waiting, &row_key, record::encode(&ticket));
        self.queue(queue_id).counts.ready += 1;
    }

    /// Takes a ready message out, from wherever it stands.
    pub fn remove_ready(&mut self, queue_id: u64, position: Position, ticket: &Ticket) -> Result<(), StoreError> {
        if ticket.group != 0 {
            let mut group = self.read_group(queue_id, ticket.group)?.unwrap_or_default();
            if !group.is_next(position.sequence) {
                let priority = u8::try_from(ticket.priority).unwrap_or(u8::MAX);
                self.store.delete(Table::Waiting, &key::waiting(queue_id, ticket.group, priority, position));
                self.queue(queue_id).counts.ready -= 1;
                group.waiting -= 1;
                self.write_group(queue_id, ticket.group, &group);
                return Ok(());
            }
        }
        self.remove_from_lane(queue_id, position, ticket);
        Ok(())
    }

    fn remove_from_lane(&mut self, queue_id: u64, position: Position, ticket: &Ticket) {
        if let Some(queue) = self.machine.changing(queue_id) {
            queue.remove_ready(self.store, position, ticket);
        }
    }

    /// Notes that a message is being delivered: the others of its group wait until it is gone.
    pub fn begin_turn(&mut self, queue_id: u64, sequence: u64, ticket: &Ticket) -> Result<(), StoreError> {
        if ticket.group != 0 {
            let mut group = self.read_group(queue_id, ticket.group)?.unwrap_or_default();
            group.current = sequence;
            group.candidate = None;
            self.write_group(queue_id, ticket.group, &group);
        }
        Ok(())
    }

    /// Lets the next message of its group have the turn of one that is gone, or gives it up. The message stands
    /// among the ready ones no more.
    pub fn end_turn(&mut self, queue_id: u64, sequence: u64, ticket: &Ticket) -> Result<(), StoreError> {
        if ticket.group == 0 {
            return Ok(());
        }
        let Some(mut group) = self.read_group(queue_id, ticket.group)? else { return Ok(()) };
        if !group.is_next(sequence) {
            return Ok(());
        }
        group.current = 0;
        group.candidate = None;
        if group.waiting > 0 {
            let (position, next) = self.take_waiting(queue_id, ticket.group)?;
            group.waiting -= 1;
            group.candidate = Some(CandidateRecord::of(position, &next));
            self.put_ready(queue_id, position, next);
            self.unsettled.insert(queue_id);
        }
        self.write_group(queue_id, ticket.group, &group);
        Ok(())
    }

    fn take_waiting(&mut self, queue_id: u64, group: u64) -> Result<(Position, Ticket), StoreError> {
        let (from, until) = (key::group(queue_id, group), key::group(queue_id, group.saturating_add(1)));
        let first = self.store.scan(Table::Waiting, &from, &until, 1)?.pop();
        let Some((row_key, value)) = first else {
            let reason = format!("nobody waits in a group of queue {queue_id}, though it says");
            return Err(StoreError::Corrupt { table: Table::Waiting, reason });
        };
        self.store.delete(Table::Waiting, &row_key);
        self.queue(queue_id).counts.ready -= 1;
        let position = key::parse_waiting(&row_key).ok_or_else(|| malformed(Table::Waiting, &row_key))?;
        Ok((position, record::decode(Table::Waiting, value)?))
    }

    fn read_group(&self, queue_id: u64, group: u64) -> Result<Option<GroupRecord>, StoreError> {
        match self.store.get(Table::Groups, &key::group(queue_id, group))? {
            Some(value) => record::decode(Table::Groups, value).map(Some),
            None => Ok(None),
        }
    }

    fn write_group(&mut self, queue_id: u64, group: u64, row: &GroupRecord) {
        let row_key = key::group(queue_id, group);
        if *row == GroupRecord::default() {
            self.store.delete(Table::Groups, &row_key);
        } else {
            self.store.put(Table::Groups, &row_key, record::encode(row));
        }
    }
}
