//! Commands about consumers and leases, and of the node itself.

/// The right to settle one delivery.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Message)]
pub struct Lease {
    /// A number in the namespace or of the producer, from 1.
    #[prost(uint64, tag = "1")]
    pub sequence: u64,
    /// Changes with every delivery of the message.
    #[prost(uint64, tag = "2")]
    pub token: u64,
}

/// Opens a consumer on a queue, or resumes it, displacing the stream that had it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Attach {
    /// The queue's name.
    #[prost(string, tag = "1")]
    pub queue: String,
    /// Unique in the namespace; what a consumer is resumed by.
    #[prost(string, tag = "2")]
    pub consumer_id: String,
    /// How many messages it may hold.
    #[prost(uint32, tag = "3")]
    pub credit: u32,
    /// How long its leases outlive a broken stream.
    #[prost(uint64, tag = "4")]
    pub session_timeout_ms: u64,
    /// Leases that the client says it holds; the consumer's other leases are delivered again.
    #[prost(message, repeated, tag = "5")]
    pub holding: Vec<Lease>,
    /// Identifies the stream; chosen by the front end, never twice. Effects are addressed to it, so that the
    /// front end can expect them before the command is committed.
    #[prost(uint64, tag = "6")]
    pub attachment: u64,
}

/// The consumer's stream ended.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Detach {
    /// The consumer's key, from the reply to its attach.
    #[prost(uint64, tag = "1")]
    pub consumer: u64,
    /// The attachment that ended; another one by now, or none, makes this command do nothing.
    #[prost(uint64, tag = "2")]
    pub attachment: u64,
    /// True: the client closed, and its leases return at once. False: after its session timeout.
    #[prost(bool, tag = "3")]
    pub close: bool,
}

/// Changes how much an attached consumer may hold.
#[derive(Clone, PartialEq, prost::Message)]
pub struct SetCredit {
    /// The consumer's key, from the reply to its attach.
    #[prost(uint64, tag = "1")]
    pub consumer: u64,
    /// The stream that asks; another one by now makes this command do nothing.
    #[prost(uint64, tag = "2")]
    pub attachment: u64,
    /// How many messages it may hold.
    #[prost(uint32, tag = "3")]
    pub credit: u32,
}

/// Leases ready messages to nobody in particular.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Receive {
    /// The queue's name.
    #[prost(string, tag = "1")]
    pub queue: String,
    /// Leases no more than these.
    #[prost(uint32, tag = "2")]
    pub messages_max: u32,
    /// 0: the queue's.
    #[prost(uint64, tag = "3")]
    pub lease_timeout_ms: u64,
}

/// Ends leases, and the messages with them.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Ack {
    /// The queue's name.
    #[prost(string, tag = "1")]
    pub queue: String,
    /// What to settle; those that are not held are reported and left alone.
    #[prost(message, repeated, tag = "2")]
    pub leases: Vec<Lease>,
}

/// Returns leased messages to the queue.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Nack {
    /// The queue's name.
    #[prost(string, tag = "1")]
    pub queue: String,
    /// What to settle; those that are not held are reported and left alone.
    #[prost(message, repeated, tag = "2")]
    pub leases: Vec<Lease>,
    /// Ready again after this; 0: see `immediate`.
    #[prost(uint64, tag = "3")]
    pub delay_ms: u64,
    /// Not to be tried again: to the dead letters.
    #[prost(bool, tag = "4")]
    pub reject: bool,
    /// Without a delay: true means back to the old position, false means after the queue's backoff, if it has one.
    #[prost(bool, tag = "5")]
    pub immediate: bool,
}

/// Moves the deadline of leases.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Extend {
    /// The queue's name.
    #[prost(string, tag = "1")]
    pub queue: String,
    /// What to settle; those that are not held are reported and left alone.
    #[prost(message, repeated, tag = "2")]
    pub leases: Vec<Lease>,
    /// 0: the queue's.
    #[prost(uint64, tag = "3")]
    pub lease_timeout_ms: u64,
}

/// A pulse of the timer service. It is only a hint: the machine decides what is due by its own time, works
/// through a bounded number of due things, and reports when it wants the next pulse.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Release {}

/// A new leader took over: no consumer is attached to it yet, so all session timeouts begin.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DetachAll {}
