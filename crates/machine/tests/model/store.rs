//! A store that watches what the machine does to it.

use bytes::Bytes;
use dwell_machine::{MemoryStore, Store, StoreError, StoreRead, Table};

/// A store that insists that a row of a table written once is there when it is deleted: one deleted in vain
/// leaves a tombstone in a log-structured store, for nothing. That none is put twice, nor
/// inserted where one is, `MemoryStore` sees to.
pub struct StrictStore<'a>(pub &'a mut MemoryStore);

impl StoreRead for StrictStore<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.0.get(table, key)
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.0.scan(table, from, to, limit)
    }
}

impl Store for StrictStore<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: Bytes) {
        self.0.put(table, key, value);
    }

    fn insert(&mut self, table: Table, key: &[u8], value: Bytes) {
        self.0.insert(table, key, value);
    }

    fn delete(&mut self, table: Table, key: &[u8]) {
        let is_there = matches!(self.0.get(table, key), Ok(Some(_)));
        assert!(is_there || !table.is_written_once(), "{table:?} row {key:02x?} was deleted without being there");
        self.0.delete(table, key);
    }
}
