//! The types that openraft is instantiated with.

use std::fmt;

use bytes::Bytes;
use dwell_machine::Reply;

/// Identifies a node for ever: never reused, not even after the node was removed.
pub type NodeId = u64;

/// Identifies a Raft group, one for each namespace.
pub type GroupId = u64;

/// The group of the namespace `default`.
pub const DEFAULT_GROUP: GroupId = 1;

/// Where a member is reached; part of the replicated membership.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeAddress {
    /// host:port for the other nodes.
    pub peer: String,
    /// host:port for clients.
    pub client: String,
}

/// One log entry's payload: an encoded [`dwell_machine::Batch`]. Encoded once by the proposer, shared from
/// there on by log, replication and apply.
#[derive(Clone, PartialEq, Eq)]
pub struct Proposal(pub Bytes);

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proposal({} bytes)", self.0.len())
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The machine's answers to the commands of one proposal, in order. Empty for entries without commands.
pub type Replies = Vec<Reply>;

openraft::declare_raft_types!(
    /// Dwell's instantiation of openraft.
    pub TypeConfig:
        D = Proposal,
        R = Replies,
        NodeId = NodeId,
        Node = NodeAddress,
);

/// A log entry.
pub type Entry = openraft::alias::EntryOf<TypeConfig>;
/// Position of an entry in the log, with the leader that proposed it.
pub type LogId = openraft::alias::LogIdOf<TypeConfig>;
/// A vote, granted or asked for.
pub type Vote = openraft::alias::VoteOf<TypeConfig>;
/// A membership with the log id it was proposed at.
pub type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
/// What a snapshot covers.
pub type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
/// A running group.
pub type Raft = openraft::Raft<TypeConfig, crate::state_machine::StateMachine>;
