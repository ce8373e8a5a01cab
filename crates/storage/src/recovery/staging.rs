//! The stores of a node whose cluster begins with a backup: made apart, and taken over when they are whole.
//!
//! - `restoring`: where they are made. A data directory that has it must not be used: the stores beside it may be missing,
//!   and the node would take itself for a new one.

use std::fs;
use std::io;
use std::path::PathBuf;

use super::{DataDirectory, DataDirectoryError, GROUPS, failed};
use crate::durable;

const RESTORING: &str = "restoring";
/// What a new file system has in it.
const LOST_AND_FOUND: &str = "lost+found";

/// Why no stores are made in a data directory.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// A node that has data is not new.
    #[error("the data directory {} is not empty: it holds `{found}`", directory.display())]
    NotEmpty {
        /// The data directory.
        directory: PathBuf,
        /// What is in it.
        found: String,
    },
    /// The file system refused.
    #[error(transparent)]
    Directory(#[from] DataDirectoryError),
}

/// Stores in the making, which no node uses. Dropped before they are taken over, they are removed.
#[derive(Debug)]
pub struct StagedStores {
    directory: DataDirectory,
}

impl DataDirectory {
    /// Begins to make stores in a data directory that is empty or not there, but for what an earlier attempt left behind.
    pub fn stage(&self) -> Result<StagedStores, StageError> {
        if let Some(found) = self.contents()? {
            return Err(StageError::NotEmpty { directory: self.root.clone(), found });
        }
        let staged = StagedStores { directory: self.clone() };
        let restoring = self.root.join(RESTORING);
        durable::remove_directory(&restoring).map_err(failed(&restoring))?;
        let groups = staged.groups();
        fs::create_dir_all(&groups).map_err(failed(&groups))?;
        durable::sync_directory(&self.root).map_err(failed(&self.root))?;
        Ok(staged)
    }

    /// True if stores were begun to be made here, and were not taken over.
    pub fn is_staged(&self) -> bool {
        self.root.join(RESTORING).exists()
    }

    /// Something that is in the directory already.
    fn contents(&self) -> Result<Option<String>, DataDirectoryError> {
        let entries = match fs::read_dir(&self.root) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(&self.root)(error)),
        };
        for entry in entries {
            let name = entry.map_err(failed(&self.root))?.file_name().to_string_lossy().into_owned();
            if name != RESTORING && name != LOST_AND_FOUND {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }
}

impl StagedStores {
    /// Where to make the groups' states.
    pub fn groups(&self) -> PathBuf {
        self.directory.root.join(RESTORING).join(GROUPS)
    }

    /// Makes them the node's, durably, and the node one of this cluster. The states must be durable, and closed.
    pub fn take_over(self, cluster_id: u64) -> Result<(), DataDirectoryError> {
        let (from, root) = (self.groups(), &self.directory.root);
        durable::sync_directory(&from).map_err(failed(&from))?;
        fs::rename(&from, self.directory.groups()).map_err(failed(&from))?;
        durable::sync_directory(root).map_err(failed(root))?;
        self.directory.note_cluster_id(cluster_id)?;
        // Last: until then the directory is refused.
        let restoring = root.join(RESTORING);
        durable::remove_directory(&restoring).map_err(failed(&restoring))?;
        durable::sync_directory(root).map_err(failed(root))
    }
}

impl Drop for StagedStores {
    fn drop(&mut self) {
        let restoring = self.directory.root.join(RESTORING);
        // Not if some of it is in its place already.
        if !self.directory.groups().exists()
            && let Err(error) = durable::remove_directory(&restoring)
        {
            tracing::warn!(directory = %restoring.display(), %error, "unfinished stores were not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrolment::Enrolment;

    #[test]
    fn stores_are_there_with_the_clusters_id_once_they_are_taken_over() {
        let root = tempfile::tempdir().unwrap();
        let directory = DataDirectory::new(&root.path().join("data"));
        let staged = directory.stage().unwrap();
        fs::write(staged.groups().join("file"), "rows").unwrap();
        assert!(directory.is_staged() && !directory.groups().exists());
        staged.take_over(7).unwrap();
        assert_eq!(fs::read(directory.groups().join("file")).unwrap(), b"rows");
        assert_eq!((directory.cluster_id().unwrap(), directory.is_staged()), (Some(7), false));
        let again = directory.stage().unwrap_err().to_string();
        assert!(again.contains("is not empty: it holds `"), "{again}");
    }

    #[test]
    fn a_pod_takes_what_was_taken_over_for_a_node_that_was_never_started() {
        let root = tempfile::tempdir().unwrap();
        DataDirectory::new(root.path()).stage().unwrap().take_over(7).unwrap();
        assert_eq!(Enrolment::read(root.path()).unwrap(), None, "it becomes a founder, as it was restored to be");
    }

    #[test]
    fn stores_that_are_given_up_leave_nothing_and_those_of_a_killed_process_make_room() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("lost+found")).unwrap();
        let directory = DataDirectory::new(root.path());
        drop(directory.stage().unwrap());
        assert!(!directory.is_staged());
        let killed = directory.stage().unwrap();
        fs::write(killed.groups().join("half"), "rows").unwrap();
        std::mem::forget(killed);
        assert!(directory.is_staged());
        let staged = directory.stage().unwrap();
        assert_eq!(fs::read_dir(staged.groups()).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_that_a_node_has_used_is_refused() {
        for used in ["log", "votes", "CLUSTER", "ENROLMENT"] {
            let root = tempfile::tempdir().unwrap();
            fs::write(root.path().join(used), "").unwrap();
            let refused = DataDirectory::new(root.path()).stage().unwrap_err();
            assert!(matches!(&refused, StageError::NotEmpty { found, .. } if found == used), "{refused}");
        }
    }
}
