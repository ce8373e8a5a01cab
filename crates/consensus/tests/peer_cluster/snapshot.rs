//! A follower that needs what the log no longer has.

use dwell_consensus::options::RaftOptions;

use super::cluster::TestCluster;
use super::stores;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_comes_late_is_given_a_snapshot_and_then_entries() {
    let options = RaftOptions { snapshot_log_entries_kept: 0, ..RaftOptions::default() };
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

/// Bytes that do not compress, the same every time.
fn random_bytes(seed: u8, length: usize) -> Vec<u8> {
    let mut state = u64::from(seed) + 1;
    let step = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(step).collect()
}
