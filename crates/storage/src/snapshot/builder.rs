//! Making a snapshot of a state in use.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use super::catalog::{Catalog, Staging};
use super::manifest::{Manifest, SnapshotFile, is_file_name};
use super::{Snapshot, SnapshotError, checksum, is_immutable};
use crate::damage::DamagedPart;
use crate::durable;
use crate::state::{Committed, Database, StateResources};

/// Makes one snapshot. It holds the database that was current when it was made, so that a snapshot installed
/// meanwhile does not mix with it.
pub struct SnapshotBuilder {
    committed: Arc<Committed>,
    database: Arc<Database>,
    catalog: Arc<Catalog>,
    resources: StateResources,
    staging: Staging,
}

impl SnapshotBuilder {
    pub(crate) fn new(committed: Arc<Committed>, catalog: Arc<Catalog>, resources: StateResources) -> SnapshotBuilder {
        let database = committed.read().database().clone();
        let staging = catalog.stage();
        SnapshotBuilder { committed, database, catalog, resources, staging }
    }

    /// Makes the snapshot and the current one of it. It takes as long as a flush and reading all files that were
    /// not in the snapshot before: for a thread that may block, beside the one that goes on writing the state.
    ///
    /// It covers what was committed when it was made, and perhaps some commits more. How far it goes is read
    /// from its own data, which is a flush of all column families at one position.
    pub fn build(self) -> Result<Snapshot, SnapshotError> {
        let damage = self.resources.damage().clone();
        self.make().inspect_err(|error| {
            if matches!(error, SnapshotError::Database(_)) && error.is_damage() {
                damage.report(DamagedPart::State, error);
            }
        })
    }

    fn make(self) -> Result<Snapshot, SnapshotError> {
        let SnapshotBuilder { committed, database, catalog, resources, staging } = self;
        committed.write_out_to(&database)?;
        database.checkpoint(&staging.path)?;
        let names = file_names(&staging.path)?;
        let applied = Database::open_read_only(&staging.path, &resources)?.applied()?.unwrap_or_default();
        remove_others(&staging.path, &names)?;
        let known = catalog.current().map(|snapshot| known_checksums(&snapshot)).transpose()?.unwrap_or_default();
        let mut files = Vec::with_capacity(names.len());
        for name in names {
            files.push(describe(&staging.path, name, &known)?);
        }
        durable::sync_directory(&staging.path).map_err(SnapshotError::io(&staging.path))?;
        catalog.publish(staging, Manifest { applied, files })
    }
}

/// The files of a fresh checkpoint, in order.
fn file_names(directory: &Path) -> Result<Vec<String>, SnapshotError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory).map_err(SnapshotError::io(directory))? {
        let name = entry.map_err(SnapshotError::io(directory))?.file_name().to_string_lossy().into_owned();
        if !is_file_name(&name) {
            return Err(SnapshotError::FileName { name });
        }
        names.push(name);
    }
    names.sort_unstable();
    Ok(names)
}

/// Removes what opening the checkpoint left there, RocksDB's own log for one.
fn remove_others(directory: &Path, names: &[String]) -> Result<(), SnapshotError> {
    for name in file_names(directory)? {
        if !names.contains(&name) {
            let path = directory.join(name);
            fs::remove_file(&path).map_err(SnapshotError::io(&path))?;
        }
    }
    Ok(())
}

/// What identifies a file that never changes while it exists: the inode, which the previous snapshot keeps from
/// being used for another one, and for good measure the length.
type Identity = (u64, u64, u64);

fn identity(path: &Path) -> Result<Identity, SnapshotError> {
    let metadata = fs::metadata(path).map_err(SnapshotError::io(path))?;
    Ok((metadata.dev(), metadata.ino(), metadata.len()))
}

/// Checksums of the tables and blobs in a snapshot, so that those that are still in the next one are not read
/// again.
fn known_checksums(snapshot: &Snapshot) -> Result<BTreeMap<Identity, u32>, SnapshotError> {
    let tables = snapshot.files().iter().map(|file| (snapshot.path(file), file.crc32));
    tables.filter(|(path, _)| is_immutable(path)).map(|(path, crc32)| Ok((identity(&path)?, crc32))).collect()
}

fn describe(directory: &Path, name: String, known: &BTreeMap<Identity, u32>) -> Result<SnapshotFile, SnapshotError> {
    let path = directory.join(&name);
    let identity = identity(&path)?;
    if let Some(crc32) = known.get(&identity) {
        return Ok(SnapshotFile { name, length: identity.2, crc32: *crc32 });
    }
    let (length, crc32) = checksum(&path)?;
    durable::sync_file(&path).map_err(SnapshotError::io(&path))?;
    Ok(SnapshotFile { name, length, crc32 })
}
