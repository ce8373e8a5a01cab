//! Rows about the namespace and its queues.

use bytes::Bytes;
use prost::Message;

use crate::command::QueueSettings;

/// The single row of [`crate::Table::Meta`].
#[derive(Clone, PartialEq, Message)]
pub(crate) struct MetaRecord {
    /// Machine time: the largest time of any batch.
    #[prost(uint64, tag = "1")]
    pub now_ms: u64,
    /// Last id given to a queue.
    #[prost(uint64, tag = "2")]
    pub last_queue: u64,
    /// Last sequence given to a message.
    #[prost(uint64, tag = "3")]
    pub last_sequence: u64,
    /// Last token given to a lease.
    #[prost(uint64, tag = "4")]
    pub last_token: u64,
    /// Last key given to a consumer.
    #[prost(uint64, tag = "5")]
    pub last_consumer: u64,
    /// No row of [`crate::Table::Timers`] stands below this key.
    #[prost(bytes = "bytes", tag = "6")]
    pub timer_floor: Bytes,
    /// Which tables the rows fill: see [`crate::migrate`].
    #[prost(uint32, tag = "7")]
    pub layout: u32,
    /// Last id given to an exchange.
    #[prost(uint64, tag = "8")]
    pub last_exchange: u64,
    /// Last id given to a binding.
    #[prost(uint64, tag = "9")]
    pub last_binding: u64,
    /// Last id given to a schedule.
    #[prost(uint64, tag = "10")]
    pub last_schedule: u64,
    /// Last number given to a producer.
    #[prost(uint64, tag = "11")]
    pub last_producer: u64,
    /// The cluster's id; 0: it has none yet.
    #[prost(fixed64, tag = "12")]
    pub cluster_id: u64,
    /// Nodes that hold, or held, data of the cluster, in order.
    #[prost(uint64, repeated, tag = "13")]
    pub holders: Vec<u64>,
}

/// A row of [`crate::Table::Queues`].
#[derive(Clone, PartialEq, Message)]
pub(crate) struct QueueRecord {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, required, tag = "2")]
    pub settings: QueueSettings,
    #[prost(uint64, tag = "3")]
    pub created_at_ms: u64,
    #[prost(message, required, tag = "4")]
    pub counts: Counts,
    #[prost(message, required, tag = "5")]
    pub totals: Totals,
    #[prost(message, repeated, tag = "6")]
    pub lanes: Vec<LaneRecord>,
    /// The consumer that was served last: the next one in order is served next.
    #[prost(uint64, tag = "7")]
    pub last_served: u64,
    /// Deleted: out of sight, its messages still to be swept.
    #[prost(bool, tag = "8")]
    pub deleted: bool,
    /// While deleted: messages below this sequence are swept already.
    #[prost(uint64, tag = "9")]
    pub swept_below: u64,
    /// With a single active consumer: which; 0: none.
    #[prost(uint64, tag = "10")]
    pub active_consumer: u64,
    /// How many rows of [`crate::Table::Dedupe`] it has.
    #[prost(uint64, tag = "11")]
    pub dedupe_entries: u64,
    /// When its idle timer fires; 0: it has none.
    #[prost(uint64, tag = "12")]
    pub idle_timer_ms: u64,
}

/// Messages of a queue, by state.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Counts {
    /// Waiting for their due time.
    #[prost(uint64, tag = "1")]
    pub scheduled: u64,
    /// Waiting for a consumer.
    #[prost(uint64, tag = "2")]
    pub ready: u64,
    /// Held by consumers.
    #[prost(uint64, tag = "3")]
    pub leased: u64,
    /// Body bytes of all of them.
    #[prost(uint64, tag = "4")]
    pub bytes: u64,
}

/// What happened in a queue since it was declared. Replicated, so that they go on over a failover.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Totals {
    /// Messages stored.
    #[prost(uint64, tag = "1")]
    pub published: u64,
    /// Leases granted.
    #[prost(uint64, tag = "2")]
    pub delivered: u64,
    /// Leases acknowledged.
    #[prost(uint64, tag = "3")]
    pub acknowledged: u64,
    /// Leases that ended without an acknowledgement.
    #[prost(uint64, tag = "4")]
    pub returned: u64,
    /// Messages that ended because their time was over.
    #[prost(uint64, tag = "5")]
    pub expired: u64,
    /// Messages that ended because they came back too often.
    #[prost(uint64, tag = "6")]
    pub exhausted: u64,
    /// Messages that ended because a consumer rejected them.
    #[prost(uint64, tag = "7")]
    pub rejected: u64,
    /// Messages that ended to make room.
    #[prost(uint64, tag = "8")]
    pub overflowed: u64,
    /// Messages that were recalled.
    #[prost(uint64, tag = "9")]
    pub recalled: u64,
    /// Of those that ended by expiry, delivery limit, rejection or overflow: how many went on as dead letters.
    #[prost(uint64, tag = "10")]
    pub dead_lettered: u64,
    /// Publishes that were refused because the queue was full.
    #[prost(uint64, tag = "11")]
    pub refused: u64,
    /// Publishes that were not stored because their `dedupe_id` was known.
    #[prost(uint64, tag = "12")]
    pub deduplicated: u64,
}

/// The ready messages of one priority.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct LaneRecord {
    #[prost(uint32, tag = "1")]
    pub priority: u32,
    #[prost(uint64, tag = "2")]
    pub count: u64,
    /// No ready message of this priority stands before this position: where the next read begins, so that it
    /// does not wade through the tombstones of what was consumed.
    #[prost(uint64, tag = "3")]
    pub head_ready_at_ms: u64,
    #[prost(uint64, tag = "4")]
    pub head_sequence: u64,
}
