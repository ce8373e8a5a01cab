//! Dwell, with its default settings.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use dwell_client::{Client, ClientOptions, ClusterStatus};
use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::network::Network;
use super::{NODES, System};

/// A node that takes longer to tell its view does not answer.
const STATUS_TIMEOUT: Duration = Duration::from_secs(1);

/// How to run Dwell's servers.
pub struct Dwell {
    binary: PathBuf,
    directory: PathBuf,
    nodes: Vec<Node>,
}

struct Node {
    client: String,
    peer: String,
    http: String,
}

impl Dwell {
    /// Chooses ports.
    pub fn new(binary: &Path, directory: &Path, network: &Network) -> anyhow::Result<Dwell> {
        let ports = network.ports(3 * NODES)?;
        let node = |(node, ports): (usize, &[u16])| {
            let at = |port: u16| format!("{}:{port}", network.address(node));
            Node { client: at(ports[0]), peer: at(ports[1]), http: at(ports[2]) }
        };
        let nodes = ports.chunks_exact(3).enumerate().map(node).collect();
        Ok(Dwell { binary: binary.to_owned(), directory: directory.to_owned(), nodes })
    }

    async fn status(&self, node: usize) -> anyhow::Result<ClusterStatus> {
        let options = ClientOptions::default().connect_timeout(STATUS_TIMEOUT);
        let client = Client::connect_with([self.address(node)], options)?;
        Ok(client.cluster_status(&self.address(node)).await?)
    }

    async fn is_ready(&self, node: usize) -> anyhow::Result<bool> {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::TcpStream::connect(&self.nodes[node].http).await?;
        stream.write_all(b"GET /readyz HTTP/1.0\r\n\r\n").await?;
        let mut answer = String::new();
        tokio::time::timeout(STATUS_TIMEOUT, stream.read_to_string(&mut answer)).await??;
        Ok(answer.split(' ').nth(1) == Some("200"))
    }
}

impl System for Dwell {
    fn settings(&self) -> Vec<(&'static str, String)> {
        let version = Command::new(&self.binary).arg("--version").output();
        let version = version.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        [
            ("version", version.unwrap_or_default()),
            ("settings", "defaults of `dwell server`: state_memory_bytes 256 MiB, heartbeat 100 ms".to_owned()),
            ("replication", "one Raft group of three; a confirm follows the fsync of a majority".to_owned()),
            ("acknowledgement", "of each message, answered when a majority has it on disk".to_owned()),
            ("clients", "dwell-client; each producer its own connection, to the leader".to_owned()),
        ]
        .into()
    }

    fn address(&self, node: usize) -> String {
        self.nodes[node].client.clone()
    }

    fn command(&self, node: usize) -> anyhow::Result<Command> {
        let addresses = &self.nodes[node];
        let mut command = Command::new(&self.binary);
        // `DWELL_*` variables are meant for this program's user, and would make clusters differ by the shell.
        for (name, _) in std::env::vars_os() {
            if name.as_encoded_bytes().starts_with(b"DWELL_") {
                command.env_remove(name);
            }
        }
        // Those that can be cut off are in networks of their own.
        command.env("DWELL_ALLOW_INSECURE", "true");
        command.arg("server").args(["--node-id", &(node + 1).to_string()]);
        command.arg("--data-dir").arg(self.directory.join(format!("node-{}", node + 1)));
        command.args(["--client-address", &addresses.client, "--peer-address", &addresses.peer]);
        command.args(["--http-address", &addresses.http]);
        for (number, member) in (1..).zip(&self.nodes) {
            command.args(["--member", &format!("{number}={},{}", member.peer, member.client)]);
        }
        Ok(command)
    }

    fn serves(&self, node: usize) -> BoxFuture<'_, bool> {
        async move { self.is_ready(node).await.unwrap_or(false) }.boxed()
    }

    fn leader<'a>(&'a self, _queue: &'a str) -> BoxFuture<'a, anyhow::Result<usize>> {
        async move {
            let statuses = futures::future::try_join_all((0..NODES).map(|node| self.status(node))).await?;
            // One that was frozen or cut off takes itself for the leader for a moment still, when it is back.
            let leaders: BTreeSet<_> = statuses.iter().map(|status| status.leader_id).collect();
            anyhow::ensure!(leaders.len() == 1, "the nodes do not agree on who leads: {leaders:?}");
            let leads = |status: &ClusterStatus| status.leader_id == Some(status.node_id);
            statuses.iter().position(leads).context("no node leads")
        }
        .boxed()
    }
}
