//! The first state of a node that begins with another cluster's rows.

use std::fs;
use std::path::Path;

use super::{FIRST_GENERATION, StateError, StateResources, StateStore, pointer};
use crate::snapshot::Snapshot;

impl StateStore {
    /// Makes a state in `directory`, which must be empty or not there, of a snapshot's rows and its record of what was applied,
    /// and opens it. The files are copies, and each is checked. The snapshot does not become one of the new state, whose
    /// record the caller is to replace: it speaks of another log.
    pub fn from_snapshot(
        directory: &Path,
        snapshot: &Snapshot,
        resources: &StateResources,
    ) -> Result<StateStore, StateError> {
        fs::create_dir_all(directory).map_err(StateError::io(directory))?;
        snapshot.copy_into(&pointer::database_path(directory, FIRST_GENERATION))?;
        pointer::write(directory, FIRST_GENERATION)?;
        let store = StateStore::open(directory, resources)?;
        if store.applied()?.unwrap_or_default() != snapshot.applied() {
            return Err(StateError::SnapshotMismatch);
        }
        Ok(store)
    }
}
