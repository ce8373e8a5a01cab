//! Recalling by filter most of a large queue, while others go on working.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::{Duration, Instant};

use dwell_client::{Client, MessageState, PublishMessage, PublisherOptions, QueueSettings, Selection};
use dwell_tests::environment::{TestCluster, hold_in_time};
use futures::StreamExt as _;
use tokio::sync::watch;

const QUEUE: &str = "reminders";
const OTHER: &str = "work";
const MESSAGES: u64 = 200_000;
/// How many of them stay.
const KEPT: u64 = MESSAGES / 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bulk_recall_reports_progress_and_does_not_stall_the_others() {
    hold_in_time(recall_most).await;
}

async fn recall_most() -> Result<(), String> {
    let cluster = TestCluster::start(&[]).await.unwrap();
    let client = Client::connect(cluster.client_addresses()).unwrap();
    for queue in [QUEUE, OTHER] {
        client.declare_queue(queue, QueueSettings::default()).await.unwrap();
    }
    fill(&client).await;

    let (stop, stopped) = watch::channel(false);
    let others = tokio::spawn(publish_until(client.clone(), stopped));
    let began = Instant::now();
    let selection = Selection::all(QUEUE).state(MessageState::Scheduled).header("campaign", "spring");
    let mut revising = client.recall_matching(selection).await.unwrap();
    let mut progress = Vec::new();
    while let Some(step) = revising.next().await {
        progress.push(step.unwrap());
    }
    let took = began.elapsed();
    stop.send(true).unwrap();
    let slowest = others.await.unwrap();

    let last = progress.last().unwrap();
    assert!(last.done && last.revised == MESSAGES - KEPT && last.leased == 0, "{last:?}");
    assert!(progress.len() > 20, "{} reports of progress", progress.len());
    assert!(progress.is_sorted_by_key(|step| step.revised), "progress goes forward");
    assert_eq!(client.queue_counts(QUEUE).await.unwrap().scheduled, KEPT);
    println!("{} recalled in {took:?}; slowest other confirm {slowest:?}", last.revised);
    if took > Duration::from_secs(30) {
        return Err(format!("recalling took {took:?}"));
    }
    // Who waited for the recall's end would have waited for all of it.
    if slowest > Duration::from_millis(500).max(took / 4) {
        return Err(format!("another confirm took {slowest:?}"));
    }
    Ok(())
}

async fn fill(client: &Client) {
    let publisher = client.publisher(PublisherOptions::default());
    let mut confirms = Vec::new();
    for first in (0..MESSAGES).step_by(1000) {
        let messages = (first..first + 1000).map(|number| {
            let campaign = if number % (MESSAGES / KEPT) == 0 { "autumn" } else { "spring" };
            let delay = Duration::from_secs(3600) + Duration::from_millis(number);
            PublishMessage::new(QUEUE, vec![7; 100]).delay(delay).header("campaign", campaign)
        });
        confirms.push(publisher.publish(messages.collect()).await.unwrap());
    }
    for confirm in confirms {
        confirm.await.unwrap();
    }
}

/// Publishes one message after the other, and answers with the slowest confirm.
async fn publish_until(client: Client, stopped: watch::Receiver<bool>) -> Duration {
    let publisher = client.publisher(PublisherOptions::default());
    let mut slowest = Duration::ZERO;
    while !*stopped.borrow() {
        let began = Instant::now();
        publisher.publish(vec![PublishMessage::new(OTHER, "x")]).await.unwrap().await.unwrap();
        slowest = slowest.max(began.elapsed());
    }
    slowest
}
