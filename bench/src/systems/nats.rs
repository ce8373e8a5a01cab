//! NATS with JetStream.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::network::Network;
use super::{NODES, READY_TIMEOUT, System, is_listening, until};

/// The first version that can be told to sync before it answers.
const SYNC_VERSION: (u32, u32) = (2, 10);

/// How to run NATS servers.
pub struct Nats {
    binary: PathBuf,
    directory: PathBuf,
    version: (u32, u32),
    nodes: Vec<Node>,
}

struct Node {
    client: String,
    route: String,
}

impl Nats {
    /// Chooses ports, and writes the configuration.
    pub fn new(binary: &Path, directory: &Path, network: &Network) -> anyhow::Result<Nats> {
        let output = Command::new(binary).arg("--version").output();
        let output = output.with_context(|| format!("cannot run {}: `make bench-setup`", binary.display()))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let version = parse_version(&text).with_context(|| format!("no version in {text:?}"))?;
        let ports = network.ports(2 * NODES)?;
        let node = |(node, ports): (usize, &[u16])| {
            let at = |port: u16| format!("{}:{port}", network.address(node));
            Node { client: at(ports[0]), route: at(ports[1]) }
        };
        let nodes = ports.chunks_exact(2).enumerate().map(node).collect();
        let nats = Nats { binary: binary.to_owned(), directory: directory.to_owned(), version, nodes };
        for node in 0..NODES {
            std::fs::write(nats.configuration_path(node), nats.configuration(node))?;
        }
        Ok(nats)
    }

    fn syncs(&self) -> bool {
        self.version >= SYNC_VERSION
    }

    fn configuration_path(&self, node: usize) -> PathBuf {
        self.directory.join(format!("node-{}.conf", node + 1))
    }

    fn configuration(&self, node: usize) -> String {
        let routes: Vec<String> = self.nodes.iter().map(|node| format!("\"nats://{}\"", node.route)).collect();
        let sync = if self.syncs() { "sync_interval: always" } else { "" };
        format!(
            "server_name: n{number}\nlisten: \"{client}\"\n\
             jetstream {{ store_dir: \"{store}\" {sync} }}\n\
             cluster {{ name: bench, listen: \"{route}\", routes: [{routes}] }}\n",
            number = node + 1,
            client = self.nodes[node].client,
            store = self.directory.join(format!("node-{}", node + 1)).display(),
            route = self.nodes[node].route,
            routes = routes.join(", "),
        )
    }

    /// Whether JetStream has a leader to make streams: it answers only then.
    async fn has_leader(&self) -> bool {
        let asking = async {
            let client = async_nats::connect(&self.nodes[0].client).await.ok()?;
            // Not by `query_account`, which expects fields in the answer that version 2.9 does not send.
            client.request("$JS.API.INFO", Default::default()).await.ok()
        };
        tokio::time::timeout(Duration::from_secs(2), asking).await.ok().flatten().is_some()
    }
}

impl System for Nats {
    fn settings(&self) -> Vec<(&'static str, String)> {
        let (major, minor) = self.version;
        let sync = match self.syncs() {
            true => "`sync_interval: always`: every replica syncs before it answers",
            false => {
                "NOT SYNCED: this version acknowledges what is in the page cache of a majority, and syncs every two \
                 minutes; a power cut loses confirmed messages"
            }
        };
        [
            ("version", format!("{major}.{minor}")),
            ("sync", sync.to_owned()),
            ("replication", "streams with three replicas, file storage, work-queue retention".to_owned()),
            ("queues", "a stream each up to ten queues; more are subjects of ten streams".to_owned()),
            ("consumers", "durable pull consumer per queue, explicit acknowledgement, without an answer".to_owned()),
            (
                "clients",
                "async-nats; to the stream's leader if there is one queue, else to all nodes in turn".to_owned(),
            ),
        ]
        .into()
    }

    fn address(&self, node: usize) -> String {
        self.nodes[node].client.clone()
    }

    fn command(&self, node: usize) -> anyhow::Result<Command> {
        let mut command = Command::new(&self.binary);
        command.arg("--config").arg(self.configuration_path(node));
        Ok(command)
    }

    fn formed(&self) -> BoxFuture<'_, anyhow::Result<()>> {
        until(READY_TIMEOUT, || self.has_leader().boxed()).boxed()
    }

    fn serves(&self, node: usize) -> BoxFuture<'_, bool> {
        async move { is_listening(&self.nodes[node].client).await }.boxed()
    }

    fn leader<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, anyhow::Result<usize>> {
        async move {
            let addresses = self.nodes.iter().map(|node| node.client.clone()).collect::<Vec<_>>();
            crate::drivers::nats::stream_leader(&addresses, queue).await
        }
        .boxed()
    }
}

fn parse_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.trim().rsplit_once('v')?.1.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_version_as_the_server_prints_it() {
        assert_eq!(parse_version("nats-server: v2.9.10\n"), Some((2, 9)));
        assert_eq!(parse_version("nats-server: v2.12.1"), Some((2, 12)));
        assert_eq!(parse_version("nonsense"), None);
    }
}
