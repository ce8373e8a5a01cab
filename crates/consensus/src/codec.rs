//! How log entries, votes and memberships are written, on disk and between nodes.
//!
//! Protobuf with a version byte in front, so that a newer node reads an older one's data. A proposal's bytes
//! are not copied when an entry is decoded: they are a slice of what was read.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};
use openraft::EntryPayload;

use crate::types::{Entry, LogId, NodeAddress, Proposal, SnapshotMeta, StoredMembership, Vote};

const VERSION: u8 = 1;

/// Bytes from disk or from a peer that make no sense to this node.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// Nothing there.
    #[error("record is empty")]
    Empty,
    /// Written by a newer node.
    #[error("record has format version {0}, this node reads up to {VERSION}")]
    Version(u8),
    /// Not the protobuf message it should be.
    #[error("record does not decode: {0}")]
    Decode(#[from] prost::DecodeError),
    /// A field without which the record means nothing.
    #[error("record lacks `{0}`")]
    Missing(&'static str),
    /// Contradicts itself.
    #[error("record holds an invalid membership: {0}")]
    Membership(String),
}

impl From<CodecError> for std::io::Error {
    fn from(error: CodecError) -> Self {
        std::io::Error::new(std::io::ErrorKind::InvalidData, error)
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct LogIdRecord {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    node_id: u64,
    #[prost(uint64, tag = "3")]
    index: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct VoteRecord {
    #[prost(uint64, tag = "1")]
    term: u64,
    #[prost(uint64, tag = "2")]
    node_id: u64,
    #[prost(bool, tag = "3")]
    committed: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct EntryRecord {
    #[prost(message, optional, tag = "1")]
    log_id: Option<LogIdRecord>,
    #[prost(oneof = "PayloadRecord", tags = "2, 3, 4")]
    payload: Option<PayloadRecord>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum PayloadRecord {
    #[prost(bool, tag = "2")]
    Blank(bool),
    #[prost(bytes = "bytes", tag = "3")]
    Proposal(Bytes),
    #[prost(message, tag = "4")]
    Membership(MembershipRecord),
}

#[derive(Clone, PartialEq, prost::Message)]
struct MembershipRecord {
    #[prost(message, repeated, tag = "1")]
    configs: Vec<VoterSet>,
    #[prost(message, repeated, tag = "2")]
    nodes: Vec<NodeRecord>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct VoterSet {
    #[prost(uint64, repeated, tag = "1")]
    voters: Vec<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct NodeRecord {
    #[prost(uint64, tag = "1")]
    node_id: u64,
    #[prost(string, tag = "2")]
    peer: String,
    #[prost(string, tag = "3")]
    client: String,
}

/// Applied position and membership: what the state machine stores beside its rows, and a snapshot's meta data.
#[derive(Clone, PartialEq, prost::Message)]
struct AppliedRecord {
    #[prost(message, optional, tag = "1")]
    last_log_id: Option<LogIdRecord>,
    #[prost(message, optional, tag = "2")]
    membership_log_id: Option<LogIdRecord>,
    #[prost(message, optional, tag = "3")]
    membership: Option<MembershipRecord>,
}

/// Encodes a log entry.
pub fn encode_entry(entry: &Entry) -> Bytes {
    let payload = match &entry.payload {
        EntryPayload::Blank => PayloadRecord::Blank(true),
        EntryPayload::Normal(proposal) => PayloadRecord::Proposal(proposal.0.clone()),
        EntryPayload::Membership(membership) => PayloadRecord::Membership(membership_record(membership)),
    };
    versioned(&EntryRecord { log_id: Some(log_id_record(&entry.log_id)), payload: Some(payload) })
}

/// Decodes a log entry.
pub fn decode_entry(bytes: Bytes) -> Result<Entry, CodecError> {
    let record: EntryRecord = unversioned(bytes)?;
    let log_id = log_id(&record.log_id.ok_or(CodecError::Missing("log_id"))?);
    let payload = match record.payload.ok_or(CodecError::Missing("payload"))? {
        PayloadRecord::Blank(_) => EntryPayload::Blank,
        PayloadRecord::Proposal(bytes) => EntryPayload::Normal(Proposal(bytes)),
        PayloadRecord::Membership(record) => EntryPayload::Membership(membership(record)?),
    };
    Ok(Entry { log_id, payload })
}

/// Encodes a vote.
pub fn encode_vote(vote: &Vote) -> Bytes {
    versioned(&VoteRecord { term: vote.leader_id.term, node_id: vote.leader_id.node_id, committed: vote.committed })
}

/// Decodes a vote.
pub fn decode_vote(bytes: Bytes) -> Result<Vote, CodecError> {
    let record: VoteRecord = unversioned(bytes)?;
    Ok(vote(record.term, record.node_id, record.committed))
}

/// Encodes a log id.
pub fn encode_log_id(log_id: &LogId) -> Bytes {
    versioned(&log_id_record(log_id))
}

/// Decodes a log id.
pub fn decode_log_id(bytes: Bytes) -> Result<LogId, CodecError> {
    Ok(log_id(&unversioned(bytes)?))
}

/// Encodes what a state or a snapshot covers.
pub fn encode_applied(last_log_id: Option<&LogId>, membership: &StoredMembership) -> Bytes {
    versioned(&AppliedRecord {
        last_log_id: last_log_id.map(log_id_record),
        membership_log_id: membership.log_id().as_ref().map(log_id_record),
        membership: Some(membership_record(membership.membership())),
    })
}

/// Decodes what a state or a snapshot covers.
pub fn decode_applied(bytes: Bytes) -> Result<SnapshotMeta, CodecError> {
    let record: AppliedRecord = unversioned(bytes)?;
    let members = membership(record.membership.ok_or(CodecError::Missing("membership"))?)?;
    Ok(SnapshotMeta {
        last_log_id: record.last_log_id.as_ref().map(log_id),
        last_membership: StoredMembership::new(record.membership_log_id.as_ref().map(log_id), members),
    })
}

/// A vote from its parts.
pub fn vote(term: u64, node_id: u64, committed: bool) -> Vote {
    Vote { leader_id: openraft::impls::leader_id_adv::LeaderId { term, node_id }, committed }
}

/// A log id from its parts.
pub fn log_id_of(term: u64, node_id: u64, index: u64) -> LogId {
    LogId { leader_id: openraft::impls::leader_id_adv::LeaderId { term, node_id }, index }
}

fn log_id_record(log_id: &LogId) -> LogIdRecord {
    LogIdRecord { term: log_id.leader_id.term, node_id: log_id.leader_id.node_id, index: log_id.index }
}

fn log_id(record: &LogIdRecord) -> LogId {
    log_id_of(record.term, record.node_id, record.index)
}

fn membership_record(membership: &Membership) -> MembershipRecord {
    MembershipRecord {
        configs: membership
            .get_joint_config()
            .iter()
            .map(|voters| VoterSet { voters: voters.iter().copied().collect() })
            .collect(),
        nodes: membership
            .nodes()
            .map(|(node_id, address)| NodeRecord {
                node_id: *node_id,
                peer: address.peer.clone(),
                client: address.client.clone(),
            })
            .collect(),
    }
}

fn membership(record: MembershipRecord) -> Result<Membership, CodecError> {
    let configs = record.configs.into_iter().map(|set| set.voters.into_iter().collect::<BTreeSet<_>>()).collect();
    let nodes = record
        .nodes
        .into_iter()
        .map(|node| (node.node_id, NodeAddress { peer: node.peer, client: node.client }))
        .collect::<BTreeMap<_, _>>();
    // The membership of a node that has applied nothing has no configs, which `new` refuses.
    if nodes.is_empty() {
        return Ok(Membership::default());
    }
    Membership::new(configs, nodes).map_err(|error| CodecError::Membership(error.to_string()))
}

type Membership = openraft::Membership<u64, NodeAddress>;

fn versioned(record: &impl prost::Message) -> Bytes {
    let mut buffer = BytesMut::with_capacity(1 + record.encoded_len());
    buffer.put_u8(VERSION);
    // A BytesMut grows as needed, so there is always room.
    record.encode_raw(&mut buffer);
    buffer.freeze()
}

fn unversioned<R: prost::Message + Default>(mut bytes: Bytes) -> Result<R, CodecError> {
    match bytes.first() {
        None => Err(CodecError::Empty),
        Some(&VERSION) => Ok(R::decode(bytes.split_off(1))?),
        Some(version) => Err(CodecError::Version(*version)),
    }
}
