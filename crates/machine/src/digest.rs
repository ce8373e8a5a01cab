//! A digest of all rows: equal on two replicas exactly if their rows are, but for chance.

use std::fmt;
use std::hash::Hasher as _;

use siphasher::sip128::{Hasher128 as _, SipHasher13};

use crate::store::{MemoryStore, Table};

/// The digest of a state's rows: 128 bits. The same on every machine, and in every version that has the same rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateDigest {
    /// The hash of all rows.
    pub hash: [u8; 16],
    /// How many rows there are.
    pub rows: u64,
    /// The bytes of their keys and values.
    pub bytes: u64,
}

impl fmt::Display for StateDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.hash.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Takes rows and makes a [`StateDigest`] of them.
#[derive(Debug, Default)]
pub struct DigestBuilder {
    hasher: SipHasher13,
    rows: u64,
    bytes: u64,
}

impl DigestBuilder {
    /// Adds a row. They come in the order of their tables' tags, and within a table in that of their keys.
    pub fn add(&mut self, table: Table, key: &[u8], value: &[u8]) {
        // Lengths before contents: no two lists of rows are the same bytes. All with a fixed byte order.
        self.hasher.write(&[table as u8]);
        self.hasher.write(&(key.len() as u64).to_be_bytes());
        self.hasher.write(key);
        self.hasher.write(&(value.len() as u64).to_be_bytes());
        self.hasher.write(value);
        self.rows += 1;
        self.bytes += (key.len() + value.len()) as u64;
    }

    /// The digest of the rows so far.
    pub fn finish(&self) -> StateDigest {
        StateDigest { hash: self.hasher.finish128().as_bytes(), rows: self.rows, bytes: self.bytes }
    }
}

impl MemoryStore {
    /// The digest of all rows.
    pub fn digest(&self) -> StateDigest {
        let mut digest = DigestBuilder::default();
        self.rows().for_each(|(table, key, value)| digest.add(table, key, value));
        digest.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store as _;

    fn digest_of(rows: &[(Table, &'static str, &'static str)]) -> StateDigest {
        let mut store = MemoryStore::default();
        for (table, key, value) in rows {
            store.put(*table, key.as_bytes(), (*value).into());
        }
        store.digest()
    }

    #[test]
    fn it_is_stable() {
        let digest = digest_of(&[(Table::Queues, "a", "b"), (Table::Schedules, "c", "")]);
        assert_eq!((digest.rows, digest.bytes), (2, 3));
        assert_eq!(digest.to_string(), "19e0fbeb4f3f24ebea3c7cece58fb3d5");
        assert_eq!(digest_of(&[]).to_string(), "0db4d9615d9334210333fb31d05e1cb9");
    }

    #[test]
    fn the_order_of_writes_is_of_no_matter() {
        let rows = [(Table::Schedules, "c", "d"), (Table::Queues, "b", ""), (Table::Queues, "a", "")];
        let mut reversed = rows;
        reversed.reverse();
        assert_eq!(digest_of(&rows), digest_of(&reversed));
    }

    #[test]
    fn a_row_more_or_less_or_another_key_value_or_table_shows() {
        let original = digest_of(&[(Table::Queues, "ab", "cd"), (Table::Queues, "b", "c")]);
        for other in [
            vec![(Table::Queues, "ab", "cd")],
            vec![(Table::Queues, "ab", "cd"), (Table::Queues, "b", "c"), (Table::Queues, "c", "")],
            vec![(Table::Queues, "ab", "cd"), (Table::Queues, "b", "d")],
            vec![(Table::Queues, "ab", "cd"), (Table::Queues, "c", "c")],
            vec![(Table::Queues, "ab", "cd"), (Table::Meta, "b", "c")],
            // The same bytes, cut elsewhere.
            vec![(Table::Queues, "a", "bcd"), (Table::Queues, "b", "c")],
        ] {
            assert_ne!(digest_of(&other), original, "{other:?}");
        }
    }

    #[test]
    fn tables_are_in_the_order_of_their_tags() {
        assert!(Table::ALL.is_sorted_by_key(|table| *table as u8));
        assert!(Table::ALL.is_sorted());
    }
}
