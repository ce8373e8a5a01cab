//! What can go wrong with the state.

use std::io;
use std::path::{Path, PathBuf};

use crate::damage::is_database_damage;
use crate::sealed::SealError;
use crate::snapshot::SnapshotError;

/// A fault of the state's storage. All of them are fatal to the node: what is applied afterwards would not be
/// what the other nodes have.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// What it was about.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// RocksDB refused, or found its files damaged.
    #[error("state database: {0}")]
    Database(#[from] rocksdb::Error),
    /// The file that names the current database is damaged.
    #[error("{} is not readable: {source}", path.display())]
    Pointer {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: SealError,
    },
    /// There is a used database, and nothing says that it is the current one. Starting afresh would forget what
    /// this node has confirmed.
    #[error("{} holds a used database, but {} is missing", directory.display(), pointer.display())]
    PointerMissing {
        /// The database.
        directory: PathBuf,
        /// The file that should name it.
        pointer: PathBuf,
    },
    /// The current database's directory is not there.
    #[error("{} is missing, which should be the current database", directory.display())]
    DatabaseMissing {
        /// Where it should be.
        directory: PathBuf,
    },
    /// A snapshot's data are of another log position than its manifest says.
    #[error("the snapshot's manifest and its data disagree on what was applied")]
    SnapshotMismatch,
    /// A snapshot could not be used.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

impl StateError {
    /// True if files are not as they were written: not if the disk refuses, or if a newer node wrote them.
    pub fn is_damage(&self) -> bool {
        match self {
            StateError::Pointer { source, .. } => !matches!(source, SealError::Version { .. }),
            StateError::PointerMissing { .. } | StateError::DatabaseMissing { .. } => true,
            StateError::Database(error) => {
                // RocksDB names the file that leads to all others so when it is missing: a database that is to
                // be there is never made.
                let is_missing = error.kind() == rocksdb::ErrorKind::InvalidArgument
                    && error.as_ref().contains("create_if_missing is false");
                is_missing || is_database_damage(error)
            }
            StateError::Snapshot(error) => error.is_damage(),
            StateError::Io { .. } | StateError::SnapshotMismatch => false,
        }
    }

    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> StateError {
        let path = path.to_path_buf();
        move |source| StateError::Io { path, source }
    }
}

impl From<StateError> for io::Error {
    fn from(error: StateError) -> Self {
        let kind = match &error {
            StateError::Io { source, .. } => source.kind(),
            StateError::Pointer { .. } | StateError::SnapshotMismatch => io::ErrorKind::InvalidData,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}
