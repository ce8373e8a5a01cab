//! Rows about producers, consumers and what they were told.

use prost::Message;

use super::Ticket;

/// A row of [`crate::Table::Consumers`].
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

/// A row of [`crate::Table::Producers`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct ProducerRecord {
    #[prost(uint64, tag = "1")]
    pub last_sequence: u64,
    #[prost(uint64, tag = "2")]
    pub last_seen_ms: u64,
    /// Names its timer.
    #[prost(uint64, tag = "3")]
    pub number: u64,
}

/// A row of [`crate::Table::Outcomes`]: what the producer's command was answered with.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct OutcomeRecord {
    /// If each message was simply stored in the queue that it named: their sequences.
    #[prost(uint64, repeated, tag = "1")]
    pub sequences: Vec<u64>,
    /// If the command was refused: the queue that was not there.
    #[prost(string, optional, tag = "2")]
    pub queue_not_found: Option<String>,
    /// If not each message was simply stored: what became of them.
    #[prost(message, repeated, tag = "3")]
    pub results: Vec<ResultRecord>,
    /// If the command was refused for another reason.
    #[prost(message, optional, tag = "4")]
    pub refusal: Option<RefusalRecord>,
}

/// What became of one message.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ResultRecord {
    /// Stored in the queue that it named, with this sequence; 0: see the others.
    #[prost(uint64, tag = "1")]
    pub sequence: u64,
    /// Its copies. None, and no sequence: unroutable or rejected.
    #[prost(message, repeated, tag = "2")]
    pub copies: Vec<CopyRecord>,
    /// The queue that was full.
    #[prost(string, optional, tag = "3")]
    pub rejected_by: Option<String>,
}

/// One copy of a routed message.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct CopyRecord {
    #[prost(string, tag = "1")]
    pub queue: String,
    #[prost(uint64, tag = "2")]
    pub sequence: u64,
    #[prost(bool, tag = "3")]
    pub duplicate: bool,
}

/// Why a producer's command was refused: what [`crate::Refusal`] needs to say it again.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RefusalRecord {
    #[prost(enumeration = "RefusalKind", tag = "1")]
    pub kind: i32,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(string, tag = "3")]
    pub routing_key: String,
    #[prost(uint64, tag = "4")]
    pub number: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum RefusalKind {
    ExchangeNotFound = 0,
    Unroutable = 1,
    TooManyTargets = 2,
    QueueFull = 3,
    LeaseLost = 4,
    TooManyCopies = 5,
}

/// A row of [`crate::Table::Leases`].
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

/// A row of [`crate::Table::Dedupe`].
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub(crate) struct DedupeRecord {
    #[prost(uint64, tag = "1")]
    pub sequence: u64,
    #[prost(uint64, tag = "2")]
    pub until_ms: u64,
}

/// The value of a [`crate::Table::Timers`] row that forgets a `dedupe_id` or a producer.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ForgetRecord {
    #[prost(string, tag = "1")]
    pub name: String,
}
