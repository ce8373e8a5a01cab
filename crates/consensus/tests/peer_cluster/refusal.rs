//! What makes no sense is refused, and does no harm.

use bytes::Bytes;
use dwell_consensus::options::RaftOptions;
use dwell_consensus::types::DEFAULT_GROUP;
use dwell_proto::peer::append_request::Part as AppendPart;
use dwell_proto::peer::raft_client::RaftClient;
use dwell_proto::peer::snapshot_part::Part as SnapshotPart;
use dwell_proto::peer::{
    AppendEntries, AppendRequest, LogId, RaftVote, Route, SnapshotBegin, SnapshotChunk, TransferLeaderRequest,
    VoteRequest,
};
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::cluster::TestCluster;
use super::stores;

const FOLLOWER: u64 = 2;

fn route() -> Route {
    Route { group_id: DEFAULT_GROUP, from_node_id: 1, to_node_id: FOLLOWER, ..Route::default() }
}

fn leader_vote() -> RaftVote {
    RaftVote { term: 1, node_id: 1, committed: true }
}

async fn cluster() -> (TestCluster, RaftClient<Channel>) {
    let cluster = TestCluster::three(RaftOptions::default()).await;
    cluster.raft(1).client_write(stores::queue()).await.unwrap();
    let client = RaftClient::connect(format!("http://{}", cluster.listen_address(FOLLOWER))).await.unwrap();
    (cluster, client)
}

/// The first refusal of an append stream.
async fn append(client: &mut RaftClient<Channel>, parts: Vec<Option<AppendPart>>) -> Status {
    let messages = parts.into_iter().map(|part| AppendRequest { part });
    match client.append(futures::stream::iter(messages)).await {
        Err(status) => status,
        Ok(answers) => {
            let mut answers = answers.into_inner();
            loop {
                match answers.message().await {
                    Err(status) => return status,
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("the stream was not refused"),
                }
            }
        }
    }
}

async fn install(client: &mut RaftClient<Channel>, parts: Vec<SnapshotPart>) -> Status {
    let messages = parts.into_iter().map(|part| dwell_proto::peer::SnapshotPart { part: Some(part) });
    client.install_snapshot(futures::stream::iter(messages)).await.unwrap_err()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_for_another_group_or_node_are_refused() {
    let (cluster, mut client) = cluster().await;
    let other_group = Route { group_id: 77, ..route() };
    let other_node = Route { to_node_id: 9, ..route() };
    let own_node = Route { from_node_id: FOLLOWER, ..route() };
    let cases = [
        (Some(other_group), Code::NotFound),
        (Some(other_node), Code::FailedPrecondition),
        (Some(own_node), Code::FailedPrecondition),
        (None, Code::InvalidArgument),
    ];
    for (route, code) in cases {
        let vote = VoteRequest { route, vote: Some(leader_vote()), ..VoteRequest::default() };
        assert_eq!(client.vote(vote).await.unwrap_err().code(), code);
        let transfer = TransferLeaderRequest { route, from_leader: Some(leader_vote()), ..Default::default() };
        assert_eq!(client.transfer_leader(transfer).await.unwrap_err().code(), code);
        let begin = SnapshotBegin { route, vote: Some(leader_vote()), manifest: Bytes::new() };
        assert_eq!(install(&mut client, vec![SnapshotPart::Begin(begin)]).await.code(), code);
        if let Some(route) = route {
            assert_eq!(append(&mut client, vec![Some(AppendPart::Begin(route))]).await.code(), code);
        }
    }
    still_works(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn append_streams_that_make_no_sense_are_refused() {
    let (cluster, mut client) = cluster().await;
    let begin = || Some(AppendPart::Begin(route()));
    let entries = |entries: AppendEntries| Some(AppendPart::Entries(entries));
    let heartbeat = AppendEntries { vote: Some(leader_vote()), ..AppendEntries::default() };
    let garbage = AppendEntries { entries: vec![Bytes::from_static(b"\xff\xff")], ..heartbeat.clone() };
    let no_vote = AppendEntries { vote: None, ..heartbeat.clone() };
    let candidate = RaftVote { committed: false, ..leader_vote() };
    let not_a_leader = AppendEntries { vote: Some(candidate), ..heartbeat.clone() };
    let own = RaftVote { term: 99, node_id: FOLLOWER, committed: true };
    let own_vote = AppendEntries { vote: Some(own), ..heartbeat.clone() };
    let at_the_end = LogId { term: 1, node_id: 1, index: u64::MAX };
    let overflow =
        AppendEntries { previous: Some(at_the_end), entries: vec![Bytes::from_static(b"\x01")], ..heartbeat.clone() };
    let cases = [
        vec![],
        vec![None],
        vec![entries(heartbeat.clone())],
        vec![begin(), begin()],
        vec![begin(), None],
        vec![begin(), entries(garbage)],
        vec![begin(), entries(no_vote)],
        vec![begin(), entries(not_a_leader)],
        vec![begin(), entries(own_vote)],
        vec![begin(), entries(overflow)],
    ];
    for (number, parts) in cases.into_iter().enumerate() {
        assert_eq!(append(&mut client, parts).await.code(), Code::InvalidArgument, "case {number}");
    }
    still_works(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn votes_and_snapshots_that_make_no_sense_are_refused() {
    let (cluster, mut client) = cluster().await;
    let no_vote = VoteRequest { route: Some(route()), ..VoteRequest::default() };
    assert_eq!(client.vote(no_vote).await.unwrap_err().code(), Code::InvalidArgument);
    let own = RaftVote { term: 99, node_id: FOLLOWER, committed: false };
    let own_vote = VoteRequest { route: Some(route()), vote: Some(own), ..VoteRequest::default() };
    assert_eq!(client.vote(own_vote).await.unwrap_err().code(), Code::InvalidArgument);

    let begin = |vote, manifest| SnapshotPart::Begin(SnapshotBegin { route: Some(route()), vote, manifest });
    let chunk = SnapshotChunk { file: "../../evil".to_owned(), offset: 0, data: Bytes::from_static(b"evil") };
    let candidate = RaftVote { committed: false, ..leader_vote() };
    let cases = [
        vec![],
        vec![SnapshotPart::Chunk(chunk)],
        vec![begin(None, Bytes::new())],
        vec![begin(Some(candidate), Bytes::new())],
        vec![begin(Some(leader_vote()), Bytes::from_static(b"not a manifest"))],
    ];
    for (number, parts) in cases.into_iter().enumerate() {
        assert_eq!(install(&mut client, parts).await.code(), Code::InvalidArgument, "case {number}");
    }
    still_works(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_an_old_leader_is_answered_with_the_newer_vote_before_it_is_read() {
    let (cluster, mut client) = cluster().await;
    let follower = cluster.wait(FOLLOWER, "node 1 leads", |m| m.current_leader == Some(1)).await;
    let old = RaftVote { term: 0, node_id: 3, committed: true };
    let begin = SnapshotBegin { route: Some(route()), vote: Some(old), manifest: Bytes::from_static(b"unread") };
    let part = dwell_proto::peer::SnapshotPart { part: Some(SnapshotPart::Begin(begin)) };
    let answer = client.install_snapshot(futures::stream::iter([part])).await.unwrap().into_inner();
    assert_eq!(answer.vote.unwrap().term, follower.current_term);
}

/// The follower is not the worse for it: it follows, and applies.
async fn still_works(cluster: &TestCluster) {
    let written = cluster.raft(1).client_write(stores::message("still there")).await.unwrap();
    cluster.wait(FOLLOWER, "the entry is applied", |m| m.last_applied >= Some(written.log_id)).await;
}
