//! Answers to commands, and effects for the leader to carry out.

use std::sync::Arc;

use bytes::Bytes;

use crate::command::Lease;
use crate::record::{FiringRecord, MessageRecord};

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
        results: Vec<PublishResult>,
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
    /// To a declaration of an exchange.
    ExchangeDeclared {
        /// False if it was there already.
        created: bool,
    },
    /// To a bind.
    Bound {
        /// False if it was there already.
        created: bool,
    },
    /// To an unbind.
    Unbound {
        /// False if there was no such binding.
        existed: bool,
    },
    /// To a revision by handle or by id.
    Revised {
        /// Sequence and outcome of each message named or found.
        outcomes: Vec<(u64, RevisionOutcome)>,
        /// There are more with this id, after the last of the outcomes.
        has_more: bool,
    },
    /// To a step of a revision by filter.
    RevisedMatching {
        /// How many messages were looked at.
        examined: u64,
        /// How many were revised.
        revised: u64,
        /// How many matched and were left alone because a consumer has them.
        leased: u64,
        /// Where to go on. `None`: that was all.
        next: Option<Bytes>,
    },
    /// To a declaration of a schedule.
    ScheduleDeclared {
        /// False if it was there already.
        created: bool,
    },
    /// To a trigger of a schedule: what became of the message.
    Triggered {
        /// As in the history.
        firing: FiringRecord,
    },
    /// Of commands with nothing to tell but that they were done.
    Done,
    /// The command changed nothing.
    Refused(Refusal),
}

/// What became of one published message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PublishResult {
    /// Stored in the queue that its routing key named.
    Stored {
        /// Its handle's.
        sequence: u64,
    },
    /// Routed by an exchange, or known by its `dedupe_id`: at least one.
    Routed(Vec<RoutedCopy>),
    /// No queue wanted it; it is not stored.
    Unroutable,
    /// This queue is full; it is stored in none.
    Rejected {
        /// The first such queue's name.
        queue: String,
    },
}

/// A message's copy in one queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoutedCopy {
    /// The queue's name.
    pub queue: String,
    /// Its handle's.
    pub sequence: u64,
    /// It was stored earlier, with the same `dedupe_id`; it may be gone by now.
    pub duplicate: bool,
}

/// What became of one message that was to be revised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum RevisionOutcome {
    /// It is recalled, rescheduled or expired.
    Done,
    /// A consumer has it, and it was left alone.
    Leased,
    /// It was acknowledged, expired, dead-lettered or recalled before.
    Gone,
    /// There was no message with this sequence so far.
    Unknown,
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
    #[error("setting `{field}` of a queue cannot be changed: delete and declare it anew")]
    SettingFixed { field: String },
    #[error("there is no setting `{field}`")]
    SettingUnknown { field: String },
    #[error("queue `{queue}` serves a single active consumer, and no receive calls")]
    SingleActiveConsumer { queue: String },
    #[error("exchange `{exchange}` does not exist")]
    ExchangeNotFound { exchange: String },
    #[error("exchange `{exchange}` exists with another `{field}`")]
    ExchangeDiffers { exchange: String, field: &'static str },
    #[error("exchange `{exchange}` has {bindings} bindings and `if_unused` is set")]
    ExchangeInUse { exchange: String, bindings: u64 },
    #[error("the namespace has {limit} exchanges, its limit")]
    TooManyExchanges { limit: usize },
    #[error("the namespace has {limit} bindings, its limit")]
    TooManyBindings { limit: usize },
    #[error("no queue is bound to exchange `{exchange}` for the key `{routing_key}`, and the message is mandatory")]
    Unroutable { exchange: String, routing_key: String },
    #[error("a message would reach more than {limit} queues, the limit")]
    TooManyTargets { limit: usize },
    #[error("the messages of the request would be stored {copies} times, over the limit of {limit}")]
    TooManyCopies { copies: usize, limit: usize },
    #[error("queue `{queue}` is full")]
    QueueFull { queue: String },
    #[error("the lease of message {sequence} in queue `{queue}` is lost")]
    LeaseLost { queue: String, sequence: u64 },
    #[error("the command says nothing of what to do, or was made by a newer version")]
    NothingToDo,
    #[error("the cursor is not one that this queue gave out")]
    BadCursor,
    #[error("schedule `{schedule}` does not exist")]
    ScheduleNotFound { schedule: String },
    #[error("schedule `{schedule}` exists with another definition")]
    ScheduleDiffers { schedule: String },
    #[error("the namespace has {limit} schedules, its limit")]
    TooManySchedules { limit: usize },
    #[error("{reason}")]
    BadRecurrence { reason: String },
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
    #[error("user `{user}` does not exist")]
    UserNotFound { user: String },
    #[error("user `{user}` exists")]
    UserExists { user: String },
    #[error("there are users already")]
    NotTheFirstUser,
    #[error("user `{user}` is the last administrator: make another one first")]
    LastAdministrator { user: String },
    #[error("there are {limit} users, the limit")]
    TooManyUsers { limit: usize },
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
    /// Who there is, or what somebody may do, is another than before. For every node, not only the leader.
    UsersChanged,
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
