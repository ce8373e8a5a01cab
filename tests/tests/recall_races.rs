//! Messages are recalled while they fall due and are consumed, and the leader dies in between: each message is either
//! recalled or delivered, whatever anybody was told.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dwell_client::{Client, ConsumeOptions, PublishMessage, PublisherOptions, QueueSettings, RevisionOutcome, Target};
use dwell_tests::environment::{READY_TIMEOUT, TestCluster, now_ms};
use tokio::task::JoinSet;

const QUEUE: &str = "races";
const MESSAGES: u64 = 4_000;
/// The messages fall due one after the other over this time.
const SPREAD_MS: u64 = 8_000;
/// From the publish until the first message is due.
const LEAD_MS: u64 = 2_000;
/// So many that each has time for its share, on a slow machine too.
const RECALLERS: u64 = 40;
const CONSUMERS: usize = 4;

/// Sequences of the messages that consumers were given.
type Delivered = Arc<Mutex<BTreeSet<u64>>>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_message_is_either_recalled_or_delivered_through_two_kills_of_the_leader() {
    let cluster = TestCluster::start(&[]).await.unwrap();
    let client = Client::connect(cluster.client_addresses()).unwrap();
    client.declare_queue(QUEUE, QueueSettings::default()).await.unwrap();
    let first_due_ms = now_ms() + LEAD_MS;
    let due = publish(&client, first_due_ms).await;
    assert_eq!(due.len() as u64, MESSAGES);

    let delivered = Delivered::default();
    let mut consumers = JoinSet::new();
    for _ in 0..CONSUMERS {
        consumers.spawn(consume(client.clone(), delivered.clone()));
    }
    let mut recallers = JoinSet::new();
    for recaller in 0..RECALLERS {
        let share = due.iter().filter(|(sequence, _)| **sequence % RECALLERS == recaller);
        recallers.spawn(recall(client.clone(), share.map(|(sequence, due_ms)| (*sequence, *due_ms)).collect()));
    }
    for wait_ms in [LEAD_MS + SPREAD_MS / 4, SPREAD_MS / 2] {
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        let leader = cluster.leader(READY_TIMEOUT).await.unwrap();
        cluster.node(leader).unwrap().kill().await.unwrap();
        cluster.node(leader).unwrap().start().unwrap();
    }
    let answers: BTreeMap<u64, RevisionOutcome> = recallers.join_all().await.into_iter().flatten().collect();
    wait_until_empty(&client).await;
    consumers.shutdown().await;

    let delivered = delivered.lock().unwrap().clone();
    check(&due, &answers, &delivered);
    // Whoever was told *leased*, or got no answer, is counted here: what was not delivered was recalled.
    let totals = client.describe_queue(QUEUE).await.unwrap().totals.unwrap();
    assert_eq!(totals.recalled + delivered.len() as u64, MESSAGES, "recalled and delivered");
    assert_eq!(totals.acknowledged, delivered.len() as u64);
    let recalled = answers.values().filter(|outcome| **outcome == RevisionOutcome::Done).count();
    println!("{recalled} recalled, {} delivered", delivered.len());
    assert!(recalled as u64 > MESSAGES / 50 && delivered.len() as u64 > MESSAGES / 50, "there were races");
}

/// Due times by sequence.
async fn publish(client: &Client, first_due_ms: u64) -> BTreeMap<u64, u64> {
    let publisher = client.publisher(PublisherOptions::default());
    let mut due = BTreeMap::new();
    for first in (0..MESSAGES).step_by(500) {
        let due_times: Vec<u64> =
            (first..first + 500).map(|number| first_due_ms + number * SPREAD_MS / MESSAGES).collect();
        let messages = due_times
            .iter()
            .map(|due_ms| PublishMessage::new(QUEUE, "x").deliver_at_ms(i64::try_from(*due_ms).unwrap()));
        let published = publisher.publish(messages.collect()).await.unwrap().await.unwrap();
        due.extend(published.iter().map(|one| one.handle.sequence).zip(due_times));
    }
    due
}

async fn consume(client: Client, delivered: Delivered) {
    let mut consumer = client.consume(QUEUE, ConsumeOptions::default().credit(20)).await.unwrap();
    while let Some(delivery) = consumer.next().await {
        let delivery = delivery.unwrap();
        delivered.lock().unwrap().insert(delivery.handle.sequence);
        // One that is lost comes again.
        let _ = delivery.ack().await;
    }
}

/// Recalls each message about when it falls due, some of them before, some after.
async fn recall(client: Client, messages: Vec<(u64, u64)>) -> Vec<(u64, RevisionOutcome)> {
    let mut answers = Vec::new();
    for (sequence, due_ms) in messages {
        let at_ms = (due_ms + sequence % 41).saturating_sub(20);
        tokio::time::sleep(Duration::from_millis(at_ms.saturating_sub(now_ms()))).await;
        let revision = client.recall(Target::sequences(QUEUE, [sequence])).await.unwrap();
        answers.extend(revision.revised.iter().map(|revised| (revised.handle.sequence, revised.outcome)));
    }
    answers
}

/// Waits until nothing is left in the queue: each message has met its fate.
async fn wait_until_empty(client: &Client) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let counts = client.queue_counts(QUEUE).await.unwrap();
        if counts.scheduled + counts.ready + counts.leased == 0 {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "left after a minute: {counts:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn check(due: &BTreeMap<u64, u64>, answers: &BTreeMap<u64, RevisionOutcome>, delivered: &BTreeSet<u64>) {
    for sequence in due.keys() {
        let was_delivered = delivered.contains(sequence);
        match answers.get(sequence) {
            Some(RevisionOutcome::Done) => assert!(!was_delivered, "message {sequence} was recalled and delivered"),
            Some(RevisionOutcome::Leased | RevisionOutcome::Gone) => {
                assert!(was_delivered, "message {sequence} was gone or leased, and nobody got it");
            }
            Some(RevisionOutcome::DoneOrGone) => {}
            other => panic!("message {sequence} was answered {other:?}"),
        }
    }
}
