//! Damage: files whose contents are not what was written.
//!
//! Found by a checksum, or because a file is short or missing; never by a value that merely makes no sense, which
//! a fault of the program could be, on every node alike. Nor is a disk that is full or refuses to read damage:
//! what was written may still be there.
//!
//! Whoever finds damage reports it to a [`DamageSignal`]. That notes it in the data directory, durably, and the
//! node stops: it is the next start that decides what becomes of the files.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::watch;

use crate::recovery::DataDirectory;

/// Whose files are damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DamagedPart {
    /// The Raft log.
    Log,
    /// A group's database.
    State,
    /// A snapshot.
    Snapshot,
}

impl DamagedPart {
    /// All of them.
    pub const ALL: [DamagedPart; 3] = [DamagedPart::Log, DamagedPart::State, DamagedPart::Snapshot];

    /// As written in files, messages and metrics.
    pub fn name(self) -> &'static str {
        match self {
            DamagedPart::Log => "log",
            DamagedPart::State => "state",
            DamagedPart::Snapshot => "snapshot",
        }
    }

    pub(crate) fn of_name(name: &str) -> Option<DamagedPart> {
        DamagedPart::ALL.into_iter().find(|part| part.name() == name)
    }
}

impl fmt::Display for DamagedPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Where.
    pub part: DamagedPart,
    /// How it was noticed.
    pub reason: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {} is damaged: {}", self.part, self.reason)
    }
}

/// Where damage is reported, by whichever thread meets it; cheap to clone. Only the first report counts.
#[derive(Debug, Clone, Default)]
pub struct DamageSignal {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Where to note it; not in tests of a store alone.
    data_directory: Option<PathBuf>,
    reported: AtomicBool,
    damage: watch::Sender<Option<Damage>>,
}

impl DamageSignal {
    /// Notes damage in this data directory.
    pub fn new(data_directory: &Path) -> DamageSignal {
        let shared = Shared { data_directory: Some(data_directory.to_path_buf()), ..Shared::default() };
        DamageSignal { shared: Arc::new(shared) }
    }

    /// Notes damage durably, and tells who waits for it. Blocks for that; later reports return at once.
    pub fn report(&self, part: DamagedPart, reason: impl fmt::Display) {
        if self.shared.reported.swap(true, Ordering::AcqRel) {
            return;
        }
        let damage = Damage { part, reason: reason.to_string() };
        tracing::error!(part = part.name(), reason = damage.reason, "damaged files: this node has to stop");
        if let Some(directory) = &self.shared.data_directory
            && let Err(error) = DataDirectory::new(directory).note_damage(&damage)
        {
            // The node stops all the same. The next start finds the damage when it gets there again.
            tracing::error!(%error, "the damage could not be noted");
        }
        self.shared.damage.send_replace(Some(damage));
    }

    /// What was reported.
    pub fn damage(&self) -> Option<Damage> {
        self.shared.damage.borrow().clone()
    }

    /// Waits for a report.
    pub async fn reported(&self) -> Damage {
        let mut receiver = self.shared.damage.subscribe();
        loop {
            if let Some(damage) = receiver.borrow_and_update().clone() {
                return damage;
            }
            if receiver.changed().await.is_err() {
                // Cannot be: `self` holds the sender.
                std::future::pending::<()>().await;
            }
        }
    }
}

/// True if RocksDB found its files to be other than it wrote them, or gone.
pub(crate) fn is_database_damage(error: &rocksdb::Error) -> bool {
    match error.kind() {
        rocksdb::ErrorKind::Corruption => true,
        // Its own files, whose names it has from its manifest.
        rocksdb::ErrorKind::IOError => error.as_ref().contains("No such file or directory"),
        _ => false,
    }
}

/// True if a file ended too early, or is gone: not if the disk refused to read it.
pub(crate) fn is_file_damage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::NotFound | io::ErrorKind::InvalidData)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_report_counts_and_it_is_noted() {
        let directory = tempfile::tempdir().unwrap();
        let signal = DamageSignal::new(directory.path());
        assert_eq!(signal.damage(), None);
        signal.report(DamagedPart::State, "block 7");
        signal.clone().report(DamagedPart::Log, "record 3");
        let damage = Damage { part: DamagedPart::State, reason: "block 7".to_owned() };
        assert_eq!(signal.damage(), Some(damage.clone()));
        assert_eq!(DataDirectory::new(directory.path()).damage().unwrap(), Some(damage));
    }

    #[test]
    fn a_disk_that_refuses_is_not_damage() {
        for (code, is_damage) in [(28, false), (5, false), (2, true)] {
            assert_eq!(is_file_damage(&io::Error::from_raw_os_error(code)), is_damage, "errno {code}");
        }
    }
}
