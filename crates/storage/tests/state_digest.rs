//! The digest of the rows on disk.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use dwell_machine::{MemoryStore, Store, Table};
use dwell_storage::state::{StateOptions, StateResources, StateStore};

fn open(directory: &Path) -> StateStore {
    StateStore::open(directory, &StateResources::new(StateOptions::default()).unwrap()).unwrap()
}

/// Rows in every table, with keys at the edges of its range.
fn fill(store: &mut impl Store) {
    for table in Table::ALL {
        for key in [&[][..], &[0], b"key", &[0xff; 100]] {
            store.put(table, key, vec![table as u8; key.len()].into());
        }
    }
}

fn digest(store: &StateStore) -> dwell_machine::StateDigest {
    store.digester().digest(|| (), || true).unwrap().unwrap()
}

#[test]
fn rows_on_disk_and_in_memory_have_the_same_digest() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path());
    let mut memory = MemoryStore::default();
    fill(&mut store);
    fill(&mut memory);
    assert_eq!(digest(&store), MemoryStore::default().digest(), "nothing is committed yet");
    store.commit(b"position").unwrap();
    assert_eq!(digest(&store), memory.digest());
    store.flush().unwrap();
    assert_eq!(digest(&store), memory.digest(), "from files as from memory");

    store.delete(Table::Queues, b"key");
    memory.delete(Table::Queues, b"key");
    store.commit(b"another position").unwrap();
    assert_eq!(digest(&store), memory.digest());
}

#[test]
fn a_single_byte_shows() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path());
    fill(&mut store);
    store.commit(b"position").unwrap();
    let before = digest(&store);
    store.put(Table::Queues, b"key", b"\x02\x02\x03"[..].into());
    store.commit(b"position").unwrap();
    assert_ne!(digest(&store), before);
}

#[test]
fn what_is_committed_after_the_beginning_is_not_among_the_rows() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path());
    fill(&mut store);
    store.commit(b"position").unwrap();
    let before = digest(&store);
    let digester = store.digester();
    let meanwhile = || {
        store.put(Table::Queues, b"later", b"row"[..].into());
        store.commit(b"later").unwrap();
    };
    assert_eq!(digester.digest(meanwhile, || true).unwrap(), Some(before));
    assert_ne!(digest(&store), before);
}

#[test]
fn nobody_hashes_on_for_a_caller_who_went_away() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path());
    for number in 0..20_000_u32 {
        store.put(Table::Queues, &number.to_be_bytes(), b"row"[..].into());
    }
    store.commit(b"position").unwrap();
    assert_eq!(store.digester().digest(|| (), || false).unwrap(), None);
}
