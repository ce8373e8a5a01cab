//! Entries reach the followers.

use std::time::{Duration, Instant};

use dwell_consensus::options::RaftOptions;
use futures::StreamExt;

use super::cluster::{TestCluster, patient_options};
use super::proxy::Line;
use super::stores;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_applies_what_was_written() {
    let cluster = TestCluster::three(RaftOptions::default()).await;
    let leader = cluster.raft(1);
    leader.client_write(stores::queue()).await.unwrap();
    let bodies = (0..2_000_u32).map(|n| stores::message(n.to_be_bytes().to_vec()));
    let mut last = 0;
    let mut written = leader.client_write_many(bodies).await.unwrap();
    while let Some(response) = written.next().await {
        last = response.unwrap().unwrap().log_id.index;
    }
    let contents = stores::contents(&leader).await;
    assert!(contents.contains("2000"), "{contents}");
    for node in [2, 3] {
        cluster.wait(node, "everything is applied", |m| m.last_applied.is_some_and(|id| id.index >= last)).await;
        assert_eq!(stores::contents(&cluster.raft(node)).await, contents);
    }
}

/// With one entry to a request and 20 ms there and back, 200 entries take 4 s one after the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_do_not_wait_for_each_others_answers() {
    let mut cluster = TestCluster::new(3, patient_options()).with_one_entry_per_request();
    let line = Line { delay: Duration::from_millis(10), ..Line::PERFECT };
    let mut proxies = Vec::new();
    for node in [2, 3] {
        proxies.push(cluster.reach_through_proxy(node, line).await);
    }
    cluster.start_all().await;
    let leader = cluster.raft(1);
    leader.client_write(stores::queue()).await.unwrap();
    let started = Instant::now();
    let proposals = (0..200_u32).map(|n| stores::message(n.to_be_bytes().to_vec()));
    let written = leader.client_write_many(proposals).await.unwrap();
    assert_eq!(written.filter(|response| std::future::ready(matches!(response, Ok(Ok(_))))).count().await, 200);
    let elapsed = started.elapsed();
    println!("200 requests over a round trip of 20 ms: {elapsed:?}");
    assert!(elapsed < Duration::from_secs(2), "took {elapsed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_larger_than_a_usual_grpc_message_is_replicated() {
    let cluster = TestCluster::three(RaftOptions::default()).await;
    let leader = cluster.raft(1);
    leader.client_write(stores::queue()).await.unwrap();
    let response = leader.client_write(stores::message(vec![7; 17 << 20])).await.unwrap();
    for node in [2, 3] {
        cluster.wait(node, "the entry is applied", |m| m.last_applied >= Some(response.log_id)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_that_comes_back_is_fed_at_once_and_keeps_its_leader() {
    let mut cluster = TestCluster::new(3, patient_options());
    let mut proxy = cluster.reach_through_proxy(3, Line::PERFECT).await;
    cluster.start_all().await;
    let leader = cluster.raft(1);
    leader.client_write(stores::queue()).await.unwrap();
    let before = cluster.wait(3, "node 1 leads", |m| m.current_leader == Some(1)).await;
    proxy.cut().await;
    let response = leader.client_write(stores::message("meanwhile")).await.unwrap();
    proxy.mend().await;
    let back = Instant::now();
    let after = cluster.wait(3, "it caught up", |m| m.last_applied >= Some(response.log_id)).await;
    println!("a follower that came back was fed after {:?}", back.elapsed());
    assert!(back.elapsed() < Duration::from_secs(1), "took {:?}", back.elapsed());
    // Its streams broke, but the leader lives: no election came of it.
    assert_eq!(after.vote, before.vote);
    assert_eq!(cluster.metric(3, "dwell_dead_leaders_total"), 0.0);
}
