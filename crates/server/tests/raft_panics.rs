//! A node whose Raft panics ends, so that a supervisor starts it again.

use std::time::Duration;

use dwell_server::{Config, Environment, Node, ServerError};

/// Nothing that works takes a tenth of it.
const DEADLINE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_raft_panics_ends_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let any_port = ([127, 0, 0, 1], 0).into();
    let config = Config {
        data_dir: directory.path().join("data"),
        client_address: any_port,
        peer_address: any_port,
        http_address: any_port,
        ..Config::default()
    };
    let node = Node::start(config, Environment::default()).await.unwrap();
    let group = node.group().clone();
    let serving = tokio::spawn(node.serve());
    // What is given to Raft's own task panics there.
    let _: Result<(), _> = group.raft.with_raft_state(|_| panic!("no data to send")).await;
    let ended = tokio::time::timeout(DEADLINE, serving).await.unwrap().unwrap();
    let Err(ServerError::Stopped(reason)) = ended else { panic!("it ended with {ended:?}") };
    assert!(reason.contains("panicked"), "{reason}");
}
