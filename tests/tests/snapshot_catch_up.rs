//! A node that was down while the log was purged.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use dwell_client::{Client, QueueSettings};
use dwell_local_cluster::LocalCluster;
use dwell_tests::environment::{READY_TIMEOUT, TestCluster};
use dwell_tests::raw::{RawClient, message};
use tokio::time::Instant;

const QUEUE: &str = "kept";
const BODY_BYTES: usize = 512;

/// Publishes one request after the other, so that each is an entry of the log, until `enough`; then answers how
/// many messages were confirmed.
async fn publish_until(cluster: &LocalCluster, leader: u64, first: u64, enough: impl AsyncFn(u64) -> bool) -> u64 {
    let address = cluster.node(leader).unwrap().client_address();
    let mut client = RawClient::connect(&address).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    let mut number = first;
    loop {
        for _ in 0..100 {
            let body = dwell_tests::workload::body(number, BODY_BYTES);
            client.publish(vec![message(QUEUE, body, None)]).await.unwrap();
            number += 1;
        }
        if enough(number - first).await {
            return number;
        }
        assert!(Instant::now() < deadline, "after {number} entries still not purged");
    }
}

/// Waits until the node has applied at least up to `index`.
async fn wait_until_applied(cluster: &LocalCluster, node: u64, index: u64) {
    let deadline = Instant::now() + READY_TIMEOUT;
    loop {
        let status = cluster.node(node).unwrap().status().await;
        if status.as_ref().is_ok_and(|status| status.applied_index >= index) {
            return;
        }
        assert!(Instant::now() < deadline, "node {node} has not applied {index}: {status:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Makes `heir` the leader: of the two others one is dead, and one was dead while entries were committed without
/// it, so that only `heir` can win. (Paused instead of dead it might find the entries in its sockets' buffers.)
async fn make_leader(cluster: &LocalCluster, heir: u64, number: u64) -> u64 {
    let leader = cluster.leader(READY_TIMEOUT).await.unwrap();
    assert_ne!(leader, heir);
    let other = (1..=3).find(|node| ![leader, heir].contains(node)).unwrap();
    cluster.node(other).unwrap().kill().await.unwrap();
    let number = publish_until(cluster, leader, number, async |count| count >= 200).await;
    let index = cluster.node(leader).unwrap().status().await.unwrap().committed_index;
    wait_until_applied(cluster, heir, index).await;
    cluster.node(leader).unwrap().kill().await.unwrap();
    cluster.node(other).unwrap().start().unwrap();
    assert_eq!(cluster.leader(READY_TIMEOUT).await.unwrap(), heir, "the only node with all entries leads");
    number
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_missed_the_purged_log_catches_up_by_snapshot_and_can_lead_afterwards() {
    let environment = [("DWELL_SNAPSHOT_LOG_ENTRIES", "500"), ("DWELL_SNAPSHOT_LOG_ENTRIES_KEPT", "50")];
    let cluster = TestCluster::start(&environment).await.unwrap();
    let client = Client::connect(cluster.client_addresses()).unwrap();
    client.declare_queue(QUEUE, QueueSettings::default()).await.unwrap();
    let leader = cluster.leader(READY_TIMEOUT).await.unwrap();
    let absent = (1..=3).find(|node| *node != leader).unwrap();
    let number = publish_until(&cluster, leader, 0, async |count| count >= 100).await;
    let last_seen = cluster.node(absent).unwrap().status().await.unwrap().last_log_index;
    cluster.node(absent).unwrap().kill().await.unwrap();

    let others: Vec<u64> = (1..=3).filter(|node| *node != absent).collect();
    let number = publish_until(&cluster, leader, number, async |_| {
        let mut purged = true;
        for node in &others {
            purged &= cluster.node(*node).unwrap().status().await.unwrap().purged_index > last_seen + 100;
        }
        purged
    })
    .await;
    let at_return = cluster.node(leader).unwrap().status().await.unwrap();
    println!(
        "node {absent} saw up to {last_seen}; {number} messages later node {leader} has purged up to {} of {}",
        at_return.purged_index, at_return.last_log_index
    );

    let returned_at = Instant::now();
    cluster.node(absent).unwrap().start().unwrap();
    wait_until_applied(&cluster, absent, at_return.committed_index).await;
    println!("caught up {:?} after its start", returned_at.elapsed());
    cluster.wait_ready(READY_TIMEOUT).await.unwrap();
    let caught_up = cluster.node(absent).unwrap().status().await.unwrap();
    assert!(caught_up.snapshot_index >= at_return.purged_index, "by snapshot: {caught_up:?}");

    let number = make_leader(&cluster, absent, number).await;
    assert_eq!(client.queue_counts(QUEUE).await.unwrap().ready, number, "the new leader has every message");
    let number = publish_until(&cluster, absent, number, async |count| count >= 100).await;
    cluster.start_all().unwrap();
    cluster.wait_ready(READY_TIMEOUT).await.unwrap();
    consume_all(&client, number).await;
}

/// Every message from 0 to `messages` comes, once and in order.
async fn consume_all(client: &Client, messages: u64) {
    let mut expected = 0;
    while expected < messages {
        let deliveries = client.receive(QUEUE, 1000, Duration::from_secs(10)).await.unwrap();
        assert!(!deliveries.is_empty(), "message {expected} of {messages} is missing");
        for delivery in &deliveries {
            assert_eq!(dwell_tests::workload::id_of(&delivery.message.body).unwrap(), expected);
            expected += 1;
        }
        let acknowledged = futures::future::join_all(deliveries.iter().map(|delivery| delivery.ack())).await;
        assert!(acknowledged.iter().all(Result::is_ok), "{acknowledged:?}");
    }
    let counts = client.queue_counts(QUEUE).await.unwrap();
    assert_eq!((counts.scheduled, counts.ready, counts.leased), (0, 0, 0));
}
