//! `dwell cluster`: looks at the cluster, and says who belongs to it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clap::{Args, Subcommand};
use dwell_client::{ClusterDigest, ClusterStatus, Error, NodeDigest};
use futures::future::join_all;
use serde_json::{Value, json};

use crate::arguments::{GlobalArguments, Output};
use crate::output;
use crate::times::parse_duration;

#[derive(Debug, Args)]
pub struct ClusterArguments {
    #[command(subcommand)]
    command: ClusterCommand,
}

#[derive(Debug, Subcommand)]
enum ClusterCommand {
    /// Show every node's own view: who leads, and how far its log is
    Status,
    /// Make a node a voting member, once it has caught up. It must run, started with --join. Safe to repeat
    Add {
        /// The node's number: one that no other node of the cluster has or ever had
        #[arg(value_name = "ID")]
        node_id: u64,
        /// Where the other nodes reach it
        #[arg(long, value_name = "HOST:PORT")]
        peer_address: String,
        /// Where clients reach it
        #[arg(long, value_name = "HOST:PORT")]
        client_address: String,
        /// How long it may take to catch up
        #[arg(long, value_name = "DURATION", value_parser = parse_duration, default_value = "30s")]
        wait: Duration,
    },
    /// Remove a member, running or not. A leader hands over first. Safe to repeat
    Remove {
        /// The node's number, not to be used again
        #[arg(value_name = "ID")]
        node_id: u64,
    },
    /// Let another voter lead: this one, or the one whose log is furthest
    TransferLeader {
        /// The node's number
        #[arg(value_name = "ID")]
        node_id: Option<u64>,
    },
    /// Make a snapshot now, on one node or on all, so that the log up to there need not be kept
    Snapshot {
        /// The node's number; without it, every member
        #[arg(value_name = "ID")]
        node_id: Option<u64>,
    },
    /// Compare all that the members have stored, as of one index of the log. Reads everything on each node
    Digest,
}

pub async fn run(global: &GlobalArguments, arguments: ClusterArguments) -> anyhow::Result<()> {
    match arguments.command {
        ClusterCommand::Status => status(global).await,
        ClusterCommand::Add { node_id, peer_address, client_address, wait } => {
            let changed = global.client()?.add_member(node_id, peer_address, client_address, wait).await?;
            let text = if changed { "is a member now" } else { "was a member already" };
            output::say(
                global.output,
                format!("node {node_id} {text}"),
                json!({ "node_id": node_id, "changed": changed }),
            )
        }
        ClusterCommand::Remove { node_id } => {
            let changed = global.client()?.remove_member(node_id).await?;
            let text =
                if changed { "is no member any more: stop it, and never use its number again" } else { "is no member" };
            output::say(
                global.output,
                format!("node {node_id} {text}"),
                json!({ "node_id": node_id, "changed": changed }),
            )
        }
        ClusterCommand::TransferLeader { node_id } => {
            let leader_id = global.client()?.transfer_leader(node_id).await?;
            output::say(global.output, format!("node {leader_id} leads"), json!({ "leader_id": leader_id }))
        }
        ClusterCommand::Snapshot { node_id } => snapshot(global, node_id).await,
        ClusterCommand::Digest => digest(global).await,
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
    let titles =
        ["node", "clients", "role", "term", "log", "committed", "applied", "snapshot", "purged", "version", "format"];
    let clusters: BTreeSet<&str> =
        nodes.values().flat_map(|node| &node.status).map(|status| status.cluster_id.as_str()).collect();
    let names: Vec<&str> = clusters.into_iter().map(|id| if id.is_empty() { "(none yet)" } else { id }).collect();
    output::line(format!("cluster {}", names.join(", ")))?;
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
            row.push(status.command_format.to_string());
        }
        table.add_row(row);
    }
    output::print_table(&table)?;
    for (id, node) in nodes {
        if let Ok(ClusterStatus { exhausted, .. }) = &node.status
            && !exhausted.is_empty()
        {
            output::line(format!("node {id}: {exhausted}"))?;
        }
    }
    Ok(())
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
            value["cluster_id"] = json!(status.cluster_id);
            value["command_format"] = json!(status.command_format);
            value["exhausted"] = json!(status.exhausted);
        }
        Err(error) => value["error"] = json!(error.to_string()),
    }
    value
}

async fn snapshot(global: &GlobalArguments, node_id: Option<u64>) -> anyhow::Result<()> {
    let client = global.client()?;
    let members = client.discover().await?.members;
    let named = |member: &&dwell_client::Member| node_id.is_none_or(|id| id == member.node_id);
    let named: Vec<_> = members.iter().filter(named).collect();
    anyhow::ensure!(!named.is_empty(), "node {} is no member", node_id.unwrap_or_default());
    let made = join_all(named.iter().map(|member| client.make_snapshot(&member.client_address))).await;
    let mut failed = 0;
    for (member, made) in named.iter().zip(made) {
        let id = member.node_id;
        match made {
            Ok(made) => {
                let index = made.snapshot_index;
                let value = json!({ "node_id": id, "snapshot_index": index });
                output::say(global.output, format!("node {id} has a snapshot up to index {index}"), value)?;
            }
            Err(error) => {
                failed += 1;
                let value = json!({ "node_id": id, "error": error.to_string() });
                output::say(global.output, format!("node {id} has made no snapshot: {error}"), value)?;
            }
        }
    }
    anyhow::ensure!(failed == 0, "{failed} of {} nodes have made no snapshot", named.len());
    Ok(())
}

async fn digest(global: &GlobalArguments) -> anyhow::Result<()> {
    let digest = global.client()?.digest().await?;
    match global.output {
        Output::Json => digest.nodes.iter().try_for_each(|node| output::line(digest_json(digest.index, node)))?,
        Output::Table => print_digest(&digest)?,
    }
    let missing = digest.nodes.iter().filter(|node| node.result.is_err()).count();
    anyhow::ensure!(missing == 0, "{missing} of {} members gave no digest", digest.nodes.len());
    anyhow::ensure!(digest.is_equal(), "the members do not hold the same as of index {}", digest.index);
    Ok(())
}

fn print_digest(digest: &ClusterDigest) -> anyhow::Result<()> {
    let mut table = output::table(&["node", "index", "digest", "rows", "bytes"]);
    for node in &digest.nodes {
        let id = node.member.node_id.to_string();
        table.add_row(match &node.result {
            Ok(answer) => vec![
                id,
                answer.index.to_string(),
                hexadecimal(&answer.digest),
                answer.rows.to_string(),
                answer.row_bytes.to_string(),
            ],
            Err(error) => vec![id, digest.index.to_string(), error.to_string()],
        });
    }
    output::print_table(&table)
}

fn digest_json(index: u64, node: &NodeDigest) -> Value {
    let mut value = json!({
        "node_id": node.member.node_id,
        "client_address": node.member.client_address,
        "index": index,
    });
    match &node.result {
        Ok(answer) => {
            value["digest"] = json!(hexadecimal(&answer.digest));
            value["rows"] = json!(answer.rows);
            value["row_bytes"] = json!(answer.row_bytes);
        }
        Err(error) => value["error"] = json!(error.to_string()),
    }
    value
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
