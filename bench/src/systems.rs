//! The systems under test: three servers of each, on this machine, in temporary folders.

mod dwell;
mod nats;
pub mod network;
pub mod process;
mod rabbitmq;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use self::network::Network;
use self::process::Server;
use crate::usage::Usage;

/// Servers of a cluster.
pub const NODES: usize = 3;
/// A server that does not answer by then will not.
pub const READY_TIMEOUT: Duration = Duration::from_secs(120);
/// How often something awaited is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A system under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The build under test.
    Dwell,
    /// Quorum queues.
    #[value(name = "rabbitmq")]
    RabbitMq,
    /// JetStream.
    Nats,
}

impl Kind {
    /// As results name it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Dwell => "dwell",
            Kind::RabbitMq => "rabbitmq",
            Kind::Nats => "nats",
        }
    }
}

/// Where the programs are.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The `dwell` binary.
    pub dwell: PathBuf,
    /// The directory of RabbitMQ's scripts.
    pub rabbitmq: PathBuf,
    /// The `nats-server` binary.
    pub nats: PathBuf,
}

/// What one kind of cluster adds to its servers. Node numbers are from 0.
pub trait System: Send + Sync {
    /// What is measured, in words and settings, for the reader of the results.
    fn settings(&self) -> Vec<(&'static str, String)>;

    /// host:port for clients of a node.
    fn address(&self, node: usize) -> String;

    /// The command that runs a node.
    fn command(&self, node: usize) -> anyhow::Result<std::process::Command>;

    /// Whether each node of the first start is to serve before the next is started.
    fn starts_in_turn(&self) -> bool {
        false
    }

    /// Resolves when the nodes of the first start, which serve, form a cluster.
    fn formed(&self) -> BoxFuture<'_, anyhow::Result<()>> {
        async { Ok(()) }.boxed()
    }

    /// Resolves to whether a node that was started serves.
    fn serves(&self, node: usize) -> BoxFuture<'_, bool>;

    /// The node that leads a queue.
    fn leader<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, anyhow::Result<usize>>;
}

/// Three running servers. Dropping it kills them.
pub struct Cluster {
    /// What it is.
    pub kind: Kind,
    servers: Vec<Option<Server>>,
    system: Box<dyn System>,
    directory: PathBuf,
    network: Network,
}

impl Cluster {
    /// Starts three servers and waits until they serve.
    pub async fn start(kind: Kind, programs: &Programs, directory: &Path, network: Network) -> anyhow::Result<Cluster> {
        let directory = directory.to_owned();
        std::fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
        let system: Box<dyn System> = match kind {
            Kind::Dwell => Box::new(dwell::Dwell::new(&programs.dwell, &directory, &network)?),
            Kind::RabbitMq => Box::new(rabbitmq::RabbitMq::new(&programs.rabbitmq, &directory, &network)?),
            Kind::Nats => Box::new(nats::Nats::new(&programs.nats, &directory, &network)?),
        };
        let servers = (0..NODES).map(|_| None).collect();
        let mut cluster = Cluster { kind, servers, system, directory, network };
        let formed = cluster.form().await;
        let logs = cluster.directory.display();
        formed.with_context(|| format!("{} does not start; its logs are in {logs}", kind.name()))?;
        Ok(cluster)
    }

    async fn form(&mut self) -> anyhow::Result<()> {
        for node in 0..NODES {
            self.start_node(node)?;
            if self.system.starts_in_turn() {
                self.wait_node_serving(node, READY_TIMEOUT).await?;
            }
        }
        self.wait_serving(READY_TIMEOUT).await?;
        self.system.formed().await
    }

    fn start_node(&mut self, node: usize) -> anyhow::Result<()> {
        let log = self.directory.join(format!("node-{}.log", node + 1));
        let command = self.network.inside(node, self.system.command(node)?);
        self.servers[node] = Some(Server::start(command, &log)?);
        Ok(())
    }

    /// What is measured, in words and settings.
    pub fn settings(&self) -> Vec<(String, String)> {
        self.system.settings().into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    /// host:port of every node.
    pub fn addresses(&self) -> Vec<String> {
        (0..NODES).map(|node| self.system.address(node)).collect()
    }

    /// host:port of every node but one.
    pub fn addresses_without(&self, without: usize) -> Vec<String> {
        (0..NODES).filter(|node| *node != without).map(|node| self.system.address(node)).collect()
    }

    /// The node that leads a queue.
    pub async fn leader(&self, queue: &str) -> anyhow::Result<usize> {
        let began = std::time::Instant::now();
        loop {
            match self.system.leader(queue).await {
                Ok(leader) => return Ok(leader),
                Err(error) if began.elapsed() > READY_TIMEOUT => return Err(error),
                Err(_) => tokio::time::sleep(POLL_INTERVAL).await,
            }
        }
    }

    /// What each running server has used so far.
    pub fn usages(&self) -> anyhow::Result<Vec<Usage>> {
        self.servers.iter().flatten().map(|server| Usage::of_tree(server.process_id())).collect()
    }

    /// What all servers together have used so far.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        let mut total = Usage::default();
        self.usages()?.iter().for_each(|usage| total.add(usage));
        Ok(total)
    }

    /// Kills a server, as a crash would.
    pub fn kill(&mut self, node: usize) {
        drop(self.servers[node].take());
    }

    /// Kills all servers at once.
    pub fn kill_all(&mut self) {
        self.servers.iter().flatten().for_each(Server::send_kill);
        (0..NODES).for_each(|node| self.kill(node));
    }

    /// Starts those that do not run; does not wait until they serve.
    pub fn start_missing(&mut self) -> anyhow::Result<()> {
        for node in 0..NODES {
            if self.servers[node].is_none() {
                self.start_node(node)?;
            }
        }
        Ok(())
    }

    /// Waits until all servers serve.
    pub async fn wait_serving(&self, timeout: Duration) -> anyhow::Result<()> {
        for node in 0..NODES {
            self.wait_node_serving(node, timeout).await?;
        }
        Ok(())
    }

    /// Waits until a server serves.
    pub async fn wait_node_serving(&self, node: usize, timeout: Duration) -> anyhow::Result<()> {
        until(timeout, || self.system.serves(node)).await.with_context(|| format!("node {} does not serve", node + 1))
    }

    /// Halts a server where it stands, or lets it go on.
    pub fn set_frozen(&self, node: usize, frozen: bool) -> anyhow::Result<()> {
        let server = self.servers[node].as_ref().context("the server does not run")?;
        server.set_frozen(frozen)
    }

    /// Cuts a server off from everybody, or joins it again.
    pub fn set_cut(&self, node: usize, cut: bool) -> anyhow::Result<()> {
        self.network.set_cut(node, cut)
    }

    /// Asks the servers to end, waits for it, and deletes their data.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.kill_all();
        std::fs::remove_dir_all(&self.directory).with_context(|| format!("cannot delete {}", self.directory.display()))
    }
}

/// Polls until a condition holds.
async fn until<'a>(timeout: Duration, mut condition: impl FnMut() -> BoxFuture<'a, bool>) -> anyhow::Result<()> {
    let began = std::time::Instant::now();
    while !condition().await {
        anyhow::ensure!(began.elapsed() < timeout, "not within {timeout:?}");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    Ok(())
}

/// Whether something listens there.
async fn is_listening(address: &str) -> bool {
    let connecting = tokio::net::TcpStream::connect(address);
    matches!(tokio::time::timeout(Duration::from_secs(1), connecting).await, Ok(Ok(_)))
}
