//! The cluster: its nodes, and waiting for what they agree on.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use dwell_proto::v1::GetClusterStatusResponse;
use futures::future::join_all;

use crate::error::LocalClusterError;
use crate::manifest::{Manifest, NodePorts, file_error};
use crate::node::LocalNode;
use crate::options::LocalClusterOptions;
use crate::ports;

/// How often something awaited is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// A killed process is gone as soon as its memory is unmapped.
const REAP_TIMEOUT: Duration = Duration::from_secs(20);

/// A cluster of server processes on this machine. Dropping it kills them; their data stays.
#[derive(Debug)]
pub struct LocalCluster {
    nodes: Vec<LocalNode>,
    /// The highest number that a node has, or had: none is given twice.
    last_id: u64,
    options: LocalClusterOptions,
    directory: PathBuf,
}

impl LocalCluster {
    /// Starts every node and waits until all are ready.
    pub async fn start(options: LocalClusterOptions) -> Result<Self, LocalClusterError> {
        let ready_timeout = options.ready_timeout;
        let cluster = Self::prepare(options)?;
        for node in &cluster.nodes {
            node.start()?;
        }
        cluster.wait_ready(ready_timeout).await?;
        Ok(cluster)
    }

    /// Chooses or finds the members, and starts none of them.
    pub fn prepare(options: LocalClusterOptions) -> Result<Self, LocalClusterError> {
        std::fs::create_dir_all(&options.directory).map_err(file_error("create", &options.directory))?;
        // A relative path would mean another place to a server that changes its working directory.
        let directory = std::fs::canonicalize(&options.directory).map_err(file_error("read", &options.directory))?;
        let manifest = Manifest::load_or_create(&options)?;
        let nodes: Vec<LocalNode> = (1_u64..)
            .zip(&manifest.nodes)
            .map(|(id, ports)| {
                let directory = directory.join(format!("node-{id}"));
                LocalNode::new(id, &manifest.nodes, *ports, &options.binary, directory, &options.environment)
            })
            .collect();
        let last_id = nodes.last().map_or(0, LocalNode::id);
        Ok(Self { nodes, last_id, options, directory })
    }

    /// Makes one more node, which waits to be made a member of the cluster, and does not start it. The directory does not
    /// remember it: a cluster that is opened there again has the nodes that it began with.
    pub fn add_node(&mut self) -> Result<u64, LocalClusterError> {
        let id = self.last_id + 1;
        let [client, peer, http] = ports::free_ports(3)?[..] else {
            return Err(LocalClusterError::NoFreePorts { wanted: 3 });
        };
        let directory = self.directory.join(format!("node-{id}"));
        let ports = NodePorts { client, peer, http };
        let options = &self.options;
        self.nodes.push(LocalNode::new(id, &[], ports, &options.binary, directory, &options.environment));
        self.last_id = id;
        Ok(id)
    }

    /// Kills a node, if it runs, and forgets it. Its data stays.
    pub fn remove_node(&mut self, id: u64) -> Result<(), LocalClusterError> {
        self.node(id)?;
        self.nodes.retain(|node| node.id() != id);
        Ok(())
    }

    /// All nodes, running or not, by number.
    pub fn nodes(&self) -> &[LocalNode] {
        &self.nodes
    }

    /// One node, by its number from 1.
    pub fn node(&self, id: u64) -> Result<&LocalNode, LocalClusterError> {
        self.nodes.iter().find(|node| node.id() == id).ok_or(LocalClusterError::UnknownNode(id))
    }

    /// host:port of every node, for a client to choose from.
    pub fn client_addresses(&self) -> Vec<String> {
        self.nodes.iter().map(LocalNode::client_address).collect()
    }

    /// Waits until every running node that is not paused says that it is ready: it knows a leader, and has
    /// caught up. Fails at once if a node ended by itself.
    pub async fn wait_ready(&self, timeout: Duration) -> Result<(), LocalClusterError> {
        self.wait(timeout, || async {
            let answers = join_all(self.answering().map(|node| async {
                let reason = node.not_ready_reason().await?;
                Some(format!("node {} is not ready: {reason}", node.id()))
            }));
            let missing: Vec<String> = answers.await.into_iter().flatten().collect();
            if missing.is_empty() { Ok(()) } else { Err(missing.join("; ")) }
        })
        .await
    }

    /// Waits until all running nodes that are not paused agree on one leader among them, and answers its number.
    pub async fn leader(&self, timeout: Duration) -> Result<u64, LocalClusterError> {
        self.wait(timeout, || async { agreed_leader(&self.statuses().await, self.nodes.len()) }).await
    }

    /// The view of every running node that is not paused and answers.
    pub async fn statuses(&self) -> Vec<GetClusterStatusResponse> {
        join_all(self.answering().map(LocalNode::status)).await.into_iter().flatten().collect()
    }

    /// Kills all running nodes at the same moment, and waits until they are gone.
    pub async fn kill_all(&self) -> Result<(), LocalClusterError> {
        let running: Vec<&LocalNode> = self.nodes.iter().filter(|node| node.is_running()).collect();
        for node in &running {
            node.send_kill()?;
        }
        for node in &running {
            node.reap(REAP_TIMEOUT).await?;
        }
        Ok(())
    }

    /// Starts every node that is not running; does not wait until they are ready.
    pub fn start_all(&self) -> Result<(), LocalClusterError> {
        self.nodes.iter().filter(|node| !node.is_running()).try_for_each(LocalNode::start)
    }

    /// Asks every running node to end, all at once, and waits until they have.
    pub async fn stop_all(&self) -> Result<(), LocalClusterError> {
        let stops = self.nodes.iter().filter(|node| node.is_running()).map(LocalNode::stop);
        join_all(stops).await.into_iter().collect()
    }

    /// Polls until `attempt` succeeds; its error says what is missing.
    async fn wait<T, Attempt>(
        &self,
        timeout: Duration,
        mut attempt: impl FnMut() -> Attempt,
    ) -> Result<T, LocalClusterError>
    where
        Attempt: Future<Output = Result<T, String>>,
    {
        let started = Instant::now();
        loop {
            for node in &self.nodes {
                node.check_alive()?;
            }
            let what = match attempt().await {
                Ok(found) => return Ok(found),
                Err(what) => what,
            };
            if started.elapsed() >= timeout {
                let logs: Vec<String> = self.nodes.iter().map(LocalNode::log_tail).collect();
                return Err(LocalClusterError::Deadline { what, waited: timeout, logs: logs.join("\n") });
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    fn answering(&self) -> impl Iterator<Item = &LocalNode> {
        self.nodes.iter().filter(|node| node.is_running() && !node.is_paused())
    }
}

/// The one leader that all of `statuses` name in one term, if it is among them and they are a majority.
fn agreed_leader(statuses: &[GetClusterStatusResponse], members: usize) -> Result<u64, String> {
    if statuses.len() * 2 <= members {
        return Err(format!("only {} of {members} nodes answer", statuses.len()));
    }
    let views: Vec<String> = statuses
        .iter()
        .map(|status| format!("node {} sees leader {:?} in term {}", status.node_id, status.leader_id, status.term))
        .collect();
    let disagreement = || format!("no agreed leader: {}", views.join(", "));
    let first = statuses.first().ok_or_else(disagreement)?;
    let leader = first.leader_id.ok_or_else(disagreement)?;
    let agreed = statuses.iter().all(|status| status.leader_id == Some(leader) && status.term == first.term);
    let leader_answers = statuses.iter().any(|status| status.node_id == leader);
    if agreed && leader_answers { Ok(leader) } else { Err(disagreement()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(node_id: u64, leader_id: Option<u64>, term: u64) -> GetClusterStatusResponse {
        GetClusterStatusResponse { node_id, leader_id, term, ..Default::default() }
    }

    #[test]
    fn a_leader_is_agreed_when_a_majority_with_it_names_it() {
        assert_eq!(agreed_leader(&[view(1, Some(2), 5), view(2, Some(2), 5)], 3), Ok(2));
    }

    #[test]
    fn no_leader_is_agreed_from_a_minority_or_a_disagreement_or_a_dead_one() {
        let minority = [view(2, Some(2), 5)];
        let two_leaders = [view(1, Some(1), 4), view(2, Some(2), 5), view(3, Some(2), 5)];
        let two_terms = [view(1, Some(2), 4), view(2, Some(2), 5)];
        let dead_leader = [view(1, Some(3), 5), view(2, Some(3), 5)];
        let none_yet = [view(1, None, 1), view(2, None, 1), view(3, None, 1)];
        for statuses in [&minority[..], &two_leaders, &two_terms, &dead_leader, &none_yet, &[]] {
            assert!(agreed_leader(statuses, 3).is_err(), "{statuses:?}");
        }
    }

    #[test]
    fn the_number_of_a_node_that_is_gone_is_not_given_again() {
        let directory = tempfile::tempdir().unwrap();
        let mut cluster = LocalCluster::prepare(LocalClusterOptions::new("dwell", 3, directory.path())).unwrap();
        cluster.remove_node(3).unwrap();
        assert_eq!(cluster.add_node().unwrap(), 4);
        cluster.remove_node(4).unwrap();
        assert_eq!(cluster.add_node().unwrap(), 5);
    }

    #[tokio::test]
    async fn a_node_that_fails_to_start_is_reported_with_its_log_and_the_others_are_killed() {
        let directory = tempfile::tempdir().unwrap();
        // `sh server ...`: the script is missing, which the shell reports and ends with.
        let options = LocalClusterOptions::new("/bin/sh", 3, directory.path());
        let error = LocalCluster::start(options).await.unwrap_err();
        assert!(matches!(error, LocalClusterError::Exited { .. }), "{error}");
        assert!(error.to_string().contains("server"), "{error}");
    }

    #[tokio::test]
    async fn a_missing_binary_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let error = LocalCluster::start(LocalClusterOptions::new("/nonexistent/dwell", 1, directory.path())).await;
        assert!(error.unwrap_err().to_string().contains("/nonexistent/dwell"));
    }
}
