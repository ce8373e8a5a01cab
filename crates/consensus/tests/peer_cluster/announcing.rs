//! What nodes say of themselves: versions, formats, and the cluster that they belong to.

use std::sync::Arc;

use dwell_consensus::announcements::{Announcement, Announcements, Announcer};
use dwell_consensus::clock::SystemClock;
use dwell_consensus::identity::ClusterIdentity;
use dwell_consensus::options::RaftOptions;
use dwell_consensus::peer::{PeerLinks, PeerMetrics};
use dwell_consensus::proposer::{ProposeError, Proposer};
use dwell_consensus::state_machine::StateMachine;
use dwell_consensus::types::{DEFAULT_GROUP, NodeId};
use dwell_machine::{COMMAND_FORMAT, COMMAND_FORMAT_UNANNOUNCED, Command, DetachAll, Identify};
use dwell_proto::peer::raft_client::RaftClient;
use dwell_proto::peer::{AnnounceRequest, PositionRequest, RaftVote, Route, VoteRequest};
use tonic::Code;

use super::cluster::TestCluster;

const OLD: NodeId = 3;

fn route(to: NodeId) -> Route {
    Route { group_id: DEFAULT_GROUP, from_node_id: 1, to_node_id: to, ..Route::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_command_is_not_proposed_before_the_oldest_member_understands_it() {
    let mut cluster = TestCluster::new(3, RaftOptions::default());
    cluster.announcers.insert(OLD, Announcer::new("0.0.9", COMMAND_FORMAT_UNANNOUNCED));
    cluster.start_all().await;
    let registry = prometheus::Registry::new();
    let links = PeerLinks::new(PeerMetrics::new(&registry).unwrap());
    let announcements = Announcements::default();
    let raft = cluster.raft(1);
    let proposer = Proposer::start(raft.clone(), Arc::new(SystemClock), announcements.clone(), &registry).unwrap();
    let identify = || Command::Identify(Identify { cluster_id: 7, holders: vec![1] });
    let refused = async || match proposer.propose(identify()).await {
        Err(ProposeError::NotUnderstood(refused)) => refused,
        other => panic!("it was proposed: {other:?}"),
    };
    assert_eq!(refused().await.announcement, None, "nobody was asked yet");

    announcements.ask(&raft, &links, route).await;
    let own = Announcement { command_format: COMMAND_FORMAT, ..announcements.of(2).unwrap() };
    announcements.record(1, own.clone());
    let refused = refused().await;
    assert_eq!((refused.node_id, refused.needs), (OLD, 2));
    assert_eq!(
        refused.to_string(),
        "to identify the cluster takes command format 2, and node 3, version 0.0.9, understands up to 1: upgrade it first"
    );
    proposer.propose(Command::DetachAll(DetachAll {})).await.unwrap();

    announcements.record(OLD, own);
    proposer.propose(identify()).await.unwrap();
    let id = raft.with_state_machine(|state_machine: &mut StateMachine| {
        let id = state_machine.machine().cluster_id();
        Box::pin(async move { id })
    });
    assert_eq!(id.await.unwrap(), Some(7));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_of_another_cluster_is_refused_and_changes_no_vote() {
    let mut cluster = TestCluster::new(3, RaftOptions::default());
    for node in 1..=3 {
        cluster.identities.insert(node, ClusterIdentity::new(Some(7), 1, |_| Ok(())));
    }
    cluster.start_all().await;
    let mut client = RaftClient::connect(format!("http://{}", cluster.listen_address(2))).await.unwrap();
    let ours = Some(Route { cluster_id: 7, ..route(2) });
    let announced = client.announce(AnnounceRequest { route: ours }).await.unwrap().into_inner();
    assert_eq!((announced.cluster_id, announced.command_format), (7, COMMAND_FORMAT));

    let theirs = Some(Route { cluster_id: 8, ..route(2) });
    let vote = Some(RaftVote { term: 99, node_id: 1, committed: false });
    let vote = VoteRequest { route: theirs, vote, leadership_transfer: true, ..VoteRequest::default() };
    let refused = client.vote(vote).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().starts_with("node 2 belongs to cluster 0000000000000007, and node 1 of"), "{refused}");
    let position = client.position(PositionRequest { route: theirs }).await.unwrap_err();
    assert_eq!(position.code(), Code::FailedPrecondition);
    assert_eq!(client.announce(AnnounceRequest { route: theirs }).await.unwrap_err().code(), Code::FailedPrecondition);
    assert_eq!(cluster.metric(2, "dwell_peer_identity_refusals_total"), 3.0);
    let term = cluster.wait(2, "it is there", |_| true).await.current_term;
    assert_eq!(term, 1, "the vote of another cluster's node changes nothing");
}
