//! A million messages that are due in the same second.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use dwell_client::{Client, ConsumeOptions, PublishMessage, PublisherOptions, QueueSettings};
use dwell_tests::environment::{TestCluster, hold_in_time, now_ms, now_us};
use dwell_tests::report::Distribution;
use dwell_tests::workload::{body, id_of, wait_until_drained};
use futures::StreamExt as _;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

const QUEUE: &str = "million";
const OTHER_QUEUE: &str = "other";
const MESSAGES: u64 = 1_000_000;
const BODY_BYTES: usize = 100;
const BATCH: u64 = 1_000;
const PUBLISHERS: u64 = 4;
const CONSUMERS: usize = 4;
const CREDIT: u32 = 1_000;
const CONSUMED_WITHIN: Duration = Duration::from_secs(600);
const CONFIRM_MAX: Duration = Duration::from_millis(250);
const MEMORY_BYTES_MAX: u64 = 1 << 30;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_million_messages_due_in_one_second_are_consumed_and_do_not_stall_other_queues() {
    hold_in_time(a_million_due).await;
}

async fn a_million_due() -> Result<(), String> {
    let cluster = TestCluster::start(&[]).await.unwrap();
    let client = Client::connect(cluster.client_addresses()).unwrap();
    for queue in [QUEUE, OTHER_QUEUE] {
        client.declare_queue(queue, QueueSettings::default()).await.unwrap();
    }
    let due_second = due_second(&client).await;
    let published_from = Instant::now();
    publish_all(&client, due_second).await;
    println!("published {MESSAGES} in {:?}, due in {} ms", published_from.elapsed(), due_second * 1000 - now_ms());
    assert!(now_ms() < due_second * 1000, "publishing took until they were due: the forecast was wrong");
    let counts = client.queue_counts(QUEUE).await.unwrap();
    assert_eq!((counts.scheduled, counts.ready), (MESSAGES, 0));

    let prober = Prober::start(cluster.client_addresses());
    let seen = Arc::new(Seen::new());
    let consumers = consume(&client, &seen).await;
    let due = Instant::now() + Duration::from_millis((due_second * 1000).saturating_sub(now_ms()));
    wait_until_consumed(&cluster, &seen, due).await;
    println!("consumed completely {:?} after they were due", due.elapsed());
    wait_until_drained(&client, QUEUE, Duration::from_secs(60)).await.unwrap();
    let confirms = prober.stop(due_second * 1000 * 1000);
    drop(consumers);

    println!("confirms of another queue meanwhile: {confirms}");
    println!("messages before their time: {}, more than once: {}", seen.early(), seen.repeated());
    for node in cluster.nodes() {
        let peak = node.memory_peak_bytes().unwrap();
        println!("node {}: at most {} MiB resident", node.id(), peak >> 20);
        assert!(peak < MEMORY_BYTES_MAX, "node {} used {peak} bytes", node.id());
    }
    assert_eq!((seen.early(), seen.repeated()), (0, 0));
    assert!(confirms.count() > 100, "confirms were measured");
    if confirms.max_us() >= CONFIRM_MAX.as_micros() as u64 {
        return Err(format!("a confirm of another queue took {} us", confirms.max_us()));
    }
    Ok(())
}

/// A second, since the epoch, that publishing will be done before: measured on a sample, doubled, and some more.
async fn due_second(client: &Client) -> u64 {
    const SAMPLE: u64 = 40_000;
    client.declare_queue("sample", QueueSettings::default()).await.unwrap();
    let started = Instant::now();
    publish_range(client.clone(), "sample", 0..SAMPLE, now_ms() / 1000 + 3_600).await;
    let forecast = started.elapsed() * u32::try_from(MESSAGES / SAMPLE).unwrap();
    println!("a sample of {SAMPLE} took {:?}: a million should take about {forecast:?}", started.elapsed());
    client.delete_queue("sample", false, false).await.unwrap();
    now_ms() / 1000 + (forecast * 2).as_secs() + 15
}

async fn publish_all(client: &Client, due_second: u64) {
    let each = MESSAGES / PUBLISHERS;
    let mut publishers = JoinSet::new();
    for publisher in 0..PUBLISHERS {
        let range = publisher * each..(publisher + 1) * each;
        publishers.spawn(publish_range(client.clone(), QUEUE, range, due_second));
    }
    publishers.join_all().await;
}

/// Publishes messages numbered so, spread over the milliseconds of the second.
async fn publish_range(client: Client, queue: &'static str, range: std::ops::Range<u64>, due_second: u64) {
    let publisher = client.publisher(PublisherOptions::default());
    let batches = range.clone().step_by(BATCH as usize).map(|first| {
        let numbers = first..(first + BATCH).min(range.end);
        numbers
            .map(|number| {
                let due_ms = i64::try_from(due_second * 1000 + number % 1000).unwrap();
                PublishMessage::new(queue, body(number, BODY_BYTES)).deliver_at_ms(due_ms)
            })
            .collect::<Vec<_>>()
    });
    // Few batches in flight keep the client's own memory small; each is large enough to fill a log entry.
    let mut confirms =
        futures::stream::iter(batches).map(|batch| async { publisher.publish(batch).await.unwrap().await }).buffered(8);
    while let Some(confirmed) = confirms.next().await {
        confirmed.unwrap();
    }
}

/// How often each message came, and how often one came too early.
struct Seen {
    deliveries: Vec<AtomicU64>,
    distinct: AtomicUsize,
    early: AtomicUsize,
}

impl Seen {
    fn new() -> Self {
        let deliveries = (0..MESSAGES).map(|_| AtomicU64::new(0)).collect();
        Self { deliveries, distinct: AtomicUsize::new(0), early: AtomicUsize::new(0) }
    }

    fn record(&self, number: u64, ready_at_ms: i64, received_at_us: u64) {
        if received_at_us < u64::try_from(ready_at_ms).unwrap() * 1000 {
            self.early.fetch_add(1, Ordering::Relaxed);
        }
        if self.deliveries[usize::try_from(number).unwrap()].fetch_add(1, Ordering::Relaxed) == 0 {
            self.distinct.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn distinct(&self) -> usize {
        self.distinct.load(Ordering::Relaxed)
    }

    fn early(&self) -> usize {
        self.early.load(Ordering::Relaxed)
    }

    fn repeated(&self) -> usize {
        self.deliveries.iter().filter(|count| count.load(Ordering::Relaxed) > 1).count()
    }
}

/// Starts consumers that acknowledge everything; they end when dropped.
async fn consume(client: &Client, seen: &Arc<Seen>) -> JoinSet<()> {
    let mut consumers = JoinSet::new();
    for _ in 0..CONSUMERS {
        let options = ConsumeOptions::default().credit(CREDIT);
        let consumer = client.consume(QUEUE, options).await.unwrap();
        let seen = seen.clone();
        consumers.spawn(consumer.for_each_concurrent(CREDIT as usize, move |delivery| {
            let (delivery, received_at_us) = (delivery.unwrap(), now_us());
            seen.record(id_of(&delivery.message.body).unwrap(), delivery.ready_at_ms, received_at_us);
            async move { delivery.ack().await.unwrap() }
        }));
    }
    consumers
}

async fn wait_until_consumed(cluster: &TestCluster, seen: &Seen, due: Instant) {
    tokio::time::sleep_until(due).await;
    let mut looks = tokio::time::interval(Duration::from_millis(100));
    for look in 0.. {
        looks.tick().await;
        if seen.distinct() == MESSAGES as usize {
            return;
        }
        if look % 100 == 0 {
            println!("{} s after due: {} consumed", due.elapsed().as_secs(), seen.distinct());
        }
        assert!(cluster.nodes().iter().all(|node| node.is_running()), "a node died");
        assert!(due.elapsed() < CONSUMED_WITHIN, "only {} of {MESSAGES} came", seen.distinct());
    }
}

/// Publishes to another queue, one message at a time, and measures each confirm. It has a thread and connections
/// of its own, so that it is the servers' delay that is measured and not that of this busy client.
struct Prober {
    stop: watch::Sender<bool>,
    thread: std::thread::JoinHandle<Vec<(u64, u64)>>,
}

impl Prober {
    fn start(addresses: Vec<String>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(probe(addresses, stopped))
        });
        Self { stop, thread }
    }

    /// Ends it; answers the confirm times of what was sent from `from_us` on.
    fn stop(self, from_us: u64) -> Distribution {
        self.stop.send_replace(true);
        let mut measured = self.thread.join().unwrap();
        measured.retain(|(sent_at_us, _)| *sent_at_us >= from_us);
        measured.sort_by_key(|(_, took_us)| std::cmp::Reverse(*took_us));
        for (sent_at_us, took_us) in measured.iter().take(5) {
            println!("{} ms after due a confirm took {} ms", (sent_at_us - from_us) / 1000, took_us / 1000);
        }
        Distribution::new(measured.into_iter().map(|(_, took_us)| took_us).collect())
    }
}

async fn probe(addresses: Vec<String>, stopped: watch::Receiver<bool>) -> Vec<(u64, u64)> {
    let client = Client::connect(addresses).unwrap();
    let publisher = client.publisher(PublisherOptions::default());
    let mut measured = Vec::new();
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !*stopped.borrow() {
        ticks.tick().await;
        let sent_at_us = now_us();
        let started = Instant::now();
        let message = PublishMessage::new(OTHER_QUEUE, body(0, BODY_BYTES));
        publisher.publish(vec![message]).await.unwrap().await.unwrap();
        measured.push((sent_at_us, started.elapsed().as_micros() as u64));
    }
    measured
}
