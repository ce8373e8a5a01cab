//! One generation of a group's state: an open RocksDB.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use dwell_machine::Table;
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    ColumnFamily, ColumnFamilyDescriptor, DB, DBRawIterator, FlushOptions, Options, ReadOptions, WriteBatch,
    WriteOptions,
};

use super::family::{APPLIED_TAG, Family, tagged, with_tagged};
use super::options::StateResources;
use super::overlay::Overlay;
use crate::durable;

/// How much is read at a time where everything is read.
const VIEW_READAHEAD_BYTES: usize = 1 << 20;

/// An open database. It may be read by many threads while one writes.
pub(crate) struct Database {
    // Fields are dropped in this order: the database is closed before its directory may be removed.
    db: DB,
    writes: WriteOptions,
    directory: DatabaseDirectory,
}

/// Removes the directory of a database that was replaced, when its last user is gone.
struct DatabaseDirectory {
    path: PathBuf,
    condemned: AtomicBool,
}

impl Drop for DatabaseDirectory {
    fn drop(&mut self) {
        if self.condemned.load(Ordering::Relaxed)
            && let Err(error) = durable::remove_directory(&self.path)
        {
            // The next start removes it.
            tracing::warn!(directory = %self.path.display(), %error, "replaced database not removed");
        }
    }
}

impl Database {
    /// Opens a database, or makes it if `create` says so.
    pub fn open(path: &Path, resources: &StateResources, create: bool) -> Result<Database, rocksdb::Error> {
        let mut options = resources.database_options();
        options.create_if_missing(create);
        let db = DB::open_cf_descriptors(&options, path, descriptors(resources))?;
        Ok(Database::new(db, path))
    }

    /// Opens a database that is not to be changed.
    pub fn open_read_only(path: &Path, resources: &StateResources) -> Result<Database, rocksdb::Error> {
        let options: Options = resources.database_options();
        let db = DB::open_cf_descriptors_read_only(&options, path, descriptors(resources), false)?;
        Ok(Database::new(db, path))
    }

    fn new(db: DB, path: &Path) -> Database {
        let mut writes = WriteOptions::default();
        // The Raft log is the write-ahead log.
        writes.disable_wal(true);
        let directory = DatabaseDirectory { path: path.to_path_buf(), condemned: AtomicBool::new(false) };
        Database { db, writes, directory }
    }

    /// The opaque record of what was applied; none in a database that was never committed to.
    pub fn applied(&self) -> Result<Option<Bytes>, rocksdb::Error> {
        let record = self.db.get_pinned_cf(self.family(Family::Default), [APPLIED_TAG])?;
        Ok(record.map(|record| Bytes::copy_from_slice(&record)))
    }

    pub fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, rocksdb::Error> {
        let family = self.family(Family::of(table));
        let value = with_tagged(table as u8, key, |key| self.db.get_pinned_cf(family, key))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    /// A cursor over the rows with `from <= key < to`, at the first of them.
    pub(super) fn rows(&self, table: Table, from: &[u8], to: &[u8]) -> Rows<'_> {
        let mut options = ReadOptions::default();
        // The bound keeps the iterator from wading on through the tombstones behind the last row asked for.
        options.set_iterate_upper_bound(tagged(table as u8, to));
        let mut iterator = self.db.raw_iterator_cf_opt(self.family(Family::of(table)), options);
        with_tagged(table as u8, from, |from| iterator.seek(from));
        Rows { iterator }
    }

    /// What is written now, to be read while writing goes on.
    pub(super) fn view(&self) -> View<'_> {
        View { database: self, snapshot: self.db.snapshot() }
    }

    /// Writes everything pending and the applied record, all or nothing.
    pub(super) fn write(&self, overlay: &Overlay, applied: &[u8]) -> Result<(), rocksdb::Error> {
        let mut batch = WriteBatch::default();
        let mut tagged_key = Vec::new();
        for (table, key, pending) in overlay.iter() {
            let family = self.family(Family::of(table));
            tagged_key.clear();
            tagged_key.push(table as u8);
            tagged_key.extend_from_slice(key);
            if table.is_written_once() {
                if pending.in_base {
                    batch.single_delete_cf(family, &tagged_key);
                }
            } else if pending.value.is_none() {
                batch.delete_cf(family, &tagged_key);
            }
            if let Some(value) = &pending.value {
                batch.put_cf(family, &tagged_key, value);
            }
        }
        batch.put_cf(self.family(Family::Default), [APPLIED_TAG], applied);
        self.db.write_opt(batch, &self.writes)
    }

    /// Brings everything written so far to disk; on return it survives a crash.
    pub fn flush(&self) -> Result<(), rocksdb::Error> {
        let families = Family::ALL.map(|family| self.family(family));
        self.db.flush_cfs_opt(&families, &FlushOptions::default())
    }

    /// Flushes, and makes a copy at `path`, which must not exist: hard links to the files that never change, and
    /// copies of the small rest. It is consistent, and covers everything written before the call.
    pub fn checkpoint(&self, path: &Path) -> Result<(), rocksdb::Error> {
        Checkpoint::new(&self.db)?.create_checkpoint(path)
    }

    /// Removes the database's directory once nobody uses it any more.
    pub fn condemn(&self) {
        self.directory.condemned.store(true, Ordering::Relaxed);
    }

    fn family(&self, family: Family) -> &ColumnFamily {
        self.db.cf_handle(family.name()).expect("a database opens with all column families or not at all")
    }
}

fn descriptors(resources: &StateResources) -> Vec<ColumnFamilyDescriptor> {
    Family::ALL
        .into_iter()
        .map(|family| ColumnFamilyDescriptor::new(family.name(), resources.family_options(family)))
        .collect()
}

/// All rows as of one moment.
pub(super) struct View<'a> {
    database: &'a Database,
    snapshot: rocksdb::Snapshot<'a>,
}

impl View<'_> {
    /// A cursor over all rows of a table, at the first of them. What it reads is not kept in the block cache.
    pub fn rows(&self, table: Table) -> Rows<'_> {
        let mut options = ReadOptions::default();
        options.fill_cache(false);
        options.set_readahead_size(VIEW_READAHEAD_BYTES);
        options.set_iterate_upper_bound([table as u8 + 1]);
        let family = self.database.family(Family::of(table));
        let mut iterator = self.snapshot.raw_iterator_cf_opt(family, options);
        iterator.seek([table as u8]);
        Rows { iterator }
    }
}

/// A cursor over rows of one table.
pub(super) struct Rows<'a> {
    iterator: DBRawIterator<'a>,
}

impl Rows<'_> {
    /// Key and value of the row at the cursor; none behind the last one, or after an error.
    pub fn current(&self) -> Option<(&[u8], &[u8])> {
        let (key, value) = self.iterator.item()?;
        Some((key.get(1..)?, value))
    }

    pub fn advance(&mut self) {
        self.iterator.next();
    }

    /// Whether the rows ended for want of more, and not by an error.
    pub fn status(&self) -> Result<(), rocksdb::Error> {
        self.iterator.status()
    }
}
