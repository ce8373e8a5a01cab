//! Revising all messages of a queue that match a filter, in bounded steps.
//!
//! A run goes through the queue's messages state by state: scheduled ones in due order, those that wait for others of
//! their group, ready ones, leased ones. Each step ends with a cursor that says where it stands. Those that
//! wait come before the ready ones, because recalling a ready one may move a waiting one up to before the cursor.

use bytes::{BufMut, Bytes, BytesMut};

use crate::body::read_row;
use crate::command::{Filter, Reschedule, ReviseMatching, Revision};
use crate::key::{self, Position};
use crate::limits::REVISE_STEP_MAX;
use crate::machine::{Step, malformed};
use crate::record::{self, Ticket};
use crate::reply::{Refusal, Reply, RevisionOutcome};
use crate::revise::{Located, scheduled_ticket};
use crate::store::{Store, StoreError, Table};

/// Rows that are read at once.
const PAGE: usize = 250;

/// What a run goes through, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Phase {
    Scheduled = 1,
    Waiting = 2,
    Ready = 3,
    Leased = 4,
}

impl Phase {
    fn next(self) -> Option<Phase> {
        match self {
            Phase::Scheduled => Some(Phase::Waiting),
            Phase::Waiting => Some(Phase::Ready),
            Phase::Ready => Some(Phase::Leased),
            Phase::Leased => None,
        }
    }
}

/// Where a run stands.
#[derive(Debug, Clone)]
struct Cursor {
    phase: Phase,
    /// Machine time at the run's beginning, which a delay counts from.
    started_ms: u64,
    /// Messages that came later are left alone, so that the run ends.
    last_sequence: u64,
    /// The first row of the phase that was not looked at; empty: all of them.
    from: Bytes,
}

impl Cursor {
    fn encode(&self) -> Bytes {
        let mut buffer = BytesMut::with_capacity(17 + self.from.len());
        buffer.put_u8(self.phase as u8);
        buffer.put_u64(self.started_ms);
        buffer.put_u64(self.last_sequence);
        buffer.put_slice(&self.from);
        buffer.freeze()
    }

    fn decode(text: &Bytes) -> Option<Cursor> {
        let phase = match text.first()? {
            1 => Phase::Scheduled,
            2 => Phase::Waiting,
            3 => Phase::Ready,
            4 => Phase::Leased,
            _ => return None,
        };
        let (started_ms, last_sequence) = key::parse_message(text.get(1..17)?)?;
        Some(Cursor { phase, started_ms, last_sequence, from: text.slice(17..) })
    }
}

/// What a step has done so far.
#[derive(Debug, Default)]
struct Progress {
    examined: u64,
    revised: u64,
    leased: u64,
}

/// A run, as one step sees it.
struct Run<'a> {
    queue_id: u64,
    filter: &'a Filter,
    revision: Revision,
    revoke: bool,
    last_sequence: u64,
    progress: Progress,
}

impl<S: Store> Step<'_, S> {
    pub fn revise_matching(&mut self, command: &ReviseMatching) -> Result<Reply, StoreError> {
        let (queue_id, revision) = match self.find_revision(&command.queue, command.revision) {
            Ok(found) => found,
            Err(refusal) => return Ok(Reply::Refused(refusal)),
        };
        let mut cursor = match self.cursor(queue_id, command) {
            Ok(cursor) => cursor,
            Err(refusal) => return Ok(Reply::Refused(refusal)),
        };
        let revision = match revision {
            Revision::Reschedule(to) => {
                Revision::Reschedule(Reschedule { delay_ms: 0, deliver_at_ms: to.due_ms(cursor.started_ms).max(1) })
            }
            other => other,
        };
        let (filter, revoke, last_sequence) = (&command.filter, command.revoke, cursor.last_sequence);
        let mut run = Run { queue_id, filter, revision, revoke, last_sequence, progress: Progress::default() };
        let next = self.run(&mut run, &mut cursor)?.then(|| cursor.encode());
        let Progress { examined, revised, leased } = run.progress;
        Ok(Reply::RevisedMatching { examined, revised, leased, next })
    }

    fn cursor(&self, queue_id: u64, command: &ReviseMatching) -> Result<Cursor, Refusal> {
        if command.cursor.is_empty() {
            let last_sequence = self.machine.meta.last_sequence;
            let started_ms = self.now_ms();
            return Ok(Cursor { phase: Phase::Scheduled, started_ms, last_sequence, from: Bytes::new() });
        }
        let cursor = Cursor::decode(&command.cursor).ok_or(Refusal::BadCursor)?;
        let is_ours = cursor.from.is_empty() || cursor.from.starts_with(&queue_id.to_be_bytes());
        if is_ours { Ok(cursor) } else { Err(Refusal::BadCursor) }
    }

    /// Goes on until enough was looked at. True: there is more.
    fn run(&mut self, run: &mut Run<'_>, cursor: &mut Cursor) -> Result<bool, StoreError> {
        loop {
            let is_wanted = run.filter.wants(cursor.phase);
            let rows = if is_wanted { self.page(run, cursor)? } else { Vec::new() };
            let Some((last, _)) = rows.last() else {
                let Some(next) = cursor.phase.next() else { return Ok(false) };
                (cursor.phase, cursor.from) = (next, Bytes::new());
                continue;
            };
            let mut from = BytesMut::from(last.as_ref());
            from.put_u8(0);
            run.progress.examined += rows.len() as u64;
            for (row_key, value) in rows {
                self.visit(run, cursor.phase, &row_key, value)?;
            }
            cursor.from = from.freeze();
            if run.progress.examined >= REVISE_STEP_MAX as u64 {
                return Ok(true);
            }
        }
    }

    /// The next rows of the phase.
    fn page(&mut self, run: &Run<'_>, cursor: &Cursor) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let (queue_id, filter) = (run.queue_id, run.filter);
        let (table, first) = match cursor.phase {
            Phase::Scheduled => {
                let from = Position { ready_at_ms: filter.due_from_ms, sequence: 0 };
                (Table::Due, key::due(queue_id, from).to_vec())
            }
            Phase::Waiting => (Table::Waiting, key::id(queue_id).to_vec()),
            Phase::Ready => {
                let first = self.queue(queue_id).lane_heads().next();
                let Some((priority, head)) = first else { return Ok(Vec::new()) };
                (Table::Ready, key::ready(queue_id, priority, head).to_vec())
            }
            Phase::Leased => return Ok(self.leased_page(queue_id, &cursor.from)),
        };
        let until = match (cursor.phase, filter.due_before_ms) {
            (Phase::Scheduled, before_ms) if before_ms > 0 => {
                key::due(queue_id, Position { ready_at_ms: before_ms, sequence: 0 }).to_vec()
            }
            _ => key::id(queue_id.saturating_add(1)).to_vec(),
        };
        let from = first.as_slice().max(&cursor.from);
        self.store.scan(table, from, &until, PAGE)
    }

    /// Leases are in memory: their keys are made, not read.
    fn leased_page(&mut self, queue_id: u64, from: &Bytes) -> Vec<(Bytes, Bytes)> {
        // The cursor is the last key and a zero byte.
        let after = from.get(..16).and_then(key::parse_message).map(|(_, sequence)| sequence);
        let leases = self.queue(queue_id).leases.range(after.map_or(0, |after| after.saturating_add(1))..);
        let row = |sequence: &u64| (Bytes::copy_from_slice(&key::message(queue_id, *sequence)), Bytes::new());
        leases.take(PAGE).map(|(sequence, _)| row(sequence)).collect()
    }

    fn visit(&mut self, run: &mut Run<'_>, phase: Phase, row_key: &Bytes, value: Bytes) -> Result<(), StoreError> {
        if phase == Phase::Leased {
            let (_, sequence) = key::parse_message(row_key).ok_or_else(|| malformed(Table::Leases, row_key))?;
            return self.visit_leased(run, sequence);
        }
        let Some(located) = self.located_at(run.queue_id, phase, row_key, value)? else { return Ok(()) };
        if located.position.sequence > run.last_sequence
            || run.leaves_alone(&located, self.now_ms())
            || !self.matches(run, located.position, &located.ticket)?
        {
            return Ok(());
        }
        run.progress.revised += 1;
        self.take_out(run.queue_id, &located)?;
        self.carry_out(run.queue_id, located.position, located.ticket, run.revision)
    }

    fn visit_leased(&mut self, run: &mut Run<'_>, sequence: u64) -> Result<(), StoreError> {
        let Some(lease) = self.queue(run.queue_id).leases.get(&sequence).copied() else { return Ok(()) };
        let position = Position { ready_at_ms: lease.ready_at_ms, sequence };
        if sequence > run.last_sequence || !self.matches(run, position, &lease.ticket)? {
            return Ok(());
        }
        match self.revise_leased(run.queue_id, sequence, run.revision, run.revoke)? {
            RevisionOutcome::Leased => run.progress.leased += 1,
            _ => run.progress.revised += 1,
        }
        Ok(())
    }

    /// What a row of a phase says of its message. `None`: it is gone by what was done since the page was read.
    fn located_at(
        &self,
        queue_id: u64,
        phase: Phase,
        row_key: &Bytes,
        value: Bytes,
    ) -> Result<Option<Located>, StoreError> {
        let (table, position) = match phase {
            Phase::Scheduled => {
                let (ready_at_ms, sequence) =
                    key::parse_triple(row_key).ok_or_else(|| malformed(Table::Due, row_key))?;
                let position = Position { ready_at_ms, sequence };
                // The release timer is enough, and most have one.
                if let Some(ticket) = scheduled_ticket(self.store, queue_id, position, 0)? {
                    return Ok(Some(Located { is_scheduled: true, position, ticket }));
                }
                return self.locate(queue_id, sequence);
            }
            Phase::Waiting => (Table::Waiting, key::parse_waiting(row_key)),
            Phase::Ready | Phase::Leased => (Table::Ready, key::parse_ready(row_key)),
        };
        let position = position.ok_or_else(|| malformed(table, row_key))?;
        if self.store.get(table, row_key)?.is_none() {
            return Ok(None);
        }
        Ok(Some(Located { is_scheduled: false, position, ticket: record::decode(table, value)? }))
    }

    fn matches(&self, run: &Run<'_>, position: Position, ticket: &Ticket) -> Result<bool, StoreError> {
        let filter = run.filter;
        let is_due = position.ready_at_ms >= filter.due_from_ms
            && (filter.due_before_ms == 0 || position.ready_at_ms < filter.due_before_ms);
        let priorities = filter.priority_min..=filter.priority_max.unwrap_or(u8::MAX.into());
        if !is_due || !priorities.contains(&ticket.priority) {
            return Ok(false);
        }
        if filter.headers.is_empty() {
            return Ok(true);
        }
        let Some(message) = read_row(self.store, run.queue_id, position.sequence)? else { return Ok(false) };
        let headers = &message.content.headers;
        Ok(filter.headers.iter().all(|(name, value)| headers.get(name) == Some(value)))
    }
}

impl Run<'_> {
    /// A message that is where it is to go already; it would be met again and again.
    fn leaves_alone(&self, located: &Located, now_ms: u64) -> bool {
        let Revision::Reschedule(to) = self.revision else { return false };
        let due_ms = to.deliver_at_ms;
        if located.is_scheduled { located.position.ready_at_ms == due_ms } else { due_ms <= now_ms }
    }
}

impl Filter {
    fn wants(&self, phase: Phase) -> bool {
        let is_any = !self.scheduled && !self.ready && !self.leased;
        is_any
            || match phase {
                Phase::Scheduled => self.scheduled,
                Phase::Waiting | Phase::Ready => self.ready,
                Phase::Leased => self.leased,
            }
    }
}
