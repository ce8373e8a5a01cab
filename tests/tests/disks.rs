//! Disks that run short, fill up, become read-only, or fail, under load: nothing confirmed is lost.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use dwell_client::{Client, ClientOptions, Error, PublishMessage, QueueSettings, RevisionOutcome, Target};
use dwell_local_cluster::{LocalCluster, LocalClusterOptions, LocalNode};
use dwell_tests::environment::{READY_TIMEOUT, binary, until};
use dwell_tests::history::Recorder;
use dwell_tests::report::milliseconds;
use dwell_tests::small_disk::SmallDisk;
use dwell_tests::workload::{ConsumerTask, Consumption, Production, wait_until_drained};
use tempfile::TempDir;
use tokio::task::JoinHandle;

const QUEUE: &str = "disks";
const DISK_BYTES: u64 = 384 << 20;
const WATERMARK_BYTES: u64 = 64 << 20;
const MESSAGES: u64 = 6_000;
/// A disk that fails is met by whichever of these comes next: a write of the log, its fsync, or the write that marks
/// a batch as durable.
const FAILED_OPERATIONS: [&str; 3] = ["pwrite", "fdatasync", "marking a batch as durable: Input/output error"];

/// Three nodes, each with a disk of its own. Dropped in this order.
struct Cluster {
    nodes: LocalCluster,
    disks: Vec<SmallDisk>,
    _directory: TempDir,
}

impl Cluster {
    /// None where the machine does not allow it.
    async fn start(watermark_bytes: u64) -> Option<Cluster> {
        let directory = TempDir::with_prefix("dwell-disks-").unwrap();
        let mut options = LocalClusterOptions::new(binary().unwrap(), 3, directory.path());
        options = options.with_environment("DWELL_DISK_FREE_WATERMARK_BYTES", watermark_bytes.to_string());
        options.ready_timeout = READY_TIMEOUT;
        let mut disks = Vec::new();
        for id in 1..=3 {
            disks.push(SmallDisk::mount(&directory.path().join(format!("node-{id}/data")), DISK_BYTES).unwrap()?);
        }
        let nodes = LocalCluster::start(options).await.unwrap();
        Some(Cluster { nodes, disks, _directory: directory })
    }

    fn node(&self, id: u64) -> &LocalNode {
        self.nodes.node(id).unwrap()
    }

    fn disk(&self, id: u64) -> &SmallDisk {
        &self.disks[id as usize - 1]
    }

    async fn leader(&self) -> u64 {
        self.nodes.leader(READY_TIMEOUT).await.unwrap()
    }

    fn client(&self) -> Client {
        Client::connect(self.nodes.client_addresses()).unwrap()
    }

    /// Waits until the node has ended by itself, and answers what it said last.
    async fn ended(&self, id: u64) -> String {
        until("the node ends by itself", async || !self.node(id).is_running()).await;
        let error = self.node(id).check_alive().unwrap_err().to_string();
        println!("node {id} ended: {}", error.lines().rev().find(|line| line.starts_with("error:")).unwrap_or(&error));
        error
    }

    async fn restart(&self, id: u64) {
        self.node(id).start().unwrap();
        self.nodes.wait_ready(READY_TIMEOUT).await.unwrap();
    }
}

/// A producer and a consumer at work.
struct Load {
    client: Client,
    recorder: Recorder,
    producer: JoinHandle<anyhow::Result<()>>,
    consumer: ConsumerTask,
}

impl Load {
    async fn start(cluster: &Cluster) -> Load {
        let (client, recorder) = (cluster.client(), Recorder::default());
        client.declare_queue(QUEUE, QueueSettings::default()).await.unwrap();
        let consumption = Consumption { queue: QUEUE.to_owned(), number: 0, credit: 100 };
        let consumer = consumption.start(&client, recorder.clone()).await.unwrap();
        let production = Production {
            queue: QUEUE.to_owned(),
            first_id: 0,
            messages: MESSAGES,
            interval: Duration::from_millis(2),
            delay_ms_max: 200,
            body_bytes: 1024,
        };
        let producer = tokio::spawn(production.run(client.clone(), recorder.clone()));
        Load { client, recorder, producer, consumer }
    }

    /// Everything is confirmed and consumed: nothing is lost. Prints the longest gap.
    async fn finish(self, name: &str) {
        self.producer.await.unwrap().unwrap();
        let drained = wait_until_drained(&self.client, QUEUE, Duration::from_secs(60)).await;
        let verdict = self.recorder.history().check(&[]);
        drained.unwrap();
        self.consumer.stop().await.unwrap();
        let gap = milliseconds(verdict.longest_confirm_gap_us);
        let lost = verdict.violations.len();
        println!("{name}: {} confirmed, violations {lost}, longest confirm gap {gap}", verdict.confirmed);
        assert_eq!(verdict.violations, [], "lost, early or unexplained repeated messages");
        assert_eq!(verdict.confirmed as u64, MESSAGES);
        assert!(self.client.digest().await.unwrap().is_equal());
    }
}

async fn metric(node: &LocalNode, line: &str) -> bool {
    node.http_get("/metrics").await.is_ok_and(|(_, text)| text.lines().any(|found| found == line))
}

/// Tries once: what is refused comes back at once.
async fn publish_once(cluster: &Cluster) -> Result<(), Error> {
    let hasty = ClientOptions::default().retry_deadline(Duration::from_millis(200));
    let client = Client::connect_with(cluster.nodes.client_addresses(), hasty).unwrap();
    client.publish_one(PublishMessage::new("held", "more")).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_runs_short_refuses_publishes_and_nothing_else() {
    let Some(cluster) = Cluster::start(WATERMARK_BYTES).await else { return };
    let client = cluster.client();
    client.declare_queue("held", QueueSettings::default()).await.unwrap();
    let kept = client.publish_one(PublishMessage::new("held", "recall me")).await.unwrap();
    client.publish_one(PublishMessage::new("held", "consume me")).await.unwrap();
    let load = Load::start(&cluster).await;
    tokio::time::sleep(Duration::from_secs(1)).await;

    let leader = cluster.leader().await;
    for short in [leader % 3 + 1, leader] {
        cluster.disk(short).leave_free(WATERMARK_BYTES / 2).unwrap();
        let watermark = if short == leader { "disk" } else { "member" };
        let line = format!("dwell_watermark_reached{{watermark=\"{watermark}\"}} 1");
        until("the leader knows of it", async || metric(cluster.node(leader), &line).await).await;
        let refused = publish_once(&cluster).await.unwrap_err().to_string();
        println!("node {short} is short of disk: {refused}");
        assert!(
            refused.contains("disk_free_watermark_bytes") && refused.contains(&WATERMARK_BYTES.to_string()),
            "{refused}"
        );
        assert_eq!(refused.contains(&format!("node {short}: ")), short != leader, "{refused}");
        if short != leader {
            // Room can be made: what is there is consumed, acknowledged, recalled, and queues are administered.
            let recalled = client.recall(Target::handle(&kept.handle)).await.unwrap();
            assert_eq!(recalled.revised[0].outcome, RevisionOutcome::Done, "{recalled:?}");
            let received = client.receive("held", 1, Duration::from_secs(5)).await.unwrap();
            received.into_iter().next().unwrap().ack().await.unwrap();
            client.declare_queue("meanwhile", QueueSettings::default()).await.unwrap();
        }
        let status = client.cluster_status(&cluster.node(short).client_address()).await.unwrap();
        assert!(status.exhausted.contains("disk_free_watermark_bytes"), "{status:?}");
        cluster.disk(short).free().unwrap();
        until("publishes are taken again", async || publish_once(&cluster).await.is_ok()).await;
    }
    assert_eq!(cluster.leader().await, leader, "nobody had to end");
    load.finish("disk short, and freed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_disk_is_full_ends_and_comes_back_when_it_is_freed() {
    let Some(cluster) = Cluster::start(0).await else { return };
    let load = Load::start(&cluster).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let leader = cluster.leader().await;
    for full in [leader % 3 + 1, leader] {
        load.recorder.killed();
        cluster.disk(full).leave_free(0).unwrap();
        let said = cluster.ended(full).await;
        assert!(said.contains("the log cannot be written any more") && said.contains("StorageFull"), "{said}");
        cluster.disk(full).free().unwrap();
        cluster.restart(full).await;
    }
    load.finish("disk full, and freed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_disk_fails_or_is_read_only_ends_and_comes_back_when_it_is_mended() {
    let Some(cluster) = Cluster::start(0).await else { return };
    let load = Load::start(&cluster).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let leader = cluster.leader().await;
    for failing in [leader % 3 + 1, leader] {
        load.recorder.killed();
        cluster.disk(failing).fail().unwrap();
        let said = cluster.ended(failing).await;
        let says_what_failed = FAILED_OPERATIONS.iter().any(|operation| said.contains(operation));
        assert!(said.contains("the log cannot be written any more") && says_what_failed, "{said}");
        cluster.disk(failing).mend(true).unwrap();
        cluster.node(failing).start().unwrap();
        let said = cluster.ended(failing).await;
        assert!(said.contains("Read-only file system"), "{said}");
        cluster.disk(failing).mend(false).unwrap();
        cluster.restart(failing).await;
    }
    load.finish("disk failed, and mended").await;
}
