//! Taking a snapshot from another node.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use super::manifest::{Manifest, SnapshotFile};
use super::{MANIFEST, Snapshot, SnapshotError, verify};
use crate::durable;

/// Beginning of the names of snapshots that are being received.
pub(super) const RECEIVING_PREFIX: &str = "receiving-";

/// Tells receptions of one process apart; those of earlier processes are removed when the state is opened.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// A snapshot on its way in, file by file, chunk by chunk. Nothing the sender says is believed without the
/// manifest, and nothing is a snapshot before [`SnapshotReceiver::finish`] has checked it. What was written is
/// removed when the receiver is dropped unfinished.
pub struct SnapshotReceiver {
    reception: Reception,
    manifest: Manifest,
    encoded: Bytes,
    /// The file that the last chunk was of.
    open: Option<(String, File)>,
}

/// Removes a reception's directory, unless a snapshot took it over.
struct Reception {
    path: PathBuf,
    taken_over: bool,
}

impl Drop for Reception {
    fn drop(&mut self) {
        if !self.taken_over
            && let Err(error) = durable::remove_directory(&self.path)
        {
            // The next start removes it.
            tracing::warn!(directory = %self.path.display(), %error, "unfinished snapshot reception not removed");
        }
    }
}

impl SnapshotReceiver {
    /// Begins to receive a snapshot with this manifest, in a new directory under `root`, which should be the
    /// [`snapshot_directory`](crate::state::StateStore::snapshot_directory) of the state it is for.
    pub fn new(root: &Path, manifest: Bytes) -> Result<SnapshotReceiver, SnapshotError> {
        let decoded = Manifest::decode(&manifest)?;
        fs::create_dir_all(root).map_err(SnapshotError::io(root))?;
        let path = create_directory(root).map_err(SnapshotError::io(root))?;
        let reception = Reception { path, taken_over: false };
        Ok(SnapshotReceiver { reception, manifest: decoded, encoded: manifest, open: None })
    }

    /// Writes a chunk of a file. Chunks may come in any order, and again.
    pub fn write(&mut self, file: &str, offset: u64, data: &[u8]) -> Result<(), SnapshotError> {
        let Some(expected) = self.manifest.file(file) else {
            return Err(SnapshotError::UnknownFile { name: file.to_owned() });
        };
        let end = offset.saturating_add(data.len() as u64);
        if end > expected.length {
            return Err(SnapshotError::OutOfRange { name: file.to_owned(), offset, end, length: expected.length });
        }
        let path = self.reception.path.join(file);
        let open = match self.open.take() {
            Some((name, open)) if name == file => open,
            _ => create(&path).map_err(SnapshotError::io(&path))?,
        };
        open.write_all_at(data, offset).map_err(SnapshotError::io(&path))?;
        self.open = Some((file.to_owned(), open));
        Ok(())
    }

    /// Checks every file against the manifest and makes all of it durable. It reads everything: for a thread that
    /// may block.
    pub fn finish(mut self) -> Result<Snapshot, SnapshotError> {
        self.open = None;
        let path = &self.reception.path;
        for file in &self.manifest.files {
            check_and_sync(path, file)?;
        }
        let manifest_path = path.join(MANIFEST);
        durable::replace_file(&manifest_path, &self.encoded).map_err(SnapshotError::io(&manifest_path))?;
        self.reception.taken_over = true;
        Ok(Snapshot::temporary(path.clone(), self.manifest, self.encoded))
    }
}

fn create_directory(root: &Path) -> io::Result<PathBuf> {
    loop {
        let path = root.join(format!("{RECEIVING_PREFIX}{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        match fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).write(true).truncate(false).open(path)
}

fn check_and_sync(directory: &Path, file: &SnapshotFile) -> Result<(), SnapshotError> {
    let path = directory.join(&file.name);
    // An empty file came in no chunk at all.
    let open = create(&path).map_err(SnapshotError::io(&path))?;
    verify(directory, file)?;
    open.sync_all().map_err(SnapshotError::io(&path))
}
