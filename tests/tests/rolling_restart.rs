//! Nodes are told to stop, and started again: nothing is lost, and nobody waits long.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::{Duration, Instant};

use dwell_client::{Client, ClientOptions, PublishMessage, QueueSettings};
use dwell_tests::environment::{READY_TIMEOUT, TestCluster, hold_in_time};
use dwell_tests::history::Recorder;
use dwell_tests::workload::{Consumption, Production, wait_until_drained};
use tokio::task::JoinSet;

const QUEUE: &str = "restarts";
const PRODUCERS: u64 = 4;
const MESSAGES_EACH: u64 = 3_000;
/// 1000 messages a second altogether.
const INTERVAL: Duration = Duration::from_millis(4);
const CONFIRM_GAP_MAX: Duration = Duration::from_millis(300);
/// A node with nobody to wait for should be gone within this.
const PROMPT: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_under_load_loses_nothing_and_holds_up_confirms_for_less_than_300_ms() {
    hold_in_time(restart_all_in_turn).await;
}

async fn restart_all_in_turn() -> Result<(), String> {
    let cluster = TestCluster::start(&[]).await.unwrap();
    let client = Client::connect(cluster.client_addresses()).unwrap();
    client.declare_queue(QUEUE, QueueSettings::default()).await.unwrap();
    let recorder = Recorder::default();
    let mut consumers = Vec::new();
    for number in 0..2 {
        let consumption = Consumption { queue: QUEUE.to_owned(), number, credit: 100 };
        consumers.push(consumption.start(&client, recorder.clone()).await.unwrap());
    }
    let mut producers = JoinSet::new();
    for producer in 0..PRODUCERS {
        let production = Production {
            queue: QUEUE.to_owned(),
            first_id: producer * MESSAGES_EACH,
            messages: MESSAGES_EACH,
            interval: INTERVAL,
            delay_ms_max: 0,
            body_bytes: 256,
        };
        producers.spawn(production.run(client.clone(), recorder.clone()));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;

    // The leader of the moment first, so that leadership moves with each of the first steps.
    let mut waiting: Vec<u64> = (1..=3).collect();
    let mut led = 0;
    while !waiting.is_empty() {
        let leader = cluster.leader(READY_TIMEOUT).await.unwrap();
        let next = waiting.iter().position(|id| *id == leader).unwrap_or(0);
        let id = waiting.remove(next);
        led += u32::from(id == leader);
        // A delivery whose acknowledgement was on its way may be repeated, as after a kill.
        recorder.killed();
        let begun = Instant::now();
        cluster.node(id).unwrap().stop().await.unwrap();
        println!("node {id}, leader: {}, stopped within {:?}", id == leader, begun.elapsed());
        cluster.node(id).unwrap().start().unwrap();
        cluster.wait_ready(READY_TIMEOUT).await.unwrap();
    }
    assert!(led >= 2, "leadership was handed over {led} times");

    while let Some(produced) = producers.join_next().await {
        produced.unwrap().unwrap();
    }
    let drained = wait_until_drained(&client, QUEUE, Duration::from_secs(40)).await;
    let verdict = recorder.history().check(&[]);
    println!("{verdict}");
    drained.unwrap();
    for consumer in consumers {
        consumer.stop().await.unwrap();
    }
    assert_eq!(verdict.violations, [], "lost, early or unexplained repeated messages");
    assert_eq!(verdict.confirmed as u64, PRODUCERS * MESSAGES_EACH);
    let digest = client.digest().await.unwrap();
    assert!(digest.is_equal(), "{digest:?}");
    let gap = Duration::from_micros(verdict.longest_confirm_gap_us);
    if gap >= CONFIRM_GAP_MAX { Err(format!("no confirm came for {gap:?}")) } else { Ok(()) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_told_to_stop_is_not_ready_and_ends_when_the_calls_under_way_have() {
    let cluster = TestCluster::start(&[]).await.unwrap();
    let client = Client::connect(cluster.client_addresses()).unwrap();
    client.declare_queue(QUEUE, QueueSettings::default()).await.unwrap();
    let leader = cluster.leader(READY_TIMEOUT).await.unwrap();
    let follower = cluster.node(leader % 3 + 1).unwrap();
    let pinned = ClientOptions::default().follow_leader(false);
    let through_follower = Client::connect_with(vec![follower.client_address()], pinned).unwrap();
    // Waits for a message that comes only when the node is about to stop.
    let receiving = tokio::spawn(async move { through_follower.receive(QUEUE, 1, Duration::from_secs(8)).await });
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (stopped, ()) = tokio::join!(follower.stop(), async {
        let deadline = Instant::now() + READY_TIMEOUT;
        while follower.http_get("/readyz").await.ok() != Some((503, "stopping\n".into())) {
            assert!(Instant::now() < deadline, "the node should not be ready");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(follower.is_running(), "a call is under way");
        client.publish_one(PublishMessage::new(QUEUE, "late")).await.unwrap();
    });
    stopped.unwrap();
    let received = receiving.await.unwrap().unwrap();
    assert_eq!(received.len(), 1, "the call came to its end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_alone_and_all_nodes_at_once_stop_without_waiting_for_a_successor() {
    for nodes in [1, 3] {
        let cluster = TestCluster::start_nodes(nodes, &[]).await.unwrap();
        let client = Client::connect(cluster.client_addresses()).unwrap();
        client.declare_queue(QUEUE, QueueSettings::default()).await.unwrap();
        // A stream that would last for ever.
        let recorder = Recorder::default();
        let consumption = Consumption { queue: QUEUE.to_owned(), number: 0, credit: 10 };
        let consumer = consumption.start(&client, recorder).await.unwrap();
        let begun = Instant::now();
        cluster.stop_all().await.unwrap();
        let took = begun.elapsed();
        println!("{nodes} nodes stopped within {took:?}");
        assert!(took < PROMPT * nodes as u32, "{nodes} nodes took {took:?}");
        drop(consumer);
    }
}
