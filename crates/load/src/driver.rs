//! How a load reaches the system under test: one client library each, used as its documents say.

use bytes::Bytes;

/// Connections that consumers share when there are many of them.
pub const CONSUMER_CONNECTIONS: u32 = 8;

/// A client of a system under test.
pub trait Driver: Send + Sync + 'static {
    /// See [`Producer`].
    type Producer: Producer;
    /// See [`Consumer`].
    type Consumer: Consumer;

    /// Makes the queues: on disk, replicated threefold if there are three nodes.
    fn declare(&self, queues: &[String]) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Opens a producer with a connection of its own.
    fn producer(&self) -> impl Future<Output = anyhow::Result<Self::Producer>> + Send;

    /// Opens consumer `number` that may hold `credit` messages unacknowledged. Consumers share
    /// [`CONSUMER_CONNECTIONS`] connections.
    fn consumer(
        &self,
        queue: &str,
        number: u32,
        credit: u32,
    ) -> impl Future<Output = anyhow::Result<Self::Consumer>> + Send;
}

/// Publishes one message at a time, each with a confirm of its own.
pub trait Producer: Send + 'static {
    /// Resolves when the message is stored by a majority.
    type Confirm: Future<Output = anyhow::Result<()>> + Send + 'static;

    /// Hands a message over, for `due_ms` (since the Unix epoch) if it is delayed, and returns what resolves to its
    /// confirm.
    fn send(
        &mut self,
        queue: &str,
        body: Bytes,
        due_ms: Option<u64>,
    ) -> impl Future<Output = anyhow::Result<Self::Confirm>> + Send;

    /// Whether another publish may succeed after one that failed so: when a leader dies, some fail.
    fn may_pass(_error: &anyhow::Error) -> bool {
        true
    }
}

/// Receives messages, each to be acknowledged by itself.
pub trait Consumer: Send + 'static {
    /// See [`Delivery`].
    type Delivery: Delivery;

    /// The next message; none after the end. Cancel safe.
    fn next(&mut self) -> impl Future<Output = Option<anyhow::Result<Self::Delivery>>> + Send;

    /// Ends it.
    fn close(self) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// A message that was received.
pub trait Delivery: Send + 'static {
    /// Its body.
    fn body(&self) -> &[u8];

    /// The system says that it was delivered before.
    fn is_again(&self) -> bool;

    /// Acknowledges it. Dwell answers when that is committed; the peers' protocols have no answer, and this returns
    /// when the acknowledgement is on its way.
    fn ack(self) -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Whether an acknowledgement that failed so may have been accepted all the same.
    fn is_in_doubt(_error: &anyhow::Error) -> bool {
        false
    }
}
