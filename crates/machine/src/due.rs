//! When the scheduled messages of a queue are due: an index, and counts that make a forecast cheap.
//!
//! Time is cut into stretches of three lengths, each 256 times the one before. For each stretch in which messages
//! of a queue are due there is a row with their number. How many are due before a time is a sum over some hundred
//! rows: long stretches first, then the shorter ones in the last long one; what is left, less than the shortest
//! stretch, is counted in the index.

use crate::key::{self, Position};
use crate::machine::{Machine, Step};
use crate::record::{self, CountRecord, Counts};
use crate::store::{Store, StoreError, StoreRead, Table};

/// A stretch of a level is two to the power of this many milliseconds: 4 s, 17 min, 3 days.
const LEVEL_BITS: [u32; 3] = [12, 20, 28];
/// Most rows of the index that are counted one by one.
const EDGE_ROWS_MAX: usize = 10_000;
/// Most counts that are read at once.
const COUNTS_PAGE: usize = 1000;

/// How many messages of a queue are due by when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forecast {
    /// All of its messages, by state.
    pub counts: Counts,
    /// One for each horizon asked for.
    pub due: Vec<DueCount>,
}

/// How many scheduled messages are due within a horizon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DueCount {
    /// From the time of the forecast.
    pub horizon_ms: u64,
    /// How many.
    pub messages: u64,
    /// False: too many are due in the same few seconds as the horizon, and their share is estimated.
    pub exact: bool,
}

impl<S: Store> Step<'_, S> {
    /// Notes that a message is scheduled.
    pub fn add_due(&mut self, queue_id: u64, position: Position) {
        self.store.put(Table::Due, &key::due(queue_id, position), bytes::Bytes::new());
        self.machine.count_due(queue_id, position.ready_at_ms, 1);
    }

    /// Notes that a message is scheduled no more.
    pub fn remove_due(&mut self, queue_id: u64, position: Position) {
        self.store.delete(Table::Due, &key::due(queue_id, position));
        self.machine.count_due(queue_id, position.ready_at_ms, -1);
    }
}

impl Machine {
    /// Counts messages that became scheduled for a time, or are so no more.
    pub(crate) fn count_due(&mut self, queue_id: u64, due_ms: u64, by: i64) {
        for (level, bits) in LEVEL_BITS.iter().enumerate() {
            *self.due_changes.entry((queue_id, level as u8, due_ms >> bits)).or_default() += by;
        }
    }

    /// Writes what changed in the counts.
    pub(crate) fn write_due_changes(&mut self, store: &mut impl Store) -> Result<(), StoreError> {
        for ((queue_id, level, stretch), by) in std::mem::take(&mut self.due_changes) {
            let row_key = key::due_count(queue_id, level, stretch);
            match count(store, &row_key)?.saturating_add_signed(by) {
                _ if by == 0 => {}
                0 => store.delete(Table::DueCounts, &row_key),
                count => store.put(Table::DueCounts, &row_key, record::encode(&CountRecord { count })),
            }
        }
        Ok(())
    }

    /// Counts the messages of a queue, and those due within horizons from `now_ms`. `None`: there is no such queue.
    pub fn forecast(
        &self,
        store: &impl StoreRead,
        queue: &str,
        now_ms: u64,
        horizons_ms: &[u64],
    ) -> Result<Option<Forecast>, StoreError> {
        let Some(queue) = self.queue_names.get(queue).and_then(|id| self.queues.get(id)) else { return Ok(None) };
        let due = horizons_ms.iter().map(|&horizon_ms| {
            let before_ms = now_ms.saturating_add(horizon_ms).saturating_add(1);
            let (messages, exact) = due_before(store, queue.id, before_ms)?;
            Ok(DueCount { horizon_ms, messages, exact })
        });
        Ok(Some(Forecast { counts: queue.counts, due: due.collect::<Result<_, StoreError>>()? }))
    }
}

/// How many messages of a queue are due before a time, and whether that is exact.
fn due_before(store: &impl StoreRead, queue_id: u64, before_ms: u64) -> Result<(u64, bool), StoreError> {
    let mut total = 0;
    let mut from_ms = 0;
    for (level, bits) in LEVEL_BITS.iter().enumerate().rev() {
        total = u64::saturating_add(total, sum(store, queue_id, level as u8, from_ms >> bits, before_ms >> bits)?);
        from_ms = before_ms >> bits << bits;
    }
    if from_ms == before_ms {
        return Ok((total, true));
    }
    let in_stretch = count(store, &key::due_count(queue_id, 0, before_ms >> LEVEL_BITS[0]))?;
    if in_stretch > EDGE_ROWS_MAX as u64 {
        let share = (u128::from(in_stretch) * u128::from(before_ms - from_ms)) >> LEVEL_BITS[0];
        return Ok((total.saturating_add(u64::try_from(share).unwrap_or(in_stretch)), false));
    }
    let at = |ready_at_ms| key::due(queue_id, Position { ready_at_ms, sequence: 0 });
    let edge = store.scan(Table::Due, &at(from_ms), &at(before_ms), EDGE_ROWS_MAX)?;
    Ok((total.saturating_add(edge.len() as u64), true))
}

/// The sum of the counts of a level's stretches in a range.
fn sum(store: &impl StoreRead, queue_id: u64, level: u8, from: u64, until: u64) -> Result<u64, StoreError> {
    let mut next = key::due_count(queue_id, level, from).to_vec();
    let until = key::due_count(queue_id, level, until);
    let mut total = 0;
    loop {
        let rows = store.scan(Table::DueCounts, &next, &until, COUNTS_PAGE)?;
        let is_last = rows.len() < COUNTS_PAGE;
        for (row_key, value) in rows {
            let stretch: CountRecord = record::decode(Table::DueCounts, value)?;
            total = u64::saturating_add(total, stretch.count);
            next = row_key.to_vec();
            next.push(0);
        }
        if is_last {
            return Ok(total);
        }
    }
}

fn count(store: &impl StoreRead, row_key: &[u8]) -> Result<u64, StoreError> {
    match store.get(Table::DueCounts, row_key)? {
        Some(value) => Ok(record::decode::<CountRecord>(Table::DueCounts, value)?.count),
        None => Ok(0),
    }
}
