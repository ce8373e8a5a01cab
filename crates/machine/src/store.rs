//! The ordered keys and values that the machine keeps its state in.

use std::collections::BTreeMap;

use bytes::Bytes;

/// A storage fault: nothing of the machine's doing, and fatal to the node.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum StoreError {
    #[error("reading {table:?} failed: {reason}")]
    Read { table: Table, reason: String },
    #[error("a file with {table:?} is damaged: {reason}")]
    Damaged { table: Table, reason: String },
    #[error("a value of {table:?} is not readable: {reason}")]
    Corrupt { table: Table, reason: String },
}

/// The kinds of rows. A table's tag is the first byte of its keys on disk: never change or reuse one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Table {
    /// One row: time, counters, positions.
    Meta = 1,
    /// Queue id → settings, counts, lanes.
    Queues = 2,
    /// Consumer → session.
    Consumers = 3,
    /// Producer id → last sequence.
    Producers = 4,
    /// Producer id and sequence → outcome.
    Outcomes = 5,
    /// Queue and sequence → message.
    Messages = 6,
    /// Queue, priority, time of becoming ready and sequence → ticket.
    Ready = 7,
    /// Due time → what falls due.
    Timers = 8,
    /// Queue and sequence → lease.
    Leases = 9,
    /// Queue and sequence → place, of messages that moved.
    Places = 10,
    /// Exchange → declaration.
    Exchanges = 11,
    /// Binding → what is bound to what.
    Bindings = 12,
    /// Body → bytes, of a message that was stored in several queues.
    Bodies = 13,
    /// Body → how many messages share it.
    BodyShares = 14,
    /// Queue, due time and sequence of a scheduled message → nothing.
    Due = 15,
    /// Queue, level and stretch of time → how many messages are due in it.
    DueCounts = 16,
    /// Queue, hash of the application message id and sequence → nothing.
    MessageIds = 17,
    /// Queue, ordering group, priority, time of becoming ready and sequence → ticket, of ready messages that wait
    /// for others of their group.
    Waiting = 18,
    /// Queue and ordering group → who is next.
    Groups = 19,
    /// Queue and `dedupe_id` → first message.
    Dedupe = 20,
    /// Schedule → definition and state.
    Schedules = 21,
    /// User name → hash of the password, permissions.
    Users = 22,
}

impl Table {
    /// Every table.
    pub const ALL: [Table; 22] = [
        Table::Meta,
        Table::Queues,
        Table::Consumers,
        Table::Producers,
        Table::Outcomes,
        Table::Messages,
        Table::Ready,
        Table::Timers,
        Table::Leases,
        Table::Places,
        Table::Exchanges,
        Table::Bindings,
        Table::Bodies,
        Table::BodyShares,
        Table::Due,
        Table::DueCounts,
        Table::MessageIds,
        Table::Waiting,
        Table::Groups,
        Table::Dedupe,
        Table::Schedules,
        Table::Users,
    ];

    /// True if a key of this table is never put again before it was deleted. A log-structured store can then
    /// drop the pair without carrying a tombstone down (RocksDB's single delete).
    pub fn is_written_once(self) -> bool {
        matches!(
            self,
            Table::Outcomes
                | Table::Messages
                | Table::Ready
                | Table::Timers
                | Table::Places
                | Table::Bodies
                | Table::Due
                | Table::MessageIds
                | Table::Waiting
        )
    }
}

/// Ordered rows, for reading.
pub trait StoreRead {
    /// The value of a key.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Up to `limit` rows with `from <= key < to`, in order.
    fn scan(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError>;
}

/// Ordered rows. Writes are seen by the reads that follow; when and how they become durable is the
/// implementation's business, as long as all writes of a log entry become so together.
pub trait Store: StoreRead {
    /// Sets the value of a key.
    fn put(&mut self, table: Table, key: &[u8], value: Bytes);

    /// Sets the value of a key that is not there. A store that knows so need not write a row that comes and goes.
    fn insert(&mut self, table: Table, key: &[u8], value: Bytes);

    /// Removes a key, if it is there.
    fn delete(&mut self, table: Table, key: &[u8]);
}

/// A store in memory, for tests and simulation.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct MemoryStore {
    rows: BTreeMap<(Table, Bytes), Bytes>,
}

impl MemoryStore {
    /// All rows in order, for comparing two stores.
    pub fn rows(&self) -> impl Iterator<Item = (Table, &Bytes, &Bytes)> {
        self.rows.iter().map(|((table, key), value)| (*table, key, value))
    }
}

impl StoreRead for MemoryStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.rows.get(&(table, Bytes::copy_from_slice(key))).cloned())
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let from = (table, Bytes::copy_from_slice(from));
        let to = (table, Bytes::copy_from_slice(to));
        if from >= to {
            return Ok(Vec::new());
        }
        Ok(self.rows.range(from..to).take(limit).map(|((_, key), value)| (key.clone(), value.clone())).collect())
    }
}

impl Store for MemoryStore {
    fn put(&mut self, table: Table, key: &[u8], value: Bytes) {
        let previous = self.rows.insert((table, Bytes::copy_from_slice(key)), value);
        assert!(previous.is_none() || !table.is_written_once(), "{table:?} row {key:02x?} was written twice");
    }

    fn insert(&mut self, table: Table, key: &[u8], value: Bytes) {
        let previous = self.rows.insert((table, Bytes::copy_from_slice(key)), value);
        assert!(previous.is_none(), "{table:?} row {key:02x?} was there already");
    }

    fn delete(&mut self, table: Table, key: &[u8]) {
        self.rows.remove(&(table, Bytes::copy_from_slice(key)));
    }
}
