//! What consensus needs of a node's logs.

use std::ops::Range;

use bytes::Bytes;
use futures::future::BoxFuture;

use super::{Extent, Log, LogEntry, LogError};

/// Called once when a change is on disk or can never be. Must not block.
pub type Written = Box<dyn FnOnce(Result<(), LogError>) + Send>;

/// The Raft logs of a node's groups. [`Log`] keeps them on disk and says what each call promises; a simulation
/// brings its own.
pub trait GroupLogs: Send + Sync + 'static {
    /// Bytes of recent entries that a group may keep decoded.
    fn tail_bytes_max(&self) -> usize;
    /// See [`Log::used_bytes`].
    fn used_bytes(&self) -> u64;
    /// See [`Log::extent`].
    fn extent(&self, group: u64) -> Result<Extent, LogError>;
    /// See [`Log::append`].
    fn append(&self, group: u64, entries: Vec<LogEntry>, written: Written) -> BoxFuture<'_, Result<(), LogError>>;
    /// See [`Log::truncate`].
    fn truncate(&self, group: u64, index: u64, written: Written) -> Result<(), LogError>;
    /// See [`Log::purge`].
    fn purge(&self, group: u64, index: u64, note: Bytes) -> Result<(), LogError>;
    /// See [`Log::put_vote`].
    fn put_vote(&self, group: u64, key: &[u8], vote: Bytes, written: Written) -> Result<(), LogError>;
    /// See [`Log::kept_votes`].
    fn kept_votes(&self, group: u64) -> Result<Option<Vec<Bytes>>, LogError>;
    /// See [`Log::put_lazily`].
    fn put_lazily(&self, group: u64, key: &[u8], value: Bytes) -> Result<(), LogError>;
    /// See [`Log::get`].
    fn get(&self, group: u64, key: &[u8]) -> Result<Option<Bytes>, LogError>;
    /// See [`Log::read`].
    fn read(&self, group: u64, range: Range<u64>, bytes_max: usize) -> BoxFuture<'_, Result<Vec<LogEntry>, LogError>>;
}

impl GroupLogs for Log {
    fn tail_bytes_max(&self) -> usize {
        self.options().tail_bytes_max
    }

    fn used_bytes(&self) -> u64 {
        Log::used_bytes(self)
    }

    fn extent(&self, group: u64) -> Result<Extent, LogError> {
        Log::extent(self, group)
    }

    fn append(&self, group: u64, entries: Vec<LogEntry>, written: Written) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(Log::append(self, group, entries, written))
    }

    fn truncate(&self, group: u64, index: u64, written: Written) -> Result<(), LogError> {
        Log::truncate(self, group, index, written)
    }

    fn purge(&self, group: u64, index: u64, note: Bytes) -> Result<(), LogError> {
        Log::purge(self, group, index, note)
    }

    fn put_vote(&self, group: u64, key: &[u8], vote: Bytes, written: Written) -> Result<(), LogError> {
        Log::put_vote(self, group, key, vote, written)
    }

    fn kept_votes(&self, group: u64) -> Result<Option<Vec<Bytes>>, LogError> {
        Log::kept_votes(self, group)
    }

    fn put_lazily(&self, group: u64, key: &[u8], value: Bytes) -> Result<(), LogError> {
        Log::put_lazily(self, group, key, value)
    }

    fn get(&self, group: u64, key: &[u8]) -> Result<Option<Bytes>, LogError> {
        Log::get(self, group, key)
    }

    fn read(&self, group: u64, range: Range<u64>, bytes_max: usize) -> BoxFuture<'_, Result<Vec<LogEntry>, LogError>> {
        Box::pin(Log::read(self, group, range, bytes_max))
    }
}
