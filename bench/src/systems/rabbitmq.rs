//! RabbitMQ with quorum queues.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use futures::FutureExt as _;
use futures::future::BoxFuture;

use super::network::Network;
use super::process::Server;
use super::{NODES, System, is_listening};

/// How long `rabbitmqctl` may take, which starts an Erlang machine of its own.
const CONTROL_TIMEOUT: Duration = Duration::from_secs(60);
/// The nodes' shared secret, which each reads from its home directory.
const COOKIE: &str = "dwell-bench";

/// How to run RabbitMQ servers, by its own scripts and without the package's user.
pub struct RabbitMq {
    scripts: PathBuf,
    directory: PathBuf,
    nodes: Vec<Node>,
    epmd_port: u16,
    /// The nodes find each other by them. One for each address.
    _epmds: Vec<Server>,
}

struct Node {
    name: String,
    host: String,
    port: u16,
    distribution_port: u16,
}

impl RabbitMq {
    /// Chooses ports, writes the configuration, and starts the name servers.
    pub fn new(scripts: &Path, directory: &Path, network: &Network) -> anyhow::Result<RabbitMq> {
        let server = scripts.join("rabbitmq-server");
        anyhow::ensure!(server.is_file(), "there is no {}: `make bench-setup`", server.display());
        let ports = network.ports(2 * NODES + 1)?;
        let node = |(node, ports): (usize, &[u16])| {
            let host = network.address(node).to_string();
            Node { name: format!("rabbit{}@{host}", node + 1), host, port: ports[0], distribution_port: ports[1] }
        };
        let nodes: Vec<Node> = ports[..2 * NODES].chunks_exact(2).enumerate().map(node).collect();
        let epmd_port = ports[2 * NODES];
        let shared = matches!(network, Network::Loopback);
        let mut epmds = Vec::new();
        for (number, node) in nodes.iter().enumerate().take(if shared { 1 } else { NODES }) {
            let mut epmd = Command::new("epmd");
            epmd.args(["-port", &epmd_port.to_string(), "-address", &node.host]);
            epmds.push(Server::start(network.inside(number, epmd), &directory.join("epmd.log"))?);
        }
        let rabbitmq =
            RabbitMq { scripts: scripts.to_owned(), directory: directory.to_owned(), nodes, epmd_port, _epmds: epmds };
        (0..NODES).try_for_each(|node| rabbitmq.write_files(node))?;
        Ok(rabbitmq)
    }

    fn home(&self, node: usize) -> PathBuf {
        self.directory.join(format!("node-{}", node + 1))
    }

    fn write_files(&self, node: usize) -> anyhow::Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        let home = self.home(node);
        std::fs::create_dir_all(&home)?;
        let cookie = home.join(".erlang.cookie");
        std::fs::write(&cookie, COOKIE)?;
        std::fs::set_permissions(&cookie, std::fs::Permissions::from_mode(0o400))?;
        std::fs::write(home.join("enabled_plugins"), "[].\n")?;
        std::fs::write(home.join("rabbitmq.conf"), self.configuration(node))?;
        Ok(std::fs::write(home.join("environment"), "")?)
    }

    /// The first node begins alone, and the others join it.
    fn configuration(&self, node: usize) -> String {
        let discovery = format!(
            "cluster_formation.peer_discovery_backend = classic_config\n\
             cluster_formation.classic_config.nodes.1 = {}\n",
            self.nodes[0].name
        );
        let discovery = if node == 0 { "" } else { &discovery };
        format!("loopback_users = none\nlog.file.level = warning\n{discovery}")
    }

    fn environment(&self, node: usize, command: &mut Command) {
        let (home, addresses) = (self.home(node), &self.nodes[node]);
        let path = |name: &str| home.join(name);
        command.env("HOME", &home).current_dir(&home);
        command.env("RABBITMQ_NODENAME", &addresses.name).env("RABBITMQ_USE_LONGNAME", "true");
        command.env("RABBITMQ_NODE_IP_ADDRESS", &addresses.host);
        command.env("RABBITMQ_NODE_PORT", addresses.port.to_string());
        command.env("RABBITMQ_DIST_PORT", addresses.distribution_port.to_string());
        command.env("ERL_EPMD_PORT", self.epmd_port.to_string());
        command.env("RABBITMQ_MNESIA_BASE", path("data")).env("RABBITMQ_LOG_BASE", path("logs"));
        command.env("RABBITMQ_PID_FILE", path("pid")).env("RABBITMQ_CONFIG_FILE", path("rabbitmq.conf"));
        command.env("RABBITMQ_GENERATED_CONFIG_DIR", path("generated"));
        command.env("RABBITMQ_ADVANCED_CONFIG_FILE", path("none.config"));
        command.env("RABBITMQ_CONF_ENV_FILE", path("environment"));
        command.env("RABBITMQ_ENABLED_PLUGINS_FILE", path("enabled_plugins"));
        let interface = addresses.host.replace('.', ",");
        let arguments = format!("-kernel inet_dist_use_interface {{{interface}}}");
        command.env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", arguments);
    }

    /// Runs `rabbitmqctl`, outside of the node's namespace: it reaches all nodes.
    async fn control(&self, node: usize, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(self.scripts.join("rabbitmqctl"));
        self.environment(node, &mut command);
        // It must not stand in the way of a later start.
        command.env_remove("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS").env_remove("RABBITMQ_DIST_PORT");
        command.env("ERL_EPMD_ADDRESS", &self.nodes[node].host);
        command.args(["--longnames", "--quiet", "--node", &self.nodes[node].name]).args(arguments);
        let mut command = tokio::process::Command::from(command);
        let output = tokio::time::timeout(CONTROL_TIMEOUT, command.kill_on_drop(true).output()).await??;
        let errors = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "`rabbitmqctl {}`: {errors}", arguments.join(" "));
        Ok(String::from_utf8(output.stdout)?)
    }
}

impl System for RabbitMq {
    fn settings(&self) -> Vec<(&'static str, String)> {
        let release = self.scripts.parent().and_then(|directory| std::fs::read_dir(directory.join("lib")).ok());
        let names = release.into_iter().flatten().flatten().map(|entry| entry.file_name());
        let version = names.filter_map(|name| name.to_str()?.strip_prefix("rabbitmq_server-").map(str::to_owned)).max();
        [
            ("version", version.unwrap_or_default()),
            ("settings", "defaults; no plugins; log level warning".to_owned()),
            (
                "replication",
                "quorum queues of three members; leader locator `balanced` if there are several".to_owned(),
            ),
            ("sync", "the members' shared log is synced before a confirm (ra's default)".to_owned()),
            ("acknowledgement", "basic.ack of each message, without an answer; publisher confirms".to_owned()),
            ("clients", "lapin; to the queue's leader if there is one queue, else to all nodes in turn".to_owned()),
            ("delays", "per-message TTL in a quorum queue that dead-letters to the target, at least once".to_owned()),
        ]
        .into()
    }

    fn address(&self, node: usize) -> String {
        format!("{}:{}", self.nodes[node].host, self.nodes[node].port)
    }

    fn command(&self, node: usize) -> anyhow::Result<Command> {
        let mut command = Command::new(self.scripts.join("rabbitmq-server"));
        self.environment(node, &mut command);
        Ok(command)
    }

    fn starts_in_turn(&self) -> bool {
        // Two that join at the same time are in each other's way.
        true
    }

    fn formed(&self) -> BoxFuture<'_, anyhow::Result<()>> {
        async move { self.control(0, &["await_online_nodes", &NODES.to_string()]).await.map(drop) }.boxed()
    }

    fn serves(&self, node: usize) -> BoxFuture<'_, bool> {
        async move { is_listening(&self.address(node)).await }.boxed()
    }

    fn leader<'a>(&'a self, queue: &'a str) -> BoxFuture<'a, anyhow::Result<usize>> {
        async move {
            let listed = self.control(0, &["list_queues", "--no-table-headers", "name", "leader"]).await?;
            let rows = listed.lines().filter_map(|line| line.split_once('\t'));
            let leader = rows.filter(|(name, _)| *name == queue).map(|(_, leader)| leader.trim()).next();
            let leader = leader.with_context(|| format!("{queue} is not among\n{listed}"))?;
            self.nodes.iter().position(|node| node.name == leader).with_context(|| format!("{leader} is no node"))
        }
        .boxed()
    }
}
