//! A backup of a cluster under load, and new clusters that begin with it.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use dwell_client::{Client, Delivery, PublishMessage, QueueSettings, ScheduleDefinition};
use dwell_local_cluster::{LocalCluster, LocalClusterOptions};
use dwell_tests::environment::{READY_TIMEOUT, TestCluster, binary, now_ms, until};
use dwell_tests::workload::{body, id_of};
use futures::future::try_join_all;
use parking_lot::Mutex;
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// Messages that stand in the queue when the backup begins, but for those that were acknowledged; some are leased.
const KEPT: &str = "kept";
const KEPT_MESSAGES: u64 = 2_000;
const ACKNOWLEDGED: u64 = 500;
const LEASED: u32 = 10;
/// Messages that become due after the backup and before the new cluster runs.
const SOON: &str = "soon";
const SOON_MS: u64 = 20_000;
/// Messages that become due when it runs.
const LATER: &str = "later";
const LATER_MS: u64 = 45_000;
const DELAYED_MESSAGES: u64 = 300;
/// What is published while the backup is made.
const LOAD: &str = "load";
const PRODUCERS: u64 = 4;
const BATCH: u64 = 25;
/// Where a schedule publishes to.
const JOBS: &str = "jobs";
const SCHEDULE: &str = "each-second";
/// Numbers of messages that are published after the backup.
const AFTERWARDS: u64 = 1_000_000;
const BODY_BYTES: usize = 512;
const LEASE_TIMEOUT: Duration = Duration::from_secs(15);
const WAIT: Duration = Duration::from_secs(60);

/// `dwell backup`, with what it prints.
async fn backup<S: AsRef<str>>(arguments: &[S]) -> Result<Value, String> {
    let mut command = Command::new(binary().unwrap());
    command.arg("backup").args(arguments.iter().map(AsRef::as_ref)).args(["--output", "json"]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    match output.status.success() {
        true => Ok(serde_json::from_slice(&output.stdout).unwrap()),
        false => Err(String::from_utf8(output.stderr).unwrap()),
    }
}

async fn create(to: &Path, server: &[String], node: Option<u64>) -> Result<Value, String> {
    let mut arguments = ["create", "--to", to.to_str().unwrap(), "--server"].map(str::to_owned).to_vec();
    arguments.push(server.join(","));
    arguments.extend(node.into_iter().flat_map(|node| ["--node".to_owned(), node.to_string()]));
    backup(&arguments).await
}

async fn verify(directory: &Path) -> Result<Value, String> {
    backup(&["verify", directory.to_str().unwrap()]).await
}

fn numbered(queue: &str, id: u64) -> PublishMessage {
    PublishMessage::new(queue, body(id, BODY_BYTES))
}

async fn publish(client: &Client, messages: Vec<PublishMessage>) {
    for published in client.publish(messages).await.unwrap() {
        assert!(!published.duplicate);
    }
}

fn id(delivery: &Delivery) -> u64 {
    id_of(&delivery.message.body).unwrap()
}

async fn acknowledge(deliveries: &[Delivery]) {
    try_join_all(deliveries.iter().map(Delivery::ack)).await.unwrap();
}

/// Receives and acknowledges all that a queue holds, at least so many; by number, how often each came back before.
async fn take_all(client: &Client, queue: &str, at_least: usize) -> BTreeMap<u64, u32> {
    let mut taken = BTreeMap::new();
    loop {
        let wait = if taken.len() < at_least { WAIT } else { Duration::ZERO };
        let deliveries = client.receive(queue, 200, wait).await.unwrap();
        if deliveries.is_empty() {
            return taken;
        }
        for delivery in &deliveries {
            assert_eq!(taken.insert(id(delivery), delivery.delivery_count), None, "{queue}: one message twice");
        }
        acknowledge(&deliveries).await;
    }
}

/// Producers that publish until they are told to stop.
struct Load {
    /// Each batch's first number, when it was sent, and when it was confirmed.
    batches: Arc<Mutex<Vec<(u64, Instant, Instant)>>>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(client: &Client) -> Load {
        let (batches, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let tasks = (0..PRODUCERS).map(|producer| {
            let (client, batches, stop) = (client.clone(), batches.clone(), stop.clone());
            tokio::spawn(async move {
                let firsts = (producer * BATCH..).step_by((PRODUCERS * BATCH) as usize);
                for first in firsts.take_while(|_| !stop.load(Ordering::Relaxed)) {
                    let sent = Instant::now();
                    publish(&client, (first..first + BATCH).map(|id| numbered(LOAD, id)).collect()).await;
                    batches.lock().push((first, sent, Instant::now()));
                }
            })
        });
        Load { tasks: tasks.collect(), batches, stop }
    }

    fn confirmed(&self) -> usize {
        self.batches.lock().len() * BATCH as usize
    }

    /// The numbers of messages in batches of a kind.
    fn ids(&self, is_meant: impl Fn(Instant, Instant) -> bool) -> BTreeSet<u64> {
        let batches = self.batches.lock();
        let meant = batches.iter().filter(|(_, sent, confirmed)| is_meant(*sent, *confirmed));
        meant.flat_map(|(first, ..)| *first..*first + BATCH).collect()
    }

    /// The longest time without any confirm between two moments.
    fn longest_gap(&self, from: Instant, to: Instant) -> Duration {
        let batches = self.batches.lock();
        let mut at: Vec<Instant> = batches.iter().map(|(.., confirmed)| (*confirmed).clamp(from, to)).collect();
        at.extend([from, to]);
        at.sort_unstable();
        at.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap()
    }

    async fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks.drain(..) {
            task.await.unwrap();
        }
    }
}

/// When the delayed messages are due.
struct Due {
    soon_ms: u64,
    later_ms: u64,
}

async fn fill(client: &Client) -> Due {
    for queue in [KEPT, SOON, LATER, LOAD, JOBS] {
        let settings = QueueSettings::default().lease_timeout(LEASE_TIMEOUT);
        client.declare_queue(queue, settings).await.unwrap();
    }
    for first in (0..KEPT_MESSAGES).step_by(500) {
        publish(client, (first..first + 500).map(|id| numbered(KEPT, id)).collect()).await;
    }
    let mut acknowledged = 0;
    while acknowledged < ACKNOWLEDGED {
        let deliveries = client.receive(KEPT, 100, WAIT).await.unwrap();
        acknowledge(&deliveries).await;
        acknowledged += deliveries.len() as u64;
    }
    publish(client, vec![numbered(KEPT, KEPT_MESSAGES).dedupe_id("once")]).await;
    let every = ScheduleDefinition::every(Duration::from_secs(1)).message(PublishMessage::new(JOBS, "job"));
    client.declare_schedule(SCHEDULE, every).await.unwrap();
    let due = Due { soon_ms: now_ms() + SOON_MS, later_ms: now_ms() + LATER_MS };
    for (queue, due_ms) in [(SOON, due.soon_ms), (LATER, due.later_ms)] {
        let delayed = (0..DELAYED_MESSAGES).map(|id| numbered(queue, id).deliver_at_ms(due_ms as i64));
        publish(client, delayed.collect()).await;
    }
    due
}

/// Data directories and arguments to restore to them.
struct Fresh {
    cluster: LocalCluster,
    _directory: TempDir,
}

impl Fresh {
    fn new(nodes: usize) -> Fresh {
        let directory = TempDir::with_prefix("dwell-restored-").unwrap();
        let mut options = LocalClusterOptions::new(binary().unwrap(), nodes, directory.path());
        options.ready_timeout = READY_TIMEOUT;
        Fresh { cluster: LocalCluster::prepare(options).unwrap(), _directory: directory }
    }

    async fn restore(&self, from: &Path, node: u64) -> Result<Value, String> {
        let data = self.data(node);
        let mut arguments = ["restore", from.to_str().unwrap(), "--data-dir", data.to_str().unwrap(), "--node-id"]
            .map(str::to_owned)
            .to_vec();
        arguments.push(node.to_string());
        for member in self.cluster.nodes() {
            let (id, peer, client) = (member.id(), member.peer_address(), member.client_address());
            arguments.extend(["--member".to_owned(), format!("{id}={peer},{client}")]);
        }
        backup(&arguments).await
    }

    fn data(&self, node: u64) -> PathBuf {
        self.cluster.node(node).unwrap().data_directory()
    }

    async fn start(&self) -> Client {
        self.cluster.start_all().unwrap();
        self.cluster.wait_ready(READY_TIMEOUT).await.unwrap();
        Client::connect(self.cluster.client_addresses()).unwrap()
    }
}

/// Damage, a missing file and a missing end are found and named, and nothing is restored.
async fn refuse_what_is_not_whole(directory: &Path, fresh: &Fresh) {
    let tables = std::fs::read_dir(directory.join("snapshot")).unwrap().map(|entry| entry.unwrap().path());
    let table = tables.into_iter().find(|path| path.extension().is_some_and(|name| name == "sst")).unwrap();
    let name = table.file_name().unwrap().to_str().unwrap();
    let whole = std::fs::read(&table).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 0x10;
    for damaged in [flipped, whole[..whole.len() - 1].to_vec()] {
        std::fs::write(&table, damaged).unwrap();
        for refused in [verify(directory).await.unwrap_err(), fresh.restore(directory, 1).await.unwrap_err()] {
            assert!(refused.contains(name), "{name}: {refused}");
        }
        assert_eq!(std::fs::read_dir(fresh.data(1)).unwrap().count(), 0, "nothing is left of it");
    }
    std::fs::write(&table, whole).unwrap();
    let end = directory.join("BACKUP");
    let hidden = directory.join("hidden");
    std::fs::rename(&end, &hidden).unwrap();
    for refused in [verify(directory).await.unwrap_err(), fresh.restore(directory, 1).await.unwrap_err()] {
        assert!(refused.contains("has no file BACKUP"), "{refused}");
    }
    std::fs::rename(&hidden, &end).unwrap();
    assert_eq!(verify(directory).await.unwrap()["outcome"], "whole");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_cluster_goes_on_with_all_that_was_confirmed_before_the_backup() {
    let old = TestCluster::start(&[]).await.unwrap();
    let client = Client::connect(old.client_addresses()).unwrap();
    let due = fill(&client).await;
    let mut load = Load::start(&client);
    let before = Instant::now();
    until("the load", async || load.confirmed() > 2_000 && before.elapsed() > Duration::from_secs(1)).await;
    let leased: BTreeSet<u64> = client.receive(KEPT, LEASED, WAIT).await.unwrap().iter().map(id).collect();
    assert_eq!(leased.len(), LEASED as usize);

    let directory = TempDir::with_prefix("dwell-backup-").unwrap();
    let to = directory.path().join("monday");
    let begun = Instant::now();
    let made = create(&to, &old.client_addresses(), None).await.unwrap();
    let ended = Instant::now();
    let published_meanwhile = load.ids(|_, confirmed| (begun..ended).contains(&confirmed)).len();
    assert!(published_meanwhile > 0, "publishing goes on meanwhile");
    println!(
        "backup of index {}: {} files, {} bytes, in {:?}; {published_meanwhile} messages were confirmed meanwhile, with gaps \
         of up to {:?} ({:?} in as long a time before it)",
        made["index"],
        made["files"],
        made["bytes"],
        ended - begun,
        load.longest_gap(begun, ended),
        load.longest_gap(begun - (ended - begun).min(begun - before), begun),
    );
    check_created(&old, &directory, &to, &made).await;
    // What happens afterwards is not in it.
    publish(&client, (0..100).map(|id| numbered(KEPT, AFTERWARDS + id)).collect()).await;
    acknowledge(&client.receive(KEPT, 100, WAIT).await.unwrap()).await;
    load.end().await;
    assert!(now_ms() < due.soon_ms, "the machine is too slow for this test: the delayed messages are due already");
    let old_id = client.leader_status().await.unwrap().cluster_id;
    old.kill_all().await.unwrap();
    drop(client);

    let fresh = Fresh::new(3);
    refuse_what_is_not_whole(&to, &fresh).await;
    // They become due while there is no cluster.
    tokio::time::sleep(Duration::from_millis(due.soon_ms.saturating_sub(now_ms()))).await;
    let restoring = Instant::now();
    for node in 1..=3 {
        let restored = fresh.restore(&to, node).await.unwrap();
        assert_eq!((&restored["outcome"], &restored["index"]), (&"restored".into(), &made["index"]));
    }
    let refused = fresh.restore(&to, 2).await.unwrap_err();
    assert!(refused.contains("is not empty"), "a second time: {refused}");
    let client = fresh.start().await;
    println!("restored to three nodes, started, and ready, in {:?}", restoring.elapsed());

    check_times(&client, &due).await;
    check_kept(&client, &leased).await;
    check_load(&client, &load, begun, ended).await;
    check_cluster(&fresh, &client, &old_id).await;
}

/// It says what it is; the leader makes one as well; a folder in use is refused; the nodes count.
async fn check_created(old: &LocalCluster, directory: &TempDir, to: &Path, made: &Value) {
    let leader = old.leader(READY_TIMEOUT).await.unwrap();
    let from = made["node_id"].as_u64().unwrap();
    assert_ne!(from, leader, "a follower makes it");
    let verified = verify(to).await.unwrap();
    assert_eq!((&verified["outcome"], &verified["bytes"]), (&"whole".into(), &made["bytes"]));
    let refused = create(to, &old.client_addresses(), None).await.unwrap_err();
    assert!(refused.contains("is not empty"), "{refused}");
    let from_leader = create(&directory.path().join("from-leader"), &old.client_addresses(), Some(leader)).await;
    assert_eq!(from_leader.unwrap()["node_id"], leader);
    let refused = create(&directory.path().join("from-nobody"), &old.client_addresses(), Some(99)).await.unwrap_err();
    assert!(refused.contains("node 99 is no member"), "{refused}");
    let (_, text) = old.node(from).unwrap().http_get("/metrics").await.unwrap();
    let value = |series: &str| -> f64 {
        let line = text.lines().find_map(|line| line.strip_prefix(series)).unwrap_or_else(|| panic!("no {series}"));
        line.trim().parse().unwrap()
    };
    assert!(value("dwell_backups_total{outcome=\"completed\"}") >= 1.0);
    assert!(value("dwell_backup_bytes_total") >= made["bytes"].as_f64().unwrap());
    assert!(value("dwell_backup_last_duration_seconds") > 0.0);
    let age_s = now_ms() as f64 / 1000.0 - value("dwell_backup_last_timestamp_seconds{outcome=\"completed\"}");
    assert!((0.0..60.0).contains(&age_s), "{age_s} s ago");
}

/// What was not acknowledged is delivered, and nothing else; what was leased comes back.
async fn check_kept(client: &Client, leased: &BTreeSet<u64>) {
    let again = client.publish_one(numbered(KEPT, AFTERWARDS).dedupe_id("once")).await.unwrap();
    assert!(again.duplicate, "the dedupe id is known");
    let kept = take_all(client, KEPT, (KEPT_MESSAGES + 1 - ACKNOWLEDGED) as usize).await;
    assert_eq!(kept.keys().copied().collect::<BTreeSet<_>>(), (ACKNOWLEDGED..=KEPT_MESSAGES).collect());
    let returned: BTreeSet<u64> = kept.iter().filter(|(_, returns)| **returns > 0).map(|(id, _)| *id).collect();
    assert_eq!(returned, *leased, "leases that were held have ended");
    println!("{} of {} messages, {} of them leased then: none lost", kept.len(), KEPT_MESSAGES + 1, returned.len());
}

/// All that was confirmed before the backup began is there; what was sent after it ended is not.
async fn check_load(client: &Client, load: &Load, begun: Instant, ended: Instant) {
    let confirmed_before = load.ids(|_, confirmed| confirmed < begun);
    let restored: BTreeSet<u64> = take_all(client, LOAD, confirmed_before.len()).await.into_keys().collect();
    let lost: Vec<u64> = confirmed_before.difference(&restored).copied().collect();
    assert!(lost.is_empty(), "confirmed before the backup began, and gone: {lost:?}");
    let late: Vec<u64> = load.ids(|sent, _| sent > ended).intersection(&restored).copied().collect();
    assert!(late.is_empty(), "sent after the backup: {late:?}");
    println!(
        "load: {} messages confirmed before the backup began, {} in it, {} published in all: none lost",
        confirmed_before.len(),
        restored.len(),
        load.confirmed()
    );
}

/// What fell due meanwhile comes at once, what is delayed still comes at its time, and the schedule goes on.
async fn check_times(client: &Client, due: &Due) {
    let begun = Instant::now();
    let soon = take_all(client, SOON, DELAYED_MESSAGES as usize).await;
    assert_eq!(soon.len() as u64, DELAYED_MESSAGES);
    println!("what fell due while there was no cluster was received within {:?}", begun.elapsed());
    let fired = client.describe_schedule(SCHEDULE, 1).await.unwrap().schedule.unwrap().fired;
    let mut received = BTreeSet::new();
    let ahead_ms = due.later_ms.saturating_sub(now_ms());
    while (received.len() as u64) < DELAYED_MESSAGES {
        let deliveries = client.receive(LATER, 100, WAIT).await.unwrap();
        let at_ms = now_ms();
        assert!(at_ms >= due.later_ms, "{} ms early", due.later_ms - at_ms);
        assert!(!deliveries.is_empty(), "only {} came", received.len());
        received.extend(deliveries.iter().map(id));
        acknowledge(&deliveries).await;
    }
    let late_ms = now_ms() - due.later_ms;
    println!(
        "what was delayed: restored {ahead_ms} ms before its time, the last received {late_ms} ms after it, none early"
    );
    let fires = async || client.describe_schedule(SCHEDULE, 1).await.unwrap().schedule.unwrap().fired >= fired + 3;
    until("the schedule fires", fires).await;
}

/// It is a cluster like any other, and another one: its nodes hold the same, a leader may die, and all may be started again.
async fn check_cluster(fresh: &Fresh, client: &Client, old_id: &str) {
    let statuses = fresh.cluster.statuses().await;
    let ids: BTreeSet<&str> = statuses.iter().map(|status| status.cluster_id.as_str()).collect();
    assert!(statuses.len() == 3 && ids.len() == 1 && !ids.contains(old_id) && !ids.contains(""), "{ids:?}");
    assert!(statuses[0].members.iter().all(|member| member.voter && member.holds_data), "{:?}", statuses[0].members);
    let digest = client.digest().await.unwrap();
    assert!(digest.is_equal(), "{digest:?}");
    let leader = fresh.cluster.leader(READY_TIMEOUT).await.unwrap();
    fresh.cluster.node(leader).unwrap().kill().await.unwrap();
    publish(client, vec![numbered(KEPT, AFTERWARDS)]).await;
    fresh.cluster.kill_all().await.unwrap();
    let client = fresh.start().await;
    let kept = take_all(&client, KEPT, 1).await;
    assert_eq!(kept.into_keys().collect::<Vec<_>>(), [AFTERWARDS]);
    let digest = client.digest().await.unwrap();
    assert!(digest.is_equal(), "{digest:?}");
}

/// A node, and its backup with a hundred messages.
async fn small_backup(to: &Path) {
    let old = TestCluster::start_nodes(1, &[]).await.unwrap();
    let client = Client::connect(old.client_addresses()).unwrap();
    client.declare_queue(KEPT, QueueSettings::default()).await.unwrap();
    publish(&client, (0..100).map(|id| numbered(KEPT, id)).collect()).await;
    let made = create(to, &old.client_addresses(), None).await.unwrap();
    assert_eq!(made["node_id"], 1, "there is no follower");
    old.kill_all().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_begins_alone_and_others_are_added_to_it() {
    let directory = TempDir::with_prefix("dwell-backup-").unwrap();
    let to = directory.path().join("one");
    small_backup(&to).await;
    let mut fresh = Fresh::new(1);
    fresh.restore(&to, 1).await.unwrap();
    let client = fresh.start().await;
    let added = fresh.cluster.add_node().unwrap();
    let node = fresh.cluster.node(added).unwrap();
    node.start().unwrap();
    until("the new node answers", async || node.status().await.is_ok()).await;
    client.add_member(added, node.peer_address(), node.client_address(), WAIT).await.unwrap();
    assert!(client.digest().await.unwrap().is_equal());
    let kept = take_all(&client, KEPT, 100).await;
    assert_eq!(kept.into_keys().collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_was_not_restored_is_told_so_and_is_restored_later() {
    let directory = TempDir::with_prefix("dwell-backup-").unwrap();
    let to = directory.path().join("one");
    small_backup(&to).await;
    let fresh = Fresh::new(3);
    for node in [1, 2] {
        fresh.restore(&to, node).await.unwrap();
        fresh.cluster.node(node).unwrap().start().unwrap();
    }
    fresh.cluster.wait_ready(READY_TIMEOUT).await.unwrap();
    let forgotten = fresh.cluster.node(3).unwrap();
    forgotten.start().unwrap();
    until("the node without data ends", async || forgotten.check_alive().is_err()).await;
    let log = std::fs::read_to_string(forgotten.log_path()).unwrap();
    assert!(log.contains("has an empty disk now"), "{log}");
    std::fs::remove_dir_all(fresh.data(3)).unwrap();
    fresh.restore(&to, 3).await.unwrap();
    let client = fresh.start().await;
    assert!(client.digest().await.unwrap().is_equal());
    assert_eq!(take_all(&client, KEPT, 100).await.len(), 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_directory_that_is_half_restored_is_not_used() {
    let directory = TempDir::with_prefix("dwell-backup-").unwrap();
    let to = directory.path().join("one");
    small_backup(&to).await;
    let fresh = Fresh::new(1);
    std::fs::create_dir_all(fresh.data(1).join("restoring")).unwrap();
    let node = fresh.cluster.node(1).unwrap();
    node.start().unwrap();
    until("the node ends", async || node.check_alive().is_err()).await;
    let log = std::fs::read_to_string(node.log_path()).unwrap();
    assert!(log.contains("restore the backup again"), "{log}");
    fresh.restore(&to, 1).await.unwrap();
    let client = fresh.start().await;
    assert_eq!(take_all(&client, KEPT, 100).await.len(), 100);
}
