//! What is found on disk when a state is opened, and what is written there.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::Path;

use bytes::Bytes;
use dwell_machine::{Store, StoreRead, Table};
use dwell_storage::state::{StateError, StateOptions, StateResources, StateStore};
use support::looking::copy_directory;
use support::{open, resources};

fn reopen(directory: &Path) -> Result<StateStore, StateError> {
    StateStore::open(directory, resources())
}

/// A state of one row, committed as `applied`.
fn used_state(directory: &Path, applied: &[u8]) -> StateStore {
    let mut store = open(directory);
    store.put(Table::Queues, b"q", Bytes::from_static(b"row"));
    store.commit(applied).unwrap();
    store
}

#[test]
fn a_state_that_was_killed_is_as_it_was_last_flushed() {
    let (directory, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut store = used_state(directory.path(), b"first");
    store.flush().unwrap();
    store.delete(Table::Queues, b"q");
    store.put(Table::Messages, b"m", Bytes::from(vec![7; 10_000]));
    store.commit(b"second").unwrap();
    copy_directory(directory.path(), copy.path());

    let killed = open(copy.path());
    assert_eq!(killed.applied().unwrap().unwrap(), "first");
    assert_eq!(killed.get(Table::Queues, b"q").unwrap().unwrap(), "row");
    assert_eq!(killed.get(Table::Messages, b"m").unwrap(), None);
}

#[test]
fn a_flush_survives_a_kill_in_all_column_families() {
    let (directory, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut store = open(directory.path());
    for table in Table::ALL {
        store.put(table, b"k", Bytes::from_static(b"v"));
    }
    store.commit(b"all").unwrap();
    store.flush().unwrap();
    copy_directory(directory.path(), copy.path());

    let killed = open(copy.path());
    assert_eq!(killed.applied().unwrap().unwrap(), "all");
    for table in Table::ALL {
        assert_eq!(killed.get(table, b"k").unwrap().unwrap(), "v", "{table:?}");
    }
}

#[test]
fn what_was_not_committed_is_not_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = used_state(directory.path(), b"1");
    store.put(Table::Queues, b"pending", Bytes::from_static(b"row"));
    assert!(store.reader().get(Table::Queues, b"pending").unwrap().is_none());
    drop(store);
    let store = open(directory.path());
    assert!(store.get(Table::Queues, b"pending").unwrap().is_none());
    assert!(store.get(Table::Queues, b"q").unwrap().is_some());
}

#[test]
fn a_used_database_without_its_pointer_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    drop(used_state(directory.path(), b"1"));
    fs::remove_file(directory.path().join("CURRENT")).unwrap();
    assert!(matches!(reopen(directory.path()), Err(StateError::PointerMissing { .. })));
    // And is not touched.
    assert!(directory.path().join("db-1").is_dir());
}

#[test]
fn a_first_start_that_was_interrupted_is_gone_on_with() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()));
    fs::remove_file(directory.path().join("CURRENT")).unwrap();
    assert!(reopen(directory.path()).unwrap().applied().unwrap().is_none());
    assert!(reopen(directory.path()).unwrap().applied().unwrap().is_none());
}

#[test]
fn a_damaged_pointer_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    drop(used_state(directory.path(), b"1"));
    let pointer = directory.path().join("CURRENT");
    let mut bytes = fs::read(&pointer).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&pointer, bytes).unwrap();
    assert!(matches!(reopen(directory.path()), Err(StateError::Pointer { .. })));
}

#[test]
fn a_missing_database_is_refused_and_not_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    drop(used_state(directory.path(), b"1"));
    fs::remove_dir_all(directory.path().join("db-1")).unwrap();
    assert!(matches!(reopen(directory.path()), Err(StateError::DatabaseMissing { .. })));
}

#[test]
fn a_damaged_table_is_an_error_and_never_a_wrong_row() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path());
    for number in 0..1000_u32 {
        store.put(Table::Queues, &number.to_be_bytes(), Bytes::from(vec![number as u8; 100]));
    }
    store.commit(b"1").unwrap();
    drop(store);
    for table in files(&directory.path().join("db-1"), "sst") {
        let mut bytes = fs::read(&table).unwrap();
        let middle = bytes.len() / 3;
        bytes[middle] ^= 0x40;
        fs::write(&table, bytes).unwrap();
    }
    let read = reopen(directory.path())
        .map_err(|_| ())
        .and_then(|store| store.scan(Table::Queues, &[], &[0xff; 8], usize::MAX).map_err(|_| ()));
    assert!(read.is_err());
}

#[test]
fn the_database_of_an_interrupted_installation_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    drop(used_state(directory.path(), b"1"));
    fs::create_dir(directory.path().join("db-2")).unwrap();
    fs::write(directory.path().join("db-2/000007.sst"), b"half").unwrap();
    let store = open(directory.path());
    assert_eq!(store.applied().unwrap().unwrap(), "1");
    assert!(!directory.path().join("db-2").exists());
}

#[test]
fn messages_that_are_consumed_soon_never_reach_the_disk() {
    const MESSAGES: u64 = 20_000;
    const STANDING: u64 = 100;
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path());
    for sequence in 0..MESSAGES {
        store.put(Table::Messages, &sequence.to_be_bytes(), Bytes::from(incompressible(sequence, 1024)));
        store.put(Table::Ready, &sequence.to_be_bytes(), Bytes::from_static(b"ticket"));
        if let Some(consumed) = sequence.checked_sub(STANDING) {
            store.delete(Table::Messages, &consumed.to_be_bytes());
            store.delete(Table::Ready, &consumed.to_be_bytes());
        }
        store.commit(&sequence.to_be_bytes()).unwrap();
    }
    store.flush().unwrap();
    let database = directory.path().join("db-1");
    let written: u64 = ["sst", "blob"]
        .into_iter()
        .flat_map(|extension| files(&database, extension))
        .map(|path| fs::metadata(path).unwrap().len())
        .sum();
    // 20 MiB went through; what stands is 100 KiB.
    assert!(written < 3 * STANDING * 1024, "{written} bytes");
    assert!(written > STANDING * 1024, "{written} bytes: what stands should be there");
}

#[test]
fn memory_in_use_is_asked_for_at_each_scrape() {
    let directory = tempfile::tempdir().unwrap();
    let resources = StateResources::new(StateOptions::default()).unwrap();
    let registry = prometheus::Registry::new();
    resources.register_metrics(&registry).unwrap();
    let value = |name: &str| {
        let families = registry.gather();
        let family = families.iter().find(|family| family.name() == name).unwrap();
        family.get_metric()[0].get_gauge().get_value()
    };
    let mut store = StateStore::open(directory.path(), &resources).unwrap();
    let empty = value("dwell_state_memtable_bytes");
    // Each is more than waits in memory, and the last of them waits until the first is written.
    for key in [b"1", b"2", b"3"] {
        store.put(Table::Messages, key, Bytes::from(vec![0; 5 << 20]));
        store.commit(key).unwrap();
    }
    assert!(value("dwell_state_memtable_bytes") >= empty + f64::from(5 << 20));
    assert!(value("dwell_state_block_cache_bytes") >= f64::from(5 << 20), "memtables are charged to the cache");
}

#[test]
fn memory_is_bounded_over_all_groups() {
    const MEMORY_BYTES: usize = 16 << 20;
    let directory = tempfile::tempdir().unwrap();
    let resources =
        StateResources::new(StateOptions { memory_bytes: MEMORY_BYTES, ..StateOptions::default() }).unwrap();
    let mut stores: Vec<_> =
        (0..3).map(|group| StateStore::open(&directory.path().join(group.to_string()), &resources).unwrap()).collect();
    let mut memtable_bytes_max = 0;
    for sequence in 0..20_000_u64 {
        let store = &mut stores[sequence as usize % 3];
        store.put(Table::Messages, &sequence.to_be_bytes(), Bytes::from(incompressible(sequence, 4000)));
        store.commit(b"applied").unwrap();
        memtable_bytes_max = memtable_bytes_max.max(resources.memory().memtable_bytes);
    }
    // 80 MB went through. The limit hastens flushes and does not wait for them, so it is passed a little.
    assert!(memtable_bytes_max < 2 * MEMORY_BYTES, "{memtable_bytes_max} bytes in memtables");
    for store in &stores {
        assert_eq!(store.scan(Table::Messages, &[], &[0xff; 9], usize::MAX).unwrap().len() / 1000, 6);
    }
    assert!(resources.memory().block_cache_bytes < 2 * MEMORY_BYTES, "{:?}", resources.memory());
}

/// Bytes that do not compress, so that sizes on disk mean something.
fn incompressible(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

fn files(directory: &Path, extension: &str) -> Vec<std::path::PathBuf> {
    let paths = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}
