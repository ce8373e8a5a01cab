//! Reads of the committed state by other threads.

use std::sync::Arc;

use bytes::Bytes;
use dwell_machine::{MessageRecord, StoreError, StoreRead, Table};

use super::committed::Committed;
use super::scan;
use crate::damage::DamageSignal;

/// Reads what was committed, from any thread, while the state goes on. Each read sees the newest commit, of the
/// newest snapshot if one was installed meanwhile.
///
/// It holds the database open: a state directory can only be opened again when its readers are gone.
#[derive(Clone)]
pub struct StateReader {
    pub(super) committed: Arc<Committed>,
    pub(super) damage: DamageSignal,
}

impl StateReader {
    /// The message of a queue, by its sequence; none if it is gone.
    pub fn message(&self, queue: u64, sequence: u64) -> Result<Option<MessageRecord>, StoreError> {
        dwell_machine::read_message(self, queue, sequence)
    }
}

impl StoreRead for StateReader {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let database = {
            let committed = self.committed.read();
            if let Some(pending) = committed.pending(table, key) {
                return Ok(pending.value.clone());
            }
            // The disk is not waited for under the lock. What is written out meanwhile is in this database.
            committed.database().clone()
        };
        scan::reported(database.get(table, key).map_err(scan::read_error(table)), &self.damage)
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        if from >= to {
            return Ok(Vec::new());
        }
        let committed = self.committed.read();
        let unwritten = committed.range(table, from, to);
        let rows = scan::merged(committed.database(), unwritten, table, from, to, limit);
        scan::reported(rows, &self.damage)
    }
}
