//! What was committed: a database, and commits that it does not have yet.
//!
//! The Raft log is what a crash is survived by, so there is no hurry to give RocksDB what was committed. It waits here,
//! up to a bound, and most of it never gets there: a message that is published and acknowledged meanwhile leaves nothing
//! to be written, nor to be flushed, compacted and deleted later. (RocksDB's own memtables keep such a pair until they
//! are flushed, and charge two insertions into a skip list for each row.)

use std::sync::Arc;

use bytes::Bytes;

use super::database::Database;
use super::overlay::Overlay;

/// One generation of the state, as of the last commit.
pub(crate) struct Committed {
    database: Arc<Database>,
    unwritten: Overlay,
    /// The record of the last commit, while the database has that of an earlier one.
    applied: Option<Bytes>,
    /// Commits are written to the database when they take about this much memory.
    unwritten_bytes_max: usize,
}

impl Committed {
    pub fn new(database: Arc<Database>, unwritten_bytes_max: usize) -> Committed {
        Committed { database, unwritten: Overlay::new(), applied: None, unwritten_bytes_max }
    }

    pub fn database(&self) -> &Arc<Database> {
        &self.database
    }

    /// The writes that the database does not have.
    pub(super) fn unwritten(&self) -> &Overlay {
        &self.unwritten
    }

    /// The record given to the last commit; none before the first one.
    pub fn applied(&self) -> Result<Option<Bytes>, rocksdb::Error> {
        match &self.applied {
            Some(applied) => Ok(Some(applied.clone())),
            None => self.database.applied(),
        }
    }

    /// Takes in all of `writes`, which are empty afterwards.
    pub(super) fn commit(&mut self, writes: &mut Overlay, applied: &[u8]) -> Result<(), rocksdb::Error> {
        self.unwritten.absorb(writes);
        self.applied = Some(Bytes::copy_from_slice(applied));
        if self.unwritten.bytes() < self.unwritten_bytes_max {
            return Ok(());
        }
        self.write_out()
    }

    /// Gives the database all that was committed, in one batch.
    pub fn write_out(&mut self) -> Result<(), rocksdb::Error> {
        if let Some(applied) = &self.applied {
            self.database.write(&self.unwritten, applied)?;
            self.unwritten.clear();
            self.applied = None;
        }
        Ok(())
    }

    /// The same, if this is still the generation with that database: otherwise a snapshot took its place.
    pub fn write_out_to(&mut self, database: &Arc<Database>) -> Result<(), rocksdb::Error> {
        if Arc::ptr_eq(&self.database, database) { self.write_out() } else { Ok(()) }
    }
}
