//! The ready messages of one priority of a queue, in order.
//!
//! The rows stand in the store; the first of them are held here too, in a bounded window, so that delivering
//! one message at a time does not open an iterator each time. The window is a cache: what the lane answers
//! does not depend on what is in it.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::key::{self, Position};
use crate::record::{self, LaneRecord, Ticket};
use crate::store::{Store, StoreError, Table};

/// Most rows that a window reads at once, and keeps.
const WINDOW_MAX: usize = 64;

/// How far the window is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cover {
    /// It holds every row of the lane.
    All,
    /// It holds every row up to here, inclusive.
    Through(Position),
    /// It was not read yet.
    Nothing,
}

/// One priority's ready messages.
#[derive(Debug)]
pub(crate) struct Lane {
    queue: u64,
    priority: u8,
    count: u64,
    /// No row of the lane stands before this. It moves only with what is put and taken, so that it is the
    /// same on every replica, whatever their windows hold.
    head: Position,
    window: BTreeMap<Position, Ticket>,
    cover: Cover,
}

impl Lane {
    /// A lane without messages, about to get its first at `head`.
    pub fn new(queue: u64, priority: u8, head: Position) -> Lane {
        Lane { queue, priority, count: 0, head, window: BTreeMap::new(), cover: Cover::All }
    }

    /// A lane as it was stored.
    pub fn restore(queue: u64, record: &LaneRecord) -> Lane {
        Lane {
            queue,
            priority: u8::try_from(record.priority).unwrap_or(u8::MAX),
            count: record.count,
            head: Position { ready_at_ms: record.head_ready_at_ms, sequence: record.head_sequence },
            window: BTreeMap::new(),
            cover: Cover::Nothing,
        }
    }

    pub fn record(&self) -> LaneRecord {
        LaneRecord {
            priority: self.priority.into(),
            count: self.count,
            head_ready_at_ms: self.head.ready_at_ms,
            head_sequence: self.head.sequence,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds a message.
    pub fn put(&mut self, store: &mut impl Store, position: Position, ticket: Ticket) {
        store.put(Table::Ready, &key::ready(self.queue, self.priority, position), record::encode(&ticket));
        self.count += 1;
        self.head = self.head.min(position);
        let covered = match self.cover {
            Cover::All => true,
            Cover::Through(end) => position <= end,
            Cover::Nothing => false,
        };
        if covered {
            self.window.insert(position, ticket);
            if self.window.len() > WINDOW_MAX {
                self.window.pop_last();
                self.cover = self.window.last_key_value().map_or(Cover::Nothing, |(last, _)| Cover::Through(*last));
            }
        }
    }

    /// The first position; `None` if there is none.
    pub fn first(&mut self, store: &impl Store) -> Result<Option<Position>, StoreError> {
        if self.count > 0 && self.window.is_empty() {
            self.fill(store)?;
        }
        Ok(self.window.first_key_value().map(|(position, _)| *position))
    }

    /// Where a scan of the lane's rows may begin.
    pub fn head(&self) -> Position {
        self.head
    }

    /// Takes the first message out; `None` if there is none.
    pub fn take_first(&mut self, store: &mut impl Store) -> Result<Option<(Position, Ticket)>, StoreError> {
        if self.count == 0 {
            return Ok(None);
        }
        if self.window.is_empty() {
            self.fill(store)?;
        }
        let Some((position, ticket)) = self.window.pop_first() else {
            return Err(StoreError::Corrupt {
                table: Table::Ready,
                reason: format!("queue {} should have {} rows of priority {}", self.queue, self.count, self.priority),
            });
        };
        self.head = position.successor();
        self.removed(store, position);
        Ok(Some((position, ticket)))
    }

    /// Takes a message out from wherever it stands.
    pub fn remove(&mut self, store: &mut impl Store, position: Position) {
        self.window.remove(&position);
        self.removed(store, position);
    }

    fn removed(&mut self, store: &mut impl Store, position: Position) {
        store.delete(Table::Ready, &key::ready(self.queue, self.priority, position));
        self.count -= 1;
        if self.count == 0 {
            self.cover = Cover::All;
        }
    }

    fn fill(&mut self, store: &impl Store) -> Result<(), StoreError> {
        let end = Position { ready_at_ms: u64::MAX, sequence: u64::MAX };
        let from = key::ready(self.queue, self.priority, self.head);
        let to = key::ready(self.queue, self.priority, end);
        let rows = store.scan(Table::Ready, &from, &to, WINDOW_MAX)?;
        self.cover = Cover::All;
        if rows.len() == WINDOW_MAX
            && let Some((last, _)) = rows.last()
        {
            self.cover = Cover::Through(position_of(last)?);
        }
        for (row_key, value) in rows {
            self.window.insert(position_of(&row_key)?, record::decode(Table::Ready, value)?);
        }
        Ok(())
    }
}

fn position_of(row_key: &Bytes) -> Result<Position, StoreError> {
    key::parse_ready(row_key)
        .ok_or_else(|| StoreError::Corrupt { table: Table::Ready, reason: format!("key {row_key:02x?} is malformed") })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::store::MemoryStore;

    #[derive(Debug, Clone)]
    enum Step {
        Put(u64),
        TakeFirst,
        Remove(usize),
        Restart,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => (0u64..1000).prop_map(Step::Put),
            4 => Just(Step::TakeFirst),
            1 => any::<usize>().prop_map(Step::Remove),
            1 => Just(Step::Restart),
        ]
    }

    proptest! {
        #[test]
        fn a_lane_gives_out_what_a_sorted_map_would(steps in prop::collection::vec(step(), 1..600)) {
            let mut store = MemoryStore::default();
            let mut model = BTreeMap::new();
            let start = Position { ready_at_ms: 0, sequence: 0 };
            let mut lane = Lane::new(1, 7, start);
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Put(ready_at_ms) => {
                        let position = Position { ready_at_ms, sequence: number as u64 };
                        let ticket = Ticket { priority: 7, delivery_count: number as u32, ..Ticket::default() };
                        lane.put(&mut store, position, ticket);
                        model.insert(position, ticket);
                    }
                    Step::TakeFirst => {
                        prop_assert_eq!(lane.take_first(&mut store).unwrap(), model.pop_first());
                    }
                    Step::Remove(pick) => {
                        if let Some(position) = model.keys().nth(pick % model.len().max(1)).copied() {
                            model.remove(&position);
                            lane.remove(&mut store, position);
                        }
                    }
                    Step::Restart => lane = Lane::restore(1, &lane.record()),
                }
                prop_assert_eq!(lane.is_empty(), model.is_empty());
                prop_assert_eq!(store.rows().count(), model.len());
            }
            while let Some(first) = model.pop_first() {
                prop_assert_eq!(lane.take_first(&mut store).unwrap(), Some(first));
            }
        }
    }
}
