//! `dwell dev`: a cluster of real processes on this machine.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use dwell_local_cluster::{LocalCluster, LocalClusterOptions, LocalNode};

use crate::output;

/// The client port of node 1, where clients look by default.
const FIRST_PORT: u16 = 7600;
/// How often the nodes are looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How long a node that ended stays away, so that one can see that it does not matter.
const ABSENCE: Duration = Duration::from_secs(5);

#[derive(Debug, Args)]
pub struct DevArguments {
    /// How many nodes
    #[arg(long, default_value_t = 3)]
    nodes: usize,
    /// Where data and logs are kept. Starting again over the same directory finds everything there
    #[arg(long, value_name = "DIRECTORY", default_value = "./dwell-dev")]
    data_dir: PathBuf,
}

pub async fn run(arguments: DevArguments) -> anyhow::Result<()> {
    let binary = std::env::current_exe().context("finding this program's own file")?;
    // Nodes write their paths into files of their own; they do not depend on where this was started.
    let directory = std::path::absolute(&arguments.data_dir).context("the data directory")?;
    let mut options = LocalClusterOptions::new(binary, arguments.nodes, directory);
    options.first_port = Some(FIRST_PORT);
    output::line(format!("starting {} nodes over {} ...", arguments.nodes, options.directory.display()))?;
    let starting = LocalCluster::start(options);
    let cluster = tokio::select! {
        cluster = starting => cluster?,
        _ = interrupted() => return Ok(()),
    };
    describe(&cluster)?;
    let watched = tokio::select! {
        result = watch(&cluster) => result,
        _ = interrupted() => Ok(()),
    };
    // On a closed pipe too, the nodes end in order.
    let _ = output::line("stopping; the data stays");
    cluster.stop_all().await?;
    watched
}

fn describe(cluster: &LocalCluster) -> anyhow::Result<()> {
    let mut table = output::table(&["node", "clients", "metrics and health", "process", "log"]);
    for node in cluster.nodes() {
        table.add_row([
            node.id().to_string(),
            node.client_address(),
            format!("http://{}/metrics", node.http_address()),
            process(node),
            node.log_path().display().to_string(),
        ]);
    }
    output::print_table(&table)?;
    let addresses = cluster.client_addresses().join(",");
    output::line(format!("\nexport DWELL_SERVER={addresses}\n\nCtrl-C stops the cluster."))
}

fn process(node: &LocalNode) -> String {
    node.process_id().map_or_else(|| "-".into(), |id| id.to_string())
}

/// Reports what changes, and starts again what ended.
async fn watch(cluster: &LocalCluster) -> anyhow::Result<()> {
    let mut leader = None;
    let mut ended: BTreeMap<u64, Instant> = BTreeMap::new();
    loop {
        for node in cluster.nodes() {
            let away_since = ended.get(&node.id()).copied();
            match (node.is_running(), away_since) {
                (false, None) => {
                    output::line(format!("node {} has ended; it is started again in {ABSENCE:?}", node.id()))?;
                    ended.insert(node.id(), Instant::now());
                }
                (false, Some(since)) if since.elapsed() >= ABSENCE => {
                    ended.remove(&node.id());
                    node.start()?;
                    output::line(format!("node {} is started again as process {}", node.id(), process(node)))?;
                }
                _ => {}
            }
        }
        // Of the nodes' views the one of the latest term counts.
        let statuses = cluster.statuses().await;
        let latest = statuses.iter().filter(|status| status.leader_id.is_some()).max_by_key(|status| status.term);
        let now = latest.and_then(|status| Some((status.leader_id?, status.term)));
        if let Some((id, term)) = now.filter(|_| now != leader) {
            let process = cluster.node(id).map_or_else(|_| "-".into(), process);
            output::line(format!("node {id} leads (term {term}); `kill -9 {process}` to see another take over"))?;
            leader = now;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Waits for Ctrl-C, or a request to end.
async fn interrupted() -> anyhow::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        result = tokio::signal::ctrl_c() => result?,
        _ = terminate.recv() => {}
    }
    Ok(())
}
