//! Starts, stops and kills nodes.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use dwell_consensus::announcements::Announcer;
use dwell_consensus::identity::ClusterIdentity;
use dwell_consensus::options::{RaftOptions, raft_config};
use dwell_consensus::peer::{Groups, PeerLinks, PeerMetrics, PeerNetwork, serve};
use dwell_consensus::recovery::RecoveryGate;
use dwell_consensus::types::{DEFAULT_GROUP, NodeAddress, NodeId, Raft, TypeConfig};
use openraft::RaftMetrics;
use openraft::async_runtime::WatchReceiver;
use tempfile::TempDir;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::proxy::{Line, Proxy};
use super::stores;

/// Longest wait for anything; nothing that works takes a tenth of it.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// With these no follower grows suspicious of silence within 2 s, nor starts an election within 5 s: what
/// happens sooner was not silence.
pub fn patient_options() -> RaftOptions {
    RaftOptions {
        heartbeat_interval: Duration::from_secs(1),
        election_timeout_min: Duration::from_millis(2_500),
        election_timeout_max: Duration::from_millis(2_600),
        ..RaftOptions::default()
    }
}

/// With these a leader stays, however long a disk or the machine stands still: for tests that are about something else.
pub fn undisturbed_options() -> RaftOptions {
    RaftOptions {
        heartbeat_interval: Duration::from_secs(20),
        election_timeout_min: Duration::from_secs(60),
        election_timeout_max: Duration::from_secs(61),
        ..RaftOptions::default()
    }
}

pub struct TestNode {
    pub raft: Raft,
    pub registry: prometheus::Registry,
    /// The node's thread ends, and all that is its, when this is dropped.
    _life: oneshot::Sender<()>,
}

/// A runtime on one thread of its own, on which tasks run until the sender is dropped. Then all of them are
/// dropped at once, and none of them runs any more meanwhile: as in a process that is killed.
fn live() -> (oneshot::Sender<()>, Handle, JoinHandle<()>) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let handle = runtime.handle().clone();
    let (life, end) = oneshot::channel();
    let thread = std::thread::spawn(move || {
        let _ = runtime.block_on(end);
        runtime.shutdown_background();
    });
    (life, handle, thread)
}

pub struct TestCluster {
    directory: TempDir,
    options: RaftOptions,
    max_payload_entries: Option<u64>,
    /// Where each node listens, until it is started.
    listeners: BTreeMap<NodeId, TcpListener>,
    listen_addresses: BTreeMap<NodeId, String>,
    members: BTreeMap<NodeId, NodeAddress>,
    pub nodes: BTreeMap<NodeId, TestNode>,
    /// Of all nodes, of those that are dead too.
    threads: Vec<JoinHandle<()>>,
    holds: Vec<stores::Hold>,
    /// Of nodes that recover.
    pub gates: BTreeMap<NodeId, RecoveryGate>,
    /// Of nodes that are known to belong to a cluster.
    pub identities: BTreeMap<NodeId, ClusterIdentity>,
    /// Of nodes that announce something of their own.
    pub announcers: BTreeMap<NodeId, Announcer>,
}

impl TestCluster {
    /// Gives `nodes` addresses; starts none.
    pub fn new(nodes: u64, options: RaftOptions) -> Self {
        let mut cluster = Self {
            directory: TempDir::new().unwrap(),
            options,
            max_payload_entries: None,
            listeners: BTreeMap::new(),
            listen_addresses: BTreeMap::new(),
            members: BTreeMap::new(),
            nodes: BTreeMap::new(),
            threads: Vec::new(),
            holds: Vec::new(),
            gates: BTreeMap::new(),
            identities: BTreeMap::new(),
            announcers: BTreeMap::new(),
        };
        for node in 1..=nodes {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap().to_string();
            cluster.members.insert(node, NodeAddress { peer: address.clone(), client: String::new() });
            cluster.listen_addresses.insert(node, address);
            cluster.listeners.insert(node, listener);
        }
        cluster
    }

    /// Three nodes, all started, the first of them leading.
    pub async fn three(options: RaftOptions) -> Self {
        let mut cluster = Self::new(3, options);
        cluster.start_all().await;
        cluster
    }

    /// One entry to a request, so that requests can be counted.
    pub fn with_one_entry_per_request(mut self) -> Self {
        self.max_payload_entries = Some(1);
        self
    }

    /// Where a node really listens.
    pub fn listen_address(&self, node: NodeId) -> String {
        self.listen_addresses[&node].clone()
    }

    /// Lets the others reach `node` through a proxy. Before the cluster is formed.
    pub async fn reach_through_proxy(&mut self, node: NodeId, line: Line) -> Proxy {
        let proxy = Proxy::start(self.listen_addresses[&node].clone(), line).await;
        self.members.get_mut(&node).unwrap().peer = proxy.address.clone();
        proxy
    }

    pub async fn start_all(&mut self) {
        for node in self.members.keys().copied().collect::<Vec<_>>() {
            self.start(node).await;
        }
        self.form().await;
    }

    /// Lets node 1 form the cluster with all members, and waits until it takes writes.
    pub async fn form(&mut self) {
        let first = self.nodes[&1].raft.clone();
        first.initialize(self.members.clone()).await.unwrap();
        self.wait_for_writes(1).await;
    }

    /// Waits until a leader takes writes: not before a majority has answered it.
    pub async fn wait_for_writes(&self, leader: NodeId) {
        self.wait(leader, "the leader takes writes", |metrics| {
            metrics.last_applied.is_some_and(|applied| applied.leader_id == metrics.vote.leader_id)
        })
        .await;
    }

    pub async fn start(&mut self, node: NodeId) {
        let (life, runtime, thread) = live();
        self.threads.push(thread);
        let directory = self.directory.path().join(node.to_string());
        let mut config = raft_config(&self.options).unwrap();
        if let Some(max_payload_entries) = self.max_payload_entries {
            config.max_payload_entries = max_payload_entries;
        }
        let gate = self.gates.get(&node).cloned().unwrap_or_default();
        config.enable_elect = !gate.is_recovering();
        let config = Arc::new(config);
        let registry = prometheus::Registry::new();
        let metrics = PeerMetrics::new(&registry).unwrap();
        let identity = self.identities.get(&node).cloned().unwrap_or_default();
        let announcer = self.announcers.get(&node).cloned().unwrap_or_default();
        let groups = Groups::new(node, metrics.clone()).behind(gate).identified(identity.clone(), announcer);
        let start = async move {
            let (log_store, state_machine, snapshots, hold) = stores::open(&directory);
            let network = PeerNetwork::new(PeerLinks::new(metrics), DEFAULT_GROUP, node).identified(identity);
            let raft = Raft::new(node, config, network, log_store, state_machine).await.unwrap();
            (raft, snapshots, hold)
        };
        let (raft, snapshots, hold) = runtime.spawn(start).await.unwrap();
        self.holds.push(hold);
        groups.insert(DEFAULT_GROUP, raft.clone(), snapshots);
        let listener = self.listeners.remove(&node).unwrap();
        listener.set_nonblocking(true).unwrap();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            serve(
                dwell_transport::Tcp::incoming(listener),
                groups,
                tonic::service::Routes::default(),
                std::future::pending(),
            )
            .await
            .unwrap();
        });
        self.nodes.insert(node, TestNode { raft, registry, _life: life });
    }

    /// Ends a node as `kill -9` would: its connections break, its listener is gone, nothing is told to anyone.
    pub fn kill(&mut self, node: NodeId) -> Instant {
        let node = self.nodes.remove(&node).unwrap();
        let killed = Instant::now();
        drop(node);
        killed
    }

    pub fn raft(&self, node: NodeId) -> Raft {
        self.nodes[&node].raft.clone()
    }

    /// Waits until a node's metrics are as they should be.
    pub async fn wait(
        &self,
        node: NodeId,
        what: &str,
        is_so: impl Fn(&RaftMetrics<TypeConfig>) -> bool + Send,
    ) -> RaftMetrics<TypeConfig> {
        wait(&self.nodes[&node].raft, what, is_so).await
    }

    /// Waits until one of the nodes leads; returns which.
    pub async fn wait_for_leader(&self) -> NodeId {
        let leads = self.nodes.iter().map(|(id, node)| {
            let id = *id;
            Box::pin(async move {
                wait(&node.raft, "some node leads", |metrics| {
                    metrics.current_leader == Some(id) && metrics.state == openraft::ServerState::Leader
                })
                .await
                .id
            })
        });
        futures::future::select_all(leads).await.0
    }

    /// A counter or gauge of a node, over all its labels.
    pub fn metric(&self, node: NodeId, name: &str) -> f64 {
        let families = self.nodes[&node].registry.gather();
        let family = families.iter().find(|family| family.name() == name);
        family.map_or(0.0, |family| {
            family
                .get_metric()
                .iter()
                .map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value())
                .sum()
        })
    }
}

impl Drop for TestCluster {
    /// Closes the stores before their directory is removed. The threads that flush are shared by all databases of a process,
    /// and a flush that fails keeps its thread for seconds: the snapshots of other tests would wait for that.
    fn drop(&mut self) {
        self.nodes.clear();
        for thread in self.threads.drain(..) {
            // A node that panicked has failed the test.
            let _ = thread.join();
        }
        self.holds.clear();
    }
}

pub async fn wait(
    raft: &Raft,
    what: &str,
    is_so: impl Fn(&RaftMetrics<TypeConfig>) -> bool + Send,
) -> RaftMetrics<TypeConfig> {
    let mut metrics = raft.metrics();
    let waiting = async {
        loop {
            let now = metrics.borrow_watched().clone();
            if is_so(&now) {
                return now;
            }
            metrics.changed().await.unwrap();
        }
    };
    match tokio::time::timeout(DEADLINE, waiting).await {
        Ok(metrics) => metrics,
        Err(_) => panic!("not within {DEADLINE:?}: {what}; {}", raft.metrics().borrow_watched().clone()),
    }
}
