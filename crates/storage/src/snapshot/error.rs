//! What can go wrong with a snapshot.

use std::io;
use std::path::{Path, PathBuf};

use crate::damage::{is_database_damage, is_file_damage};
use crate::sealed::SealError;

/// Why a snapshot could not be made, received or used.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// What it was about.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// RocksDB refused, or found the files damaged.
    #[error("snapshot database: {0}")]
    Database(#[from] rocksdb::Error),
    /// The manifest is damaged or of another format.
    #[error("snapshot manifest: {0}")]
    Seal(#[from] SealError),
    /// The manifest is whole, and does not decode.
    #[error("snapshot manifest does not decode: {0}")]
    Decode(#[from] prost::DecodeError),
    /// The manifest names a file that would not be in the snapshot's directory, or names one twice.
    #[error("snapshot manifest names a file {name:?}, which is no name for one")]
    FileName {
        /// The name.
        name: String,
    },
    /// A chunk of a file that the manifest does not name.
    #[error("the snapshot has no file {name:?}")]
    UnknownFile {
        /// The name.
        name: String,
    },
    /// A chunk beyond the length that the manifest says.
    #[error("bytes {offset} to {end} of {name}, which has only {length}")]
    OutOfRange {
        /// The file.
        name: String,
        /// Where the chunk begins.
        offset: u64,
        /// Where it ends.
        end: u64,
        /// The file's length by the manifest.
        length: u64,
    },
    /// A file is shorter or longer than the manifest says.
    #[error("{name} has {got} bytes, not {expected}")]
    Length {
        /// The file.
        name: String,
        /// Bytes there are.
        got: u64,
        /// Bytes there should be.
        expected: u64,
    },
    /// A file's contents are not those that were sent.
    #[error("{name} has checksum {got:08x}, not {expected:08x}")]
    Checksum {
        /// The file.
        name: String,
        /// Of the bytes as they are.
        got: u32,
        /// By the manifest.
        expected: u32,
    },
}

impl SnapshotError {
    /// True if a file of a snapshot of this node is not as it was written.
    pub fn is_damage(&self) -> bool {
        match self {
            SnapshotError::Io { source, .. } => is_file_damage(source),
            SnapshotError::Database(error) => is_database_damage(error),
            SnapshotError::Length { .. } | SnapshotError::Checksum { .. } => true,
            _ => false,
        }
    }

    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> SnapshotError {
        let path = path.to_path_buf();
        move |source| SnapshotError::Io { path, source }
    }
}

impl From<SnapshotError> for io::Error {
    fn from(error: SnapshotError) -> Self {
        let kind = match &error {
            SnapshotError::Io { source, .. } => source.kind(),
            SnapshotError::Database(_) => io::ErrorKind::Other,
            _ => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, error)
    }
}
