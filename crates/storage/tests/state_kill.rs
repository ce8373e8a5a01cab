//! A real process that is killed while RocksDB flushes on its own.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use dwell_machine::{Store, StoreRead, Table};
use dwell_storage::state::{StateOptions, StateResources, StateStore};

/// Set for the process that is to be killed: where it writes.
const WRITER_DIRECTORY: &str = "DWELL_TEST_WRITER_DIRECTORY";
/// Steps after which it is killed: several times what the memtables hold.
const STEPS: u64 = 10_000;

/// Small memtables, so that there are many flushes.
fn open(directory: &Path) -> StateStore {
    let options = StateOptions { memory_bytes: 8 << 20, ..StateOptions::default() };
    StateStore::open(directory, &StateResources::new(options).unwrap()).unwrap()
}

/// Each step leaves a mark in every column family; most of the bytes go into one of them.
fn commit_step(store: &mut StateStore, step: u64) {
    let key = step.to_be_bytes();
    let mut body: Vec<u8> = (0..3000).map(|position| (position * step % 251) as u8).collect();
    body.extend_from_slice(&key);
    store.put(Table::Queues, b"last", Bytes::copy_from_slice(&key));
    store.put(Table::Messages, &key, Bytes::from(body));
    store.put(Table::Ready, &key, Bytes::from_static(b"ticket"));
    if let Some(consumed) = step.checked_sub(5) {
        store.delete(Table::Ready, &consumed.to_be_bytes());
    }
    store.commit(&key).unwrap();
}

fn keys(store: &StateStore, table: Table) -> Vec<u64> {
    let rows = store.scan(table, &[], &[0xff; 9], usize::MAX).unwrap();
    rows.into_iter().map(|(key, _)| u64::from_be_bytes(key[..].try_into().unwrap())).collect()
}

/// Not a test by itself: what runs in the other process.
#[test]
fn writer() {
    let Some(directory) = std::env::var_os(WRITER_DIRECTORY) else { return };
    let mut store = open(Path::new(&directory));
    for step in 1.. {
        commit_step(&mut store, step);
        println!("\nstep {step}");
    }
}

#[test]
fn a_kill_leaves_all_column_families_at_the_position_of_the_last_flush() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writer", "--nocapture"])
        .env(WRITER_DIRECTORY, directory.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(writer.stdout.take().unwrap());
    let done = output.lines().any(|line| line.unwrap() == format!("step {STEPS}"));
    writer.kill().unwrap();
    writer.wait().unwrap();
    assert!(done, "the writer ended early");

    let mut store = open(directory.path());
    let applied = store.applied().unwrap().expect("nothing was flushed in all that time");
    let position = u64::from_be_bytes(applied[..].try_into().unwrap());
    assert!(position > STEPS / 2, "{position}");
    assert_eq!(store.get(Table::Queues, b"last").unwrap().unwrap(), applied);
    assert_eq!(keys(&store, Table::Messages), (1..=position).collect::<Vec<_>>());
    assert_eq!(keys(&store, Table::Ready), (position - 4..=position).collect::<Vec<_>>());

    // And it goes on from there.
    commit_step(&mut store, position + 1);
    assert_eq!(keys(&store, Table::Ready), (position - 3..=position + 1).collect::<Vec<_>>());
}
