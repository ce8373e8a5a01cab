//! Commands about queues.

/// Makes a queue, or confirms that it exists with these settings.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeclareQueue {
    /// The queue's name.
    #[prost(string, tag = "1")]
    pub queue: String,
    /// With the defaults filled in.
    #[prost(message, required, tag = "2")]
    pub settings: QueueSettings,
}

/// A queue's settings, with the defaults filled in by the front end. What is 0 or absent is off.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct QueueSettings {
    /// How long a delivered message may go unacknowledged.
    #[prost(uint64, tag = "1")]
    pub lease_timeout_ms: u64,
    /// 0: without limit.
    #[prost(uint32, tag = "2")]
    pub delivery_limit: u32,
    /// Delay of messages that bring no time of their own.
    #[prost(uint64, tag = "3")]
    pub default_delay_ms: u64,
    /// Longest time that a message is ready before it expires; a message's own shorter one wins.
    #[prost(uint64, tag = "4")]
    pub message_ttl_ms: u64,
    /// The queue is deleted when nobody has used it for this long.
    #[prost(uint64, tag = "5")]
    pub idle_ttl_ms: u64,
    /// Most messages it holds, in any state.
    #[prost(uint64, tag = "6")]
    pub messages_max: u64,
    /// Most body bytes it holds, in any state.
    #[prost(uint64, tag = "7")]
    pub bytes_max: u64,
    /// What gives way when it is full.
    #[prost(enumeration = "Overflow", tag = "8")]
    pub overflow: i32,
    /// Where its dead letters go; absent: nowhere.
    #[prost(message, optional, tag = "9")]
    pub dead_letter: Option<DeadLetter>,
    /// Higher priorities are lowered to this; absent: 255.
    #[prost(uint32, optional, tag = "10")]
    pub priority_max: Option<u32>,
    /// How long a `dedupe_id` is remembered.
    #[prost(uint64, tag = "11")]
    pub dedupe_window_ms: u64,
    /// All messages go to one consumer, until its session ends.
    #[prost(bool, tag = "12")]
    pub single_active_consumer: bool,
    /// Nothing is delivered.
    #[prost(bool, tag = "13")]
    pub paused: bool,
    /// When a returned message becomes ready again; absent: at once, at its old position.
    #[prost(message, optional, tag = "14")]
    pub backoff: Option<Backoff>,
    /// A ready message gains one priority for each such time that it waits.
    #[prost(uint64, tag = "15")]
    pub aging_ms: u64,
}

/// What gives way when a message comes to a full queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum Overflow {
    /// The newcomer.
    Reject = 0,
    /// The first ready message of the lowest priority.
    DropHead = 1,
    /// The same, as a dead letter.
    DeadLetterHead = 2,
}

/// Where dead letters go.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DeadLetter {
    /// Empty: the default exchange.
    #[prost(string, tag = "1")]
    pub exchange: String,
    /// Absent: the key that the message was published with.
    #[prost(string, optional, tag = "2")]
    pub routing_key: Option<String>,
}

/// How long a returned message waits before it is ready again, by how often it came back.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Backoff {
    /// How the wait grows.
    #[prost(enumeration = "BackoffKind", tag = "1")]
    pub kind: i32,
    /// The first wait.
    #[prost(uint64, tag = "2")]
    pub base_ms: u64,
    /// The longest wait; 0: ten years.
    #[prost(uint64, tag = "3")]
    pub cap_ms: u64,
    /// Up to this share of the wait, in percent, is taken off, by chance.
    #[prost(uint32, tag = "4")]
    pub jitter_percent: u32,
}

/// How a wait grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum BackoffKind {
    /// `base`, always.
    Fixed = 0,
    /// `base`, 2 `base`, 3 `base`…
    Linear = 1,
    /// `base`, 2 `base`, 4 `base`…
    Exponential = 2,
}

/// Changes a queue's settings.
#[derive(Clone, PartialEq, prost::Message)]
pub struct UpdateQueue {
    /// The queue's name.
    #[prost(string, tag = "1")]
    pub queue: String,
    /// The new values; only those of `fields` are looked at.
    #[prost(message, required, tag = "2")]
    pub settings: QueueSettings,
    /// Names of the settings to change.
    #[prost(string, repeated, tag = "3")]
    pub fields: Vec<String>,
}

/// Removes a queue at once from sight; its messages are swept in bounded steps by [`Release`].
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeleteQueue {
    /// The queue's name.
    #[prost(string, tag = "1")]
    pub queue: String,
    /// Refuse if it holds a message.
    #[prost(bool, tag = "2")]
    pub if_empty: bool,
    /// Refuse if it has a consumer.
    #[prost(bool, tag = "3")]
    pub if_unused: bool,
}
