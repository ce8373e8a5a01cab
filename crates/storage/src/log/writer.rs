//! The thread that writes: one fsync for everything that waited, over all groups.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};

use raft_engine::{Command, LogBatch};

use super::entry::Adapter;
use super::identity::Stamp;
use super::mark::Mark;
use super::queue::{Change, Request, Taken};
use super::votes::Votes;
use super::{LogError, Shared};

/// The group that belongs to the log itself.
pub(super) const GROUP_RESERVED: u64 = 0;
const KEY_STAMP: &[u8] = b"stamp";
/// The number of the batch that a record is; see [`Mark`].
pub(super) const KEY_BATCH: &[u8] = b"batch";

/// Writes what is in the queue until the queue is closed, or a write fails.
pub(super) struct Writer {
    pub shared: Arc<Shared>,
    pub stamp: Stamp,
    pub mark: Mark,
    /// None: votes are in the log alone.
    pub votes: Option<Votes>,
    /// Wakes the [`Cleaner`].
    pub compacted: SyncSender<()>,
    pub batch_bytes_max: usize,
}

impl Writer {
    pub fn run(mut self) {
        let mut batch = LogBatch::default();
        while let Some(Taken { mut requests, last_number }) = self.shared.queue.take(self.batch_bytes_max) {
            if let Err(error) = self.write(&mut batch, &mut requests) {
                fail(&self.shared, error, requests);
                return;
            }
            self.shared.forget_written(&requests, last_number);
            let has_compacted = requests.iter().flat_map(|request| &request.changes).any(is_compact);
            for request in requests {
                // First the room, so that whoever is answered finds it.
                drop(request.room);
                if let Some(written) = request.written {
                    written(Ok(()));
                }
            }
            // After the answers: it is nobody's concern when old files go.
            if has_compacted {
                // Full: it will look anyway. Disconnected: it has failed, and the queue with it.
                self.compacted.try_send(()).ok();
            }
        }
    }

    fn write(&mut self, batch: &mut LogBatch, requests: &mut [Request]) -> Result<(), LogError> {
        let number = self.mark.batch() + 1;
        let mut entries_count = 0;
        for request in requests {
            self.keep_votes(request)?;
            entries_count += add(batch, request).map_err(|error| LogError::Failed(error.to_string()))?;
        }
        // The stamp comes last, so that the record ends with it.
        batch
            .put(GROUP_RESERVED, KEY_BATCH.to_vec(), number.to_be_bytes().to_vec())
            .map_err(|error| LogError::Failed(error.to_string()))?;
        batch
            .put(GROUP_RESERVED, KEY_STAMP.to_vec(), self.stamp.to_vec())
            .map_err(|error| LogError::Failed(error.to_string()))?;
        let metrics = &self.shared.metrics;
        let timer = metrics.fsync_seconds.start_timer();
        // raft-engine panics when fdatasync fails, and rightly: the kernel may have dropped the pages. Here
        // everybody who waits has to hear of it.
        let bytes = catch_unwind(AssertUnwindSafe(|| self.shared.engine.write(batch, true)))
            .map_err(|panic| LogError::Failed(panic_message(&*panic)))?
            .map_err(|error| LogError::Failed(error.to_string()))?;
        // Before anybody is answered.
        self.mark.advance(number).map_err(|error| LogError::Failed(format!("marking a batch as durable: {error}")))?;
        timer.observe_duration();
        metrics.batch_entries.observe(entries_count as f64);
        metrics.batch_bytes.observe(bytes as f64);
        Ok(())
    }

    fn keep_votes(&mut self, request: &Request) -> Result<(), LogError> {
        let Some(votes) = &mut self.votes else { return Ok(()) };
        for change in &request.changes {
            if let Change::KeepVote(vote) = change {
                votes.write(request.group, vote).map_err(|error| {
                    LogError::Failed(format!("keeping the vote of group {}: {error}", request.group))
                })?;
            }
        }
        Ok(())
    }
}

/// Adds a request to the batch and returns how many entries it had.
fn add(batch: &mut LogBatch, request: &mut Request) -> raft_engine::Result<usize> {
    let mut entries_count = 0;
    for change in &mut request.changes {
        match change {
            Change::Append(entries) => {
                batch.add_entries::<Adapter>(request.group, entries)?;
                entries_count += entries.len();
            }
            Change::Put(key, value) => batch.put(request.group, std::mem::take(key), std::mem::take(value))?,
            // Not in the log.
            Change::KeepVote(_) => {}
            Change::Compact(index) => batch.add_command(request.group, Command::Compact { index: *index }),
        }
    }
    Ok(entries_count)
}

fn is_compact(change: &Change) -> bool {
    matches!(change, Change::Compact(_))
}

/// Recycles or deletes log files that nothing refers to any more. Apart from the writer, since raft-engine
/// may first have to copy what an idle group still has in an old file.
pub(super) struct Cleaner {
    pub shared: Arc<Shared>,
    /// Something was compacted. Ends with the writer.
    pub compacted: Receiver<()>,
}

impl Cleaner {
    pub fn run(self) {
        while self.compacted.recv().is_ok() {
            let cleaned = catch_unwind(AssertUnwindSafe(|| self.shared.engine.purge_expired_files()));
            let error = match cleaned {
                Ok(Ok(heavy_groups)) => {
                    if !heavy_groups.is_empty() {
                        tracing::debug!(groups = ?heavy_groups, "groups hold back old log files");
                    }
                    continue;
                }
                Ok(Err(error)) => error.to_string(),
                Err(panic) => panic_message(&*panic),
            };
            // It copies entries that are needed, so it must not be ignored.
            fail(&self.shared, LogError::Failed(format!("cleaning up old log files: {error}")), Vec::new());
            return;
        }
    }
}

/// Answers everybody who waits, and lets nobody in any more.
fn fail(shared: &Shared, error: LogError, requests: Vec<Request>) {
    tracing::error!(%error, "the log has failed; this node takes no writes until it is restarted");
    let waiting = shared.queue.fail(error.clone());
    for written in requests.into_iter().chain(waiting).filter_map(|request| request.written) {
        written(Err(error.clone()));
    }
}

pub(super) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|message| (*message).to_owned()))
        .unwrap_or_else(|| "panicked".to_owned())
}
