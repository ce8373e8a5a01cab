//! Why a local cluster could not do what was asked.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// Why a local cluster could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum LocalClusterError {
    /// A file or directory of the cluster could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried: `create`, `read`, `write`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file that names the members is not one.
    #[error("{} does not describe a local cluster: {reason}; delete the directory to start afresh", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The directory belongs to a cluster of another size.
    #[error("{} holds a cluster of {found} nodes, and {wanted} were asked for", directory.display())]
    OtherSize {
        /// The cluster's directory.
        directory: PathBuf,
        /// Nodes of the cluster there.
        found: usize,
        /// Nodes asked for.
        wanted: usize,
    },
    /// A cluster has at least one node, and at most [`LocalClusterError::NODES_MAX`].
    #[error("a local cluster has 1 to {max} nodes, not {0}", max = Self::NODES_MAX)]
    Nodes(usize),
    /// Nothing to listen on.
    #[error("found no {wanted} free ports on 127.0.0.1")]
    NoFreePorts {
        /// How many were needed.
        wanted: usize,
    },
    /// The binary could not be started.
    #[error("cannot start {}: {source}", binary.display())]
    Spawn {
        /// The binary.
        binary: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// There is no node of this number.
    #[error("the cluster has no node {0}")]
    UnknownNode(u64),
    /// The node is running already.
    #[error("node {0} is running already")]
    Running(u64),
    /// The node is not running.
    #[error("node {0} is not running")]
    NotRunning(u64),
    /// A node ended although nobody told it to.
    #[error("node {node} ended by itself with {status}; the end of its log:\n{log}")]
    Exited {
        /// The node.
        node: u64,
        /// How it ended.
        status: ExitStatus,
        /// The end of its log.
        log: String,
    },
    /// A signal could not be sent, or the process not waited for.
    #[error("cannot control the process of node {node}: {source}")]
    Process {
        /// The node.
        node: u64,
        /// What the system says.
        source: std::io::Error,
    },
    /// Something did not happen in time.
    #[error("{what} after {waited:?}\n{logs}")]
    Deadline {
        /// What is still missing.
        what: String,
        /// How long it was waited for.
        waited: Duration,
        /// The ends of the logs of the nodes concerned.
        logs: String,
    },
    /// A running node did not answer.
    #[error("node {node} does not answer: {reason}")]
    NoAnswer {
        /// The node.
        node: u64,
        /// What happened instead.
        reason: String,
    },
}

impl LocalClusterError {
    /// More than this on one machine is a mistake.
    pub const NODES_MAX: usize = 15;
}
