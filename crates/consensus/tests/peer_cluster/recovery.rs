//! A node that begins anew after damage has no part in elections until it has caught up.

use std::time::Duration;

use dwell_consensus::options::RaftOptions;
use dwell_consensus::peer::{PeerLinks, PeerMetrics};
use dwell_consensus::recovery::{RecoveryGate, caught_up};
use dwell_consensus::types::DEFAULT_GROUP;
use dwell_proto::peer::raft_client::RaftClient;
use dwell_proto::peer::{PositionRequest, RaftVote, Route, TransferLeaderRequest, VoteRequest};
use tonic::Code;

use super::cluster::TestCluster;
use super::stores;

const RECOVERING: u64 = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recovering_node_refuses_votes_and_leads_to_no_leader_until_it_has_caught_up() {
    let mut cluster = TestCluster::new(3, RaftOptions::default());
    let gate = RecoveryGate::recovering();
    cluster.gates.insert(RECOVERING, gate.clone());
    cluster.start_all().await;
    cluster.raft(1).client_write(stores::queue()).await.unwrap();
    let written = cluster.raft(1).client_write(stores::message("one")).await.unwrap();
    cluster.wait(RECOVERING, "it takes entries", |m| m.last_applied >= Some(written.log_id)).await;

    let address = format!("http://{}", cluster.listen_address(RECOVERING));
    let mut client = RaftClient::connect(address).await.unwrap();
    let route = Some(Route { group_id: DEFAULT_GROUP, from_node_id: 2, to_node_id: RECOVERING, ..Route::default() });
    for pre_vote in [false, true] {
        let vote = Some(RaftVote { term: 99, node_id: 2, committed: false });
        let request = VoteRequest { route, vote, leadership_transfer: true, pre_vote, ..VoteRequest::default() };
        assert_eq!(client.vote(request).await.unwrap_err().code(), Code::Unavailable);
    }
    let from_leader = Some(RaftVote { term: 1, node_id: 1, committed: true });
    let transfer = TransferLeaderRequest { route, from_leader, new_leader_node_id: RECOVERING, last_log_id: None };
    assert_eq!(client.transfer_leader(transfer).await.unwrap_err().code(), Code::Unavailable);
    let position = client.position(PositionRequest { route }).await.unwrap_err();
    assert_eq!(position.code(), Code::FailedPrecondition, "only a leader tells where its log ends");

    // With the leader dead, the two others are a majority in number, but one of them does not vote.
    cluster.kill(1);
    tokio::time::sleep(Duration::from_secs(4)).await;
    let term = cluster.wait(RECOVERING, "it is there", |_| true).await.current_term;
    assert_eq!(term, 1, "nobody was elected, and the recovering node asked for no votes");

    gate.end(&cluster.raft(RECOVERING));
    let leader = cluster.wait_for_leader().await;
    cluster.wait_for_writes(leader).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_has_caught_up_when_it_has_applied_what_the_leader_had() {
    let mut cluster = TestCluster::new(3, RaftOptions::default());
    cluster.gates.insert(RECOVERING, RecoveryGate::recovering());
    cluster.start(1).await;
    cluster.start(2).await;
    cluster.form().await;
    cluster.raft(1).client_write(stores::queue()).await.unwrap();
    let mut last = None;
    for number in 0..50 {
        last = Some(cluster.raft(1).client_write(stores::message(number.to_string())).await.unwrap().log_id);
    }
    cluster.start(RECOVERING).await;
    let raft = cluster.raft(RECOVERING);
    let links = PeerLinks::new(PeerMetrics::new(&prometheus::Registry::new()).unwrap());
    let caught_up = caught_up(&raft, &links, DEFAULT_GROUP, RECOVERING);
    tokio::time::timeout(super::cluster::DEADLINE, caught_up).await.expect("it catches up");
    let metrics = cluster.wait(RECOVERING, "it is there", |_| true).await;
    assert!(metrics.last_applied >= last, "{metrics:?}");
}
