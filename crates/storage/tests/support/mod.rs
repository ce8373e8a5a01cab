//! What the tests of the state have in common.
#![allow(dead_code, reason = "no test uses all of it")]

use std::fs;
use std::path::Path;
use std::sync::OnceLock;

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

/// A copy of a state directory in use, as it would be found after the process was killed at this moment: what
/// RocksDB holds in memory is not in it.
pub fn copy_directory(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_directory(&entry.path(), &target);
        } else if fs::copy(entry.path(), &target).is_err() {
            // Removed by the database since it was listed, so it is not needed.
            assert!(!entry.path().exists());
        }
    }
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
