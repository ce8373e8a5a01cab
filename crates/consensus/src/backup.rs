//! Backups of a group, and the beginning of a group that is made of one.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::Duration;

use bytes::Bytes;
use dwell_storage::snapshot::Snapshot;
use openraft::Membership;
use openraft::async_runtime::watch::WatchReceiver;

use crate::codec::{CodecError, decode_applied, encode_applied, log_id_of};
use crate::group::{Consistency, Group, ReadError};
use crate::snapshotting::SnapshotError;
use crate::state_machine::StateMachine;
use crate::types::{LogId, NodeAddress, NodeId, StoredMembership};

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The node lags.
    #[error("this node has not applied the log up to index {index} within {waited:?}")]
    NotReached {
        /// What it must cover.
        index: u64,
        /// For how long it was waited for.
        waited: Duration,
    },
    /// There is nothing to send.
    #[error("no snapshot was made: {0}")]
    Snapshot(#[from] SnapshotError),
    /// Each reads the disk, and holds files that the state has given up.
    #[error("this node sends {max} backups already")]
    TooMany {
        /// The limit.
        max: usize,
    },
    /// A file is not as it was written.
    #[error("the snapshot was not readable: {0}")]
    Unreadable(#[from] io::Error),
    /// Nobody took what was sent.
    #[error("nothing of the backup was taken for {0:?}")]
    Stalled(Duration),
    /// Who asked for it has gone.
    #[error("the backup is not wanted any more")]
    Abandoned,
    /// It is to be asked for at another node.
    #[error("the node is stopping")]
    Stopped,
}

/// What a snapshot covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Covered {
    /// Of the last entry.
    pub index: u64,
    /// Of the last entry.
    pub term: u64,
    /// Members with their addresses, and whether they vote.
    pub members: Vec<(NodeId, NodeAddress, bool)>,
}

/// Reads what a snapshot says that was applied to it.
pub fn covered(snapshot: &Snapshot) -> Result<Covered, CodecError> {
    let meta = decode_applied(snapshot.applied().clone())?;
    let membership = meta.last_membership.membership();
    let voters: BTreeSet<NodeId> = membership.voter_ids().collect();
    let (index, term) = meta.last_log_id.map_or((0, 0), |log_id| (log_id.index, log_id.leader_id.term));
    let members = membership.nodes().map(|(id, address)| (*id, address.clone(), voters.contains(id)));
    Ok(Covered { index, term, members: members.collect() })
}

/// The record of what was applied, for the nodes of a new group that begins with the rows of another one as of an index.
///
/// # To ensure correctness
///
/// All first members must begin with the same rows and the same record. It stands for a log that is purged up to the index,
/// in term 0, in which there is no leader and no vote: so the first election, in term 1, goes on behind it, and a member that
/// begins without these rows, whose log is shorter, gets no vote of the others.
pub fn first_applied(index: u64, members: BTreeMap<NodeId, NodeAddress>) -> Result<Bytes, CodecError> {
    let log_id = log_id_of(0, 0, index);
    let voters: BTreeSet<NodeId> = members.keys().copied().collect();
    let membership =
        Membership::new(vec![voters], members).map_err(|error| CodecError::Membership(error.to_string()))?;
    Ok(encode_applied(Some(&log_id), &StoredMembership::new(Some(log_id), membership)))
}

impl Group {
    /// Where the log was applied to at a moment after the call, on the leader: all that was confirmed before is covered.
    pub async fn confirmed_index(&self) -> Result<u64, ReadError> {
        self.await_current(Consistency::Linearizable).await?;
        self.raft
            .with_state_machine(|state_machine: &mut StateMachine| {
                let index = state_machine.applied_index();
                Box::pin(async move { index })
            })
            .await
            .map_err(|error| ReadError::Stopped(error.to_string()))
    }

    /// A snapshot that covers the log up to this index, made if there is none. Its files stay as long as it is held.
    pub async fn snapshot_covering(&self, index: u64, timeout: Duration) -> Result<Snapshot, BackupError> {
        let mut metrics = self.raft.metrics();
        let reached = |applied: Option<LogId>| applied.is_some_and(|applied| applied.index >= index);
        let applying = async {
            while !reached(metrics.borrow_watched().last_applied) {
                metrics.changed().await.map_err(|_| BackupError::Stopped)?;
            }
            Ok(())
        };
        let applied = tokio::time::timeout(timeout, applying).await;
        applied.unwrap_or(Err(BackupError::NotReached { index, waited: timeout }))?;
        self.make_snapshot(timeout).await?;
        let newest = self.raft.get_snapshot().await.map_err(|_| BackupError::Stopped)?;
        let newest = newest.ok_or(SnapshotError::Nothing)?;
        Ok(newest.snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_group_begins_before_every_term_with_its_own_members() {
        let address = |id: u64| NodeAddress { peer: format!("p{id}:1"), client: format!("c{id}:1") };
        let members: BTreeMap<_, _> = (4..=6).map(|id| (id, address(id))).collect();
        let applied = decode_applied(first_applied(77, members.clone()).unwrap()).unwrap();
        let log_id = applied.last_log_id.unwrap();
        assert_eq!((log_id.leader_id.term, log_id.index), (0, 77));
        let membership = applied.last_membership.membership();
        assert_eq!(membership.voter_ids().collect::<Vec<_>>(), [4, 5, 6]);
        assert_eq!(membership.nodes().map(|(id, node)| (*id, node.clone())).collect::<BTreeMap<_, _>>(), members);
    }
}
