//! Bringing the rows of earlier versions up to date.
//!
//! Layout 0 (the first version) had no index of due times and let producers stand for ever. Its rows are brought up
//! to date by the first entry that is applied to them, whole: a function of the rows, so that replicas which
//! come to it at different times end with the same.

use bytes::Bytes;

use crate::key::{Position, Timer, TimerKind};
use crate::lifecycle::expires_scheduled;
use crate::machine::{Step, malformed};
use crate::record::{self, ExpiryRecord, ProducerRecord};
use crate::store::{Store, StoreError, Table};

/// The layout that this version writes.
pub(crate) const LAYOUT: u32 = 1;
/// Rows that are read at once.
const PAGE: usize = 1000;

impl<S: Store> Step<'_, S> {
    /// Brings the rows to the present layout, if they are older.
    pub fn migrate(&mut self) -> Result<(), StoreError> {
        if self.machine.meta.layout >= LAYOUT {
            return Ok(());
        }
        self.machine.meta.layout = LAYOUT;
        self.each_row(Table::Timers, &[0xff; 26], Self::index_timer)?;
        // Names are text, in which no such byte occurs.
        self.each_row(Table::Producers, &[0xff], Self::number_producer)
    }

    fn each_row(
        &mut self,
        table: Table,
        until: &[u8],
        visit: fn(&mut Self, &Bytes, Bytes) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut from = Vec::new();
        loop {
            let rows = self.store.scan(table, &from, until, PAGE)?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            from = last.to_vec();
            from.push(0);
            for (row_key, value) in rows {
                visit(self, &row_key, value)?;
            }
        }
    }

    fn index_timer(&mut self, row_key: &Bytes, value: Bytes) -> Result<(), StoreError> {
        let timer = Timer::parse(row_key).ok_or_else(|| malformed(Table::Timers, row_key))?;
        if self.machine.queue_name(timer.queue).is_none() {
            return Ok(());
        }
        let due = match timer.kind {
            TimerKind::Release => Some(timer.at_ms),
            TimerKind::Expire => {
                let expiry: ExpiryRecord = record::decode(Table::Timers, value)?;
                let position = Position { ready_at_ms: expiry.ready_at_ms, sequence: timer.sequence };
                let is_scheduled = expires_scheduled(position, &expiry.ticket);
                is_scheduled.then_some(expiry.ready_at_ms)
            }
            _ => None,
        };
        if let Some(ready_at_ms) = due {
            self.add_due(timer.queue, Position { ready_at_ms, sequence: timer.sequence });
        }
        Ok(())
    }

    fn number_producer(&mut self, row_key: &Bytes, value: Bytes) -> Result<(), StoreError> {
        let row: ProducerRecord = record::decode(Table::Producers, value)?;
        let name = std::str::from_utf8(row_key).map_err(|_| malformed(Table::Producers, row_key))?;
        let number = self.meet_producer(name);
        let row = ProducerRecord { number, ..row };
        self.store.put(Table::Producers, row_key, record::encode(&row));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_timer_stands_below_the_end_of_the_walk() {
        let last = Timer { at_ms: u64::MAX, kind: TimerKind::IdleQueue, queue: u64::MAX, sequence: u64::MAX };
        assert!(last.key().as_slice() < [0xff; 26].as_slice());
    }
}
