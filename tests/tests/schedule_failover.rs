//! A schedule fires each due time once, whoever leads.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeMap;
use std::time::Duration;

use dwell_client::{Client, ConsumeOptions, PublishMessage, QueueSettings, ScheduleDefinition};
use dwell_tests::environment::{READY_TIMEOUT, TestCluster, now_ms};

const QUEUE: &str = "ticks";
const SCHEDULE: &str = "tick";
const EVERY_MS: u64 = 100;
const DUE_TIMES: u64 = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_due_time_fires_once_while_leaders_are_killed_and_all_nodes_restart() {
    let cluster = TestCluster::start(&[]).await.unwrap();
    let client = Client::connect(cluster.client_addresses()).unwrap();
    client.declare_queue(QUEUE, QueueSettings::default()).await.unwrap();
    let start_ms = (now_ms() / EVERY_MS + 10) * EVERY_MS;
    let end_ms = start_ms + EVERY_MS * DUE_TIMES;
    let at = |at_ms: u64| i64::try_from(at_ms).unwrap();
    let definition = ScheduleDefinition::every(Duration::from_millis(EVERY_MS))
        .anchor_ms(at(start_ms))
        .start_at_ms(at(start_ms))
        .end_at_ms(at(end_ms))
        .fire_all_missed(1000)
        .message(PublishMessage::new(QUEUE, "tick"));
    client.declare_schedule(SCHEDULE, definition).await.unwrap();

    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let leader = cluster.leader(READY_TIMEOUT).await.unwrap();
        cluster.node(leader).unwrap().kill().await.unwrap();
        cluster.node(leader).unwrap().start().unwrap();
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    cluster.kill_all().await.unwrap();
    cluster.start_all().unwrap();
    cluster.wait_ready(READY_TIMEOUT).await.unwrap();

    let mut fired: BTreeMap<u64, u32> = BTreeMap::new();
    let client = Client::connect(cluster.client_addresses()).unwrap();
    let mut consumer = client.consume(QUEUE, ConsumeOptions::default()).await.unwrap();
    while (fired.len() as u64) < DUE_TIMES {
        let next = tokio::time::timeout(Duration::from_secs(30), consumer.next()).await;
        let delivery = next.unwrap_or_else(|_| panic!("only {} of {DUE_TIMES} fired", fired.len())).unwrap().unwrap();
        assert_eq!(delivery.message.headers["dwell-schedule"], SCHEDULE);
        let due_ms: u64 = delivery.message.headers["dwell-schedule-due-ms"].parse().unwrap();
        *fired.entry(due_ms).or_default() += 1;
        delivery.ack().await.unwrap();
    }
    let expected: BTreeMap<u64, u32> = (0..DUE_TIMES).map(|number| (start_ms + number * EVERY_MS, 1)).collect();
    assert_eq!(fired, expected);
    let totals = client.describe_queue(QUEUE).await.unwrap().totals.unwrap();
    assert_eq!(totals.published, DUE_TIMES, "and none besides");
    let report = client.describe_schedule(SCHEDULE, 5).await.unwrap();
    assert_eq!(report.schedule.unwrap().fired, DUE_TIMES);
    assert!(report.next_due_ms.is_empty(), "it is finished");
    assert_eq!(report.history.len(), 20);
}
