//! The follower's side of a snapshot.

use std::time::Duration;

use dwell_proto::peer as wire;
use dwell_proto::peer::snapshot_part::Part;
use dwell_storage::snapshot::{Snapshot, SnapshotError, SnapshotReceiver};
use openraft::async_runtime::WatchReceiver;
use tonic::{Status, Streaming};

use super::convert::{leader_vote_from_wire, vote_to_wire};
use super::groups::PeerGroup;
use super::service::stopped;
use crate::blocking;
use crate::codec;
use crate::types::Vote;

/// A sender that says nothing for so long has lost its way. Its connection may still stand.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Receives a snapshot, checks it, and installs it.
pub(super) async fn install_snapshot(
    group: &PeerGroup,
    begin: wire::SnapshotBegin,
    parts: Streaming<wire::SnapshotPart>,
) -> Result<wire::InstallSnapshotResponse, Status> {
    let vote = leader_vote_from_wire(begin.vote, "vote", group.node)?;
    if let Some(newer) = newer_vote(group, &vote) {
        return Ok(wire::InstallSnapshotResponse { vote: Some(vote_to_wire(&newer)) });
    }
    let Ok(_receiving) = group.receiving.try_lock() else {
        return Err(Status::aborted("another snapshot is being received"));
    };
    let root = group.snapshot_directory.clone();
    let receiver = beside(move || SnapshotReceiver::new(&root, begin.manifest)).await?;
    let receiver = receive_files(receiver, parts).await?;
    let snapshot = beside(move || receiver.finish()).await?;
    let meta = meta(&snapshot)?;
    tracing::info!(?snapshot, last = ?meta.last_log_id, bytes = snapshot.length(), "snapshot received");
    let snapshot = openraft::Snapshot { meta, snapshot };
    let answer = group.raft.install_full_snapshot(vote, snapshot).await.map_err(stopped)?;
    Ok(wire::InstallSnapshotResponse { vote: Some(vote_to_wire(&answer.vote)) })
}

/// Spares an old leader to ship everything before it hears that it leads no more.
fn newer_vote(group: &PeerGroup, vote: &Vote) -> Option<Vote> {
    let own = group.raft.server_metrics().borrow_watched().vote;
    (own > *vote).then_some(own)
}

fn meta(snapshot: &Snapshot) -> Result<crate::types::SnapshotMeta, Status> {
    codec::decode_applied(snapshot.applied().clone())
        .map_err(|error| Status::invalid_argument(format!("`manifest` does not tell what was applied: {error}")))
}

async fn receive_files(
    mut receiver: SnapshotReceiver,
    mut parts: Streaming<wire::SnapshotPart>,
) -> Result<SnapshotReceiver, Status> {
    loop {
        let message = tokio::time::timeout(SILENCE_MAX, parts.message())
            .await
            .map_err(|_| Status::deadline_exceeded("no more of the snapshot came"))??;
        match message.and_then(|message| message.part) {
            Some(Part::Chunk(chunk)) => {
                receiver = beside(move || {
                    receiver.write(&chunk.file, chunk.offset, &chunk.data)?;
                    Ok(receiver)
                })
                .await?;
            }
            Some(Part::End(_)) => return Ok(receiver),
            Some(Part::Begin(_)) => return Err(Status::invalid_argument("`begin` comes only once")),
            None => return Err(Status::invalid_argument("the snapshot ended without `end`")),
        }
    }
}

/// Runs what waits for the disk where it may.
async fn beside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SnapshotError> + Send + 'static,
) -> Result<T, Status> {
    match blocking::apart(work).await {
        Ok(result) => result.map_err(refusal),
        Err(error) => Err(Status::internal(format!("receiving a snapshot was broken off: {error}"))),
    }
}

/// The disk's faults are this node's; all else is wrong with what was sent.
fn refusal(error: SnapshotError) -> Status {
    match error {
        SnapshotError::Io { .. } | SnapshotError::Database(_) => Status::internal(error.to_string()),
        _ => Status::invalid_argument(error.to_string()),
    }
}
