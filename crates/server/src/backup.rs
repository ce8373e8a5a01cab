//! Backups on disk: looking at one, and beginning a new cluster with it.

use std::collections::BTreeMap;
use std::hash::Hasher as _;
use std::path::Path;

use dwell_consensus::backup::{covered, first_applied};
use dwell_consensus::codec::CodecError;
use dwell_consensus::identity::ClusterId;
use dwell_consensus::types::{DEFAULT_GROUP, NodeAddress, NodeId};
use dwell_machine::{StoreError, found_anew};
use dwell_storage::backup::{Backup, BackupError};
use dwell_storage::recovery::{DataDirectory, DataDirectoryError, StageError, StagedStores};
use dwell_storage::state::{StateError, StateOptions, StateResources, StateStore};
use siphasher::sip::SipHasher13;

use crate::config::Config;

/// Why a backup was not restored, or is none.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The backup is not whole.
    #[error(transparent)]
    Backup(#[from] BackupError),
    /// What it says it covers does not decode.
    #[error("the backup's record of what it covers: {0}")]
    Applied(#[from] CodecError),
    /// Its parts do not belong together.
    #[error("the backup says that it is of index {described}, and its data are of {index}")]
    Differs {
        /// By its description.
        described: u64,
        /// By its data.
        index: u64,
    },
    /// A cluster begins with members.
    #[error("a node with `join` is given its data by its cluster: restore the cluster's first members")]
    Joins,
    /// The data directory is not that of a new node, or cannot be written.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// The state could not be written.
    #[error(transparent)]
    State(#[from] StateError),
    /// The rows are not readable, or of a newer version.
    #[error(transparent)]
    Rows(#[from] StoreError),
}

impl From<DataDirectoryError> for RestoreError {
    fn from(error: DataDirectoryError) -> RestoreError {
        StageError::from(error).into()
    }
}

/// What was restored.
#[derive(Debug)]
pub struct Restored {
    /// The backup.
    pub backup: Backup,
    /// The new cluster.
    pub cluster_id: ClusterId,
    /// Its first members.
    pub members: BTreeMap<NodeId, NodeAddress>,
}

/// Reads all of a backup, and fails with the name of the first file that is not as it was written.
pub fn verify(directory: &Path) -> Result<Backup, RestoreError> {
    let backup = opened(directory)?;
    backup.verify()?;
    Ok(backup)
}

/// Makes the data directory of a node that was never started that of a first member of a new cluster, which begins with what
/// is in the backup. The members are those of the configuration; each is restored from the same backup, with the same members.
///
/// No node starts over the data directory before this has ended well.
///
/// # To ensure correctness
///
/// All members must begin with the same rows (see [`first_applied`]), and must not take part in the old cluster, nor in
/// another one that was restored. So the new cluster's id is a function of the backup and of the members with their addresses:
/// nodes for which one of these differs are of different clusters, and refuse each other. All members are noted to hold
/// data, so that one with an empty disk is told so, and ends.
pub fn restore(directory: &Path, config: &Config) -> Result<Restored, RestoreError> {
    let members = config.first_members();
    if members.is_empty() {
        return Err(RestoreError::Joins);
    }
    // Before the backup is looked at: over data nothing is restored, whatever else is wrong.
    let staged = DataDirectory::new(&config.data_dir).stage()?;
    let backup = opened(directory)?;
    let cluster_id = new_cluster_id(backup.description().backup_id, &members);
    build(&staged, &backup, cluster_id, &members, config)?;
    staged.take_over(cluster_id)?;
    Ok(Restored { backup, cluster_id: ClusterId(cluster_id), members })
}

fn opened(directory: &Path) -> Result<Backup, RestoreError> {
    let backup = Backup::open(directory)?;
    let (described, index) = (backup.description().index, covered(backup.snapshot())?.index);
    if described != index {
        return Err(RestoreError::Differs { described, index });
    }
    Ok(backup)
}

fn build(
    staged: &StagedStores,
    backup: &Backup,
    cluster_id: u64,
    members: &BTreeMap<NodeId, NodeAddress>,
    config: &Config,
) -> Result<(), RestoreError> {
    let options = StateOptions { memory_bytes: config.state_memory_bytes, ..StateOptions::default() };
    let resources = StateResources::new(options).map_err(StateError::from)?;
    let directory = staged.groups().join(DEFAULT_GROUP.to_string());
    let mut state = StateStore::from_snapshot(&directory, backup.snapshot(), &resources)?;
    found_anew(&mut state, cluster_id, members.keys().copied().collect())?;
    state.commit(&first_applied(backup.description().index, members.clone())?)?;
    state.flush()?;
    Ok(())
}

/// The same for every member, and for nobody else.
fn new_cluster_id(backup_id: u64, members: &BTreeMap<NodeId, NodeAddress>) -> u64 {
    let mut hasher = SipHasher13::new();
    hasher.write(&backup_id.to_be_bytes());
    for (node_id, address) in members {
        hasher.write(&node_id.to_be_bytes());
        for text in [&address.peer, &address.client] {
            hasher.write(&(text.len() as u64).to_be_bytes());
            hasher.write(text.as_bytes());
        }
    }
    // 0 stands for none.
    hasher.finish().max(1)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn config(data_directory: &Path, members: &[&str]) -> Config {
        let members = members.iter().map(|text| text.parse().unwrap()).collect();
        Config { data_dir: data_directory.to_path_buf(), members, ..Config::default() }
    }

    #[test]
    fn a_directory_that_a_node_has_used_is_refused_before_the_backup_is_looked_at() {
        let directory = tempfile::tempdir().unwrap();
        let (data, none) = (directory.path().join("data"), directory.path().join("none"));
        fs::create_dir_all(data.join("votes")).unwrap();
        let refused = restore(&none, &config(&data, &["1=a:1,a:2"])).unwrap_err();
        assert!(refused.to_string().contains("holds `votes`"), "{refused}");
    }

    #[test]
    fn what_is_no_backup_leaves_the_data_directory_empty() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        let refused = restore(directory.path(), &config(&data, &["1=a:1,a:2"])).unwrap_err();
        assert!(matches!(refused, RestoreError::Backup(BackupError::Incomplete { .. })), "{refused}");
        assert_eq!(fs::read_dir(&data).unwrap().count(), 0);
    }

    #[test]
    fn a_node_that_joins_is_given_no_backup() {
        let directory = tempfile::tempdir().unwrap();
        let joins = Config { join: true, ..config(&directory.path().join("data"), &[]) };
        assert!(matches!(restore(directory.path(), &joins), Err(RestoreError::Joins)));
    }

    #[test]
    fn another_backup_and_other_members_make_another_cluster() {
        let id = |backup_id, members: &[&str]| {
            new_cluster_id(backup_id, &config(Path::new("data"), members).first_members())
        };
        let two = ["1=a:1,a:2", "2=b:1,b:2"];
        assert_eq!(id(7, &two), id(7, &["2=b:1,b:2", "1=a:1,a:2"]), "in any order");
        for (backup_id, members) in [(8, &two[..]), (7, &two[..1]), (7, &["1=a:1,a:2", "2=b:1,b:3"])] {
            assert_ne!(id(7, &two), id(backup_id, members));
        }
    }
}
