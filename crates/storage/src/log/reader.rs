//! The thread that reads entries back from disk.
//!
//! One, and of this log alone: raft-engine remembers the last block it read for each thread, and does not
//! ask whose it was. Two logs in one process, or one that was opened twice, would be served each other's
//! entries; and a pool of threads would hold a block each.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use tokio::sync::oneshot;

use super::entry::Adapter;
use super::writer::panic_message;
use super::{LogEntry, LogError, Shared};
use crate::damage::is_file_damage;

/// raft-engine adds up sizes in 32 bits.
const READ_BYTES_MAX: usize = 1 << 30;

/// A range of a group's entries, all of which should be on disk.
pub(super) struct ReadRequest {
    pub group: u64,
    pub range: std::ops::Range<u64>,
    pub bytes_max: usize,
    pub reply: oneshot::Sender<Result<Vec<LogEntry>, LogError>>,
}

/// Reads until nobody can ask any more.
pub(super) struct Reader {
    pub shared: Arc<Shared>,
    pub requests: Receiver<ReadRequest>,
}

impl Reader {
    pub fn run(self) {
        while let Ok(request) = self.requests.recv() {
            let read = self.read(&request);
            // Whoever asked may have gone away.
            request.reply.send(read).ok();
        }
    }

    fn read(&self, request: &ReadRequest) -> Result<Vec<LogEntry>, LogError> {
        let ReadRequest { group, range, bytes_max, .. } = request;
        let mut entries = Vec::new();
        // A panic is raft-engine's way to say that an entry is not the one that should be there.
        catch_unwind(AssertUnwindSafe(|| {
            let bytes_max = Some(READ_BYTES_MAX.min(*bytes_max));
            self.shared.engine.fetch_entries_to::<Adapter>(*group, range.start, range.end, bytes_max, &mut entries)
        }))
        .map_err(|panic| LogError::Corrupt(format!("group {group}: entries {range:?}: {}", panic_message(&*panic))))?
        .map_err(|error| read_error(&format!("group {group}: entries {range:?}"), &error))?;
        Ok(entries)
    }
}

/// A disk that refuses to read says nothing of what is on it; everything else does.
fn read_error(what: &str, error: &raft_engine::Error) -> LogError {
    match error {
        raft_engine::Error::Io(io_error) if !is_file_damage(io_error) => LogError::Read(format!("{what}: {error}")),
        _ => LogError::Corrupt(format!("{what}: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_refuses_to_read_is_not_taken_for_damage() {
        let refused = |code| read_error("entries", &std::io::Error::from_raw_os_error(code).into());
        assert!(matches!(refused(5), LogError::Read(_)));
        assert!(matches!(refused(28), LogError::Read(_)));
        assert!(matches!(refused(2), LogError::Corrupt(_)));
        let checksum = raft_engine::Error::Corruption("checksum".to_owned());
        assert!(matches!(read_error("entries", &checksum), LogError::Corrupt(_)));
    }
}
