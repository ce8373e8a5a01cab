//! What the tests of the state have in common.
#![allow(dead_code, reason = "no test uses all of it")]

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::SystemTime;

use bytes::Bytes;
use dwell_machine::{StoreRead, Table};
use dwell_storage::snapshot::{Snapshot, SnapshotError, SnapshotReceiver};
use dwell_storage::state::{StateOptions, StateResources, StateStore};

/// Resources shared by the tests of one process, as they are by the groups of a node.
pub fn resources() -> &'static StateResources {
    static RESOURCES: OnceLock<StateResources> = OnceLock::new();
    RESOURCES.get_or_init(|| StateResources::new(StateOptions::default()).unwrap())
}

pub fn open(directory: &Path) -> StateStore {
    StateStore::open(directory, resources()).unwrap()
}

/// All rows, in order.
pub fn rows(store: &impl StoreRead) -> Vec<(Table, Bytes, Bytes)> {
    let mut all = Vec::new();
    for table in Table::ALL {
        let rows = store.scan(table, &[], &[0xff; 64], usize::MAX).unwrap();
        all.extend(rows.into_iter().map(|(key, value)| (table, key, value)));
    }
    all
}

/// A copy of a directory in use, as it would be found after the process was killed at this moment: what is held
/// in memory is not in it. Background work may change files while they are copied, so it is copied until nothing
/// has changed meanwhile.
pub fn copy_directory(from: &Path, to: &Path) {
    loop {
        let before = listing(from);
        if copy_files(from, to).is_ok() && listing(from) == before {
            return;
        }
        fs::remove_dir_all(to).unwrap();
    }
}

fn copy_files(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_files(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

/// All files with length and time of change, as far as they hold still.
fn listing(directory: &Path) -> BTreeMap<PathBuf, Option<(u64, SystemTime)>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(listing(&path));
        }
        let metadata = entry.metadata().ok();
        files.insert(path, metadata.and_then(|metadata| Some((metadata.len(), metadata.modified().ok()?))));
    }
    files
}

/// Sends a snapshot in chunks, each of which `tamper` may change on the way.
pub fn ship(
    snapshot: &Snapshot,
    root: &Path,
    mut tamper: impl FnMut(&str, u64, &mut Vec<u8>),
) -> Result<Snapshot, SnapshotError> {
    const CHUNK_BYTES: usize = 7001;
    let mut receiver = SnapshotReceiver::new(root, snapshot.manifest_bytes())?;
    for file in snapshot.files() {
        let mut offset = 0;
        while offset < file.length {
            let mut chunk = snapshot.read(file, offset, CHUNK_BYTES)?.to_vec();
            let length = chunk.len() as u64;
            tamper(&file.name, offset, &mut chunk);
            receiver.write(&file.name, offset, &chunk)?;
            offset += length;
        }
    }
    receiver.finish()
}
