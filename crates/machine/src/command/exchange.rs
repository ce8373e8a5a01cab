//! Commands about exchanges and bindings.

use std::collections::BTreeMap;

/// Makes an exchange, or confirms that it exists with these settings.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DeclareExchange {
    /// The exchange's name; not empty.
    #[prost(string, tag = "1")]
    pub exchange: String,
    /// How it routes.
    #[prost(enumeration = "ExchangeKind", tag = "2")]
    pub kind: i32,
    /// Gets what this exchange routes nowhere. Empty: none. It need not exist.
    #[prost(string, tag = "3")]
    pub alternate: String,
}

/// How an exchange chooses among its bindings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ExchangeKind {
    /// The binding's key equals the message's.
    Direct = 0,
    /// The binding's key is a pattern of words between dots: `*` is one word, `#` any number of them.
    Topic = 1,
    /// Every binding.
    Fanout = 2,
    /// The binding's headers are among the message's: all of them, or any.
    Headers = 3,
}

/// Removes an exchange with its bindings.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DeleteExchange {
    /// The exchange's name.
    #[prost(string, tag = "1")]
    pub exchange: String,
    /// Refuse if it has a binding.
    #[prost(bool, tag = "2")]
    pub if_unused: bool,
}

/// Messages of an exchange that match go to a queue or another exchange.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, prost::Message)]
pub struct Binding {
    /// The exchange that routes.
    #[prost(string, tag = "1")]
    pub exchange: String,
    /// What is bound to it.
    #[prost(enumeration = "DestinationKind", tag = "2")]
    pub destination_kind: i32,
    /// The name of that.
    #[prost(string, tag = "3")]
    pub destination: String,
    /// The key or pattern; unused by fanout and headers exchanges.
    #[prost(string, tag = "4")]
    pub routing_key: String,
    /// Of a headers exchange: what to match.
    #[prost(btree_map = "string, string", tag = "5")]
    pub headers: BTreeMap<String, String>,
    /// Of a headers exchange: one match is enough.
    #[prost(bool, tag = "6")]
    pub match_any: bool,
}

/// What can be bound to an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum DestinationKind {
    /// A queue.
    Queue = 0,
    /// An exchange.
    Exchange = 1,
}

/// Removes a binding.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Unbind {
    /// Exactly as it was bound.
    #[prost(message, required, tag = "1")]
    pub binding: Binding,
}
