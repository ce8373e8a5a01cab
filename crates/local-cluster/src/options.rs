//! What a local cluster is started with.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// What a local cluster is started with. Make one with [`LocalClusterOptions::new`] and change what differs.
#[derive(Debug, Clone)]
pub struct LocalClusterOptions {
    /// The `dwell` binary.
    pub binary: PathBuf,
    /// How many nodes; they are numbered from 1. Must match what the directory holds, if it holds a cluster.
    pub nodes: usize,
    /// Where data, logs and the members' ports are kept. Starting over the same directory finds the same members
    /// with their data.
    pub directory: PathBuf,
    /// Environment variables for every node, for instance `DWELL_SNAPSHOT_LOG_ENTRIES`. `DWELL_*` variables of
    /// this process are not passed on: they are meant for this process, and would make clusters differ by the
    /// shell that they were started from.
    pub environment: Vec<(OsString, OsString)>,
    /// Preferred client port of node 1; its peer and HTTP ports follow, and node n's are 10 (n - 1) higher. Used
    /// for a new cluster only, and only if all of these ports are free. Unset: any free ports.
    pub first_port: Option<u16>,
    /// How long [`LocalCluster::start`](crate::LocalCluster::start) waits for every node to be ready.
    pub ready_timeout: Duration,
}

impl LocalClusterOptions {
    /// Options with no extra environment, free ports and 60 s to become ready.
    pub fn new(binary: impl Into<PathBuf>, nodes: usize, directory: impl Into<PathBuf>) -> Self {
        Self {
            binary: binary.into(),
            nodes,
            directory: directory.into(),
            environment: Vec::new(),
            first_port: None,
            ready_timeout: Duration::from_secs(60),
        }
    }

    /// Adds an environment variable for every node.
    pub fn with_environment(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }
}
