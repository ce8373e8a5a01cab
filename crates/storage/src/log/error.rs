//! What can go wrong with the log.

use std::path::{Path, PathBuf};

/// A fault of the log. Cloned to everyone who waited for the same write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The directory cannot be used: permissions, another process has it open, or it is no log.
    #[error("cannot open the log in {}: {reason}", directory.display())]
    Open {
        /// The log's directory.
        directory: PathBuf,
        /// What the system or raft-engine said.
        reason: String,
    },
    /// What is on disk is not what was written. Never served, never mended silently: a node that forgot
    /// what it acknowledged would break the promise of the majority it was part of.
    #[error("the log is corrupt: {0}")]
    Corrupt(String),
    /// Written by a newer node.
    #[error("the log has format version {got}, this node reads up to {known}")]
    Version {
        /// The version found.
        got: u32,
        /// The version that this node writes.
        known: u32,
    },
    /// The system refused to read. What was written may still be there.
    #[error("the log cannot be read: {0}")]
    Read(String),
    /// Options that contradict each other.
    #[error("invalid log options: {0}")]
    Options(String),
    /// An earlier write failed. Whether it reached the disk is unknown, so nothing may follow it: the node
    /// has to be restarted.
    #[error("the log cannot be written any more: {0}")]
    Failed(String),
    /// Entries must follow each other without holes.
    #[error("group {group}: entry {index} cannot be appended, {expected} is next")]
    Hole {
        /// The group.
        group: u64,
        /// What was to be appended.
        index: u64,
        /// The position after the last entry.
        expected: u64,
    },
    /// The position was purged: it is covered by a snapshot.
    #[error("group {group}: entry {index} was purged, the log begins after {purged}")]
    Purged {
        /// The group.
        group: u64,
        /// The position asked for.
        index: u64,
        /// The last purged position.
        purged: u64,
    },
    /// Group 0 belongs to the log itself.
    #[error("group 0 is reserved")]
    ReservedGroup,
}

impl LogError {
    pub(super) fn open(directory: &Path, reason: impl ToString) -> Self {
        Self::Open { directory: directory.to_path_buf(), reason: reason.to_string() }
    }
}

impl From<LogError> for std::io::Error {
    fn from(error: LogError) -> Self {
        let kind = match &error {
            LogError::Corrupt(_) => std::io::ErrorKind::InvalidData,
            LogError::Options(_) | LogError::Hole { .. } | LogError::Purged { .. } | LogError::ReservedGroup => {
                std::io::ErrorKind::InvalidInput
            }
            LogError::Open { .. } | LogError::Version { .. } | LogError::Read(_) | LogError::Failed(_) => {
                std::io::ErrorKind::Other
            }
        };
        std::io::Error::new(kind, error)
    }
}
