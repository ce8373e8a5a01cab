//! Backups: a snapshot in a folder of its own, outside of every node, with a description that is written last.
//!
//! - `snapshot/`: the files of a snapshot, and `MANIFEST`, their list with lengths and checksums.
//! - `BACKUP`: where it comes from and what it covers, with length and checksum of that list.
//!
//! A folder without `BACKUP` is no backup, but what an interrupted one left behind.

mod manifest;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

pub use manifest::{BackupDescription, BackupMember};

use crate::durable;
use crate::sealed::SealError;
use crate::snapshot::{self, Snapshot, SnapshotError, SnapshotFile, SnapshotReceiver};
use manifest::BackupManifest;

/// Name of the file that makes a folder a backup.
const BACKUP: &str = "BACKUP";
const SNAPSHOT: &str = "snapshot";

/// Why a backup could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// What it was about.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something else would be lost, or mixed up with it.
    #[error("{} is not empty", directory.display())]
    NotEmpty {
        /// Where the backup was to go.
        directory: PathBuf,
    },
    /// It was never completed, or is something else.
    #[error("{} has no file {BACKUP}: it is no backup, or one that was not completed", directory.display())]
    Incomplete {
        /// The folder.
        directory: PathBuf,
    },
    /// Its own file is damaged, or of another version.
    #[error("{BACKUP}: {0}")]
    Seal(#[from] SealError),
    /// Its own file is whole, and does not decode.
    #[error("{BACKUP} does not decode: {0}")]
    Decode(#[from] prost::DecodeError),
    /// Its own file lacks something.
    #[error("{BACKUP} says nothing of `{0}`")]
    Missing(&'static str),
    /// A file of the snapshot is damaged, missing, or not what it should be.
    #[error("{SNAPSHOT}: {0}")]
    Snapshot(#[from] SnapshotError),
    /// Two backups were mixed, or something was put there.
    #[error("{} is no part of the backup", path.display())]
    Stray {
        /// The file.
        path: PathBuf,
    },
}

impl BackupError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> BackupError {
        let path = path.to_path_buf();
        move |source| BackupError::Io { path, source }
    }
}

/// A backup that is complete by its own word. Only [`Backup::verify`] reads all of it.
#[derive(Debug)]
pub struct Backup {
    description: BackupDescription,
    snapshot: Snapshot,
}

/// A backup in the making, file by file, chunk by chunk. Dropped unfinished, it leaves an empty folder.
pub struct BackupWriter {
    directory: PathBuf,
    description: BackupDescription,
    manifest: Bytes,
    receiver: SnapshotReceiver,
}

impl BackupWriter {
    /// Begins a backup in a folder that is empty or not there, of a snapshot with this manifest.
    pub fn create(
        directory: &Path,
        description: BackupDescription,
        manifest: Bytes,
    ) -> Result<BackupWriter, BackupError> {
        fs::create_dir_all(directory).map_err(BackupError::io(directory))?;
        if fs::read_dir(directory).map_err(BackupError::io(directory))?.next().is_some() {
            return Err(BackupError::NotEmpty { directory: directory.to_path_buf() });
        }
        let receiver = SnapshotReceiver::new(directory, manifest.clone())?;
        Ok(BackupWriter { directory: directory.to_path_buf(), description, manifest, receiver })
    }

    /// Writes a chunk of a file.
    pub fn write(&mut self, file: &str, offset: u64, data: &[u8]) -> Result<(), BackupError> {
        Ok(self.receiver.write(file, offset, data)?)
    }

    /// Reads every file again, checks it, makes all of it durable, and only then makes it a backup.
    pub fn finish(self) -> Result<Backup, BackupError> {
        let BackupWriter { directory, description, manifest, receiver } = self;
        receiver.finish()?.move_to(&directory.join(SNAPSHOT))?;
        durable::sync_directory(&directory).map_err(BackupError::io(&directory))?;
        let files = SnapshotFile {
            name: snapshot::MANIFEST.to_owned(),
            length: manifest.len() as u64,
            crc32: crc32fast::hash(&manifest),
        };
        let own = BackupManifest { description: Some(description), files: Some(files) };
        let path = directory.join(BACKUP);
        durable::replace_file(&path, &own.encode()).map_err(BackupError::io(&path))?;
        if let Some(parent) = directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            durable::sync_directory(parent).map_err(BackupError::io(parent))?;
        }
        Backup::open(&directory)
    }
}

impl Backup {
    /// Opens a backup. Its own file, the list of files, and their lengths are checked, and that there are no others; their
    /// contents are not.
    pub fn open(directory: &Path) -> Result<Backup, BackupError> {
        let path = directory.join(BACKUP);
        let encoded = match fs::read(&path) {
            Ok(encoded) => Bytes::from(encoded),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(BackupError::Incomplete { directory: directory.to_path_buf() });
            }
            Err(source) => return Err(BackupError::Io { path, source }),
        };
        let own = BackupManifest::decode(&encoded)?;
        let description = own.description.ok_or(BackupError::Missing("description"))?;
        let files = own.files.ok_or(BackupError::Missing("files"))?;
        let snapshot_directory = directory.join(SNAPSHOT);
        // Whatever name it says: there is one such list.
        let files = SnapshotFile { name: snapshot::MANIFEST.to_owned(), ..files };
        snapshot::verify(&snapshot_directory, &files)?;
        let backup = Backup { description, snapshot: snapshot::load_complete(&snapshot_directory)? };
        backup.check_for_strays()?;
        Ok(backup)
    }

    /// Reads every file, and fails with the name of the first that is not as it was written.
    pub fn verify(&self) -> Result<(), BackupError> {
        for file in self.snapshot.files() {
            snapshot::verify(self.snapshot.directory(), file)?;
        }
        Ok(())
    }

    /// Where it comes from, and what it covers.
    pub fn description(&self) -> &BackupDescription {
        &self.description
    }

    /// The files, and the record of what was applied.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    fn check_for_strays(&self) -> Result<(), BackupError> {
        let directory = self.snapshot.directory();
        for entry in fs::read_dir(directory).map_err(BackupError::io(directory))? {
            let entry = entry.map_err(BackupError::io(directory))?;
            let name = entry.file_name();
            let is_known = name == snapshot::MANIFEST || self.snapshot.files().iter().any(|file| name == *file.name);
            if !is_known {
                return Err(BackupError::Stray { path: entry.path() });
            }
        }
        Ok(())
    }
}
