//! Between openraft's messages and those on the wire. What comes from the wire is not trusted to make sense:
//! openraft asserts what is checked here.

use dwell_proto::peer as wire;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderError, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use tonic::Status;

use crate::codec::{self, COUNT_MAX, CodecError, log_id_of};
use crate::types::{Entry, LogId, NodeId, TypeConfig, Vote};

/// A message from another node that makes no sense.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    #[error("`{0}` is missing")]
    Missing(&'static str),
    #[error("`{0}` is not a leader's vote")]
    NotALeader(&'static str),
    #[error("`{0}` is the receiver's own vote")]
    OwnVote(&'static str),
    #[error("entry {index} stands where {expected} is due")]
    Gap { index: u64, expected: u64 },
    #[error("entry {index} is newer than the leader that sends it")]
    FutureEntry { index: u64 },
    #[error("`{field}` has a term or an index of {value}, which nobody counted")]
    Count { field: &'static str, value: u64 },
    #[error("`entries` holds what is not an entry: {0}")]
    Entry(#[from] CodecError),
}

impl From<WireError> for Status {
    fn from(error: WireError) -> Self {
        Status::invalid_argument(error.to_string())
    }
}

pub(super) fn vote_to_wire(vote: &Vote) -> wire::RaftVote {
    wire::RaftVote { term: vote.leader_id.term, node_id: vote.leader_id.node_id, committed: vote.committed }
}

pub(super) fn vote_from_wire(vote: Option<wire::RaftVote>, field: &'static str) -> Result<Vote, WireError> {
    let vote = vote.ok_or(WireError::Missing(field))?;
    Ok(codec::vote(counted(vote.term, field)?, vote.node_id, vote.committed))
}

fn counted(value: u64, field: &'static str) -> Result<u64, WireError> {
    if value > COUNT_MAX { Err(WireError::Count { field, value }) } else { Ok(value) }
}

/// A vote of another node that leads.
pub(super) fn leader_vote_from_wire(
    vote: Option<wire::RaftVote>,
    field: &'static str,
    receiver: NodeId,
) -> Result<Vote, WireError> {
    let vote = vote_from_wire(vote, field)?;
    if !vote.committed {
        return Err(WireError::NotALeader(field));
    }
    if vote.leader_id.node_id == receiver {
        return Err(WireError::OwnVote(field));
    }
    Ok(vote)
}

pub(super) fn log_id_to_wire(log_id: &LogId) -> wire::LogId {
    wire::LogId { term: log_id.leader_id.term, node_id: log_id.leader_id.node_id, index: log_id.index }
}

pub(super) fn log_id_from_wire(log_id: wire::LogId, field: &'static str) -> Result<LogId, WireError> {
    Ok(log_id_of(counted(log_id.term, field)?, log_id.node_id, counted(log_id.index, field)?))
}

/// A log id that may be absent, of an empty log say.
pub(super) fn optional_log_id(log_id: Option<wire::LogId>, field: &'static str) -> Result<Option<LogId>, WireError> {
    log_id.map(|log_id| log_id_from_wire(log_id, field)).transpose()
}

pub(super) fn vote_request_to_wire(
    route: wire::Route,
    request: &VoteRequest<TypeConfig>,
    pre_vote: bool,
) -> wire::VoteRequest {
    wire::VoteRequest {
        route: Some(route),
        vote: Some(vote_to_wire(&request.vote)),
        last_log_id: request.last_log_id.as_ref().map(log_id_to_wire),
        leadership_transfer: request.leadership_transfer,
        pre_vote,
    }
}

pub(super) fn vote_request_from_wire(
    request: wire::VoteRequest,
    receiver: NodeId,
) -> Result<VoteRequest<TypeConfig>, WireError> {
    let vote = vote_from_wire(request.vote, "vote")?;
    if vote.leader_id.node_id == receiver {
        return Err(WireError::OwnVote("vote"));
    }
    // A candidate's vote is not committed; if it were, the receiver would take the candidate for the leader.
    let vote = Vote { committed: false, ..vote };
    let mut converted = VoteRequest::new(vote, optional_log_id(request.last_log_id, "last_log_id")?);
    converted.leadership_transfer = request.leadership_transfer;
    Ok(converted)
}

pub(super) fn vote_response_to_wire(response: &VoteResponse<TypeConfig>) -> wire::VoteResponse {
    wire::VoteResponse {
        vote: Some(vote_to_wire(&response.vote)),
        granted: response.vote_granted,
        last_log_id: response.last_log_id.as_ref().map(log_id_to_wire),
    }
}

pub(super) fn vote_response_from_wire(response: wire::VoteResponse) -> Result<VoteResponse<TypeConfig>, WireError> {
    let vote = vote_from_wire(response.vote, "vote")?;
    Ok(VoteResponse::new(vote, optional_log_id(response.last_log_id, "last_log_id")?, response.granted))
}

pub(super) fn append_entries_to_wire(request: &AppendEntriesRequest<TypeConfig>) -> wire::AppendEntries {
    wire::AppendEntries {
        vote: Some(vote_to_wire(&request.vote)),
        previous: request.prev_log_id.as_ref().map(log_id_to_wire),
        leader_commit: request.leader_commit.as_ref().map(log_id_to_wire),
        entries: request.entries.iter().map(codec::encode_entry).collect(),
    }
}

pub(super) fn append_entries_from_wire(
    message: wire::AppendEntries,
    receiver: NodeId,
) -> Result<AppendEntriesRequest<TypeConfig>, WireError> {
    let vote = leader_vote_from_wire(message.vote, "vote", receiver)?;
    let previous = optional_log_id(message.previous, "previous")?;
    let mut expected = match &previous {
        Some(log_id) => log_id.index.saturating_add(1),
        None => 0,
    };
    let mut entries = Vec::with_capacity(message.entries.len());
    for bytes in message.entries {
        let entry: Entry = codec::decode_entry(bytes)?;
        let index = entry.log_id.index;
        if index != expected {
            return Err(WireError::Gap { index, expected });
        }
        if entry.log_id.leader_id > vote.leader_id {
            return Err(WireError::FutureEntry { index });
        }
        expected = expected.saturating_add(1);
        entries.push(entry);
    }
    let leader_commit = optional_log_id(message.leader_commit, "leader_commit")?;
    Ok(AppendEntriesRequest { vote, prev_log_id: previous, entries, leader_commit })
}

pub(super) fn append_result_to_wire(result: StreamAppendResult<TypeConfig>) -> wire::AppendResponse {
    use wire::append_response::Result as Answer;
    let answer = match result {
        Ok(matched) => Answer::Matched(wire::Matched { log_id: matched.as_ref().map(log_id_to_wire) }),
        Err(StreamAppendError::Conflict(log_id)) => Answer::Conflict(log_id_to_wire(&log_id)),
        Err(StreamAppendError::HigherVote(vote)) => Answer::HigherVote(vote_to_wire(&vote)),
    };
    wire::AppendResponse { result: Some(answer) }
}

pub(super) fn append_result_from_wire(
    response: wire::AppendResponse,
) -> Result<StreamAppendResult<TypeConfig>, WireError> {
    use wire::append_response::Result as Answer;
    Ok(match response.result.ok_or(WireError::Missing("result"))? {
        Answer::Matched(matched) => Ok(optional_log_id(matched.log_id, "matched")?),
        Answer::Conflict(log_id) => Err(StreamAppendError::Conflict(log_id_from_wire(log_id, "conflict")?)),
        Answer::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote_from_wire(Some(vote), "higher_vote")?)),
    })
}

pub(super) fn transfer_request_to_wire(
    route: wire::Route,
    request: &TransferLeaderRequest<TypeConfig>,
) -> wire::TransferLeaderRequest {
    wire::TransferLeaderRequest {
        route: Some(route),
        from_leader: Some(vote_to_wire(request.from_leader())),
        new_leader_node_id: *request.to_node_id(),
        last_log_id: request.last_log_id().map(log_id_to_wire),
    }
}

pub(super) fn transfer_request_from_wire(
    request: wire::TransferLeaderRequest,
    receiver: NodeId,
) -> Result<TransferLeaderRequest<TypeConfig>, WireError> {
    let from = leader_vote_from_wire(request.from_leader, "from_leader", receiver)?;
    let last_log_id = optional_log_id(request.last_log_id, "last_log_id")?;
    Ok(TransferLeaderRequest::new(from, request.new_leader_node_id, last_log_id))
}

pub(super) fn transfer_response_to_wire(response: &TransferLeaderResponse<TypeConfig>) -> wire::TransferLeaderResponse {
    use wire::transfer_leader_response::Refusal;
    let refusal = match response {
        Ok(()) => None,
        Err(TransferLeaderError::VoteChanged { expected, actual }) => Some(Refusal::VoteChanged(wire::VoteChanged {
            expected: Some(vote_to_wire(expected)),
            actual: Some(vote_to_wire(actual)),
        })),
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
            Some(Refusal::LogNotFlushed(wire::LogNotFlushed {
                expected: expected.as_ref().map(log_id_to_wire),
                actual: actual.as_ref().map(log_id_to_wire),
            }))
        }
    };
    wire::TransferLeaderResponse { refusal }
}

pub(super) fn transfer_response_from_wire(
    response: wire::TransferLeaderResponse,
) -> Result<TransferLeaderResponse<TypeConfig>, WireError> {
    use wire::transfer_leader_response::Refusal;
    Ok(match response.refusal {
        None => Ok(()),
        Some(Refusal::VoteChanged(changed)) => Err(TransferLeaderError::VoteChanged {
            expected: vote_from_wire(changed.expected, "expected")?,
            actual: vote_from_wire(changed.actual, "actual")?,
        }),
        Some(Refusal::LogNotFlushed(behind)) => Err(TransferLeaderError::LogNotFlushed {
            expected: optional_log_id(behind.expected, "expected")?,
            actual: optional_log_id(behind.actual, "actual")?,
        }),
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use dwell_hostile_bytes::{Bound, cases, decode_within, must, tampered};
    use openraft::EntryPayload;
    use proptest::prelude::*;
    use proptest::sample::select;
    use prost::Message as _;

    use super::*;
    use crate::types::Proposal;

    fn entry(term: u64, index: u64) -> Entry {
        let payload = EntryPayload::Normal(Proposal(Bytes::from_static(b"commands")));
        Entry { log_id: log_id_of(term, 1, index), payload }
    }

    fn request(previous: Option<u64>, entries: Vec<Entry>) -> AppendEntriesRequest<TypeConfig> {
        AppendEntriesRequest {
            vote: codec::vote(3, 1, true),
            prev_log_id: previous.map(|index| log_id_of(2, 1, index)),
            entries,
            leader_commit: Some(log_id_of(2, 1, 4)),
        }
    }

    fn received(request: &AppendEntriesRequest<TypeConfig>) -> Result<AppendEntriesRequest<TypeConfig>, WireError> {
        append_entries_from_wire(append_entries_to_wire(request), 2)
    }

    #[test]
    fn an_append_request_arrives_as_it_was_sent() {
        let sent = request(Some(6), vec![entry(2, 7), entry(3, 8)]);
        let received = received(&sent).unwrap();
        assert_eq!(format!("{received:?}"), format!("{sent:?}"));
        assert_eq!(received.entries, sent.entries);
    }

    #[test]
    fn entries_with_a_gap_before_or_between_them_are_refused() {
        assert!(matches!(received(&request(Some(6), vec![entry(3, 8)])), Err(WireError::Gap { .. })));
        assert!(matches!(received(&request(Some(6), vec![entry(3, 7), entry(3, 9)])), Err(WireError::Gap { .. })));
        assert!(matches!(received(&request(None, vec![entry(3, 1)])), Err(WireError::Gap { .. })));
        assert!(received(&request(None, vec![entry(3, 0)])).is_ok());
    }

    #[test]
    fn entries_newer_than_their_leader_are_refused() {
        assert!(matches!(received(&request(Some(6), vec![entry(4, 7)])), Err(WireError::FutureEntry { index: 7 })));
    }

    #[test]
    fn only_another_nodes_committed_vote_may_append() {
        let mut candidate = request(Some(6), vec![]);
        candidate.vote.committed = false;
        assert!(matches!(received(&candidate), Err(WireError::NotALeader(_))));
        let mut own = request(Some(6), vec![]);
        own.vote.leader_id.node_id = 2;
        assert!(matches!(received(&own), Err(WireError::OwnVote(_))));
    }

    #[test]
    fn garbage_in_place_of_an_entry_is_refused() {
        let mut message = append_entries_to_wire(&request(Some(6), vec![]));
        message.entries.push(Bytes::from_static(b"\xffgarbage"));
        assert!(matches!(append_entries_from_wire(message, 2), Err(WireError::Entry(_))));
    }

    #[test]
    fn a_vote_request_arrives_as_it_was_sent_and_never_committed() {
        let mut sent = VoteRequest::new(codec::vote(4, 3, true), Some(log_id_of(3, 1, 9)));
        sent.leadership_transfer = true;
        let received = vote_request_from_wire(vote_request_to_wire(wire::Route::default(), &sent, false), 2).unwrap();
        assert_eq!(received.vote, codec::vote(4, 3, false));
        assert_eq!((received.last_log_id, received.leadership_transfer), (sent.last_log_id, true));
    }

    #[test]
    fn every_answer_to_an_append_arrives_as_it_was_given() {
        let answers: [StreamAppendResult<TypeConfig>; 4] = [
            Ok(None),
            Ok(Some(log_id_of(1, 2, 3))),
            Err(StreamAppendError::Conflict(log_id_of(4, 5, 6))),
            Err(StreamAppendError::HigherVote(codec::vote(7, 8, true))),
        ];
        for answer in answers {
            assert_eq!(append_result_from_wire(append_result_to_wire(answer.clone())).unwrap(), answer);
        }
        assert!(append_result_from_wire(wire::AppendResponse { result: None }).is_err());
    }

    #[test]
    fn every_answer_to_a_transfer_arrives_as_it_was_given() {
        let answers: [TransferLeaderResponse<TypeConfig>; 3] = [
            Ok(()),
            Err(TransferLeaderError::VoteChanged {
                expected: codec::vote(1, 1, true),
                actual: codec::vote(2, 3, false),
            }),
            Err(TransferLeaderError::LogNotFlushed { expected: Some(log_id_of(1, 1, 9)), actual: None }),
        ];
        for answer in answers {
            assert_eq!(transfer_response_from_wire(transfer_response_to_wire(&answer)).unwrap(), answer);
        }
    }

    #[test]
    fn a_term_or_an_index_that_nobody_counted_is_refused_by_name() {
        let mut message = append_entries_to_wire(&request(Some(6), vec![]));
        message.leader_commit = Some(wire::LogId { term: 1, node_id: 1, index: u64::MAX });
        let refused = append_entries_from_wire(message, 2);
        assert!(matches!(refused, Err(WireError::Count { field: "leader_commit", value: u64::MAX })));
        let vote = Some(wire::RaftVote { term: COUNT_MAX + 1, node_id: 1, committed: false });
        let refused = vote_request_from_wire(wire::VoteRequest { vote, ..Default::default() }, 2);
        assert!(matches!(refused, Err(WireError::Count { field: "vote", .. })));
    }

    /// Requests and answers, encoded; a decoder is also given those of other kinds.
    fn messages() -> Vec<Bytes> {
        let transfer = TransferLeaderRequest::new(codec::vote(3, 1, true), 2, Some(log_id_of(3, 1, 9)));
        let refusal = Err(TransferLeaderError::VoteChanged {
            expected: codec::vote(1, 1, true),
            actual: codec::vote(2, 3, false),
        });
        let not_flushed = Err(TransferLeaderError::LogNotFlushed { expected: Some(log_id_of(1, 1, 9)), actual: None });
        let vote = VoteRequest::new(codec::vote(4, 3, true), Some(log_id_of(3, 1, 9)));
        let answer = VoteResponse::new(codec::vote(4, 3, true), Some(log_id_of(3, 1, 9)), true);
        let route = wire::Route::default();
        [
            append_entries_to_wire(&request(Some(6), vec![entry(2, 7), entry(3, 8)])).encode_to_vec(),
            append_entries_to_wire(&request(None, vec![entry(1, 0)])).encode_to_vec(),
            vote_request_to_wire(route, &vote, true).encode_to_vec(),
            vote_response_to_wire(&answer).encode_to_vec(),
            append_result_to_wire(Ok(Some(log_id_of(1, 2, 3)))).encode_to_vec(),
            append_result_to_wire(Err(StreamAppendError::Conflict(log_id_of(4, 5, 6)))).encode_to_vec(),
            append_result_to_wire(Err(StreamAppendError::HigherVote(codec::vote(7, 8, true)))).encode_to_vec(),
            transfer_request_to_wire(route, &transfer).encode_to_vec(),
            transfer_response_to_wire(&refusal).encode_to_vec(),
            transfer_response_to_wire(&not_flushed).encode_to_vec(),
        ]
        .map(Bytes::from)
        .into()
    }

    proptest! {
        #![proptest_config(cases(3000))]

        #[test]
        fn tampered_messages_are_refused_or_make_sense_to_raft(bytes in tampered(select(messages()), 0)) {
            // An entry takes more room decoded than its bytes do.
            let bound = Bound::elements(size_of::<Bytes>() + size_of::<Entry>());
            let receiver = 2;
            let appended = decode_within(bytes.len(), bound, || {
                let message = wire::AppendEntries::decode(bytes.clone()).ok()?;
                append_entries_from_wire(message, receiver).ok()
            })?;
            if let Some(request) = appended {
                prop_assert!(request.vote.committed && request.vote.leader_id.node_id != receiver);
                let first = request.prev_log_id.map_or(0, |log_id| log_id.index + 1);
                for (expected, entry) in (first..).zip(&request.entries) {
                    prop_assert_eq!(entry.log_id.index, expected);
                    prop_assert!(entry.log_id.leader_id <= request.vote.leader_id);
                }
                let again = must(append_entries_from_wire(append_entries_to_wire(&request), receiver))?;
                prop_assert_eq!(format!("{again:?}"), format!("{request:?}"));
            }
            decode_within(bytes.len(), bound, || {
                let vote = wire::VoteRequest::decode(bytes.clone()).ok();
                let _ = vote.map(|message| vote_request_from_wire(message, receiver));
                let answer = wire::VoteResponse::decode(bytes.clone()).ok();
                let _ = answer.map(vote_response_from_wire);
                let appended = wire::AppendResponse::decode(bytes.clone()).ok();
                let _ = appended.map(append_result_from_wire);
                let transfer = wire::TransferLeaderRequest::decode(bytes.clone()).ok();
                let _ = transfer.map(|message| transfer_request_from_wire(message, receiver));
                let refusal = wire::TransferLeaderResponse::decode(bytes.clone()).ok();
                let _ = refusal.map(transfer_response_from_wire);
                let _ = wire::SnapshotPart::decode(bytes.clone());
            })?;
        }
    }
}
