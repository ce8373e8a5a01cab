//! What can be asked of the machine, in the form in which it travels through the Raft log.
//!
//! The types are protobuf messages, because the log of an older node must be readable by a newer one: fields
//! are only ever added, tags never reused. One log entry is one [`Batch`], preceded by a format version.

mod cluster;
mod consumer;
mod exchange;
mod format;
mod message;
mod queue;
mod revision;
mod schedule;
mod user;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message as _;

pub use cluster::*;
pub use consumer::*;
pub use exchange::*;
pub use format::*;
pub use message::*;
pub use queue::*;
pub use revision::*;
pub use schedule::*;
pub use user::*;

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
    #[prost(
        oneof = "Command",
        tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27"
    )]
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
    #[prost(message, tag = "13")]
    UpdateQueue(UpdateQueue),
    #[prost(message, tag = "14")]
    DeclareExchange(DeclareExchange),
    #[prost(message, tag = "15")]
    DeleteExchange(DeleteExchange),
    #[prost(message, tag = "16")]
    Bind(Binding),
    #[prost(message, tag = "17")]
    Unbind(Unbind),
    #[prost(message, tag = "18")]
    Revise(Revise),
    #[prost(message, tag = "19")]
    ReviseById(ReviseById),
    #[prost(message, tag = "20")]
    ReviseMatching(ReviseMatching),
    #[prost(message, tag = "21")]
    Transact(Transact),
    #[prost(message, tag = "22")]
    DeclareSchedule(DeclareSchedule),
    #[prost(message, tag = "23")]
    DeleteSchedule(DeleteSchedule),
    #[prost(message, tag = "24")]
    ControlSchedule(ControlSchedule),
    #[prost(message, tag = "25")]
    Identify(Identify),
    #[prost(message, tag = "26")]
    PutUser(PutUser),
    #[prost(message, tag = "27")]
    RemoveUser(RemoveUser),
}
