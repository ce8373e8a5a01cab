//! Answers to commands, and effects for the leader to carry out.

use std::sync::Arc;

use crate::command::Lease;
use crate::record::MessageRecord;

/// Everything that came of one log entry.
#[derive(Debug, Default)]
pub struct Applied {
    /// One for each command, in order.
    pub replies: Vec<Reply>,
    /// For the leader to carry out, in order; followers drop them.
    pub effects: Vec<Effect>,
    /// Due times of the scheduled messages that this entry released, for the lateness metric.
    pub released_due_ms: Vec<u64>,
}

/// The answer to one command.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// To a declaration.
    QueueDeclared {
        /// False if it was there already.
        created: bool,
    },
    /// To a deletion.
    QueueDeleted {
        /// How many went with it.
        messages: u64,
    },
    /// To a publish.
    Published {
        /// One for each message of the command.
        sequences: Vec<u64>,
        /// The command was applied before, and this is its first outcome.
        duplicate: bool,
    },
    /// To an attach.
    Attached {
        /// Key of the consumer.
        consumer: u64,
        /// It existed, and kept its leases.
        resumed: bool,
        /// What the client said it holds and does not.
        lost: Vec<Lease>,
    },
    /// To a receive.
    Received {
        /// For matching [`Effect::Wake`] when nothing was ready.
        queue: u64,
        /// In order.
        deliveries: Vec<Delivery>,
    },
    /// To an ack, nack or extend.
    Settled {
        /// Leases that were no longer held; nothing was done to them.
        lost: Vec<Lease>,
    },
    /// Of commands whose outcome nobody waits for.
    Done,
    /// The command changed nothing.
    Refused(Refusal),
}

/// Why a command changed nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum Refusal {
    #[error("queue `{queue}` does not exist")]
    QueueNotFound { queue: String },
    #[error("queue `{queue}` exists with another `{field}`")]
    QueueDiffers { queue: String, field: &'static str },
    #[error("queue `{queue}` holds {messages} messages and `if_empty` is set")]
    QueueNotEmpty { queue: String, messages: u64 },
    #[error("queue `{queue}` has {consumers} consumers and `if_unused` is set")]
    QueueInUse { queue: String, consumers: u64 },
    #[error("the namespace has {limit} queues, its limit")]
    TooManyQueues { limit: usize },
    #[error("the namespace has {limit} consumers, its limit")]
    TooManyConsumers { limit: usize },
    #[error("the namespace has {limit} leases granted or promised as credit, its limit")]
    TooManyLeases { limit: usize },
    #[error("producer `{producer_id}` is expected to send sequence {expected}, not {got}")]
    SequenceGap { producer_id: String, expected: u64, got: u64 },
    #[error("sequence {got} of producer `{producer_id}` is older than the remembered ones, from {oldest}")]
    SequenceTooOld { producer_id: String, oldest: u64, got: u64 },
    #[error("consumer `{consumer_id}` belongs to queue `{queue}`")]
    ConsumerOfAnotherQueue { consumer_id: String, queue: String },
}

/// What the leader does about an applied entry.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "ids, and what the variants say")]
pub enum Effect {
    /// Send this to the consumer's stream.
    Deliver { consumer: u64, attachment: u64, delivery: Delivery },
    /// End the consumer's stream.
    CloseConsumer { consumer: u64, attachment: u64, reason: CloseReason },
    /// A message of this queue waits and no attached consumer could take it: wake a waiting receive call.
    Wake { queue: u64 },
}

/// Why a stream is ended from this side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloseReason {
    /// Another stream attached with the same consumer id.
    Displaced,
    /// Its queue is gone.
    QueueDeleted,
}

/// One message leased to somebody.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// Id of the queue.
    pub queue: u64,
    /// Names the message.
    pub sequence: u64,
    /// Names this delivery of it.
    pub token: u64,
    /// How often it came back before.
    pub delivery_count: u32,
    /// When it became, or was to become, ready.
    pub ready_at_ms: u64,
    /// When the lease times out.
    pub deadline_ms: u64,
    /// The message, if this entry stored it; otherwise it is to be read from the store, so that followers need
    /// not.
    pub message: Option<Arc<MessageRecord>>,
}
