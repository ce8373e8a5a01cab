//! What the tests of the state have in common.
#![allow(dead_code, reason = "no test uses all of it")]

pub mod looking;

use std::path::Path;
use std::sync::OnceLock;

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
