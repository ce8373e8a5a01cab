//! Commands that store messages.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Ack;

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
    /// What the exchange routes by; with the default exchange, the queue's name.
    #[prost(string, tag = "1")]
    pub routing_key: String,
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
    /// The exchange's name; empty: the default one, which routes to the queue named by the key.
    #[prost(string, tag = "8")]
    pub exchange: String,
    /// If this message reaches no queue, the whole command is refused.
    #[prost(bool, tag = "9")]
    pub mandatory: bool,
    /// Within a queue's window, a message with the same id is not stored again. Empty: none.
    #[prost(string, tag = "10")]
    pub dedupe_id: String,
    /// Messages of one group are delivered one after the other. Empty: none.
    #[prost(string, tag = "11")]
    pub group: String,
    /// Ready at once also where the queue has a default delay.
    #[prost(bool, tag = "12")]
    pub immediate: bool,
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

/// Acknowledges leases and publishes messages, all or nothing: if a lease is not held any more, or a message
/// cannot be stored, nothing happens.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Transact {
    /// What to acknowledge.
    #[prost(message, repeated, tag = "1")]
    pub acks: Vec<Ack>,
    /// What to store.
    #[prost(message, required, tag = "2")]
    pub publish: Publish,
}
