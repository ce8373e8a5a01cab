//! `dwell cluster`: looks at the cluster.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use dwell_client::{ClusterStatus, Error};
use futures::future::join_all;
use serde_json::{Value, json};

use crate::arguments::{GlobalArguments, Output};
use crate::output;

#[derive(Debug, Args)]
pub struct ClusterArguments {
    #[command(subcommand)]
    command: ClusterCommand,
}

#[derive(Debug, Subcommand)]
enum ClusterCommand {
    /// Show every node's own view: who leads, and how far its log is
    Status,
}

pub async fn run(global: &GlobalArguments, arguments: ClusterArguments) -> anyhow::Result<()> {
    match arguments.command {
        ClusterCommand::Status => status(global).await,
    }
}

/// A member, and what it says itself.
struct Node {
    address: String,
    voter: bool,
    status: Result<ClusterStatus, Error>,
}

async fn status(global: &GlobalArguments) -> anyhow::Result<()> {
    let client = global.client()?;
    let first = client.discover().await?;
    let nodes: BTreeMap<u64, Node> = join_all(first.members.iter().map(async |member| {
        let status = client.cluster_status(&member.client_address).await;
        (member.node_id, Node { address: member.client_address.clone(), voter: member.voter, status })
    }))
    .await
    .into_iter()
    .collect();
    match global.output {
        Output::Json => nodes.iter().try_for_each(|(id, node)| output::line(to_json(*id, node))),
        Output::Table => print(&nodes),
    }
}

fn print(nodes: &BTreeMap<u64, Node>) -> anyhow::Result<()> {
    let titles = ["node", "clients", "role", "term", "log", "committed", "applied", "snapshot", "purged", "version"];
    let mut table = output::table(&titles);
    for (id, node) in nodes {
        let mut row = vec![id.to_string(), node.address.clone(), role(*id, node).to_owned()];
        if let Ok(status) = &node.status {
            let numbers = [
                status.term,
                status.last_log_index,
                status.committed_index,
                status.applied_index,
                status.snapshot_index,
                status.purged_index,
            ];
            row.extend(numbers.iter().map(u64::to_string));
            row.push(status.version.clone());
        }
        table.add_row(row);
    }
    output::print_table(&table)
}

fn role(id: u64, node: &Node) -> &'static str {
    match &node.status {
        Err(_) => "unreachable",
        Ok(status) if status.leader_id == Some(id) => "leader",
        Ok(_) if !node.voter => "learner",
        Ok(status) if status.leader_id.is_none() => "no leader",
        Ok(_) => "follower",
    }
}

fn to_json(id: u64, node: &Node) -> Value {
    let mut value = json!({ "node_id": id, "client_address": node.address, "role": role(id, node) });
    match &node.status {
        Ok(status) => {
            value["leader_id"] = json!(status.leader_id);
            value["term"] = json!(status.term);
            value["last_log_index"] = json!(status.last_log_index);
            value["committed_index"] = json!(status.committed_index);
            value["applied_index"] = json!(status.applied_index);
            value["snapshot_index"] = json!(status.snapshot_index);
            value["purged_index"] = json!(status.purged_index);
            value["version"] = json!(status.version);
        }
        Err(error) => value["error"] = json!(error.to_string()),
    }
    value
}
