//! What was committed: a database, and commits that it does not have yet.
//!
//! The Raft log is what a crash is survived by, so there is no hurry to give RocksDB what was committed. It waits here,
//! up to a bound, and most of it never gets there: a message that is published and acknowledged meanwhile leaves nothing
//! to be written, nor to be flushed, compacted and deleted later. (RocksDB's own memtables keep such a pair until they
//! are flushed, and charge two insertions into a skip list for each row.)
//!
//! What has come to the bound is written by another thread than the one that commits, which would be held up for tens of
//! milliseconds, and is read from here until it is written.

use std::sync::Arc;

use bytes::Bytes;
use dwell_machine::Table;
use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use super::database::Database;
use super::overlay::{Key, Overlay, Pending, layered};

/// The state of a group as of the last commit, shared by the thread that commits with readers and writers of the
/// database.
pub(crate) struct Committed {
    /// Held while the database is written to. Taken before `layers`, never after.
    writing: Mutex<()>,
    layers: RwLock<Layers>,
    /// Commits are to be written to the database when they take about this much memory.
    unwritten_bytes_max: usize,
}

/// One generation of the state.
pub(crate) struct Layers {
    database: Arc<Database>,
    /// Being written to the database.
    leaving: Option<Commits>,
    /// Later than those that are leaving.
    unwritten: Overlay,
    /// The record of the last commit, if there are any in `unwritten`.
    applied: Option<Bytes>,
}

/// Some commits, and the record of the last of them.
#[derive(Clone)]
struct Commits {
    writes: Arc<Overlay>,
    applied: Bytes,
}

impl Committed {
    pub fn new(database: Arc<Database>, unwritten_bytes_max: usize) -> Committed {
        Committed { writing: Mutex::new(()), layers: RwLock::new(Layers::new(database)), unwritten_bytes_max }
    }

    /// The state as it is now, for as long as the guard lives: nothing is committed meanwhile.
    pub fn read(&self) -> RwLockReadGuard<'_, Layers> {
        self.layers.read()
    }

    /// Takes in all of `writes`, which are empty afterwards. True if [`Committed::write_leaving`] is to be called, by
    /// whoever may wait for a disk.
    ///
    /// It waits for the disk itself if that was not done in time, so that what waits in memory stays below three times its
    /// bound.
    pub(super) fn commit(&self, writes: &mut Overlay, applied: &[u8]) -> Result<bool, rocksdb::Error> {
        let unwritten_bytes = {
            let mut layers = self.layers.write();
            layers.unwritten.absorb(writes);
            layers.applied = Some(Bytes::copy_from_slice(applied));
            let unwritten_bytes = layers.unwritten.bytes();
            if unwritten_bytes < self.unwritten_bytes_max {
                return Ok(false);
            }
            if layers.leaving.is_none() {
                layers.leave();
                return Ok(true);
            }
            unwritten_bytes
        };
        if unwritten_bytes < 2 * self.unwritten_bytes_max {
            return Ok(false);
        }
        self.write_leaving()?;
        self.layers.write().leave();
        Ok(true)
    }

    /// Gives the database what is leaving, while readers and commits go on.
    pub(super) fn write_leaving(&self) -> Result<(), rocksdb::Error> {
        let _writing = self.writing.lock();
        let (database, leaving) = {
            let layers = self.layers.read();
            (layers.database.clone(), layers.leaving.clone())
        };
        if let Some(Commits { writes, applied }) = leaving {
            database.write(&writes, &applied)?;
            self.layers.write().leaving = None;
            // The last of it goes here, and not under the lock.
            drop(writes);
        }
        Ok(())
    }

    /// Gives the database all that was committed, and answers the database.
    pub fn write_out(&self) -> Result<Arc<Database>, rocksdb::Error> {
        let _writing = self.writing.lock();
        let mut layers = self.layers.write();
        layers.write_out()?;
        Ok(layers.database.clone())
    }

    /// The same, if this is still the generation with that database: otherwise a snapshot took its place.
    pub fn write_out_to(&self, database: &Arc<Database>) -> Result<(), rocksdb::Error> {
        let _writing = self.writing.lock();
        let mut layers = self.layers.write();
        if Arc::ptr_eq(&layers.database, database) { layers.write_out() } else { Ok(()) }
    }

    /// Goes over to another database, and forgets what the one before does not have.
    pub(super) fn replace(&self, database: Arc<Database>) {
        let _writing = self.writing.lock();
        let replaced = std::mem::replace(&mut *self.layers.write(), Layers::new(database));
        // Closing the old database may take a while: not under the lock.
        drop(replaced);
    }
}

impl Layers {
    fn new(database: Arc<Database>) -> Layers {
        Layers { database, leaving: None, unwritten: Overlay::new(), applied: None }
    }

    pub fn database(&self) -> &Arc<Database> {
        &self.database
    }

    /// What the database does not have of a row; none if it has the row as it is.
    pub(super) fn pending(&self, table: Table, key: &[u8]) -> Option<&Pending> {
        let leaving = || self.leaving.as_ref()?.writes.get(table, key);
        self.unwritten.get(table, key).or_else(leaving)
    }

    /// The same of all rows with `from <= key < to`, in order; `from < to` must hold.
    pub(super) fn range<'a>(
        &'a self,
        table: Table,
        from: &'a [u8],
        to: &'a [u8],
    ) -> impl Iterator<Item = (&'a Key, &'a Pending)> {
        let leaving = self.leaving.iter().flat_map(move |leaving| leaving.writes.range(table, from, to));
        layered(self.unwritten.range(table, from, to), leaving)
    }

    /// What the database does not have, in bytes of memory, about.
    pub(super) fn unwritten_bytes(&self) -> usize {
        self.unwritten.bytes() + self.leaving.as_ref().map_or(0, |leaving| leaving.writes.bytes())
    }

    /// The record given to the last commit; none before the first one.
    pub(super) fn applied(&self) -> Result<Option<Bytes>, rocksdb::Error> {
        match (&self.applied, &self.leaving) {
            (Some(applied), _) => Ok(Some(applied.clone())),
            (None, Some(leaving)) => Ok(Some(leaving.applied.clone())),
            (None, None) => self.database.applied(),
        }
    }

    /// Lets what is unwritten leave. Nothing may be leaving.
    fn leave(&mut self) {
        if let Some(applied) = self.applied.take() {
            let writes = Arc::new(std::mem::replace(&mut self.unwritten, Overlay::new()));
            self.leaving = Some(Commits { writes, applied });
        }
    }

    fn write_out(&mut self) -> Result<(), rocksdb::Error> {
        if let Some(Commits { writes, applied }) = &self.leaving {
            self.database.write(writes, applied)?;
            self.leaving = None;
        }
        if let Some(applied) = &self.applied {
            self.database.write(&self.unwritten, applied)?;
            self.unwritten.clear();
            self.applied = None;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::{StateOptions, StateResources};

    const KEY: &[u8] = b"key";
    const BYTES_MAX: usize = 1000;

    fn committed(directory: &tempfile::TempDir) -> Committed {
        let resources = StateResources::new(StateOptions::default()).unwrap();
        let database = Database::open(directory.path(), &resources, true).unwrap();
        Committed::new(Arc::new(database), BYTES_MAX)
    }

    /// Commits a row of some bytes, and answers whether what waits is to be written.
    fn commit_row(committed: &Committed, key: &[u8], bytes: usize) -> bool {
        let mut writes = Overlay::new();
        writes.put(Table::Messages, key, vec![0; bytes].into());
        committed.commit(&mut writes, key).unwrap()
    }

    fn commit_deletion(committed: &Committed, key: &[u8]) -> bool {
        let mut writes = Overlay::new();
        writes.delete(Table::Messages, key);
        committed.commit(&mut writes, b"deletion").unwrap()
    }

    fn is_there(committed: &Committed, key: &[u8]) -> bool {
        let layers = committed.read();
        match layers.pending(Table::Messages, key) {
            Some(pending) => pending.value.is_some(),
            None => layers.database().get(Table::Messages, key).unwrap().is_some(),
        }
    }

    #[test]
    fn what_is_leaving_is_seen_until_and_after_it_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let committed = committed(&directory);
        assert!(commit_row(&committed, KEY, BYTES_MAX));
        assert!(is_there(&committed, KEY));
        assert_eq!(committed.read().database().applied().unwrap(), None, "not yet written");
        assert_eq!(committed.read().applied().unwrap().as_deref(), Some(KEY));
        committed.write_leaving().unwrap();
        assert!(is_there(&committed, KEY));
        assert_eq!(committed.read().database().applied().unwrap().as_deref(), Some(KEY));
        assert_eq!(committed.read().unwritten_bytes(), 0);
    }

    #[test]
    fn a_row_that_goes_while_it_is_leaving_is_gone_at_once_and_for_good() {
        let directory = tempfile::tempdir().unwrap();
        let committed = committed(&directory);
        commit_row(&committed, KEY, BYTES_MAX);
        assert!(!commit_deletion(&committed, KEY));
        assert!(!is_there(&committed, KEY));
        let keys = |committed: &Committed| committed.read().range(Table::Messages, b"a", b"z").count();
        assert_eq!(keys(&committed), 1, "a key in both layers counts once");
        committed.write_leaving().unwrap();
        assert!(!is_there(&committed, KEY));
        let database = committed.write_out().unwrap();
        assert_eq!(database.get(Table::Messages, KEY).unwrap(), None);
        assert_eq!(database.applied().unwrap().as_deref(), Some(&b"deletion"[..]));
    }

    #[test]
    fn a_disk_that_does_not_keep_up_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let committed = committed(&directory);
        assert!(commit_row(&committed, b"1", BYTES_MAX));
        assert!(!commit_row(&committed, b"2", BYTES_MAX), "nobody has written the first");
        assert!(commit_row(&committed, b"3", BYTES_MAX), "the first was written here");
        assert_eq!(committed.read().database().applied().unwrap().as_deref(), Some(&b"1"[..]));
        assert!(committed.read().unwritten_bytes() < 3 * BYTES_MAX);
        let database = committed.write_out().unwrap();
        for key in [b"1", b"2", b"3"] {
            assert!(database.get(Table::Messages, key).unwrap().is_some());
        }
    }
}
