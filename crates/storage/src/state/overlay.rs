//! Writes that are not yet in the database: those since the last commit above those that were committed.

use std::cmp::Ordering;
use std::collections::{BTreeMap, btree_map};
use std::ops::Bound;

use bytes::Bytes;
use dwell_machine::Table;
use smallvec::SmallVec;

/// A row's key, within the map itself unless it is one of the few long ones: a look-up compares some fifteen keys, and each
/// that is somewhere else in memory is waited for.
pub(super) type Key = SmallVec<[u8; 32]>;

/// What is to become of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pending {
    /// Something may be stored under the key below this overlay.
    pub in_base: bool,
    /// The new value; none: the key is gone.
    pub value: Option<Bytes>,
}

/// Writes that what lies below does not have yet, in order of their keys.
///
/// In tables that are written once, the database is told of deletions by RocksDB's single delete, which is
/// only defined for a key that was put exactly once since its last deletion. So a put must never follow a put
/// here, a deletion must not be swallowed by a later put of the same key, and a row that came and went here must leave
/// no trace at all. That last rule also is what keeps a message that is soon consumed from ever reaching the database.
#[derive(Debug)]
pub(super) struct Overlay {
    /// By the table's tag.
    tables: Vec<BTreeMap<Key, Pending>>,
    bytes: usize,
}

/// What one pending write takes besides its key and value, about (bytes).
const PENDING_BYTES: usize = 64;

fn weight(key: &[u8], value: Option<&Bytes>) -> usize {
    PENDING_BYTES + key.len() + value.map_or(0, Bytes::len)
}

impl Overlay {
    pub fn new() -> Overlay {
        let tag_max = Table::ALL.iter().map(|table| *table as usize).max().unwrap_or_default();
        Overlay { tables: vec![BTreeMap::new(); tag_max + 1], bytes: 0 }
    }

    /// What it takes in memory, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn get(&self, table: Table, key: &[u8]) -> Option<&Pending> {
        self.tables[table as usize].get(key)
    }

    /// The pending writes of keys with `from <= key < to`; `from < to` must hold.
    pub fn range(&self, table: Table, from: &[u8], to: &[u8]) -> btree_map::Range<'_, Key, Pending> {
        self.tables[table as usize].range::<[u8], _>((Bound::Included(from), Bound::Excluded(to)))
    }

    /// Sets a value; the key may be below already, unless its table is written once.
    pub fn put(&mut self, table: Table, key: &[u8], value: Bytes) {
        self.set(table, key, value, !table.is_written_once());
    }

    /// Sets the value of a key that there is not, here or below.
    pub fn insert(&mut self, table: Table, key: &[u8], value: Bytes) {
        self.set(table, key, value, false);
    }

    fn set(&mut self, table: Table, key: &[u8], value: Bytes, in_base: bool) {
        let rows = &mut self.tables[table as usize];
        let length = value.len();
        match rows.get_mut(key) {
            Some(pending) => {
                assert!(
                    pending.value.is_none() || !table.is_written_once(),
                    "{table:?} row {key:02x?} was written twice"
                );
                let before = pending.value.replace(value);
                self.bytes = self.bytes + length - before.map_or(0, |before| before.len());
            }
            None => {
                self.bytes += weight(key, Some(&value));
                rows.insert(Key::from_slice(key), Pending { in_base, value: Some(value) });
            }
        }
    }

    pub fn delete(&mut self, table: Table, key: &[u8]) {
        let rows = &mut self.tables[table as usize];
        match rows.get_mut(key) {
            Some(pending) if pending.in_base => {
                self.bytes -= pending.value.take().map_or(0, |value| value.len());
            }
            // It came and went.
            Some(pending) => {
                self.bytes -= weight(key, pending.value.as_ref());
                rows.remove(key);
            }
            None => {
                self.bytes += weight(key, None);
                rows.insert(Key::from_slice(key), Pending { in_base: true, value: None });
            }
        }
    }

    /// Takes in the writes of the overlay above, which becomes empty.
    pub fn absorb(&mut self, above: &mut Overlay) {
        for table in Table::ALL {
            for (key, pending) in std::mem::take(&mut above.tables[table as usize]) {
                match self.tables[table as usize].entry(key) {
                    btree_map::Entry::Vacant(place) => {
                        self.bytes += weight(place.key(), pending.value.as_ref());
                        place.insert(pending);
                    }
                    btree_map::Entry::Occupied(mut place) => {
                        self.bytes -= weight(place.key(), place.get().value.as_ref());
                        if pending.value.is_none() && !place.get().in_base {
                            place.remove();
                            continue;
                        }
                        self.bytes += weight(place.key(), pending.value.as_ref());
                        place.get_mut().value = pending.value;
                    }
                }
            }
        }
        above.bytes = 0;
    }

    /// All pending writes, with their tables.
    pub fn iter(&self) -> impl Iterator<Item = (Table, &Key, &Pending)> {
        Table::ALL
            .into_iter()
            .flat_map(|table| self.tables[table as usize].iter().map(move |(key, pending)| (table, key, pending)))
    }

    pub fn clear(&mut self) {
        self.tables.iter_mut().for_each(BTreeMap::clear);
        self.bytes = 0;
    }
}

/// The writes of two overlays in order of their keys; where both have a key, the upper one's.
pub(super) fn layered<'a>(
    upper: impl Iterator<Item = (&'a Key, &'a Pending)>,
    lower: impl Iterator<Item = (&'a Key, &'a Pending)>,
) -> impl Iterator<Item = (&'a Key, &'a Pending)> {
    let (mut upper, mut lower) = (upper.peekable(), lower.peekable());
    std::iter::from_fn(move || {
        let order = match (upper.peek(), lower.peek()) {
            (Some((above, _)), Some((below, _))) => above.cmp(below),
            (Some(_), None) => Ordering::Less,
            (None, _) => Ordering::Greater,
        };
        if order == Ordering::Equal {
            lower.next();
        }
        if order == Ordering::Greater { lower.next() } else { upper.next() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    type Write<'a> = (Table, &'a [u8], bool, Option<&'a [u8]>);

    fn pending(overlay: &Overlay) -> Vec<Write<'_>> {
        overlay
            .iter()
            .map(|(table, key, pending)| (table, &key[..], pending.in_base, pending.value.as_deref()))
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
    fn a_row_that_was_inserted_and_overwritten_leaves_no_trace_when_it_goes() {
        let mut overlay = Overlay::new();
        overlay.insert(Table::Leases, b"k", Bytes::from_static(b"1"));
        overlay.put(Table::Leases, b"k", Bytes::from_static(b"2"));
        overlay.delete(Table::Leases, b"k");
        assert_eq!((pending(&overlay), overlay.bytes()), (vec![], 0));
    }

    #[test]
    fn what_goes_in_a_later_commit_than_it_came_in_leaves_no_trace() {
        let (mut lower, mut upper) = (Overlay::new(), Overlay::new());
        upper.put(Table::Messages, b"k", Bytes::from_static(b"v"));
        upper.delete(Table::Ready, b"old");
        lower.absorb(&mut upper);
        assert_eq!((pending(&upper), upper.bytes()), (vec![], 0));
        upper.delete(Table::Messages, b"k");
        upper.put(Table::Ready, b"old", Bytes::from_static(b"new"));
        assert_eq!(layered_keys(&upper, &lower, Table::Messages), [(&b"k"[..], None)]);
        lower.absorb(&mut upper);
        assert_eq!(pending(&lower), [(Table::Ready, &b"old"[..], true, Some(&b"new"[..]))]);
        lower.clear();
        assert_eq!(lower.bytes(), 0);
    }

    #[test]
    fn of_two_layers_the_upper_one_counts() {
        let (mut lower, mut upper) = (Overlay::new(), Overlay::new());
        for key in [b"a", b"b", b"d"] {
            lower.put(Table::Queues, key, Bytes::from_static(b"lower"));
        }
        upper.put(Table::Queues, b"b", Bytes::from_static(b"upper"));
        upper.put(Table::Queues, b"c", Bytes::from_static(b"upper"));
        upper.delete(Table::Queues, b"d");
        let expected: [(&[u8], Option<&[u8]>); 4] =
            [(b"a", Some(b"lower")), (b"b", Some(b"upper")), (b"c", Some(b"upper")), (b"d", None)];
        assert_eq!(layered_keys(&upper, &lower, Table::Queues), expected);
    }

    fn layered_keys<'a>(upper: &'a Overlay, lower: &'a Overlay, table: Table) -> Vec<(&'a [u8], Option<&'a [u8]>)> {
        let range = |overlay: &'a Overlay| overlay.range(table, b"", b"~");
        let rows = layered(range(upper), range(lower));
        rows.map(|(key, pending)| (&key[..], pending.value.as_deref())).collect()
    }

    #[test]
    fn a_row_that_may_be_overwritten_is_always_deleted_below_too() {
        let mut overlay = Overlay::new();
        overlay.put(Table::Queues, b"k", Bytes::from_static(b"1"));
        overlay.put(Table::Queues, b"k", Bytes::from_static(b"2"));
        assert_eq!(pending(&overlay), [(Table::Queues, &b"k"[..], true, Some(&b"2"[..]))]);
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
