//! Snapshots: checkpoints of a group's state that can be shipped file by file.
//!
//! A snapshot is a directory of RocksDB files, most of them hard links to those of the database it was made of,
//! and a manifest of our own with the applied record, and each file's name, length and checksum. Only the newest
//! one is kept; an older one stays until its last sender is done with it.

mod builder;
mod catalog;
mod error;
mod manifest;
mod receiver;

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};

pub use builder::SnapshotBuilder;
pub(crate) use catalog::{Catalog, load_complete};
pub use error::SnapshotError;
pub use manifest::SnapshotFile;
pub use receiver::SnapshotReceiver;

use crate::damage::{DamageSignal, DamagedPart};
use crate::durable;
use manifest::Manifest;

/// Name of the manifest in a snapshot's directory.
pub(crate) const MANIFEST: &str = "MANIFEST";

/// A complete snapshot on disk. Its files are there as long as any clone of it.
#[derive(Clone)]
pub struct Snapshot {
    directory: Arc<SnapshotDirectory>,
    manifest: Arc<Manifest>,
    encoded: Bytes,
    damage: DamageSignal,
}

/// The checksum of what was read of a file, from its beginning on.
#[derive(Default)]
pub struct ReadCheck {
    hasher: crc32fast::Hasher,
}

impl ReadCheck {
    /// Adds what was read next.
    pub fn add(&mut self, data: &[u8]) {
        self.hasher.update(data);
    }
}

/// Removes a snapshot's files when it is not kept and nobody uses it any more.
struct SnapshotDirectory {
    path: PathBuf,
    kept: AtomicBool,
}

impl Drop for SnapshotDirectory {
    fn drop(&mut self) {
        if !self.kept.load(Ordering::Relaxed)
            && let Err(error) = durable::remove_directory(&self.path)
        {
            // The next start removes it.
            tracing::warn!(directory = %self.path.display(), %error, "old snapshot not removed");
        }
    }
}

impl Snapshot {
    /// A snapshot whose files and manifest are complete in `path`, and are removed with its last clone.
    fn temporary(path: PathBuf, manifest: Manifest, encoded: Bytes) -> Snapshot {
        let directory = SnapshotDirectory { path, kept: AtomicBool::new(false) };
        let damage = DamageSignal::default();
        Snapshot { directory: Arc::new(directory), manifest: Arc::new(manifest), encoded, damage }
    }

    /// Reports its damage there.
    fn reporting(self, damage: &DamageSignal) -> Snapshot {
        Snapshot { damage: damage.clone(), ..self }
    }

    fn set_kept(&self, kept: bool) {
        self.directory.kept.store(kept, Ordering::Relaxed);
    }

    fn is_same(&self, other: &Snapshot) -> bool {
        Arc::ptr_eq(&self.directory, &other.directory)
    }

    /// The manifest, as a [`SnapshotReceiver`] takes it.
    pub fn manifest_bytes(&self) -> Bytes {
        self.encoded.clone()
    }

    /// The record of what was applied to this state; empty if nothing was.
    pub fn applied(&self) -> &Bytes {
        &self.manifest.applied
    }

    /// The files, in the order of their names.
    pub fn files(&self) -> &[SnapshotFile] {
        &self.manifest.files
    }

    /// Bytes of all files together.
    pub fn length(&self) -> u64 {
        self.manifest.files.iter().map(|file| file.length).sum()
    }

    /// Where a file is; for looking at, not for changing.
    pub fn path(&self, file: &SnapshotFile) -> PathBuf {
        self.directory.path.join(&file.name)
    }

    /// Up to `length_max` bytes of a file from `offset` on; fewer only at its end.
    pub fn read(&self, file: &SnapshotFile, offset: u64, length_max: usize) -> Result<Bytes, SnapshotError> {
        let path = self.path(file);
        let rest = file.length.saturating_sub(offset);
        let length = usize::try_from(rest).unwrap_or(length_max).min(length_max);
        let mut chunk = BytesMut::zeroed(length);
        let open = self.reported(File::open(&path).map_err(SnapshotError::io(&path)))?;
        let read = open.read_exact_at(&mut chunk, offset).map_err(SnapshotError::io(&path));
        self.reported(read)?;
        Ok(chunk.freeze())
    }

    /// Fails if the whole file, as it was read, is not what it was when the snapshot was made. Its tables are those of
    /// the state too, so this is damage of the node, and reported.
    pub fn check(&self, file: &SnapshotFile, read: ReadCheck) -> Result<(), SnapshotError> {
        let got = read.hasher.finalize();
        if got == file.crc32 {
            return Ok(());
        }
        self.reported(Err(SnapshotError::Checksum { name: file.name.clone(), got, expected: file.crc32 }))
    }

    fn reported<T>(&self, result: Result<T, SnapshotError>) -> Result<T, SnapshotError> {
        result.inspect_err(|error| {
            if error.is_damage() {
                self.damage.report(DamagedPart::Snapshot, error);
            }
        })
    }

    /// Where its files are.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory.path
    }

    /// Moves a snapshot that was received, of which there is no clone, to another place in the same file system, where it
    /// stays.
    pub(crate) fn move_to(self, target: &Path) -> Result<(), SnapshotError> {
        fs::rename(&self.directory.path, target).map_err(SnapshotError::io(target))?;
        self.set_kept(true);
        Ok(())
    }

    /// Makes `target` a directory with copies of the files, durably, and without the manifest. Fails if a copy is not what the
    /// manifest says.
    pub(crate) fn copy_into(&self, target: &Path) -> Result<(), SnapshotError> {
        fs::create_dir(target).map_err(SnapshotError::io(target))?;
        for file in &self.manifest.files {
            let (from, to) = (self.path(file), target.join(&file.name));
            fs::copy(&from, &to).map_err(SnapshotError::io(&from))?;
            verify(target, file)?;
            durable::sync_file(&to).map_err(SnapshotError::io(&to))?;
        }
        durable::sync_directory(target).map_err(SnapshotError::io(target))
    }

    /// Makes `target` a directory with the same files, durably, and without the manifest.
    pub(crate) fn link_into(&self, target: &Path) -> Result<(), SnapshotError> {
        fs::create_dir(target).map_err(SnapshotError::io(target))?;
        for file in &self.manifest.files {
            let (from, to) = (self.path(file), target.join(&file.name));
            link_or_copy(&from, &to).map_err(SnapshotError::io(&to))?;
        }
        durable::sync_directory(target).map_err(SnapshotError::io(target))
    }
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Snapshot({}, {} files)", self.directory.path.display(), self.manifest.files.len())
    }
}

/// Tables and blobs are written once and can be shared between databases; the small rest is written to by the
/// database that has it open. A table that cannot be linked, on another file system say, is copied too.
fn link_or_copy(from: &Path, to: &Path) -> io::Result<()> {
    if is_immutable(from) && fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    fs::copy(from, to)?;
    durable::sync_file(to)
}

/// True of RocksDB's files that never change once they are complete.
fn is_immutable(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "sst" || extension == "blob")
}

/// Fails if a file of a directory is not as it was written.
pub(crate) fn verify(directory: &Path, file: &SnapshotFile) -> Result<(), SnapshotError> {
    let (got, crc32) = checksum(&directory.join(&file.name))?;
    if got != file.length {
        return Err(SnapshotError::Length { name: file.name.clone(), got, expected: file.length });
    }
    if crc32 != file.crc32 {
        return Err(SnapshotError::Checksum { name: file.name.clone(), got: crc32, expected: file.crc32 });
    }
    Ok(())
}

/// CRC-32 of a file's contents, and their length.
fn checksum(path: &Path) -> Result<(u64, u32), SnapshotError> {
    const CHUNK_BYTES: usize = 256 << 10;
    let file = File::open(path).map_err(SnapshotError::io(path))?;
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut length = 0;
    loop {
        match file.read_at(&mut buffer, length).map_err(SnapshotError::io(path))? {
            0 => return Ok((length, hasher.finalize())),
            read => {
                hasher.update(&buffer[..read]);
                length += read as u64;
            }
        }
    }
}
