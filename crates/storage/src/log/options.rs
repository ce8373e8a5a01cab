//! How the log uses disk and memory.

use std::path::{Path, PathBuf};

use prometheus::Registry;
use raft_engine::{Config, ReadableSize, RecoveryMode};

use super::LogError;
use crate::damage::DamageSignal;

const MIB: u64 = 1024 * 1024;

/// How the log of a node uses disk and memory. All sizes in bytes.
#[derive(Debug, Clone)]
pub struct LogOptions {
    /// A log file is closed, and a new one begun, when it has grown to this.
    pub file_bytes: u64,
    /// Files are recycled or deleted only while the log is larger than this.
    pub purge_threshold_bytes: u64,
    /// At most about this much goes into one write and fsync. A single append may be larger.
    pub batch_bytes_max: usize,
    /// Appends wait while this much is queued for the disk.
    pub queue_bytes_max: usize,
    /// How much of the recent log each group's reader may keep decoded in memory.
    pub tail_bytes_max: usize,
    /// Where the votes are kept besides in the log: outside of its directory. None: nowhere.
    pub votes_directory: Option<PathBuf>,
    /// Told of damage that a read meets.
    pub damage: DamageSignal,
    /// Where the metrics are registered.
    pub registry: Registry,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            // Large enough that a rotation (an fsync of file and directory) is rare, small enough that the
            // space behind a snapshot comes back soon, and that the last file is checked quickly on start.
            file_bytes: 64 * MIB,
            // Four files: with the recycled ones the log then stays below half a GiB.
            purge_threshold_bytes: 256 * MIB,
            // A few milliseconds of a slow disk. raft-engine keeps a write buffer up to this size.
            batch_bytes_max: 8 * MIB as usize,
            // About what a slow disk writes in half a second.
            queue_bytes_max: 64 * MIB as usize,
            tail_bytes_max: 64 * MIB as usize,
            votes_directory: None,
            damage: DamageSignal::default(),
            registry: Registry::new(),
        }
    }
}

impl LogOptions {
    pub(super) fn engine_config(&self, directory: &Path) -> Result<Config, LogError> {
        if self.purge_threshold_bytes < self.file_bytes {
            return Err(LogError::Options("purge_threshold_bytes is smaller than file_bytes".to_owned()));
        }
        if self.batch_bytes_max == 0 || self.queue_bytes_max == 0 {
            return Err(LogError::Options("batch_bytes_max and queue_bytes_max must be above 0".to_owned()));
        }
        let dir = directory.to_str().ok_or_else(|| LogError::open(directory, "the path is not UTF-8"))?.to_owned();
        Ok(Config {
            dir,
            // A crash may tear the last write, whose callers were never answered. Everything else is
            // corruption and refused; `tail` tells the two apart before raft-engine cuts the end off.
            recovery_mode: RecoveryMode::TolerateTailCorruption,
            recovery_threads: 2,
            // Off. Bodies are often compressed already, entries live for seconds, and on a small node the
            // processor is scarcer than the sequential bandwidth of the disk.
            batch_compression_threshold: ReadableSize(0),
            target_file_size: ReadableSize(self.file_bytes),
            purge_threshold: ReadableSize(self.purge_threshold_bytes),
            // A file that is written over keeps its blocks, so that fdatasync need not commit metadata.
            enable_log_recycle: true,
            ..Config::default()
        })
    }
}
