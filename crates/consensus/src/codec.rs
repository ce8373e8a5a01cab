//! How log entries, votes and memberships are written, on disk and between nodes.
//!
//! Protobuf with a version byte in front, so that a newer node reads an older one's data. A proposal's bytes
//! are not copied when an entry is decoded: they are a slice of what was read.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};
use openraft::EntryPayload;

use crate::types::{Entry, LogId, NodeAddress, Proposal, SnapshotMeta, StoredMembership, Vote};

const VERSION: u8 = 1;

/// The highest term, and the highest index of an entry. No cluster gets there by counting, and who adds one to what
/// somebody else sent, as openraft does, must not come to the end of the numbers.
pub const COUNT_MAX: u64 = u64::MAX >> 1;

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
    /// A term or an index that nobody counted.
    #[error("record has `{field}` {value}, which is more than {COUNT_MAX}")]
    Count {
        /// Which of the two.
        field: &'static str,
        /// What it says.
        value: u64,
    },
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
    let log_id = log_id(&record.log_id.ok_or(CodecError::Missing("log_id"))?)?;
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
    Ok(vote(counted("term", record.term)?, record.node_id, record.committed))
}

/// Encodes a log id.
pub fn encode_log_id(log_id: &LogId) -> Bytes {
    versioned(&log_id_record(log_id))
}

/// Decodes a log id.
pub fn decode_log_id(bytes: Bytes) -> Result<LogId, CodecError> {
    log_id(&unversioned(bytes)?)
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
        last_log_id: record.last_log_id.as_ref().map(log_id).transpose()?,
        last_membership: StoredMembership::new(record.membership_log_id.as_ref().map(log_id).transpose()?, members),
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

fn log_id(record: &LogIdRecord) -> Result<LogId, CodecError> {
    Ok(log_id_of(counted("term", record.term)?, record.node_id, counted("index", record.index)?))
}

/// Checks a term or an index.
fn counted(field: &'static str, value: u64) -> Result<u64, CodecError> {
    if value > COUNT_MAX { Err(CodecError::Count { field, value }) } else { Ok(value) }
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

#[cfg(test)]
mod tests {
    use dwell_hostile_bytes::{Bound, cases, decode_within, must, tampered};
    use proptest::prelude::*;
    use proptest::sample::select;
    use proptest::test_runner::TestCaseError;

    use super::*;

    /// The records' version stands before the protobuf.
    const VERSION_BYTES: usize = 1;
    /// Nodes and voters are kept in trees besides.
    const BOUND: Bound = Bound::elements(4 * size_of::<NodeRecord>());

    fn members() -> Membership {
        let address =
            |node: u64| NodeAddress { peer: format!("node-{node}:7601"), client: format!("node-{node}:7600") };
        let nodes: BTreeMap<u64, NodeAddress> = (1..=4).map(|node| (node, address(node))).collect();
        Membership::new(vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([2, 3, 4])], nodes).unwrap()
    }

    fn entries() -> Vec<Bytes> {
        let payloads = [
            EntryPayload::Blank,
            EntryPayload::Normal(Proposal(Bytes::from_static(b"commands"))),
            EntryPayload::Membership(members()),
            EntryPayload::Membership(Membership::default()),
        ];
        let entry = |payload| encode_entry(&Entry { log_id: log_id_of(3, 1, COUNT_MAX), payload });
        payloads.map(entry).into()
    }

    fn applied() -> Vec<Bytes> {
        let stored = StoredMembership::new(Some(log_id_of(1, 2, 3)), members());
        vec![encode_applied(Some(&log_id_of(4, 5, 6)), &stored), encode_applied(None, &StoredMembership::default())]
    }

    fn small() -> Vec<Bytes> {
        vec![encode_vote(&vote(COUNT_MAX, 3, true)), encode_log_id(&log_id_of(3, 300, COUNT_MAX))]
    }

    /// Decodes; what was understood says the same when it is encoded again.
    fn check<T: std::fmt::Debug>(
        bytes: &Bytes,
        decode: impl Fn(Bytes) -> Result<T, CodecError>,
        encode: impl Fn(&T) -> Bytes,
    ) -> Result<Option<T>, TestCaseError> {
        let Ok(decoded) = decode_within(bytes.len(), BOUND, || decode(bytes.clone()))? else { return Ok(None) };
        let again = must(decode(encode(&decoded)))?;
        prop_assert_eq!(format!("{again:?}"), format!("{decoded:?}"));
        Ok(Some(decoded))
    }

    #[test]
    fn a_term_or_an_index_that_nobody_counted_is_refused_by_name() {
        let beyond = COUNT_MAX + 1;
        let refused = [
            decode_vote(encode_vote(&vote(beyond, 1, true))).unwrap_err(),
            decode_log_id(encode_log_id(&log_id_of(1, 1, u64::MAX))).unwrap_err(),
            decode_entry(encode_entry(&Entry { log_id: log_id_of(1, 1, beyond), payload: EntryPayload::Blank }))
                .unwrap_err(),
            decode_applied(encode_applied(Some(&log_id_of(beyond, 1, 1)), &StoredMembership::default())).unwrap_err(),
        ];
        let fields = refused.map(|error| match error {
            CodecError::Count { field, .. } => field,
            other => panic!("{other}"),
        });
        assert_eq!(fields, ["term", "index", "index", "term"]);
    }

    proptest! {
        #![proptest_config(cases(3000))]

        #[test]
        fn a_tampered_entry_is_refused_or_can_be_followed_by_another(
            bytes in tampered(select(entries()), VERSION_BYTES),
        ) {
            if let Some(entry) = check(&bytes, decode_entry, encode_entry)? {
                prop_assert!(entry.log_id.index < u64::MAX && entry.log_id.leader_id.term < u64::MAX);
            }
        }

        #[test]
        fn a_tampered_record_of_what_was_applied_is_refused_or_means_the_same_again(
            bytes in tampered(select(applied()), VERSION_BYTES),
        ) {
            check(&bytes, decode_applied, |meta| encode_applied(meta.last_log_id.as_ref(), &meta.last_membership))?;
        }

        #[test]
        fn a_tampered_vote_or_log_id_is_refused_or_means_the_same_again(
            bytes in tampered(select(small()), VERSION_BYTES),
        ) {
            check(&bytes, decode_vote, encode_vote)?;
            check(&bytes, decode_log_id, encode_log_id)?;
        }
    }
}
