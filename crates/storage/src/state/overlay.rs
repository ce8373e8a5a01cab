//! Writes that are not yet in the database.

use std::collections::BTreeMap;
use std::collections::btree_map;
use std::ops::Bound;

use bytes::Bytes;
use dwell_machine::Table;

/// What is to become of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pending {
    /// The key may be in the database, and is to be deleted there before the value, if any, is put.
    pub delete_base: bool,
    /// The new value; none: the key is gone.
    pub value: Option<Bytes>,
}

/// The writes since the last commit, in order of their keys.
///
/// In tables that are written once, the database is told of deletions by RocksDB's single delete, which is
/// only defined for a key that was put exactly once since its last deletion. So a put must never follow a put
/// here, a deletion must not be swallowed by a later put of the same key, and a row that came and went between
/// two commits must leave no trace at all.
#[derive(Debug)]
pub(super) struct Overlay {
    /// By the table's tag.
    tables: Vec<BTreeMap<Bytes, Pending>>,
}

impl Overlay {
    pub fn new() -> Overlay {
        let tag_max = Table::ALL.iter().map(|table| *table as usize).max().unwrap_or_default();
        Overlay { tables: vec![BTreeMap::new(); tag_max + 1] }
    }

    pub fn get(&self, table: Table, key: &[u8]) -> Option<&Pending> {
        self.tables[table as usize].get(key)
    }

    /// The pending writes of keys with `from <= key < to`; `from < to` must hold.
    pub fn range(&self, table: Table, from: &[u8], to: &[u8]) -> btree_map::Range<'_, Bytes, Pending> {
        self.tables[table as usize].range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)))
    }

    pub fn put(&mut self, table: Table, key: &[u8], value: Bytes) {
        let rows = &mut self.tables[table as usize];
        match rows.get_mut(key) {
            Some(pending) => {
                assert!(
                    pending.value.is_none() || !table.is_written_once(),
                    "{table:?} row {key:02x?} was written twice"
                );
                pending.value = Some(value);
            }
            None => {
                rows.insert(Bytes::copy_from_slice(key), Pending { delete_base: false, value: Some(value) });
            }
        }
    }

    pub fn delete(&mut self, table: Table, key: &[u8]) {
        let rows = &mut self.tables[table as usize];
        match rows.get_mut(key) {
            // Put since the last commit and, by the contract of these tables, not in the database before.
            Some(pending) if table.is_written_once() && !pending.delete_base => {
                rows.remove(key);
            }
            Some(pending) => *pending = Pending { delete_base: true, value: None },
            None => {
                rows.insert(Bytes::copy_from_slice(key), Pending { delete_base: true, value: None });
            }
        }
    }

    /// All pending writes, with their tables.
    pub fn iter(&self) -> impl Iterator<Item = (Table, &Bytes, &Pending)> {
        Table::ALL
            .into_iter()
            .flat_map(|table| self.tables[table as usize].iter().map(move |(key, pending)| (table, key, pending)))
    }

    pub fn clear(&mut self) {
        self.tables.iter_mut().for_each(BTreeMap::clear);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Write<'a> = (Table, &'a [u8], bool, Option<&'a [u8]>);

    fn pending(overlay: &Overlay) -> Vec<Write<'_>> {
        overlay
            .iter()
            .map(|(table, key, pending)| (table, &key[..], pending.delete_base, pending.value.as_deref()))
            .collect()
    }

    #[test]
    fn a_row_written_once_that_came_and_went_leaves_no_trace() {
        let mut overlay = Overlay::new();
        overlay.put(Table::Messages, b"k", Bytes::from_static(b"v"));
        overlay.delete(Table::Messages, b"k");
        assert_eq!(pending(&overlay), []);
    }

    #[test]
    fn a_row_deleted_and_put_again_is_deleted_first() {
        let mut overlay = Overlay::new();
        overlay.delete(Table::Ready, b"k");
        overlay.put(Table::Ready, b"k", Bytes::from_static(b"new"));
        assert_eq!(pending(&overlay), [(Table::Ready, &b"k"[..], true, Some(&b"new"[..]))]);
        overlay.delete(Table::Ready, b"k");
        assert_eq!(pending(&overlay), [(Table::Ready, &b"k"[..], true, None)]);
        overlay.delete(Table::Ready, b"k");
        assert_eq!(pending(&overlay), [(Table::Ready, &b"k"[..], true, None)]);
    }

    #[test]
    fn a_row_that_may_be_overwritten_is_always_deleted_below_too() {
        let mut overlay = Overlay::new();
        overlay.put(Table::Queues, b"k", Bytes::from_static(b"1"));
        overlay.put(Table::Queues, b"k", Bytes::from_static(b"2"));
        assert_eq!(pending(&overlay), [(Table::Queues, &b"k"[..], false, Some(&b"2"[..]))]);
        overlay.delete(Table::Queues, b"k");
        assert_eq!(pending(&overlay), [(Table::Queues, &b"k"[..], true, None)]);
    }

    #[test]
    #[should_panic(expected = "was written twice")]
    fn writing_a_row_twice_that_is_written_once_is_a_bug() {
        let mut overlay = Overlay::new();
        overlay.put(Table::Timers, b"k", Bytes::new());
        overlay.put(Table::Timers, b"k", Bytes::new());
    }
}
