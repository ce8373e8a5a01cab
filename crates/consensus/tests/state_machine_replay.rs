//! One log makes one state: on memory and on disk, through kills and restarts, by snapshot and by entries.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod state_support;

use std::sync::Arc;

use dwell_consensus::codec::log_id_of;
use dwell_consensus::state_machine::StateMachine;
use dwell_consensus::types::{Entry, Proposal};
use dwell_machine::MemoryStore;
use openraft::EntryPayload;
use openraft::storage::{RaftSnapshotBuilder, RaftStateMachine};
use state_support::looking::{copy_directory, rows};
use state_support::workload::{Random, Workload};
use state_support::{Recorder, applied, apply, open_observed, open_state, ship};

const ENTRIES: usize = 600;

/// Where the machine stands: the number of entries it has applied.
async fn position(machine: &mut StateMachine) -> usize {
    applied(machine).await.0.map_or(0, |log_id| log_id.index as usize + 1)
}

fn assert_same_rows(machine: &StateMachine, store: &MemoryStore, position: usize) {
    assert_eq!(rows(machine.store()), rows(store), "after {position} entries");
}

#[tokio::test]
async fn a_log_makes_the_same_rows_and_effects_on_disk_as_in_memory() {
    for seed in 1..=4 {
        let workload = Workload::new(seed, ENTRIES);
        let directory = tempfile::tempdir().unwrap();
        let recorder = Arc::new(Recorder::default());
        let mut machine = open_observed(directory.path(), recorder.clone()).unwrap();
        let mut random = Random(seed);
        let mut start = 0;
        while start < ENTRIES {
            let end = (start + 1 + random.below(40) as usize).min(ENTRIES);
            apply(&mut machine, &workload.entries[start..end]).await.unwrap();
            assert_same_rows(&machine, &workload.stores[end - 1], end);
            start = end;
        }
        assert_eq!(rows(&machine.reader()), rows(machine.store()), "everything is readable by others");
        let heard = recorder.heard.lock();
        assert_eq!(heard.effects, workload.effects);
        assert!(heard.effects.len() > 100, "a log that does something");
        assert_eq!(heard.next_wake_ms, machine.machine().next_wake_ms());
    }
}

#[tokio::test]
async fn a_machine_that_is_killed_and_restarted_anywhere_comes_to_the_same_rows() {
    for seed in 11..=16 {
        let workload = Workload::new(seed, ENTRIES);
        let mut directory = tempfile::tempdir().unwrap();
        let mut machine = open_state(directory.path()).unwrap();
        let mut random = Random(seed);
        let mut replayed = 0;
        loop {
            let start = position(&mut machine).await;
            if start == ENTRIES {
                break;
            }
            let end = (start + 1 + random.below(80) as usize).min(ENTRIES);
            apply(&mut machine, &workload.entries[start..end]).await.unwrap();
            match random.below(5) {
                0 => machine.store().flush().unwrap(),
                1 => {
                    let copy = tempfile::tempdir().unwrap();
                    copy_directory(directory.path(), copy.path());
                    drop(machine);
                    machine = open_state(copy.path()).unwrap();
                    directory = copy;
                    replayed += end - position(&mut machine).await;
                }
                2 => {
                    drop(machine);
                    machine = open_state(directory.path()).unwrap();
                    assert_eq!(position(&mut machine).await, end, "an orderly stop forgets nothing");
                }
                3 => drop(machine.get_snapshot_builder().await.build_snapshot().await.unwrap()),
                _ => {}
            }
            let now = position(&mut machine).await;
            if now > 0 {
                assert_same_rows(&machine, &workload.stores[now - 1], now);
            }
        }
        assert_same_rows(&machine, &workload.stores[ENTRIES - 1], ENTRIES);
        assert!(replayed > 0, "seed {seed} never lost anything to a kill");
    }
}

#[tokio::test]
async fn a_machine_restarted_from_an_old_flush_says_so_and_replays_to_the_same_rows() {
    let workload = Workload::new(21, ENTRIES);
    let (directory, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut machine = open_state(directory.path()).unwrap();
    apply(&mut machine, &workload.entries[..200]).await.unwrap();
    machine.store().flush().unwrap();
    let flushed = applied(&mut machine).await;
    apply(&mut machine, &workload.entries[200..]).await.unwrap();
    let live = applied(&mut machine).await;
    copy_directory(directory.path(), copy.path());

    let mut killed = open_state(copy.path()).unwrap();
    assert_eq!(applied(&mut killed).await, flushed);
    assert_ne!(flushed, live);
    assert_same_rows(&killed, &workload.stores[199], 200);
    apply(&mut killed, &workload.entries[200..]).await.unwrap();
    assert_eq!(applied(&mut killed).await, live);
    assert_eq!(rows(killed.store()), rows(machine.store()));
    assert_eq!(killed.machine().next_wake_ms(), machine.machine().next_wake_ms());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_made_while_entries_are_applied_is_the_state_at_its_position() {
    let workload = Workload::new(31, ENTRIES);
    let directory = tempfile::tempdir().unwrap();
    let mut machine = open_state(directory.path()).unwrap();
    apply(&mut machine, &workload.entries[..100]).await.unwrap();
    for start in (100..ENTRIES).step_by(100) {
        let mut builder = machine.get_snapshot_builder().await;
        let building = tokio::spawn(async move { builder.build_snapshot().await });
        for entry in workload.entries[start..start + 100].chunks(1) {
            apply(&mut machine, entry).await.unwrap();
        }
        let snapshot = building.await.unwrap().unwrap();
        let covered = snapshot.meta.last_log_id.unwrap().index as usize + 1;
        assert!((start..=start + 100).contains(&covered), "{covered} of {start} to {}", start + 100);

        let other_directory = tempfile::tempdir().unwrap();
        let mut other = open_state(other_directory.path()).unwrap();
        let received = ship(&snapshot.snapshot, &other);
        other.install_snapshot(&snapshot.meta, received).await.unwrap();
        assert_same_rows(&other, &workload.stores[covered - 1], covered);
        assert_eq!(applied(&mut other).await, (snapshot.meta.last_log_id, snapshot.meta.last_membership.clone()));
        apply(&mut other, &workload.entries[covered..]).await.unwrap();
        assert_same_rows(&other, &workload.stores[ENTRIES - 1], ENTRIES);
    }
    assert_same_rows(&machine, &workload.stores[ENTRIES - 1], ENTRIES);
}

#[tokio::test]
async fn an_installed_snapshot_replaces_the_machine_its_readers_and_its_snapshot() {
    let workload = Workload::new(41, ENTRIES);
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut source = open_state(from.path()).unwrap();
    apply(&mut source, &workload.entries).await.unwrap();
    let snapshot = source.get_snapshot_builder().await.build_snapshot().await.unwrap();

    let recorder = Arc::new(Recorder::default());
    let mut target = open_observed(to.path(), recorder.clone()).unwrap();
    apply(&mut target, &workload.entries[..50]).await.unwrap();
    let reader = target.reader();
    let before = recorder.heard.lock().clone();
    let received = ship(&snapshot.snapshot, &target);
    target.install_snapshot(&snapshot.meta, received).await.unwrap();

    let heard = recorder.heard.lock().clone();
    assert_eq!(heard.replacements, before.replacements + 1);
    assert_eq!(heard.effects, before.effects, "what the snapshot's entries did is not done again");
    assert_eq!(heard.next_wake_ms, source.machine().next_wake_ms());
    assert_eq!(rows(&reader), rows(source.store()));
    assert_eq!(target.machine().now_ms(), source.machine().now_ms());
    let current = target.get_current_snapshot().await.unwrap().unwrap();
    assert_eq!(current.meta, snapshot.meta);

    drop((target, reader, current));
    let mut restarted = open_state(to.path()).unwrap();
    assert_eq!(applied(&mut restarted).await, applied(&mut source).await);
    assert_eq!(restarted.get_current_snapshot().await.unwrap().unwrap().meta, snapshot.meta);
    assert_same_rows(&restarted, &workload.stores[ENTRIES - 1], ENTRIES);
}

#[tokio::test]
async fn a_snapshot_whose_meta_data_are_not_its_own_is_refused() {
    let workload = Workload::new(51, 50);
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut source = open_state(from.path()).unwrap();
    apply(&mut source, &workload.entries).await.unwrap();
    let snapshot = source.get_snapshot_builder().await.build_snapshot().await.unwrap();
    let mut target = open_state(to.path()).unwrap();
    let mut meta = snapshot.meta.clone();
    meta.last_log_id = Some(log_id_of(1, 1, 1000));
    let received = ship(&snapshot.snapshot, &target);
    assert!(target.install_snapshot(&meta, received).await.is_err());
    assert_eq!(position(&mut target).await, 0);
    assert!(target.get_current_snapshot().await.unwrap().is_none());
}

#[tokio::test]
async fn an_entry_that_this_node_cannot_read_stops_it_and_is_not_skipped() {
    let workload = Workload::new(61, 20);
    let directory = tempfile::tempdir().unwrap();
    let mut machine = open_state(directory.path()).unwrap();
    apply(&mut machine, &workload.entries).await.unwrap();
    for payload in [&b""[..], b"\x63newer", b"\x01\xff\xff"] {
        let entry =
            Entry { log_id: log_id_of(9, 1, 20), payload: EntryPayload::Normal(Proposal(payload.to_vec().into())) };
        assert!(apply(&mut machine, &[entry]).await.is_err(), "{payload:?}");
        assert_eq!(position(&mut machine).await, 20);
    }
    drop(machine);
    let machine = open_state(directory.path()).unwrap();
    assert_same_rows(&machine, &workload.stores[19], 20);
}
