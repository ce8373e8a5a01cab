//! What can be asked of the machine, in the form in which it travels through the Raft log.
//!
//! The types are protobuf messages, because the log of an older node must be readable by a newer one: fields
//! are only ever added, tags never reused. One log entry is one [`Batch`], preceded by a format version.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message as _;

/// Version of the batch encoding; the first byte of every log entry's payload.
const BATCH_VERSION: u8 = 1;

/// Commands decided together, with the leader's clock at that moment.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Batch {
    /// Milliseconds since the Unix epoch. The machine's time is the largest of these seen so far.
    #[prost(uint64, tag = "1")]
    pub at_ms: u64,
    /// In the order in which they are applied.
    #[prost(message, repeated, tag = "2")]
    pub commands: Vec<Envelope>,
}

/// A log entry's payload could not be read: it is from a newer version, or damaged.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum BatchError {
    #[error("log entry payload is empty")]
    Empty,
    #[error("log entry payload has format version {0}, this node reads up to {BATCH_VERSION}")]
    Version(u8),
    #[error("log entry payload does not decode: {0}")]
    Decode(#[from] prost::DecodeError),
    #[error("command {0} of the batch is of a kind that this node does not know")]
    UnknownCommand(usize),
}

impl Batch {
    /// Encodes commands as one log entry's payload.
    pub fn encode(at_ms: u64, commands: impl IntoIterator<Item = Command>) -> Bytes {
        let batch = Batch {
            at_ms,
            commands: commands.into_iter().map(|command| Envelope { command: Some(command) }).collect(),
        };
        let mut buffer = BytesMut::with_capacity(1 + batch.encoded_len());
        buffer.put_u8(BATCH_VERSION);
        batch.encode_raw(&mut buffer);
        buffer.freeze()
    }

    /// Decodes one log entry's payload. Bodies are slices of `payload`, not copies.
    pub fn decode(mut payload: Bytes) -> Result<(u64, Vec<Command>), BatchError> {
        let version = *payload.first().ok_or(BatchError::Empty)?;
        if version != BATCH_VERSION {
            return Err(BatchError::Version(version));
        }
        let batch = <Batch as prost::Message>::decode(payload.split_off(1))?;
        let commands = batch
            .commands
            .into_iter()
            .enumerate()
            .map(|(position, envelope)| envelope.command.ok_or(BatchError::UnknownCommand(position)))
            .collect::<Result<_, _>>()?;
        Ok((batch.at_ms, commands))
    }
}

/// One command; the enum cannot be repeated in protobuf by itself.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Envelope {
    /// Absent if it is of a kind that only a newer node knows.
    #[prost(oneof = "Command", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12")]
    pub command: Option<Command>,
}

/// One thing that is asked of the machine.
#[derive(Clone, PartialEq, prost::Oneof)]
#[allow(missing_docs, reason = "documented at the structs")]
pub enum Command {
    #[prost(message, tag = "1")]
    DeclareQueue(DeclareQueue),
    #[prost(message, tag = "2")]
    DeleteQueue(DeleteQueue),
    #[prost(message, tag = "3")]
    Publish(Publish),
    #[prost(message, tag = "4")]
    Attach(Attach),
    #[prost(message, tag = "5")]
    Detach(Detach),
    #[prost(message, tag = "6")]
    SetCredit(SetCredit),
    #[prost(message, tag = "7")]
    Receive(Receive),
    #[prost(message, tag = "8")]
    Ack(Ack),
    #[prost(message, tag = "9")]
    Nack(Nack),
    #[prost(message, tag = "10")]
    Extend(Extend),
    #[prost(message, tag = "11")]
    Release(Release),
    #[prost(message, tag = "12")]
    DetachAll(DetachAll),
}

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

/// A queue's settings, with the defaults filled in by the front end.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct QueueSettings {
    /// How long a delivered message may go unacknowledged.
    #[prost(uint64, tag = "1")]
    pub lease_timeout_ms: u64,
    /// 0: without limit.
    #[prost(uint32, tag = "2")]
    pub delivery_limit: u32,
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

/// Stores messages, all or none.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Publish {
    /// All are stored, or none.
    #[prost(message, repeated, tag = "1")]
    pub messages: Vec<PublishMessage>,
    /// Makes the command safe to repeat.
    #[prost(message, optional, tag = "2")]
    pub producer: Option<ProducerSequence>,
}

/// One message on its way in.
#[derive(Clone, PartialEq, prost::Message)]
pub struct PublishMessage {
    /// The queue's name.
    #[prost(string, tag = "1")]
    pub queue: String,
    /// What the application put in.
    #[prost(message, required, tag = "2")]
    pub content: Content,
    /// 0 to 255; higher first.
    #[prost(uint32, tag = "3")]
    pub priority: u32,
    /// Ready this long after machine time. Ignored if `deliver_at_ms` is set.
    #[prost(uint64, tag = "4")]
    pub delay_ms: u64,
    /// Ready at this time; 0: not set.
    #[prost(uint64, tag = "5")]
    pub deliver_at_ms: u64,
    /// Expires this long after becoming ready; 0: not set.
    #[prost(uint64, tag = "6")]
    pub ttl_ms: u64,
    /// Expires at this time; 0: not set.
    #[prost(uint64, tag = "7")]
    pub expire_at_ms: u64,
}

/// What the application put into a message; the machine stores it and does not look inside.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Content {
    /// The payload.
    #[prost(bytes = "bytes", tag = "1")]
    pub body: Bytes,
    /// Application headers.
    #[prost(btree_map = "string, string", tag = "2")]
    pub headers: BTreeMap<String, String>,
    /// MIME type of the body.
    #[prost(string, tag = "3")]
    pub content_type: String,
    /// Ties a reply to its request.
    #[prost(string, tag = "4")]
    pub correlation_id: String,
    /// Where a reply should go.
    #[prost(string, tag = "5")]
    pub reply_to: String,
    /// The application's own id.
    #[prost(string, tag = "6")]
    pub message_id: String,
}

/// Numbers a producer's publish commands from 1, so that a repeated one is stored once.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ProducerSequence {
    /// Unique to the producer.
    #[prost(string, tag = "1")]
    pub producer_id: String,
    /// A number in the namespace or of the producer, from 1.
    #[prost(uint64, tag = "2")]
    pub sequence: u64,
}

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
    /// 0: back to the old position.
    #[prost(uint64, tag = "3")]
    pub delay_ms: u64,
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
