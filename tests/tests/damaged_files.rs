//! Files of a node are damaged: it notices, serves nothing of it, and recovers from its peers; nothing is lost.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dwell_client::{Client, QueueSettings};
use dwell_local_cluster::LocalNode;
use dwell_tests::environment::{READY_TIMEOUT, TestCluster};
use dwell_tests::raw::{RawClient, message};
use dwell_tests::workload::{body, id_of};
use tokio::time::Instant;

const QUEUE: &str = "orders";
/// Some go to blob files, most to tables.
const BODY_BYTES: [usize; 3] = [64, 700, 6_000];
const PER_REQUEST: u64 = 5;
/// One in four messages is due later than it is published.
const DELAY_MS: i64 = 1_500;

fn expected_body(number: u64) -> bytes::Bytes {
    body(number, BODY_BYTES[number as usize % BODY_BYTES.len()])
}

struct Test {
    cluster: TestCluster,
    published: u64,
}

impl Test {
    async fn start() -> Test {
        // Snapshots are frequent, so that there are tables on disk, and the log is purged.
        let environment = [("DWELL_SNAPSHOT_LOG_ENTRIES", "150"), ("DWELL_SNAPSHOT_LOG_ENTRIES_KEPT", "20")];
        let cluster = TestCluster::start(&environment).await.unwrap();
        let client = Client::connect(cluster.client_addresses()).unwrap();
        client.declare_queue(QUEUE, QueueSettings::default()).await.unwrap();
        Test { cluster, published: 0 }
    }

    fn node(&self, id: u64) -> &LocalNode {
        self.cluster.node(id).unwrap()
    }

    async fn leader(&self) -> u64 {
        self.cluster.leader(READY_TIMEOUT).await.unwrap()
    }

    /// Publishes through the leader, and counts on what is confirmed.
    async fn publish(&mut self, count: u64) {
        let leader = self.leader().await;
        let mut client = RawClient::connect(&self.node(leader).client_address()).await.unwrap();
        for first in (self.published..self.published + count).step_by(PER_REQUEST as usize) {
            let numbers = first..first + PER_REQUEST;
            let delay = |number: u64| number.is_multiple_of(4).then_some(DELAY_MS);
            let messages = numbers.map(|number| message(QUEUE, expected_body(number), delay(number))).collect();
            client.publish(messages).await.unwrap();
        }
        self.published += count;
    }

    /// Starts a node again whenever it ends, until it is ready. Answers whether it recovered from its peers.
    async fn supervise(&self, id: u64) -> bool {
        let node = self.node(id);
        let deadline = Instant::now() + READY_TIMEOUT;
        let mut starts = 0;
        loop {
            if !node.is_running() {
                node.start().unwrap();
                starts += 1;
                assert!(starts < 6, "node {id} does not come to rest: {}", node.log_tail());
            }
            let data = node.data_directory();
            if matches!(node.http_get("/readyz").await, Ok((200, _))) {
                assert!(!data.join("RECOVERING").exists() && !data.join("DAMAGED").exists());
                let (_, metrics) = node.http_get("/metrics").await.unwrap();
                assert!(metrics.contains("dwell_recovering 0"), "{metrics}");
                return has_set_aside(&data);
            }
            assert!(Instant::now() < deadline, "node {id} is not ready: {}", node.log_tail());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Damages a follower's files while it is down, lets it recover, and then leads with it: of the others, one is
    /// dead, and one lacks the last entries.
    async fn round(&mut self, what: &str, must_recover: bool, damage: impl FnOnce(&Path)) {
        self.publish(400).await;
        let leader = self.leader().await;
        let victim = (1..=3).find(|node| *node != leader).unwrap();
        let other = (1..=3).find(|node| ![leader, victim].contains(node)).unwrap();
        self.node(victim).kill().await.unwrap();
        damage(&self.node(victim).data_directory());
        self.publish(50).await;
        let recovered = self.supervise(victim).await;
        println!("{what}: node {victim} recovered: {recovered}");
        assert!(recovered || !must_recover, "{what}: not noticed");

        self.node(other).kill().await.unwrap();
        self.publish(50).await;
        // What the leader has committed, the victim may not have applied yet; it has it in its log.
        self.node(leader).kill().await.unwrap();
        self.node(other).start().unwrap();
        assert_eq!(self.leader().await, victim, "{what}: the only node with all entries leads");
        self.node(leader).start().unwrap();
        self.cluster.wait_ready(READY_TIMEOUT).await.unwrap();
        for aside in set_aside(&self.node(victim).data_directory()) {
            fs::remove_dir_all(aside).unwrap();
        }
    }

    /// Every message comes, whole; nodes that end meanwhile are started again.
    async fn consume_all(&self) {
        let client = Client::connect(self.cluster.client_addresses()).unwrap();
        let mut acknowledged = BTreeMap::new();
        let deadline = Instant::now() + Duration::from_secs(180);
        while (acknowledged.len() as u64) < self.published {
            assert!(Instant::now() < deadline, "only {} of {} came", acknowledged.len(), self.published);
            for node in self.cluster.nodes().iter().filter(|node| !node.is_running()) {
                println!("node {} has ended: {}", node.id(), node.log_tail().lines().last().unwrap_or_default());
                node.start().unwrap();
            }
            let Ok(deliveries) = client.receive(QUEUE, 200, Duration::from_secs(2)).await else { continue };
            for delivery in &deliveries {
                let number = id_of(&delivery.message.body).unwrap();
                assert_eq!(delivery.message.body, expected_body(number), "message {number} is corrupted");
            }
            let acks = futures::future::join_all(deliveries.iter().map(|delivery| delivery.ack())).await;
            for (delivery, ack) in deliveries.iter().zip(acks) {
                let times: &mut u32 = acknowledged.entry(id_of(&delivery.message.body).unwrap()).or_default();
                *times += u32::from(ack.is_ok());
            }
            acknowledged.retain(|_, times| *times > 0);
        }
        assert!(acknowledged.values().all(|times| *times == 1), "acknowledged more than once");
        assert_eq!(acknowledged.keys().copied().collect::<Vec<_>>(), (0..self.published).collect::<Vec<_>>());
    }
}

fn set_aside(data: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("damaged-")).collect()
}

fn has_set_aside(data: &Path) -> bool {
    !set_aside(data).is_empty()
}

/// What is there, if it still is: under a node that runs, files and directories come and go.
fn if_there<T>(looked: io::Result<T>) -> Option<T> {
    match looked {
        Ok(found) => Some(found),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => panic!("{error}"),
    }
}

fn files(directory: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in if_there(fs::read_dir(directory)).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, extensions));
        } else if path.extension().is_some_and(|extension| extensions.iter().any(|wanted| extension == *wanted)) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn last_log_file(data: &Path) -> PathBuf {
    files(&data.join("log"), &["raftlog"]).pop().unwrap()
}

/// Where the records of a log file end: what follows was only reserved.
fn end_of(file: &Path) -> u64 {
    let bytes = fs::read(file).unwrap();
    bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1
}

fn open(file: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(file)
}

fn flip(file: &File, position: u64) {
    let mut byte = [0];
    file.read_exact_at(&mut byte, position).unwrap();
    byte[0] ^= 0x10;
    file.write_all_at(&byte, position).unwrap();
}

/// Flips a bit in every 512 bytes of each table and blob file.
fn flip_state(data: &Path) {
    let tables = files(&data.join("groups"), &["sst", "blob"]);
    // Snapshots share files with the database: what is flipped twice is whole again.
    let mut flipped = BTreeSet::new();
    for table in tables.iter().filter_map(|table| if_there(open(table))) {
        let metadata = table.metadata().unwrap();
        if flipped.insert(metadata.ino()) {
            (20..metadata.len()).step_by(512).for_each(|position| flip(&table, position));
        }
    }
    assert!(!flipped.is_empty(), "there are tables on disk");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_damaged_files_recovers_and_nothing_confirmed_is_lost_or_corrupted() {
    let mut test = Test::start().await;
    test.publish(1_000).await;
    test.round("a bit of the log's last record", true, |data| {
        let file = last_log_file(data);
        flip(&open(&file).unwrap(), end_of(&file) - 30);
    })
    .await;
    test.round("the log's last file is cut", true, |data| {
        let file = last_log_file(data);
        let end = end_of(&file);
        open(&file).unwrap().set_len(end / 2).unwrap();
    })
    .await;
    test.round("the log's last file is missing", true, |data| fs::remove_file(last_log_file(data)).unwrap()).await;
    test.round("bits all over the log", false, |data| {
        let file = last_log_file(data);
        let (end, file) = (end_of(&file), open(&file).unwrap());
        (1..10).for_each(|part| flip(&file, end * part / 10));
    })
    .await;
    test.round("tables of the state", true, flip_state).await;
    test.round("the state's pointer", true, |data| fs::remove_file(data.join("groups/1/CURRENT")).unwrap()).await;
    test.round("the log's identity", true, |data| fs::remove_file(data.join("log/IDENTITY")).unwrap()).await;

    // And under a leader that runs: it finds out when it reads.
    let leader = test.leader().await;
    test.publish(500).await;
    flip_state(&test.node(leader).data_directory());
    test.consume_all().await;
    let recovered = test.supervise(leader).await;
    println!("the leader recovered: {recovered}, after {} messages", test.published);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_alone_refuses_to_start_over_damaged_files() {
    let cluster = TestCluster::start_nodes(1, &[]).await.unwrap();
    let client = Client::connect(cluster.client_addresses()).unwrap();
    client.declare_queue(QUEUE, QueueSettings::default()).await.unwrap();
    let node = cluster.node(1).unwrap();
    node.kill().await.unwrap();
    let file = last_log_file(&node.data_directory());
    flip(&open(&file).unwrap(), end_of(&file) - 30);
    for _ in 0..2 {
        node.start().unwrap();
        let deadline = Instant::now() + READY_TIMEOUT;
        while node.is_running() {
            assert!(Instant::now() < deadline, "it runs over damaged files");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(node.log_tail().contains("dwell backup restore"), "{}", node.log_tail());
        node.stop().await.unwrap();
    }
    assert!(node.data_directory().join("log").exists() && !has_set_aside(&node.data_directory()));
}
