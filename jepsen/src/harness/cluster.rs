//! The cluster under test.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dwell_client::{Client, ClientOptions, ClusterStatus};
use futures::future::join_all;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use crate::harness::NodeId;
use crate::harness::disk::Disk;
use crate::harness::error::{HarnessError, file_error};
use crate::harness::events::Events;
use crate::harness::network::Network;
use crate::harness::node::{Node, Server};
use crate::harness::sandbox::{MOUNTS, Sandbox};

/// How often something awaited is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// A node that takes longer to tell its view does not answer.
const STATUS_TIMEOUT: Duration = Duration::from_secs(1);

/// What a cluster is made of.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// The `dwell` binary.
    pub binary: PathBuf,
    /// First members, numbered from 1.
    pub nodes: u64,
    /// Nodes that may be added later, numbered on from there.
    pub spares: u64,
    /// Where disks and logs are kept.
    pub directory: PathBuf,
    /// Decides what the network loses and how late it is.
    pub seed: u64,
    /// Size of each node's disk.
    pub disk_bytes: u64,
    /// Environment variables for the servers.
    pub environment: Vec<(OsString, OsString)>,
}

/// The cluster under test. Dropping it kills the servers and removes their networks and mounts; logs and disk images
/// stay.
#[derive(Debug)]
pub struct Cluster {
    supervisor: Mutex<Option<JoinHandle<()>>>,
    nodes: Vec<Node>,
    network: Network,
    server: Server,
    client: Client,
    events: Events,
    members: Mutex<BTreeSet<NodeId>>,
    /// Nodes that were members once, and never will be again.
    retired: Mutex<BTreeSet<NodeId>>,
    /// Nodes whose files have rotted, and that have not been seen up again since.
    damaged: Mutex<BTreeSet<NodeId>>,
}

/// What one node says of the cluster.
#[derive(Debug, Clone)]
pub struct NodeView {
    /// The node.
    pub node: NodeId,
    /// What it says; none if it does not answer.
    pub status: Option<ClusterStatus>,
}

/// How it went to get all nodes up and agreeing again.
#[derive(Debug, Clone)]
pub struct Recovery {
    /// How long it took, or was waited for.
    pub took: Duration,
    /// What is still missing.
    pub missing: Vec<String>,
}

impl Cluster {
    /// Makes networks and disks, starts the servers, and waits until they agree on a leader.
    pub async fn start(
        options: ClusterOptions,
        sandbox: &Sandbox,
        events: Events,
    ) -> Result<Arc<Cluster>, HarnessError> {
        std::fs::create_dir_all(&options.directory).map_err(file_error("create", &options.directory))?;
        let directory = options.directory.canonicalize().map_err(file_error("find", &options.directory))?;
        let binary = options.binary.canonicalize().map_err(file_error("find", &options.binary))?;
        let abilities = sandbox.abilities();
        let network = Network::create(options.nodes + options.spares, options.seed, abilities)?;
        let members = (1..=options.nodes).map(|id| (id, network.address(id))).collect();
        let server = Server { binary, environment: options.environment.clone(), members };
        let mut nodes = Vec::new();
        for id in 1..=options.nodes + options.spares {
            let directory = directory.join(format!("node-{id}"));
            std::fs::create_dir_all(&directory).map_err(file_error("create", &directory))?;
            let disk =
                if abilities.disks.is_ok() { Some(make_disk(id, &directory, options.disk_bytes)?) } else { None };
            let namespace = network.namespace(id);
            let clocks = abilities.clocks.clone().ok();
            nodes.push(Node::new(id, network.address(id), directory, namespace.as_deref(), clocks, disk)?);
        }
        let client = ClientOptions::default().connect_timeout(STATUS_TIMEOUT).follow_leader(false);
        let client = Client::connect_with(nodes.iter().map(Node::client_address), client)?;
        let cluster = Arc::new(Cluster {
            supervisor: Mutex::new(None),
            nodes,
            network,
            server,
            client,
            events,
            members: Mutex::new((1..=options.nodes).collect()),
            retired: Mutex::default(),
            damaged: Mutex::default(),
        });
        for id in 1..=options.nodes {
            cluster.start_node(id)?;
        }
        let supervised = Arc::downgrade(&cluster);
        *cluster.supervisor.lock() = Some(tokio::spawn(async move {
            while let Some(cluster) = supervised.upgrade() {
                cluster.supervise();
                drop(cluster);
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        }));
        Ok(cluster)
    }

    fn supervise(&self) {
        for node in &self.nodes {
            if let Err(error) = node.supervise(&self.server, &self.events) {
                tracing::warn!(node = node.id(), %error, "cannot supervise");
            }
        }
    }

    /// The network between its nodes and clients.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The numbers of its members.
    pub fn members(&self) -> Vec<NodeId> {
        self.members.lock().iter().copied().collect()
    }

    /// The numbers of the nodes that were never members.
    pub(crate) fn spares(&self) -> Vec<NodeId> {
        let (members, retired) = (self.members.lock(), self.retired.lock());
        self.nodes.iter().map(Node::id).filter(|id| !members.contains(id) && !retired.contains(id)).collect()
    }

    /// Starts a node that waits to become a member.
    pub(crate) fn prepare_to_join(&self, id: NodeId) -> Result<(), HarnessError> {
        self.node(id)?.set_join(true);
        self.start_node(id)
    }

    /// Tries once to make a node a member. An error does not say that it is none.
    pub(crate) async fn try_to_add(&self, id: NodeId, catch_up: Duration) -> Result<(), HarnessError> {
        let node = self.node(id)?;
        self.client.add_member(id, node.peer_address(), node.client_address(), catch_up).await?;
        self.members.lock().insert(id);
        Ok(())
    }

    /// Tries once to remove a member. An error does not say that it still is one.
    pub(crate) async fn try_to_remove(&self, id: NodeId) -> Result<(), HarnessError> {
        self.client.remove_member(id).await?;
        self.members.lock().remove(&id);
        self.damaged.lock().remove(&id);
        Ok(())
    }

    /// Has a node that is no member any more end for good.
    pub(crate) async fn retire(&self, id: NodeId) -> Result<(), HarnessError> {
        self.retired.lock().insert(id);
        // Killed: it may be halted, and would not hear that it is asked to end.
        self.kill(&[id]).await
    }

    /// Nodes whose clocks are wrong.
    pub(crate) fn wrong_clocks(&self) -> Vec<NodeId> {
        self.nodes.iter().filter(|node| node.clock.error_ms() != 0).map(Node::id).collect()
    }

    /// host:port of every member, for clients.
    pub fn client_addresses(&self) -> Vec<String> {
        self.members().into_iter().filter_map(|id| self.node(id).ok()).map(Node::client_address).collect()
    }

    pub(crate) fn events(&self) -> &Events {
        &self.events
    }

    pub(crate) fn node(&self, id: NodeId) -> Result<&Node, HarnessError> {
        let missing = || HarnessError::Node { node: id, problem: "is not there".to_owned() };
        self.nodes.iter().find(|node| node.id() == id).ok_or_else(missing)
    }

    /// Starts the process of a node that does not run, unless it is gone for good.
    pub(crate) fn start_node(&self, id: NodeId) -> Result<(), HarnessError> {
        if self.retired.lock().contains(&id) {
            return Ok(());
        }
        self.node(id)?.start(&self.server)
    }

    /// Kills the processes of these nodes at the same moment, and waits until they are gone.
    pub(crate) async fn kill(&self, nodes: &[NodeId]) -> Result<(), HarnessError> {
        for id in nodes {
            self.node(*id)?.send_kill()?;
        }
        for id in nodes {
            self.node(*id)?.reap().await?;
        }
        Ok(())
    }

    /// Remembers that a node's files have rotted.
    pub(crate) fn set_damaged(&self, node: NodeId) {
        self.damaged.lock().insert(node);
    }

    /// Nodes whose files have rotted, and that have not been seen up again since.
    pub fn damaged(&self) -> BTreeSet<NodeId> {
        self.damaged.lock().clone()
    }

    /// How often each node's process ended by itself.
    pub fn exits(&self) -> BTreeMap<NodeId, u32> {
        self.nodes.iter().map(|node| (node.id(), node.exits())).filter(|(_, exits)| *exits > 0).collect()
    }

    /// What each member says.
    pub async fn views(&self) -> Vec<NodeView> {
        join_all(self.members().into_iter().map(async |node| NodeView { node, status: self.status(node).await })).await
    }

    /// The digest of everything that each member has stored, as of one index of the log; or why there is none.
    pub async fn digests(&self) -> Result<(u64, Vec<(NodeId, Result<String, String>)>), HarnessError> {
        let digest = self.client.digest().await?;
        let nodes = digest.nodes.into_iter().map(|node| {
            let told = node.result.map(|told| hexadecimal(&told.digest)).map_err(|error| error.to_string());
            (node.member.node_id, told)
        });
        Ok((digest.index, nodes.collect()))
    }

    async fn status(&self, id: NodeId) -> Option<ClusterStatus> {
        let node = self.node(id).ok()?;
        node.process_id()?;
        let address = node.client_address();
        let asked = tokio::time::timeout(STATUS_TIMEOUT, self.client.cluster_status(&address));
        asked.await.ok()?.ok()
    }

    /// The node that says that it leads; the one of the latest term if several do.
    pub async fn leader(&self) -> Option<NodeId> {
        let views = self.views().await;
        let leaders = views.iter().filter_map(|view| view.status.as_ref()).filter(|s| s.leader_id == Some(s.node_id));
        leaders.max_by_key(|status| status.term).map(|status| status.node_id)
    }

    /// Waits until all members run, agree on a leader, and have applied what was committed when they first did. Nodes
    /// whose files have rotted are waited for only until `patience` is over: they may be beyond help.
    pub async fn wait_recovered(&self, timeout: Duration, patience: Duration) -> Recovery {
        let start = Instant::now();
        let mut target = None;
        loop {
            let views = self.views().await;
            let damaged = self.damaged();
            let given_up = start.elapsed() >= patience;
            let counted = |view: &&NodeView| !(given_up && view.status.is_none() && damaged.contains(&view.node));
            let counted: Vec<&NodeView> = views.iter().filter(counted).collect();
            let mut missing = disagreements(&counted);
            if missing.is_empty() {
                let committed = counted.iter().filter_map(|view| Some(view.status.as_ref()?.committed_index)).max();
                let target = *target.get_or_insert(committed.unwrap_or_default());
                missing = stragglers(&counted, target);
            }
            if missing.is_empty() || start.elapsed() >= timeout {
                let gone: BTreeSet<NodeId> =
                    views.iter().filter(|view| view.status.is_none()).map(|view| view.node).collect();
                if missing.is_empty() {
                    self.damaged.lock().retain(|node| gone.contains(node));
                }
                missing.extend(gone.iter().filter(|_| given_up).map(|node| format!("node {node} did not come back")));
                missing.dedup();
                return Recovery { took: start.elapsed(), missing };
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(supervisor) = self.supervisor.lock().take() {
            supervisor.abort();
        }
    }
}

fn make_disk(id: NodeId, directory: &Path, bytes: u64) -> Result<Disk, HarnessError> {
    let mount_point = Path::new(MOUNTS).join(format!("node-{id}"));
    let disk = Disk::create(directory.join("disk.img"), mount_point, bytes)?;
    let data = disk.path().join("data");
    std::fs::create_dir(&data).map_err(file_error("create", &data))?;
    Ok(disk)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What keeps these nodes from agreeing on a leader.
fn disagreements(views: &[&NodeView]) -> Vec<String> {
    let silent = views.iter().filter(|view| view.status.is_none());
    let mut missing: Vec<String> = silent.map(|view| format!("node {} does not answer", view.node)).collect();
    let said: BTreeSet<(u64, Option<u64>)> =
        views.iter().filter_map(|view| view.status.as_ref()).map(|status| (status.term, status.leader_id)).collect();
    if said.len() != 1 || said.iter().any(|(_, leader)| leader.is_none()) {
        missing.push(format!("no agreed leader, but (term, leader) {said:?}"));
    }
    missing
}

/// What has not applied everything up to `target`.
fn stragglers(views: &[&NodeView], target: u64) -> Vec<String> {
    let statuses = views.iter().filter_map(|view| view.status.as_ref());
    let behind = statuses.filter(|status| status.applied_index < target);
    behind.map(|status| format!("node {} has applied {} of {target}", status.node_id, status.applied_index)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(node: NodeId, leader_id: Option<u64>, term: u64, applied_index: u64) -> NodeView {
        let status = ClusterStatus { node_id: node, leader_id, term, applied_index, ..ClusterStatus::default() };
        NodeView { node, status: Some(status) }
    }

    #[test]
    fn nodes_agree_when_all_answer_and_name_one_leader_in_one_term() {
        let agreed = [view(1, Some(2), 5, 9), view(2, Some(2), 5, 9)];
        assert!(disagreements(&agreed.iter().collect::<Vec<_>>()).is_empty());
        let silent = [view(1, Some(2), 5, 9), NodeView { node: 2, status: None }];
        let terms = [view(1, Some(2), 4, 9), view(2, Some(2), 5, 9)];
        let leaderless = [view(1, None, 5, 9), view(2, None, 5, 9)];
        for views in [&silent, &terms, &leaderless] {
            assert!(!disagreements(&views.iter().collect::<Vec<_>>()).is_empty(), "{views:?}");
        }
    }

    #[test]
    fn a_node_that_has_applied_less_is_behind() {
        let views = [view(1, Some(2), 5, 9), view(2, Some(2), 5, 10)];
        assert_eq!(stragglers(&views.iter().collect::<Vec<_>>(), 10), ["node 1 has applied 9 of 10"]);
    }
}
