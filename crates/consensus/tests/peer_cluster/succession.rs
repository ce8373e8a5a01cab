//! A leader dies, and another one is there long before anyone could have noticed its silence.

use std::time::{Duration, Instant};

use dwell_consensus::options::RaftOptions;
use openraft::raft::TransferLeaderRequest;

use super::cluster::{TestCluster, patient_options};
use super::proxy::Line;
use super::stores;

/// Less than what [`patient_options`] take to notice silence.
const AT_ONCE: Duration = Duration::from_secs(1);

async fn kill_leader(cluster: &mut TestCluster) -> (u64, Duration, Duration) {
    let old = cluster.wait_for_leader().await;
    let killed = cluster.kill(old);
    let new = cluster.wait_for_leader().await;
    let elected = killed.elapsed();
    cluster.wait_for_writes(new).await;
    cluster.raft(new).client_write(stores::message("after the kill")).await.unwrap();
    (new, elected, killed.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_leader_that_dies_is_replaced_at_once() {
    for _ in 0..3 {
        let mut cluster = TestCluster::three(patient_options()).await;
        let written = cluster.raft(1).client_write(stores::queue()).await.unwrap();
        for node in [2, 3] {
            cluster.wait(node, "the first entries are applied", |m| m.last_applied >= Some(written.log_id)).await;
        }
        let (new, elected, confirmed) = kill_leader(&mut cluster).await;
        println!("idle: node {new} elected after {elected:?}, first confirm after {confirmed:?}");
        assert!(confirmed < AT_ONCE, "took {confirmed:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_dies_under_load_is_replaced_at_once() {
    for _ in 0..3 {
        let mut cluster = TestCluster::three(patient_options()).await;
        let leader = cluster.raft(1);
        leader.client_write(stores::queue()).await.unwrap();
        let (started, wait_for_start) = tokio::sync::oneshot::channel();
        let load = tokio::spawn(async move {
            let mut started = Some(started);
            for n in 0_u32.. {
                if leader.client_write(stores::message(vec![n as u8; 10_000])).await.is_err() {
                    return;
                }
                if n == 100 {
                    let _ = started.take().map(|started| started.send(()));
                }
            }
        });
        wait_for_start.await.unwrap();
        let (new, elected, confirmed) = kill_leader(&mut cluster).await;
        println!("load: node {new} elected after {elected:?}, first confirm after {confirmed:?}");
        assert!(confirmed < AT_ONCE, "took {confirmed:?}");
        load.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_five_nodes_two_leaders_in_a_row_are_replaced_at_once() {
    let mut cluster = TestCluster::new(5, patient_options());
    cluster.start_all().await;
    let written = cluster.raft(1).client_write(stores::queue()).await.unwrap();
    for node in 2..=5 {
        cluster.wait(node, "the first entries are applied", |m| m.last_applied >= Some(written.log_id)).await;
    }
    for _ in 0..2 {
        let (new, elected, confirmed) = kill_leader(&mut cluster).await;
        println!("five: node {new} elected after {elected:?}, first confirm after {confirmed:?}");
        assert!(confirmed < AT_ONCE, "took {confirmed:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_second_in_line_succeeds_soon_if_the_first_ones_log_is_older() {
    let mut cluster = TestCluster::new(3, patient_options());
    let mut proxy = cluster.reach_through_proxy(2, Line::PERFECT).await;
    cluster.start_all().await;
    let leader = cluster.raft(1);
    let written = leader.client_write(stores::queue()).await.unwrap();
    for node in [2, 3] {
        cluster.wait(node, "the first entries are applied", |m| m.last_applied >= Some(written.log_id)).await;
    }
    proxy.cut().await;
    let written = leader.client_write(stores::message("unknown to node 2")).await.unwrap();
    cluster.wait(3, "node 3 has the entry", |m| m.last_log_index >= Some(written.log_id.index)).await;
    let behind = cluster.wait(2, "node 2 does not have it", |m| m.last_log_index < Some(written.log_id.index)).await;
    drop(leader);

    let killed = cluster.kill(1);
    proxy.mend().await;
    // Node 2 is first in line, and tries; node 3 has the newer log and refuses.
    let takeover = TransferLeaderRequest::new(behind.vote, 2, None);
    cluster.raft(2).handle_transfer_leader(takeover).await.unwrap().unwrap();
    assert_eq!(cluster.wait_for_leader().await, 3);
    cluster.wait_for_writes(3).await;
    cluster.raft(3).client_write(stores::message("after the kill")).await.unwrap();
    println!("second in line: confirmed after {:?}", killed.elapsed());
    assert!(killed.elapsed() < AT_ONCE, "took {:?}", killed.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_ends_its_streams_before_it_dies_is_replaced_soon() {
    let options = RaftOptions { heartbeat_interval: Duration::from_millis(100), ..patient_options() };
    let mut cluster = TestCluster::three(options).await;
    let written = cluster.raft(1).client_write(stores::queue()).await.unwrap();
    for node in [2, 3] {
        cluster.wait(node, "the first entries are applied", |m| m.last_applied >= Some(written.log_id)).await;
    }
    // Raft closes its streams in good order and says no more, while the process goes on for a time: when the
    // connections break, they carry none.
    cluster.raft(1).shutdown().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let killed = cluster.kill(1);
    let new = cluster.wait_for_leader().await;
    println!("streams ended: node {new} elected after {:?}", killed.elapsed());
    assert!(killed.elapsed() < AT_ONCE, "took {:?}", killed.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_silence_alone_a_leader_is_replaced_within_the_timeouts() {
    let mut cluster = TestCluster::three(RaftOptions::default()).await;
    let written = cluster.raft(1).client_write(stores::queue()).await.unwrap();
    for node in [2, 3] {
        cluster.wait(node, "the first entries are applied", |m| m.last_applied >= Some(written.log_id)).await;
    }
    // Raft stops, the server and its connections stay: there is nothing to be noticed but silence.
    let stopped = Instant::now();
    cluster.raft(1).shutdown().await.unwrap();
    let old = cluster.nodes.remove(&1).unwrap();
    let new = cluster.wait_for_leader().await;
    println!("silence: node {new} elected after {:?}", stopped.elapsed());
    assert!(stopped.elapsed() < Duration::from_secs(3), "took {:?}", stopped.elapsed());
    drop(old);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_hands_over_when_it_is_asked_to() {
    let cluster = TestCluster::three(patient_options()).await;
    let written = cluster.raft(1).client_write(stores::queue()).await.unwrap();
    cluster.wait(3, "the first entries are applied", |m| m.last_applied >= Some(written.log_id)).await;
    let asked = Instant::now();
    cluster.raft(1).trigger().transfer_leader(3).await.unwrap();
    cluster.wait(3, "node 3 leads", |m| m.current_leader == Some(3)).await;
    cluster.wait_for_writes(3).await;
    println!("transfer: took writes after {:?}", asked.elapsed());
    assert!(asked.elapsed() < AT_ONCE, "took {:?}", asked.elapsed());
    for node in [1, 2, 3] {
        assert_eq!(cluster.metric(node, "dwell_dead_leaders_total"), 0.0);
    }
}
