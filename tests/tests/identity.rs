//! Nodes of different clusters keep apart, and a disk that was lost is not taken for a new one.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dwell_client::{Client, ClusterStatus, PublishMessage, QueueSettings};
use dwell_tests::environment::{READY_TIMEOUT, TestCluster, binary, until};
use dwell_tests::history::Recorder;
use dwell_tests::workload::{Consumption, Production, wait_until_drained};

const QUEUE: &str = "identity";
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(60);

fn log_of(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Waits until the cluster remembers who holds data: all its members.
async fn known_holders(client: &Client) -> ClusterStatus {
    let all_hold = async || {
        let status = client.leader_status().await;
        status.is_ok_and(|status| status.members.iter().all(|member| member.holds_data))
    };
    until("all members are known to hold data", all_hold).await;
    client.leader_status().await.unwrap()
}

async fn assert_undisturbed(client: &Client, before: &ClusterStatus) {
    client.publish_one(PublishMessage::new(QUEUE, "still here")).await.unwrap();
    let now = client.leader_status().await.unwrap();
    assert_eq!((now.term, now.leader_id), (before.term, before.leader_id), "the cluster was disturbed");
}

/// A server that no cluster of the test knows how to start.
struct Lone {
    child: Child,
    log: PathBuf,
    peer: String,
    client: String,
}

impl Lone {
    fn start(id: u64, directory: &Path, data: &Path, further: &[String]) -> Lone {
        let ports: [u16; 3] = dwell_local_cluster::free_ports(3).unwrap().try_into().unwrap();
        let [client, peer, http] = ports.map(|port| format!("127.0.0.1:{port}"));
        let log = directory.join("lone.log");
        let output = File::create(&log).unwrap();
        let child = Command::new(binary().unwrap())
            .args(["server", "--node-id", &id.to_string(), "--data-dir"])
            .arg(data)
            .args(["--client-address", &client, "--peer-address", &peer, "--http-address", &http])
            .args(further.iter().map(|text| text.replace("PEER", &peer).replace("CLIENT", &client)))
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap();
        Lone { child, log, peer, client }
    }
}

impl Drop for Lone {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_with_the_data_of_another_cluster_is_refused_and_disturbs_neither() {
    let (ours, theirs) = (TestCluster::start(&[]).await.unwrap(), TestCluster::start(&[]).await.unwrap());
    let clients = [&ours, &theirs].map(|cluster| Client::connect(cluster.client_addresses()).unwrap());
    let mut before = Vec::new();
    for (cluster, client) in [&ours, &theirs].into_iter().zip(&clients) {
        client.declare_queue(QUEUE, QueueSettings::default()).await.unwrap();
        client.transfer_leader(Some(1)).await.unwrap();
        cluster.wait_ready(READY_TIMEOUT).await.unwrap();
        before.push(known_holders(client).await);
    }
    assert_ne!(before[0].cluster_id, before[1].cluster_id);
    assert_eq!(before[0].cluster_id.len(), 16);

    // Node 3 of each is started over the data of the other's.
    let nodes = [&ours, &theirs].map(|cluster| cluster.node(3).unwrap());
    for node in nodes {
        node.kill().await.unwrap();
    }
    let swap = || {
        let [first, second] = nodes.map(|node| node.data_directory());
        let aside = first.with_extension("aside");
        for (from, to) in [(&first, &aside), (&second, &first), (&aside, &second)] {
            std::fs::rename(from, to).unwrap();
        }
    };
    swap();
    for node in nodes {
        node.start().unwrap();
    }
    for (cluster, node) in [&ours, &theirs].into_iter().zip(nodes) {
        let leader = cluster.node(1).unwrap();
        let are_told = async || {
            log_of(&node.log_path()).contains("refused a peer's call")
                && log_of(&leader.log_path()).contains("a peer refuses this node's calls")
        };
        until("both sides say that they are of different clusters", are_told).await;
        assert!(log_of(&node.log_path()).contains("belongs to cluster"));
        assert!(node.http_get("/metrics").await.unwrap().1.contains("dwell_peer_identity_refusals_total"));
    }
    // Longer than an election by silence.
    tokio::time::sleep(Duration::from_secs(2)).await;
    for (client, before) in clients.iter().zip(&before) {
        assert_undisturbed(client, before).await;
    }

    for node in nodes {
        node.kill().await.unwrap();
    }
    swap();
    for node in nodes {
        node.start().unwrap();
    }
    for (cluster, client) in [&ours, &theirs].into_iter().zip(&clients) {
        cluster.wait_ready(READY_TIMEOUT).await.unwrap();
        assert!(client.digest().await.unwrap().is_equal());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_is_formed_cannot_be_formed_again() {
    let cluster = TestCluster::start(&[]).await.unwrap();
    let client = Client::connect(cluster.client_addresses()).unwrap();
    client.declare_queue(QUEUE, QueueSettings::default()).await.unwrap();
    let before = known_holders(&client).await;
    let mut members = vec!["--member".to_owned(), "4=PEER,CLIENT".to_owned()];
    for node in cluster.nodes().iter().take(2) {
        members.extend([
            "--member".to_owned(),
            format!("{}={},{}", node.id(), node.peer_address(), node.client_address()),
        ]);
    }
    let directory = cluster.directory().unwrap();
    let fourth = Lone::start(4, directory, &directory.join("fourth"), &members);
    let is_told = async || log_of(&fourth.log).contains("has been formed already, and node 4 is no member");
    until("the newcomer is told that the cluster is formed", is_told).await;
    assert_undisturbed(&client, &before).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_disk_is_noticed_and_the_node_is_replaced_under_load() {
    let mut cluster = TestCluster::start(&[]).await.unwrap();
    let client = Client::connect(cluster.client_addresses()).unwrap();
    client.declare_queue(QUEUE, QueueSettings::default()).await.unwrap();
    let before = known_holders(&client).await;
    let recorder = Recorder::default();
    let consumption = Consumption { queue: QUEUE.to_owned(), number: 0, credit: 100 };
    let consumer = consumption.start(&client, recorder.clone()).await.unwrap();
    let load = Production {
        queue: QUEUE.to_owned(),
        first_id: 0,
        messages: 2_000,
        interval: Duration::from_millis(4),
        delay_ms_max: 500,
        body_bytes: 256,
    };
    let load = tokio::spawn(load.run(client.clone(), recorder.clone()));

    // A follower loses its disk. It says so, and ends, whoever starts it.
    let lost = before.leader_id.unwrap() % 3 + 1;
    let node = cluster.node(lost).unwrap();
    recorder.killed();
    node.kill().await.unwrap();
    std::fs::remove_dir_all(node.data_directory()).unwrap();
    for start in ["the first", "the second"] {
        node.start().unwrap();
        until("the node with the empty disk ends", async || !node.is_running()).await;
        let error = node.check_alive().unwrap_err().to_string();
        let told = error.contains("has an empty disk now: it has forgotten its votes");
        assert!(told, "{start} start, as by a supervisor: {error}");
    }
    cluster.remove_node(lost).unwrap();
    let now = client.leader_status().await.unwrap();
    assert_eq!((now.term, now.leader_id), (before.term, before.leader_id), "the cluster was disturbed");

    // It is replaced by one with a new id.
    assert!(client.remove_member(lost).await.unwrap());
    let new = cluster.add_node().unwrap();
    let node = cluster.node(new).unwrap();
    node.start().unwrap();
    let added = client.add_member(new, node.peer_address(), node.client_address(), CATCH_UP_TIMEOUT).await;
    assert!(added.unwrap());
    println!("node {lost} lost its disk and was replaced by node {new}");

    // Another one moves, with its data, to other addresses.
    let moving = (1..=3).find(|id| *id != lost && Some(*id) != now.leader_id).unwrap();
    let node = cluster.node(moving).unwrap();
    recorder.killed();
    node.stop().await.unwrap();
    let directory = cluster.directory().unwrap();
    let moved = Lone::start(moving, directory, &node.data_directory(), &["--join".to_owned()]);
    let added = client.add_member(moving, &moved.peer, &moved.client, CATCH_UP_TIMEOUT).await;
    assert!(added.unwrap());
    println!("node {moving} moved to {}", moved.peer);

    load.await.unwrap().unwrap();
    let drained = wait_until_drained(&client, QUEUE, Duration::from_secs(60)).await;
    let verdict = recorder.history().check(&[]);
    println!("{verdict}");
    drained.unwrap();
    consumer.stop().await.unwrap();
    assert_eq!(verdict.violations, [], "lost, early or unexplained repeated messages");
    assert_eq!(verdict.confirmed, 2_000);
    let digest = client.digest().await.unwrap();
    assert_eq!(digest.nodes.len(), 3);
    assert!(digest.is_equal(), "{digest:?}");
    let after = known_holders(&client).await;
    assert_eq!(after.cluster_id, before.cluster_id);
    let answer = client.make_snapshot(&moved.client).await.unwrap();
    assert!(answer.node_id == moving && answer.snapshot_index >= before.applied_index, "{answer:?}");
}
