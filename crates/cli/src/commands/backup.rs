//! `dwell backup`: keeps all that a cluster has stored in a folder, and begins a new cluster with it.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use dwell_client::BackupBegin;
use dwell_server::Config;
use dwell_server::backup::{self, Restored};
use dwell_storage::backup::{Backup, BackupDescription, BackupMember, BackupWriter};
use serde_json::{Value, json};
use tokio::task::block_in_place;

use crate::arguments::{GlobalArguments, NodeArguments, Output};
use crate::output;
use crate::times::show_ms;

#[derive(Debug, Args)]
pub struct BackupArguments {
    #[command(subcommand)]
    command: BackupCommand,
}

#[derive(Debug, Subcommand)]
enum BackupCommand {
    /// Write all that the running cluster has stored to a folder, with everything that was confirmed before
    Create {
        /// A folder that is empty or not there
        #[arg(long, value_name = "DIRECTORY")]
        to: PathBuf,
        /// The node to take it from [default: a follower]
        #[arg(long, value_name = "ID")]
        node: Option<u64>,
    },
    /// Read all of a backup, and fail if any of it is not as it was written. Needs no cluster
    Verify {
        /// The backup
        #[arg(value_name = "DIRECTORY")]
        directory: PathBuf,
    },
    /// Begin a new cluster with a backup: make the empty data directory of one of its first members. Needs no cluster
    Restore(RestoreArguments),
}

/// Settings are those of the node, as `dwell server` finds them: flags override `DWELL_*` variables, which override the
/// file. Each of the new cluster's members is given the same backup, on its own machine; then all are started, as ever.
#[derive(Debug, Args)]
struct RestoreArguments {
    /// The backup
    #[arg(value_name = "DIRECTORY")]
    directory: PathBuf,
    #[command(flatten)]
    node: NodeArguments,
}

pub async fn run(global: &GlobalArguments, arguments: BackupArguments) -> anyhow::Result<()> {
    match arguments.command {
        BackupCommand::Create { to, node } => {
            let backup = create(global, &to, node).await.with_context(|| format!("no backup in {}", to.display()))?;
            show(global, &to, &backup, "written", None)
        }
        BackupCommand::Verify { directory } => {
            let backup = backup::verify(&directory).with_context(|| format!("{} is not whole", directory.display()))?;
            show(global, &directory, &backup, "whole", None)
        }
        BackupCommand::Restore(arguments) => restore(global, arguments),
    }
}

async fn create(global: &GlobalArguments, to: &Path, node: Option<u64>) -> anyhow::Result<Backup> {
    let mut stream = global.client()?.create_backup(node).await?;
    let manifest = std::mem::take(&mut stream.begin.manifest);
    let description = description_of(&stream.begin);
    // The disk may be slow, and the connection is to go on answering meanwhile.
    let mut writer = block_in_place(|| BackupWriter::create(to, description, manifest))?;
    while let Some(chunk) = stream.next().await? {
        block_in_place(|| writer.write(&chunk.file, chunk.offset, &chunk.data))?;
    }
    Ok(block_in_place(|| writer.finish())?)
}

fn restore(global: &GlobalArguments, arguments: RestoreArguments) -> anyhow::Result<()> {
    let RestoreArguments { directory, node } = arguments;
    let (file, overrides) = node.into_overrides();
    let config = Config::load(file.as_deref(), overrides).context("nothing is restored")?;
    let restored = backup::restore(&directory, &config);
    let restored = restored.with_context(|| format!("nothing is restored to {}", config.data_dir.display()))?;
    show(global, &directory, &restored.backup, "restored", Some((&restored, &config)))
}

fn description_of(begin: &BackupBegin) -> BackupDescription {
    let members = begin.members.iter().map(|member| BackupMember {
        node_id: member.node_id,
        peer_address: member.peer_address.clone(),
        client_address: member.client_address.clone(),
        voter: member.voter,
    });
    BackupDescription {
        backup_id: begin.backup_id,
        cluster_id: begin.cluster_id.clone(),
        node_id: begin.node_id,
        node_version: begin.node_version.clone(),
        index: begin.index,
        term: begin.term,
        begun_at_ms: u64::try_from(begin.begun_at_ms).unwrap_or(0),
        members: members.collect(),
    }
}

fn show(
    global: &GlobalArguments,
    directory: &Path,
    backup: &Backup,
    outcome: &str,
    restored: Option<(&Restored, &Config)>,
) -> anyhow::Result<()> {
    if global.output == Output::Json {
        return output::line(to_json(directory, backup, outcome, restored));
    }
    let (about, snapshot) = (backup.description(), backup.snapshot());
    let mut rows = vec![
        ("backup", directory.display().to_string()),
        ("outcome", outcome.to_owned()),
        ("begun", show_ms(i64::try_from(about.begun_at_ms).unwrap_or(i64::MAX))),
        ("index", about.index.to_string()),
        ("files", snapshot.files().len().to_string()),
        ("bytes", snapshot.length().to_string()),
        ("of cluster", about.cluster_id.clone()),
        ("from node", format!("{}, of version {}", about.node_id, about.node_version)),
    ];
    if let Some((restored, config)) = restored {
        rows.push(("new cluster", restored.cluster_id.to_string()));
        rows.push(("node", format!("{}, in {}", config.node_id, config.data_dir.display())));
        let members = restored.members.iter().map(|(id, at)| format!("{id} at {} and {}", at.peer, at.client));
        rows.push(("members", members.collect::<Vec<_>>().join("; ")));
    }
    output::rows(&rows)
}

fn to_json(directory: &Path, backup: &Backup, outcome: &str, restored: Option<(&Restored, &Config)>) -> Value {
    let (about, snapshot) = (backup.description(), backup.snapshot());
    let members = about.members.iter().map(|member| {
        json!({
            "node_id": member.node_id,
            "peer_address": member.peer_address,
            "client_address": member.client_address,
            "voter": member.voter,
        })
    });
    let mut value = json!({
        "backup": directory.display().to_string(),
        "outcome": outcome,
        "begun_at_ms": about.begun_at_ms,
        "index": about.index,
        "term": about.term,
        "files": snapshot.files().len(),
        "bytes": snapshot.length(),
        "cluster_id": about.cluster_id,
        "node_id": about.node_id,
        "node_version": about.node_version,
        "members": members.collect::<Vec<_>>(),
    });
    if let Some((restored, config)) = restored {
        value["restored"] = json!({
            "cluster_id": restored.cluster_id.to_string(),
            "node_id": config.node_id,
            "data_dir": config.data_dir.display().to_string(),
            "members": restored.members.keys().collect::<Vec<_>>(),
        });
    }
    value
}
