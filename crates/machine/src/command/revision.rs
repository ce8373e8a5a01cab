//! Commands that change plans for messages.

use std::collections::BTreeMap;

use bytes::Bytes;

/// A change of plan for a message that nobody has.
#[derive(Clone, Copy, PartialEq, Eq, prost::Oneof)]
pub enum Revision {
    /// Withdraw it: nobody will see it.
    #[prost(message, tag = "10")]
    Recall(Recall),
    /// Give it another due time.
    #[prost(message, tag = "11")]
    Reschedule(Reschedule),
    /// Let it expire at once.
    #[prost(message, tag = "12")]
    ExpireNow(ExpireNow),
}

/// See [`Revision`].
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Recall {}

/// See [`Revision`].
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Reschedule {
    /// Ready this long after machine time. Ignored if `deliver_at_ms` is set.
    #[prost(uint64, tag = "1")]
    pub delay_ms: u64,
    /// Ready at this time; 0: not set.
    #[prost(uint64, tag = "2")]
    pub deliver_at_ms: u64,
}

/// See [`Revision`].
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ExpireNow {}

/// Revises messages named by their handles.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Revise {
    /// The queue's name.
    #[prost(string, tag = "1")]
    pub queue: String,
    /// What the handles name.
    #[prost(uint64, repeated, tag = "2")]
    pub sequences: Vec<u64>,
    /// A leased message too: its lease is cut.
    #[prost(bool, tag = "3")]
    pub revoke: bool,
    /// What to do.
    #[prost(oneof = "Revision", tags = "10, 11, 12")]
    pub revision: Option<Revision>,
}

/// Revises all messages of a queue that carry an application message id.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReviseById {
    /// The queue's name.
    #[prost(string, tag = "1")]
    pub queue: String,
    /// As the producers set it.
    #[prost(string, tag = "2")]
    pub message_id: String,
    /// A leased message too: its lease is cut.
    #[prost(bool, tag = "3")]
    pub revoke: bool,
    /// Messages with greater sequences only: to go on after a reply that said there is more.
    #[prost(uint64, tag = "4")]
    pub after: u64,
    /// What to do.
    #[prost(oneof = "Revision", tags = "10, 11, 12")]
    pub revision: Option<Revision>,
}

/// Revises the messages of a queue that match, a bounded number of them: the reply says where to go on.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReviseMatching {
    /// The queue's name.
    #[prost(string, tag = "1")]
    pub queue: String,
    /// Which messages.
    #[prost(message, required, tag = "2")]
    pub filter: Filter,
    /// Leased messages too: their leases are cut.
    #[prost(bool, tag = "3")]
    pub revoke: bool,
    /// From the reply to the step before; empty: from the beginning.
    #[prost(bytes = "bytes", tag = "4")]
    pub cursor: Bytes,
    /// What to do.
    #[prost(oneof = "Revision", tags = "10, 11, 12")]
    pub revision: Option<Revision>,
}

/// Chooses messages of a queue. All conditions must hold.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Filter {
    /// Scheduled ones. With none of the three states set, all are meant.
    #[prost(bool, tag = "1")]
    pub scheduled: bool,
    /// Ready ones.
    #[prost(bool, tag = "2")]
    pub ready: bool,
    /// Leased ones.
    #[prost(bool, tag = "3")]
    pub leased: bool,
    /// Headers with exactly these values.
    #[prost(btree_map = "string, string", tag = "4")]
    pub headers: BTreeMap<String, String>,
    /// Due, or become ready, at this time or later; 0: not set.
    #[prost(uint64, tag = "5")]
    pub due_from_ms: u64,
    /// Due, or become ready, before this time; 0: not set.
    #[prost(uint64, tag = "6")]
    pub due_before_ms: u64,
    /// Of this priority or a higher one.
    #[prost(uint32, tag = "7")]
    pub priority_min: u32,
    /// Of this priority or a lower one; absent: 255.
    #[prost(uint32, optional, tag = "8")]
    pub priority_max: Option<u32>,
}
