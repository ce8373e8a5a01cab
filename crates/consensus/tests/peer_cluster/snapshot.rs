//! A follower that needs what the log no longer has.

use std::time::{Duration, Instant};

use dwell_consensus::options::RaftOptions;

use super::cluster::{TestCluster, undisturbed_options};
use super::proxy::Line;
use super::stores;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_comes_late_is_given_a_snapshot_and_then_entries() {
    let options = RaftOptions { snapshot_log_entries_kept: 0, ..undisturbed_options() };
    let mut cluster = TestCluster::new(3, options);
    cluster.start(1).await;
    cluster.start(2).await;
    cluster.form().await;
    let leader = cluster.raft(1);
    leader.client_write(stores::queue()).await.unwrap();
    let mut last = None;
    // More than one chunk of the transfer.
    for n in 0..40_u8 {
        last = Some(leader.client_write(stores::message(random_bytes(n, 100_000))).await.unwrap().log_id);
    }
    leader.trigger().snapshot().await.unwrap();
    cluster.wait(1, "the log is purged behind the snapshot", |m| m.purged >= last).await;

    cluster.start(3).await;
    let caught_up = cluster.wait(3, "node 3 is given a snapshot", |m| m.last_applied >= last).await;
    assert!(caught_up.snapshot >= last, "{caught_up}");
    assert!(cluster.metric(1, "dwell_peer_snapshot_bytes_total") > 3_000_000.0);
    assert_eq!(stores::contents(&cluster.raft(3)).await, stores::contents(&leader).await);

    let next = leader.client_write(stores::message("after the snapshot")).await.unwrap();
    cluster.wait(3, "node 3 goes on with entries", |m| m.last_applied >= Some(next.log_id)).await;
    assert_eq!(stores::contents(&cluster.raft(3)).await, stores::contents(&leader).await);

    // It is a full member: with it the others are a majority.
    cluster.kill(2);
    leader.client_write(stores::message("with node 3 alone")).await.unwrap();
}

/// The timeout is for a transfer that stands still: this one takes longer as a whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_over_a_slow_line_arrives_although_it_takes_longer_than_the_timeout() {
    let stall_timeout = Duration::from_secs(4);
    let options =
        RaftOptions { snapshot_log_entries_kept: 0, snapshot_stall_timeout: stall_timeout, ..undisturbed_options() };
    let mut cluster = TestCluster::new(3, options);
    let line = Line { bytes_per_second: 4e6, ..Line::PERFECT };
    let _proxy = cluster.reach_through_proxy(3, line).await;
    cluster.start(1).await;
    cluster.start(2).await;
    cluster.form().await;
    let leader = cluster.raft(1);
    leader.client_write(stores::queue()).await.unwrap();
    let mut last = None;
    for n in 0..24 {
        last = Some(leader.client_write(stores::message(random_bytes(n, 1_000_000))).await.unwrap().log_id);
    }
    leader.trigger().snapshot().await.unwrap();
    cluster.wait(1, "the log is purged behind the snapshot", |m| m.purged >= last).await;
    let started = Instant::now();
    cluster.start(3).await;
    cluster.wait(3, "node 3 is given a snapshot", |m| m.last_applied >= last).await;
    println!("a snapshot over a slow line took {:?}", started.elapsed());
    assert!(started.elapsed() > stall_timeout, "took only {:?}, which shows nothing", started.elapsed());
    // Once, not in several attempts.
    let sent = cluster.metric(1, "dwell_peer_snapshot_bytes_total");
    assert!(sent < 30e6, "sent {sent} bytes");
}

/// Bytes that do not compress, the same every time.
fn random_bytes(seed: u8, length: usize) -> Vec<u8> {
    let mut state = u64::from(seed) + 1;
    let step = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(step).collect()
}
