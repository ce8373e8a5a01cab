//! `dwell server`: runs a node.

use std::net::SocketAddr;

use anyhow::Context;
use clap::Args;
use dwell_server::{Config, ConfigOverrides, Effective};

use crate::arguments::NodeArguments;
use crate::logging::{self, LogFormat};
use crate::output;

/// Flags override `DWELL_*` variables (DWELL_DATA_DIR for --data-dir), which override the file.
#[derive(Debug, Args)]
pub struct ServerArguments {
    #[command(flatten)]
    node: NodeArguments,
    /// Where to listen for clients
    #[arg(long, value_name = "IP:PORT")]
    client_address: Option<SocketAddr>,
    /// Where to listen for the other nodes
    #[arg(long, value_name = "IP:PORT")]
    peer_address: Option<SocketAddr>,
    /// Where to serve metrics and health by HTTP
    #[arg(long, value_name = "IP:PORT")]
    http_address: Option<SocketAddr>,
    /// Start without members, and wait for `dwell cluster add`. Ignored once the node belongs to a cluster
    #[arg(long, conflicts_with = "members")]
    join: bool,
    /// Listen beyond loopback without TLS, in a network where everybody is trusted
    #[arg(long)]
    allow_insecure: bool,
    /// Read and check the configuration, print every value with its source, and end: with an error if anything is wrong
    #[arg(long)]
    check_config: bool,
    /// Print a configuration file in which every setting is explained, and end
    #[arg(long, conflicts_with = "check_config")]
    print_example: bool,
    /// How to write the log. RUST_LOG chooses what is written
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
}

pub async fn run(arguments: ServerArguments) -> anyhow::Result<()> {
    if arguments.print_example {
        return output::line(dwell_server::example().trim_end());
    }
    logging::start(arguments.log_format, "info,openraft=warn,raft_engine=warn");
    let (file, overrides) = arguments.node.into_overrides();
    let overrides = ConfigOverrides {
        client_address: arguments.client_address,
        peer_address: arguments.peer_address,
        http_address: arguments.http_address,
        join: arguments.join.then_some(true),
        allow_insecure: arguments.allow_insecure.then_some(true),
        ..overrides
    };
    let loaded = Config::load_with_sources(file.as_deref(), overrides);
    let (config, effective) = loaded.context("the node cannot start with this configuration")?;
    if arguments.check_config {
        return show(&config, &effective);
    }
    dwell_server::run(config).await.context("the node has stopped")
}

/// Prints the values, and fails if what they name cannot be used.
fn show(config: &Config, effective: &[Effective]) -> anyhow::Result<()> {
    for Effective { key, value, source } in effective {
        match value {
            Some(value) => output::line(format!("{key} = {value} # {source}"))?,
            None => output::line(format!("# {key} is not set"))?,
        }
    }
    let problems: Vec<String> = config.problems_here().iter().map(ToString::to_string).collect();
    anyhow::ensure!(problems.is_empty(), "the node cannot start with this configuration: {}", problems.join("\n"));
    Ok(())
}
