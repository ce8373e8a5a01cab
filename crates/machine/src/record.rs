//! Values as they are stored: protobuf with a version byte in front.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use crate::command::{Content, QueueSettings};
use crate::store::{StoreError, Table};

/// Version of the value encodings; the first byte of every value.
const VERSION: u8 = 1;

/// Encodes a value.
pub(crate) fn encode(record: &impl Message) -> Bytes {
    let mut buffer = BytesMut::with_capacity(1 + record.encoded_len());
    buffer.put_u8(VERSION);
    record.encode_raw(&mut buffer);
    buffer.freeze()
}

/// Decodes a value of `table`; byte fields are slices of it.
pub(crate) fn decode<R: Message + Default>(table: Table, mut value: Bytes) -> Result<R, StoreError> {
    match value.first() {
        Some(&VERSION) => {
            R::decode(value.split_off(1)).map_err(|error| StoreError::Corrupt { table, reason: error.to_string() })
        }
        Some(version) => Err(StoreError::Corrupt {
            table,
            reason: format!("format version {version}, this node reads up to {VERSION}"),
        }),
        None => Err(StoreError::Corrupt { table, reason: "empty value".into() }),
    }
}

/// The single row of [`Table::Meta`].
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
    /// No row of [`Table::Timers`] stands below this key.
    #[prost(bytes = "bytes", tag = "6")]
    pub timer_floor: Bytes,
}

/// A row of [`Table::Queues`].
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
    /// Messages dropped because their time was over.
    #[prost(uint64, tag = "5")]
    pub expired: u64,
    /// Messages dropped because they came back too often.
    #[prost(uint64, tag = "6")]
    pub exhausted: u64,
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

/// A row of [`Table::Consumers`].
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ConsumerRecord {
    #[prost(string, tag = "1")]
    pub consumer_id: String,
    #[prost(uint64, tag = "2")]
    pub queue: u64,
    #[prost(uint64, tag = "3")]
    pub attachment: u64,
    #[prost(uint32, tag = "4")]
    pub credit: u32,
    #[prost(uint64, tag = "5")]
    pub session_timeout_ms: u64,
    /// When its leases return; 0 while a stream is attached.
    #[prost(uint64, tag = "6")]
    pub session_deadline_ms: u64,
}

/// A row of [`Table::Producers`].
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ProducerRecord {
    #[prost(uint64, tag = "1")]
    pub last_sequence: u64,
    #[prost(uint64, tag = "2")]
    pub last_seen_ms: u64,
}

/// A row of [`Table::Outcomes`]: what the producer's command was answered with.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct OutcomeRecord {
    /// Sequences of the stored messages.
    #[prost(uint64, repeated, tag = "1")]
    pub sequences: Vec<u64>,
    /// If the command was refused: the queue that was not there.
    #[prost(string, optional, tag = "2")]
    pub queue_not_found: Option<String>,
}

/// A row of [`Table::Messages`]: what never changes in a message's life.
#[derive(Clone, PartialEq, Message)]
pub struct MessageRecord {
    /// What the application put in.
    #[prost(message, required, tag = "1")]
    pub content: Content,
    /// 0 to 255.
    #[prost(uint32, tag = "2")]
    pub priority: u32,
    /// Machine time of the publish.
    #[prost(uint64, tag = "3")]
    pub published_at_ms: u64,
    /// When it was to become ready.
    #[prost(uint64, tag = "4")]
    pub ready_at_ms: u64,
    /// When it expires; 0: never.
    #[prost(uint64, tag = "5")]
    pub expires_at_ms: u64,
}

/// What must be known of a message to move it between the states, wherever its row stands, so that the
/// message itself need not be read.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct Ticket {
    #[prost(uint32, tag = "1")]
    pub priority: u32,
    #[prost(uint32, tag = "2")]
    pub delivery_count: u32,
    /// 0: never.
    #[prost(uint64, tag = "3")]
    pub expires_at_ms: u64,
    #[prost(uint64, tag = "4")]
    pub bytes: u64,
    /// A delayed return gave it another `ready_at_ms` than its message row says: it has a row in
    /// [`Table::Places`].
    #[prost(bool, tag = "5")]
    pub moved: bool,
}

/// A row of [`Table::Places`]: where a message stands that is not where its publish put it.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct PlaceRecord {
    #[prost(uint64, tag = "1")]
    pub ready_at_ms: u64,
}

/// A row of [`Table::Timers`] that ends a message's life: the ticket, and where the message waits.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct ExpiryRecord {
    #[prost(message, required, tag = "1")]
    pub ticket: Ticket,
    /// When it becomes, or became, ready.
    #[prost(uint64, tag = "2")]
    pub ready_at_ms: u64,
}

/// A row of [`Table::Leases`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct LeaseRecord {
    #[prost(message, required, tag = "1")]
    pub ticket: Ticket,
    #[prost(uint64, tag = "2")]
    pub ready_at_ms: u64,
    #[prost(uint64, tag = "3")]
    pub token: u64,
    /// 0: leased by a receive call.
    #[prost(uint64, tag = "4")]
    pub consumer: u64,
    #[prost(uint64, tag = "5")]
    pub deadline_ms: u64,
}
