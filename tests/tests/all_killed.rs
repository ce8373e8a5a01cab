//! All three nodes are killed at once under load, and started again.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use dwell_client::{Client, ConsumeOptions, PublishMessage, PublisherOptions, QueueSettings};
use dwell_tests::environment::{READY_TIMEOUT, TestCluster, hold_in_time, now_ms, now_us};
use dwell_tests::history::Recorder;
use dwell_tests::workload::{Consumption, Production, body, id_of, wait_until_drained};
use tokio::task::JoinSet;

const LOAD_QUEUE: &str = "load";
const WAITING_QUEUE: &str = "waiting";
/// Messages that are due while no node runs, and no two at the same time.
const WAITING_MESSAGES: u64 = 2_000;
const OUTAGE: Duration = Duration::from_secs(4);
/// What fell due meanwhile comes at once: this long after the cluster is ready.
const AT_ONCE: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_confirmed_is_lost_when_all_nodes_are_killed_and_what_fell_due_comes_at_once_in_due_order() {
    hold_in_time(kill_all).await;
}

async fn kill_all() -> Result<(), String> {
    let cluster = TestCluster::start(&[]).await.unwrap();
    let client = Client::connect(cluster.client_addresses()).unwrap();
    client.declare_queue(LOAD_QUEUE, QueueSettings::default()).await.unwrap();
    client.declare_queue(WAITING_QUEUE, QueueSettings::default()).await.unwrap();
    let recorder = Recorder::default();
    let mut consumers = Vec::new();
    for number in 0..2 {
        let consumption = Consumption { queue: LOAD_QUEUE.to_owned(), number, credit: 100 };
        consumers.push(consumption.start(&client, recorder.clone()).await.unwrap());
    }
    let mut producers = start_load(&client, &recorder);

    tokio::time::sleep(Duration::from_secs(2)).await;
    let outage_from_ms = now_ms() + 2_000;
    publish_due_in_outage(&client, outage_from_ms).await;
    tokio::time::sleep(Duration::from_millis(outage_from_ms.saturating_sub(now_ms() + 100))).await;
    let (confirmed_before, _) = recorder.progress();
    recorder.killed();
    cluster.kill_all().await.unwrap();
    if now_ms() > outage_from_ms {
        return Err("the nodes died only after the first message of the outage was due".to_owned());
    }
    tokio::time::sleep(OUTAGE).await;

    let started_at_us = now_us();
    cluster.start_all().unwrap();
    cluster.wait_ready(READY_TIMEOUT).await.unwrap();
    let ready_at_us = now_us();
    let last_us = consume_in_due_order(&cluster.client_addresses(), outage_from_ms).await;
    println!("ready again after {} ms", (ready_at_us - started_at_us) / 1000);
    let overdue = Duration::from_micros(last_us - ready_at_us);
    println!("{WAITING_MESSAGES} overdue messages came within {} ms of that", overdue.as_millis());

    while let Some(producer) = producers.join_next().await {
        producer.unwrap().unwrap();
    }
    let drained = wait_until_drained(&client, LOAD_QUEUE, Duration::from_secs(60)).await;
    let verdict = recorder.history().check(&[]);
    println!("{confirmed_before} were confirmed before the kill\n{verdict}");
    drained.unwrap();
    assert!(confirmed_before > 1_000, "the nodes were killed under load");
    assert_eq!(verdict.violations, []);
    assert_eq!(verdict.confirmed, verdict.sent);
    for consumer in consumers {
        consumer.stop().await.unwrap();
    }
    if overdue > AT_ONCE {
        return Err(format!("what fell due meanwhile came {overdue:?} after the nodes were ready"));
    }
    Ok(())
}

/// 1000 messages a second for 12 s, from before the kill until after the restart.
fn start_load(client: &Client, recorder: &Recorder) -> JoinSet<anyhow::Result<()>> {
    let mut producers = JoinSet::new();
    for producer in 0..4 {
        let production = Production {
            queue: LOAD_QUEUE.to_owned(),
            first_id: producer * 3_000,
            messages: 3_000,
            interval: Duration::from_millis(4),
            delay_ms_max: 6_000,
            body_bytes: 256,
        };
        producers.spawn(production.run(client.clone(), recorder.clone()));
    }
    producers
}

/// Publishes messages that are due at each millisecond from `from_ms` on, in another order than that.
async fn publish_due_in_outage(client: &Client, from_ms: u64) {
    let publisher = client.publisher(PublisherOptions::default());
    let messages: Vec<PublishMessage> = (0..WAITING_MESSAGES)
        .map(|position| {
            // 7 and 2000 have no common divisor: every offset occurs once.
            let offset_ms = position * 7 % WAITING_MESSAGES;
            let due_ms = i64::try_from(from_ms + offset_ms).unwrap();
            PublishMessage::new(WAITING_QUEUE, body(offset_ms, 64)).deliver_at_ms(due_ms)
        })
        .collect();
    let mut confirms = Vec::new();
    for batch in messages.chunks(20) {
        confirms.push(publisher.publish(batch.to_vec()).await.unwrap());
    }
    for confirm in confirms {
        confirm.await.unwrap();
    }
    assert!(now_ms() < from_ms, "publishing took until the first message was due: the machine is too slow");
}

/// Consumes all waiting messages with one consumer, and answers when the last one came.
async fn consume_in_due_order(addresses: &[String], from_ms: u64) -> u64 {
    let client = Client::connect(addresses).unwrap();
    let options = ConsumeOptions::default().credit(u32::try_from(WAITING_MESSAGES).unwrap());
    let mut consumer = client.consume(WAITING_QUEUE, options).await.unwrap();
    let mut deliveries = Vec::new();
    let mut last_us = 0;
    while deliveries.len() < WAITING_MESSAGES as usize {
        let next = tokio::time::timeout(Duration::from_secs(30), consumer.next()).await;
        deliveries.push(next.expect("all messages come").unwrap().unwrap());
        last_us = now_us();
    }
    for (expected, delivery) in (0..).zip(&deliveries) {
        assert_eq!(id_of(&delivery.message.body).unwrap(), expected, "they come in due order");
        assert_eq!(delivery.ready_at_ms, i64::try_from(from_ms + expected).unwrap(), "the due time is kept");
    }
    let acknowledged = futures::future::join_all(deliveries.iter().map(|delivery| delivery.ack())).await;
    assert!(acknowledged.iter().all(Result::is_ok));
    consumer.close().await.unwrap();
    let counts = client.queue_counts(WAITING_QUEUE).await.unwrap();
    assert_eq!((counts.scheduled, counts.ready, counts.leased), (0, 0, 0));
    last_us
}
