//! Rows about messages.

use bytes::Bytes;
use prost::Message;

use crate::command::Content;

/// A row of [`crate::Table::Messages`]: what never changes in a message's life.
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
    /// When it was to expire; 0: never.
    #[prost(uint64, tag = "5")]
    pub expires_at_ms: u64,
    /// The exchange that it was published to; empty: the default one.
    #[prost(string, tag = "6")]
    pub exchange: String,
    /// The key that it was published with; empty with the default exchange: the queue's name.
    #[prost(string, tag = "7")]
    pub routing_key: String,
    /// Its ordering group; empty: none.
    #[prost(string, tag = "8")]
    pub group: String,
    /// How long it may be ready, the queue's limit included; 0: as long as it likes.
    #[prost(uint64, tag = "9")]
    pub ttl_ms: u64,
    /// The absolute time that it was to expire at at the latest; 0: none.
    #[prost(uint64, tag = "10")]
    pub expire_at_ms: u64,
    /// The body is in this row of [`crate::Table::Bodies`], shared with other queues' copies; 0: it is here.
    #[prost(uint64, tag = "11")]
    pub shared_body: u64,
    /// How it came to be a dead letter, the newest first.
    #[prost(message, repeated, tag = "12")]
    pub deaths: Vec<Death>,
}

/// How often, when and why a message died in a queue.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Death {
    /// The queue that it died in.
    #[prost(string, tag = "1")]
    pub queue: String,
    /// Why.
    #[prost(enumeration = "DeathReason", tag = "2")]
    pub reason: i32,
    /// The exchange that it had come to the queue by.
    #[prost(string, tag = "3")]
    pub exchange: String,
    /// The key that it had come to the queue with.
    #[prost(string, tag = "4")]
    pub routing_key: String,
    /// How often it died there for this reason.
    #[prost(uint64, tag = "5")]
    pub count: u64,
    /// Machine time of the first of those.
    #[prost(uint64, tag = "6")]
    pub first_at_ms: u64,
    /// Machine time of the last of those.
    #[prost(uint64, tag = "7")]
    pub last_at_ms: u64,
}

/// Why a message became a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum DeathReason {
    /// Its time was over.
    Expired = 0,
    /// A consumer rejected it.
    Rejected = 1,
    /// It came back too often.
    DeliveryLimit = 2,
    /// It had to make room.
    Overflow = 3,
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
    /// [`crate::Table::Places`].
    #[prost(bool, tag = "5")]
    pub moved: bool,
    /// The row of [`crate::Table::Bodies`] that its body is in; 0: none.
    #[prost(uint64, tag = "6")]
    pub shared_body: u64,
    /// Hash of its application message id, under which it stands in [`crate::Table::MessageIds`]; 0: it has none.
    #[prost(fixed64, tag = "7")]
    pub message_id: u64,
    /// Hash of its ordering group; 0: none.
    #[prost(fixed64, tag = "8")]
    pub group: u64,
}

/// A row of [`crate::Table::Places`]: where a message stands that is not where its publish put it.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct PlaceRecord {
    #[prost(uint64, tag = "1")]
    pub ready_at_ms: u64,
    /// Absent: when its message row says.
    #[prost(uint64, optional, tag = "2")]
    pub expires_at_ms: Option<u64>,
}

/// A row of [`crate::Table::Timers`] that ends a message's life: the ticket, and where the message waits.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct ExpiryRecord {
    #[prost(message, required, tag = "1")]
    pub ticket: Ticket,
    /// When it becomes, or became, ready.
    #[prost(uint64, tag = "2")]
    pub ready_at_ms: u64,
}

/// A row of [`crate::Table::Groups`]: an ordering group of a queue that has messages ready or delivered.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct GroupRecord {
    /// The message that was delivered and is not gone, leased or returned; 0: none.
    #[prost(uint64, tag = "1")]
    pub current: u64,
    /// Without a current one: the message that stands in [`crate::Table::Ready`] for the group; 0: none.
    #[prost(message, optional, tag = "2")]
    pub candidate: Option<CandidateRecord>,
    /// How many stand in [`crate::Table::Waiting`].
    #[prost(uint64, tag = "3")]
    pub waiting: u64,
}

/// The first message of an ordering group.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct CandidateRecord {
    #[prost(uint32, tag = "1")]
    pub priority: u32,
    #[prost(uint64, tag = "2")]
    pub ready_at_ms: u64,
    #[prost(uint64, tag = "3")]
    pub sequence: u64,
}

/// A row of [`crate::Table::Bodies`].
#[derive(Clone, PartialEq, Message)]
pub(crate) struct BodyRecord {
    #[prost(bytes = "bytes", tag = "1")]
    pub body: Bytes,
}

/// A row of [`crate::Table::BodyShares`] or [`crate::Table::DueCounts`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct CountRecord {
    #[prost(uint64, tag = "1")]
    pub count: u64,
}
