//! RocksDB's column families: which table lives in which, and why.

use dwell_machine::Table;

/// Rows that live and die alike share memtables and files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    /// Small rows that are read by key.
    Default,
    /// Message bodies: by far the most bytes, written in the order of their keys, read by key, deleted once.
    Messages,
    /// Small rows that are read in order from a cursor and deleted at its front.
    Index,
}

impl Family {
    pub const ALL: [Family; 3] = [Family::Default, Family::Messages, Family::Index];

    /// The name on disk: never change one.
    pub fn name(self) -> &'static str {
        match self {
            Family::Default => rocksdb::DEFAULT_COLUMN_FAMILY_NAME,
            Family::Messages => "messages",
            Family::Index => "index",
        }
    }

    /// Where a table's rows are. Never move a table: its rows would be lost from sight.
    pub fn of(table: Table) -> Family {
        match table {
            // A shared body is written, read and deleted as a message's own one is.
            Table::Messages | Table::Bodies => Family::Messages,
            Table::Ready
            | Table::Timers
            | Table::Outcomes
            | Table::Due
            | Table::MessageIds
            | Table::Waiting => Family::Index,
            Table::Meta
            | Table::Queues
            | Table::Consumers
            | Table::Producers
            | Table::Leases
            | Table::Places
            | Table::Exchanges
            | Table::Bindings
            | Table::BodyShares
            // Counters: mostly read by key, to be overwritten.
            | Table::DueCounts
            | Table::Groups
            // Nearly every lookup of a new id finds nothing, which the filter of this family tells at once.
            | Table::Dedupe
            | Table::Schedules
            | Table::Users => Family::Default,
        }
    }
}

/// Tag of the record of what was applied, which no table may have.
pub(super) const APPLIED_TAG: u8 = 0;

/// Longest key that is tagged without an allocation. The machine's keys with a fixed length are well below.
const STACK_KEY_BYTES: usize = 96;

/// Calls `read` with the key as it is on disk: the table's tag, then the key.
pub(super) fn with_tagged<R>(tag: u8, key: &[u8], read: impl FnOnce(&[u8]) -> R) -> R {
    let mut buffer = [0; STACK_KEY_BYTES];
    match buffer.get_mut(..=key.len()) {
        Some(tagged) => {
            tagged[0] = tag;
            tagged[1..].copy_from_slice(key);
            read(tagged)
        }
        None => read(&tagged(tag, key)),
    }
}

/// The key as it is on disk.
pub(super) fn tagged(tag: u8, key: &[u8]) -> Vec<u8> {
    let mut tagged = Vec::with_capacity(1 + key.len());
    tagged.push(tag);
    tagged.extend_from_slice(key);
    tagged
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_tagged_alike_whatever_their_length() {
        for length in [0, 1, STACK_KEY_BYTES - 1, STACK_KEY_BYTES, STACK_KEY_BYTES + 1, 1000] {
            let key = vec![7; length];
            with_tagged(3, &key, |short| assert_eq!(short, tagged(3, &key), "{length} bytes"));
        }
    }

    #[test]
    fn no_table_has_the_tag_of_the_applied_record() {
        assert!(Table::ALL.iter().all(|table| *table as u8 != APPLIED_TAG));
    }
}
