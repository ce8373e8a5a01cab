//! `dwell server`: runs a node.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use dwell_server::{Config, ConfigOverrides, Member};

use crate::logging::{self, LogFormat};

/// Flags override `DWELL_*` variables (DWELL_DATA_DIR for --data-dir), which override the file.
#[derive(Debug, Args)]
pub struct ServerArguments {
    /// A TOML file with the configuration
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// This node's number, from 1: one that no other node of the cluster has or ever had
    #[arg(long, value_name = "ID")]
    node_id: Option<u64>,
    /// Where the log, the state and the snapshots are kept
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
    /// Where to listen for clients
    #[arg(long, value_name = "IP:PORT")]
    client_address: Option<SocketAddr>,
    /// Where to listen for the other nodes
    #[arg(long, value_name = "IP:PORT")]
    peer_address: Option<SocketAddr>,
    /// Where to serve metrics and health by HTTP
    #[arg(long, value_name = "IP:PORT")]
    http_address: Option<SocketAddr>,
    /// One of the cluster's first members; once for each, the same on all. Without it: this node alone
    #[arg(long = "member", value_name = "ID=PEER_ADDRESS,CLIENT_ADDRESS")]
    members: Vec<Member>,
    /// Start without members, and wait for `dwell cluster add`. Ignored once the node belongs to a cluster
    #[arg(long, conflicts_with = "members")]
    join: bool,
    /// How to write the log. RUST_LOG chooses what is written
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
}

pub async fn run(arguments: ServerArguments) -> anyhow::Result<()> {
    logging::start(arguments.log_format, "info,openraft=warn,raft_engine=warn");
    let overrides = ConfigOverrides {
        node_id: arguments.node_id,
        data_dir: arguments.data_dir,
        client_address: arguments.client_address,
        peer_address: arguments.peer_address,
        http_address: arguments.http_address,
        members: Some(arguments.members).filter(|members| !members.is_empty()),
        join: arguments.join.then_some(true),
    };
    let config = Config::load(arguments.config.as_deref(), overrides).context("the node cannot start")?;
    dwell_server::run(config).await.context("the node has stopped")
}
