//! A group's state on RocksDB.
//!
//! The Raft log is the write-ahead log of this state: RocksDB runs without its own. Each commit adds all rows
//! of some log entries, together with a record of the last of them. Commits wait in memory for a while and go to
//! RocksDB together, in one batch, and a flush brings all column families to disk at one position. After a crash the
//! state is as it was at some earlier commit, and the record says at which, so that the log is replayed from there.

mod committed;
mod database;
mod digest;
mod error;
mod family;
mod metrics;
mod options;
mod overlay;
mod pointer;
mod reader;
mod restore;
mod scan;
mod writer;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use dwell_machine::{Store, StoreError, StoreRead, Table};

pub(crate) use committed::Committed;
pub(crate) use database::Database;
pub use digest::Digester;
pub use error::StateError;
pub use options::{StateMemory, StateOptions, StateResources};
pub use reader::StateReader;

use crate::damage::DamagedPart;
use crate::durable;
use crate::snapshot::{Catalog, Snapshot, SnapshotBuilder};
use overlay::{Overlay, layered};
use writer::Writer;

const FIRST_GENERATION: u64 = 1;
const SNAPSHOTS: &str = "snapshots";

/// The state of one group, written by one thread.
///
/// Writes wait in memory, seen by this store's own reads, until [`StateStore::commit`] hands them to RocksDB.
pub struct StateStore {
    directory: PathBuf,
    resources: StateResources,
    generation: u64,
    database: Arc<Database>,
    /// The same database with what was committed since it was written to, shared with readers and snapshots.
    committed: Arc<Committed>,
    overlay: Overlay,
    snapshots: Arc<Catalog>,
    writer: Writer,
}

impl StateStore {
    /// Opens the state in `directory`, or makes an empty one. Only one store may be open on a directory.
    ///
    /// What an interrupted snapshot installation left behind is removed.
    pub fn open(directory: &Path, resources: &StateResources) -> Result<StateStore, StateError> {
        fs::create_dir_all(directory).map_err(StateError::io(directory))?;
        let (generation, database) = open_current(directory, resources)?;
        for leftover in pointer::generations(directory)?.into_iter().filter(|found| *found != generation) {
            let path = pointer::database_path(directory, leftover);
            durable::remove_directory(&path).map_err(StateError::io(&path))?;
        }
        let snapshots = Arc::new(Catalog::open(&directory.join(SNAPSHOTS), resources.damage())?);
        let database = Arc::new(database);
        let committed = Arc::new(Committed::new(database.clone(), resources.unwritten_bytes_max()));
        let writer = Writer::start(committed.clone(), resources.damage().clone()).map_err(StateError::io(directory))?;
        Ok(StateStore {
            directory: directory.to_path_buf(),
            resources: resources.clone(),
            generation,
            database,
            committed,
            overlay: Overlay::new(),
            snapshots,
            writer,
        })
    }

    /// The record given to the last commit; none before the first one.
    pub fn applied(&self) -> Result<Option<Bytes>, StateError> {
        let applied = self.committed.read().applied();
        self.reported(applied)
    }

    /// Commits what is pending and a new applied record, all or nothing: readers see it when this returns. It is not
    /// durable until a flush, which RocksDB does on its own when memory fills up: a crash takes the state back to an
    /// earlier commit.
    pub fn commit(&mut self, applied: &[u8]) -> Result<(), StateError> {
        let committed = self.committed.commit(&mut self.overlay, applied);
        if self.reported(committed)? {
            self.writer.wake();
        }
        Ok(())
    }

    /// What is committed and not yet given to the database, in bytes of memory, about.
    pub fn unwritten_bytes(&self) -> usize {
        self.committed.read().unwritten_bytes()
    }

    /// Makes everything committed durable.
    pub fn flush(&self) -> Result<(), StateError> {
        let written = self.committed.write_out();
        self.reported(written)?;
        self.reported(self.database.flush())
    }

    /// Reports damage: of a write too, since a compaction that meets damage makes RocksDB refuse the next one.
    fn reported<T>(&self, result: Result<T, rocksdb::Error>) -> Result<T, StateError> {
        result.map_err(|error| {
            let error = StateError::from(error);
            if error.is_damage() {
                self.resources.damage().report(DamagedPart::State, &error);
            }
            error
        })
    }

    /// A reader of what is committed, for other threads.
    pub fn reader(&self) -> StateReader {
        StateReader { committed: self.committed.clone(), damage: self.resources.damage().clone() }
    }

    /// What this store shares with the node's others.
    pub fn resources(&self) -> &StateResources {
        &self.resources
    }

    /// Something that makes a snapshot, on any thread, while the state goes on.
    pub fn snapshot_builder(&self) -> SnapshotBuilder {
        SnapshotBuilder::new(self.committed.clone(), self.snapshots.clone(), self.resources.clone())
    }

    /// Something that makes a digest of all committed rows, on any thread, while the state goes on.
    pub fn digester(&self) -> Digester {
        Digester::new(self.committed.clone())
    }

    /// The newest snapshot, built or installed.
    pub fn current_snapshot(&self) -> Option<Snapshot> {
        self.snapshots.current()
    }

    /// Where snapshots are kept, and to be received: what is there can be installed by hard links.
    pub fn snapshot_directory(&self) -> &Path {
        self.snapshots.root()
    }

    /// Replaces the whole state by a snapshot, durably, and keeps the snapshot as the current one. Pending
    /// writes are dropped. After a crash on the way, the old state is there, or the new one.
    pub fn install(&mut self, snapshot: &Snapshot) -> Result<(), StateError> {
        self.overlay.clear();
        // A snapshot of the old state that was begun before covers all that was committed.
        let written = self.committed.write_out();
        self.reported(written)?;
        let generation = self.generation + 1;
        let path = pointer::database_path(&self.directory, generation);
        durable::remove_directory(&path).map_err(StateError::io(&path))?;
        snapshot.link_into(&path)?;
        let database = Database::open(&path, &self.resources, false)?;
        if database.applied()?.unwrap_or_default() != snapshot.applied() {
            database.condemn();
            return Err(StateError::SnapshotMismatch);
        }
        // First the snapshot, then the state: were the state newer than the newest snapshot, openraft could purge
        // the log up to it on the next start, and would have nothing to send to a node that is further behind.
        self.snapshots.keep(snapshot)?;
        pointer::write(&self.directory, generation)?;
        self.switch_to(generation, Arc::new(database));
        Ok(())
    }

    fn switch_to(&mut self, generation: u64, database: Arc<Database>) {
        self.generation = generation;
        self.database.condemn();
        self.committed.replace(database.clone());
        self.database = database;
    }
}

fn open_current(directory: &Path, resources: &StateResources) -> Result<(u64, Database), StateError> {
    if let Some(generation) = pointer::read(directory)? {
        let path = pointer::database_path(directory, generation);
        if !path.is_dir() {
            return Err(StateError::DatabaseMissing { directory: path });
        }
        return Ok((generation, Database::open(&path, resources, false)?));
    }
    // A first start, or one that a crash interrupted before it wrote the pointer.
    for generation in pointer::generations(directory)? {
        let path = pointer::database_path(directory, generation);
        if generation != FIRST_GENERATION || Database::open(&path, resources, true)?.applied()?.is_some() {
            return Err(StateError::PointerMissing { directory: path, pointer: pointer::path(directory) });
        }
    }
    let database = Database::open(&pointer::database_path(directory, FIRST_GENERATION), resources, true)?;
    pointer::write(directory, FIRST_GENERATION)?;
    Ok((FIRST_GENERATION, database))
}

impl StoreRead for StateStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        if let Some(pending) = self.overlay.get(table, key) {
            return Ok(pending.value.clone());
        }
        if let Some(pending) = self.committed.read().pending(table, key) {
            return Ok(pending.value.clone());
        }
        let read = self.database.get(table, key).map_err(scan::read_error(table));
        scan::reported(read, self.resources.damage())
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        if from >= to {
            return Ok(Vec::new());
        }
        let committed = self.committed.read();
        let (pending, unwritten) = (self.overlay.range(table, from, to), committed.range(table, from, to));
        let rows = scan::merged(&self.database, layered(pending, unwritten), table, from, to, limit);
        scan::reported(rows, self.resources.damage())
    }
}

impl Store for StateStore {
    fn put(&mut self, table: Table, key: &[u8], value: Bytes) {
        self.overlay.put(table, key, value);
    }

    fn insert(&mut self, table: Table, key: &[u8], value: Bytes) {
        self.overlay.insert(table, key, value);
    }

    fn delete(&mut self, table: Table, key: &[u8]) {
        self.overlay.delete(table, key);
    }
}

impl Drop for StateStore {
    /// Spares the next start to apply the last commits again.
    fn drop(&mut self) {
        if let Err(error) = self.committed.write_out() {
            tracing::warn!(%error, "the last commits were not written at the end: they are applied again");
        }
    }
}
