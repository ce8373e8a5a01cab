//! Snapshots: made while the state goes on, shipped, checked, installed, and left half done.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::Path;

use bytes::Bytes;
use dwell_machine::{Store, Table};
use dwell_storage::snapshot::{SnapshotError, SnapshotReceiver};
use dwell_storage::state::{StateError, StateStore};
use support::looking::{copy_directory, rows};
use support::{open, ship};

/// Commits steps, each of which leaves a mark in every column family and says so in the applied record.
fn commit_steps(store: &mut StateStore, steps: std::ops::RangeInclusive<u64>) {
    for step in steps {
        let key = step.to_be_bytes();
        store.put(Table::Queues, b"last", Bytes::copy_from_slice(&key));
        store.put(Table::Messages, &key, Bytes::from(vec![step as u8; 100 + (step as usize % 7) * 1000]));
        store.put(Table::Ready, &key, Bytes::from_static(b"ticket"));
        if step > 10 {
            store.delete(Table::Ready, &(step - 10).to_be_bytes());
        }
        store.commit(&key).unwrap();
    }
}

/// The state after so many steps.
fn state_after(steps: u64) -> Vec<(Table, Bytes, Bytes)> {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path());
    commit_steps(&mut store, 1..=steps);
    rows(&store)
}

fn applied_step(applied: &[u8]) -> u64 {
    u64::from_be_bytes(applied.try_into().unwrap())
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_snapshot_that_was_shipped_and_installed_equals_its_source() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut source = open(from.path());
    commit_steps(&mut source, 1..=500);
    let snapshot = source.snapshot_builder().build().unwrap();
    assert_eq!(applied_step(snapshot.applied()), 500);
    assert_eq!(snapshot.length(), snapshot.files().iter().map(|file| file.length).sum::<u64>());

    let mut target = open(to.path());
    target.put(Table::Queues, b"else", Bytes::from_static(b"to be gone"));
    target.commit(b"old").unwrap();
    target.put(Table::Queues, b"pending", Bytes::from_static(b"to be gone"));
    let reader = target.reader();
    let received = ship(&snapshot, target.snapshot_directory(), |_, _, _| {}).unwrap();
    target.install(&received).unwrap();
    drop(received);

    assert_eq!(rows(&target), rows(&source));
    assert_eq!(rows(&reader), rows(&source), "a reader from before sees the new state");
    assert_eq!(applied_step(&target.applied().unwrap().unwrap()), 500);
    assert_eq!(target.current_snapshot().unwrap().manifest_bytes(), snapshot.manifest_bytes());

    // Both go on alike, and the target can be the source of the next one.
    commit_steps(&mut source, 501..=600);
    commit_steps(&mut target, 501..=600);
    assert_eq!(rows(&target), rows(&source));
    let next = target.snapshot_builder().build().unwrap();
    let received = ship(&next, source.snapshot_directory(), |_, _, _| {}).unwrap();
    source.install(&received).unwrap();
    assert_eq!(rows(&source), state_after(600));
}

#[test]
fn an_installed_snapshot_is_there_after_a_kill() {
    let (from, to, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut source = open(from.path());
    commit_steps(&mut source, 1..=50);
    let snapshot = source.snapshot_builder().build().unwrap();
    let mut target = open(to.path());
    target.install(&ship(&snapshot, target.snapshot_directory(), |_, _, _| {}).unwrap()).unwrap();
    commit_steps(&mut target, 51..=60);
    copy_directory(to.path(), copy.path());

    let mut killed = open(copy.path());
    assert_eq!(applied_step(&killed.applied().unwrap().unwrap()), 50);
    assert_eq!(rows(&killed), state_after(50));
    assert_eq!(killed.current_snapshot().unwrap().applied(), snapshot.applied());
    commit_steps(&mut killed, 51..=60);
    assert_eq!(rows(&killed), rows(&target));
}

#[test]
fn a_state_that_was_killed_is_never_older_than_its_snapshot() {
    let (directory, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut store = open(directory.path());
    commit_steps(&mut store, 1..=40);
    let snapshot = store.snapshot_builder().build().unwrap();
    commit_steps(&mut store, 41..=60);
    copy_directory(directory.path(), copy.path());

    let killed = open(copy.path());
    let step = applied_step(&killed.applied().unwrap().unwrap());
    assert!(step >= applied_step(snapshot.applied()), "{step}");
    assert_eq!(rows(&killed), state_after(step));
    assert_eq!(killed.current_snapshot().unwrap().applied(), snapshot.applied());
}

#[test]
fn a_snapshot_made_while_the_state_goes_on_is_of_one_moment() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path());
    commit_steps(&mut store, 1..=100);
    let mut last = 100;
    for _ in 0..5 {
        let builder = store.snapshot_builder();
        let started = last;
        let building = std::thread::spawn(move || builder.build());
        while !building.is_finished() || last == started {
            commit_steps(&mut store, last + 1..=last + 1);
            last += 1;
        }
        let snapshot = building.join().unwrap().unwrap();
        let step = applied_step(snapshot.applied());
        assert!((started..=last).contains(&step), "{step} of {started} to {last}");
        let target_directory = tempfile::tempdir().unwrap();
        let mut target = open(target_directory.path());
        target.install(&ship(&snapshot, target.snapshot_directory(), |_, _, _| {}).unwrap()).unwrap();
        assert_eq!(rows(&target), state_after(step));
    }
}

#[test]
fn only_the_newest_snapshot_is_kept_and_an_older_one_as_long_as_it_is_used() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path());
    commit_steps(&mut store, 1..=10);
    let old = store.snapshot_builder().build().unwrap();
    commit_steps(&mut store, 11..=20);
    let new = store.snapshot_builder().build().unwrap();
    assert_eq!(names(store.snapshot_directory()).len(), 2);
    // A sender is in the middle of the old one, whose files the database may have compacted away.
    let target_directory = tempfile::tempdir().unwrap();
    let received = ship(&old, target_directory.path(), |_, _, _| {}).unwrap();
    assert_eq!(applied_step(received.applied()), 10);

    drop(old);
    assert_eq!(names(store.snapshot_directory()).len(), 1);
    drop(new);
    assert_eq!(names(store.snapshot_directory()).len(), 1, "the current one stays without users");
    drop(store);
    assert_eq!(applied_step(open(directory.path()).current_snapshot().unwrap().applied()), 20);
}

#[test]
fn a_snapshot_begun_before_another_was_installed_does_not_replace_it() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut source = open(from.path());
    commit_steps(&mut source, 1..=30);
    let snapshot = source.snapshot_builder().build().unwrap();
    let mut target = open(to.path());
    commit_steps(&mut target, 1..=5);
    let builder = target.snapshot_builder();
    target.install(&ship(&snapshot, target.snapshot_directory(), |_, _, _| {}).unwrap()).unwrap();
    let late = builder.build().unwrap();
    assert_eq!(applied_step(late.applied()), 5);
    assert_eq!(applied_step(target.current_snapshot().unwrap().applied()), 30);
    drop(late);
    drop(target);
    assert_eq!(names(&to.path().join("snapshots")).len(), 1);
    assert_eq!(names(to.path()), ["CURRENT", "db-2", "snapshots"], "the replaced database is removed");
}

#[test]
fn what_interrupted_work_left_behind_is_removed_at_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path());
    commit_steps(&mut store, 1..=10);
    let snapshot = store.snapshot_builder().build().unwrap();
    let snapshots = store.snapshot_directory().to_path_buf();
    let receiver = SnapshotReceiver::new(&snapshots, snapshot.manifest_bytes()).unwrap();
    // As a kill would leave them.
    std::mem::forget(receiver);
    copy_directory(&snapshots.join("1"), &snapshots.join("staging-9"));
    copy_directory(&snapshots.join("1"), &snapshots.join("0"));
    assert_eq!(names(&snapshots).len(), 4);
    drop((store, snapshot));
    let store = open(directory.path());
    assert_eq!(names(&snapshots), ["1"]);
    assert_eq!(applied_step(store.current_snapshot().unwrap().applied()), 10);
}

#[test]
fn an_unfinished_reception_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path());
    commit_steps(&mut store, 1..=10);
    let snapshot = store.snapshot_builder().build().unwrap();
    let received = tempfile::tempdir().unwrap();
    let mut receiver = SnapshotReceiver::new(received.path(), snapshot.manifest_bytes()).unwrap();
    receiver.write("CURRENT", 0, b"MANI").unwrap();
    drop(receiver);
    assert_eq!(names(received.path()), [""; 0]);
    drop(ship(&snapshot, received.path(), |_, _, _| {}).unwrap());
    assert_eq!(names(received.path()), [""; 0], "one that was received and not installed neither");
}

#[test]
fn an_installation_that_was_killed_before_the_switch_can_be_repeated() {
    let (from, to, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut source = open(from.path());
    commit_steps(&mut source, 1..=30);
    let snapshot = source.snapshot_builder().build().unwrap();
    let mut target = open(to.path());
    commit_steps(&mut target, 1..=5);
    target.flush().unwrap();
    copy_directory(to.path(), copy.path());
    target.install(&ship(&snapshot, target.snapshot_directory(), |_, _, _| {}).unwrap()).unwrap();
    // The new snapshot is there, and perhaps the new database, but the pointer is still the old one.
    copy_directory(&to.path().join("snapshots"), &copy.path().join("snapshots"));
    copy_directory(&to.path().join("db-2"), &copy.path().join("db-2"));

    let mut killed = open(copy.path());
    assert_eq!(rows(&killed), state_after(5));
    let current = killed.current_snapshot().unwrap();
    assert_eq!(applied_step(current.applied()), 30);
    killed.install(&current).unwrap();
    assert_eq!(rows(&killed), state_after(30));
    assert_eq!(names(killed.snapshot_directory()).len(), 1);
}

#[test]
fn a_chunk_that_was_changed_on_the_way_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path());
    commit_steps(&mut store, 1..=100);
    let snapshot = store.snapshot_builder().build().unwrap();
    let received = tempfile::tempdir().unwrap();
    for file in snapshot.files().iter().filter(|file| file.length > 0) {
        let flipped = ship(&snapshot, received.path(), |name, offset, chunk| {
            if name == file.name && offset == 0 {
                chunk[0] ^= 1;
            }
        });
        let error = flipped.unwrap_err();
        assert!(matches!(&error, SnapshotError::Checksum { name, .. } if *name == file.name), "{error}");

        let cut = ship(&snapshot, received.path(), |name, _, chunk| {
            if name == file.name {
                chunk.pop();
            }
        });
        let error = cut.unwrap_err();
        let is_refused = matches!(error, SnapshotError::Length { .. } | SnapshotError::Checksum { .. });
        assert!(is_refused, "{error}");
    }
    assert_eq!(names(received.path()), [""; 0]);
}

#[test]
fn a_missing_file_an_unknown_one_and_bytes_past_the_end_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path());
    commit_steps(&mut store, 1..=10);
    let snapshot = store.snapshot_builder().build().unwrap();
    let received = tempfile::tempdir().unwrap();
    let mut receiver = SnapshotReceiver::new(received.path(), snapshot.manifest_bytes()).unwrap();
    for name in ["else", "../CURRENT", "/etc/passwd", ""] {
        assert!(matches!(receiver.write(name, 0, b"x"), Err(SnapshotError::UnknownFile { .. })), "{name:?}");
    }
    let file = &snapshot.files()[0];
    for (offset, data) in [(file.length, &b"x"[..]), (0, &vec![0; file.length as usize + 1]), (u64::MAX, b"x")] {
        let written = receiver.write(&file.name, offset, data);
        assert!(matches!(written, Err(SnapshotError::OutOfRange { .. })), "{offset}");
    }
    assert!(matches!(receiver.finish(), Err(SnapshotError::Length { got: 0, .. })));
}

#[test]
fn a_damaged_manifest_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path());
    commit_steps(&mut store, 1..=10);
    let manifest = store.snapshot_builder().build().unwrap().manifest_bytes();
    for position in 0..manifest.len() {
        let mut damaged = manifest.to_vec();
        damaged[position] ^= 0x10;
        assert!(SnapshotReceiver::new(directory.path(), damaged.into()).is_err(), "byte {position}");
    }
    assert!(SnapshotReceiver::new(directory.path(), Bytes::new()).is_err());
}

#[test]
fn a_snapshot_whose_data_are_of_another_moment_than_its_manifest_is_not_installed() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut source = open(from.path());
    commit_steps(&mut source, 1..=10);
    let first = source.snapshot_builder().build().unwrap();
    // The same files, and a manifest that says they are of step 9.
    let mut manifest = first.manifest_bytes().to_vec();
    let applied = 10_u64.to_be_bytes();
    let position = manifest.windows(8).position(|window| window == applied).unwrap();
    manifest[position + 7] = 9;
    let body_end = manifest.len() - 4;
    let checksum = crc32fast::hash(&manifest[..body_end]);
    manifest[body_end..].copy_from_slice(&checksum.to_be_bytes());

    let mut target = open(to.path());
    commit_steps(&mut target, 1..=5);
    let mut receiver = SnapshotReceiver::new(target.snapshot_directory(), manifest.into()).unwrap();
    for file in first.files() {
        receiver.write(&file.name, 0, &first.read(file, 0, usize::MAX).unwrap()).unwrap();
    }
    let received = receiver.finish().unwrap();
    assert!(matches!(target.install(&received), Err(StateError::SnapshotMismatch)));
    assert_eq!(rows(&target), state_after(5));
    assert!(target.current_snapshot().is_none());
}

#[test]
fn a_snapshot_damaged_on_disk_is_as_good_as_none() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path());
    commit_steps(&mut store, 1..=10);
    let snapshot = store.snapshot_builder().build().unwrap();
    let table = snapshot.files().iter().find(|file| file.name.ends_with(".sst")).unwrap();
    let path = snapshot.path(table);
    drop((store, snapshot.clone()));
    // A file of the snapshot alone: the database's is another link to the same bytes.
    fs::remove_file(&path).unwrap();
    fs::write(&path, b"short").unwrap();
    let mut store = open(directory.path());
    assert!(store.current_snapshot().is_none());
    assert_eq!(rows(&store), state_after(10));
    commit_steps(&mut store, 11..=12);
    assert_eq!(applied_step(store.snapshot_builder().build().unwrap().applied()), 12);
    assert_eq!(applied_step(store.current_snapshot().unwrap().applied()), 12);
}

#[test]
fn an_empty_state_has_a_snapshot_too() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let source = open(from.path());
    assert!(source.current_snapshot().is_none());
    let snapshot = source.snapshot_builder().build().unwrap();
    assert!(snapshot.applied().is_empty());
    let mut target = open(to.path());
    commit_steps(&mut target, 1..=5);
    target.install(&ship(&snapshot, target.snapshot_directory(), |_, _, _| {}).unwrap()).unwrap();
    assert_eq!(rows(&target), []);
    assert!(target.applied().unwrap().is_none());
}
