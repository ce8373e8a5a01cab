//! The log and the state after a restart: what openraft needs is always there.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod state_support;

use dwell_consensus::codec::log_id_of;
use dwell_consensus::log_store::LogStore;
use dwell_consensus::state_machine::StateMachine;
use dwell_consensus::types::{Entry, LogId, TypeConfig};
use openraft::RaftState;
use openraft::StorageHelper;
use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftSnapshotBuilder, RaftStateMachine};
use state_support::looking::{copy_directory, rows};
use state_support::workload::Workload;
use state_support::{applied, apply, open_log, open_state, ship};
use tempfile::TempDir;

/// A node's stores.
struct Node {
    log: LogStore,
    state: StateMachine,
    /// The last one: removed when they are closed.
    directory: TempDir,
}

impl Node {
    fn new() -> Node {
        Node::open(tempfile::tempdir().unwrap())
    }

    fn open(directory: TempDir) -> Node {
        let log = open_log(&directory.path().join("log"));
        let state = open_state(&directory.path().join("state")).unwrap();
        Node { log, state, directory }
    }

    /// What would be found after a kill at this moment.
    fn killed(&self) -> Node {
        let copy = tempfile::tempdir().unwrap();
        copy_directory(self.directory.path(), copy.path());
        Node::open(copy)
    }

    /// As openraft does with committed entries.
    async fn append_and_apply(&mut self, entries: &[Entry]) {
        self.log.blocking_append(entries.to_vec()).await.unwrap();
        self.log.save_committed(entries.last().map(|entry| entry.log_id)).await.unwrap();
        apply(&mut self.state, entries).await.unwrap();
    }

    async fn snapshot(&mut self) -> LogId {
        let snapshot = self.state.get_snapshot_builder().await.build_snapshot().await.unwrap();
        snapshot.meta.last_log_id.unwrap()
    }

    /// As openraft does when it starts.
    async fn start(&mut self) -> RaftState<TypeConfig> {
        StorageHelper::new(&mut self.log, &mut self.state).with_id(1).get_initial_state().await.unwrap()
    }
}

#[tokio::test]
async fn the_log_is_never_purged_beyond_what_a_killed_state_machine_has() {
    let workload = Workload::new(71, 400);
    let mut node = Node::new();
    for round in 0..8 {
        let entries = &workload.entries[round * 50..][..50];
        node.append_and_apply(&entries[..30]).await;
        // The most that openraft purges: everything that the snapshot covers.
        let snapshot = node.snapshot().await;
        node.log.purge(snapshot).await.unwrap();
        node.append_and_apply(&entries[30..]).await;

        let mut killed = node.killed();
        let found = applied(&mut killed.state).await.0;
        assert!(found >= Some(snapshot), "round {round}: {found:?} is older than the snapshot");
        killed.start().await;
        // What was committed and not yet known to be, because that was in memory only, the leader tells again.
        let position = applied(&mut killed.state).await.0.unwrap().index as usize + 1;
        apply(&mut killed.state, &workload.entries[position..round * 50 + 50]).await.unwrap();
        assert_eq!(rows(killed.state.store()), rows(&workload.stores[round * 50 + 49]), "round {round}");
    }
}

#[tokio::test]
async fn entries_after_the_last_flush_are_replayed_from_the_log_at_the_start() {
    let workload = Workload::new(72, 120);
    let mut node = Node::new();
    node.append_and_apply(&workload.entries[..60]).await;
    node.state.store().flush().unwrap();
    node.append_and_apply(&workload.entries[60..119]).await;
    // The committed position is written with the next entry.
    node.log.blocking_append(workload.entries[119..].to_vec()).await.unwrap();

    let mut killed = node.killed();
    assert_eq!(applied(&mut killed.state).await.0, Some(workload.entries[59].log_id));
    killed.start().await;
    assert_eq!(applied(&mut killed.state).await.0, Some(workload.entries[118].log_id));
    assert_eq!(rows(killed.state.store()), rows(&workload.stores[118]));
}

#[tokio::test]
async fn a_received_snapshot_that_was_not_yet_switched_to_is_installed_at_the_start() {
    let workload = Workload::new(73, 100);
    let mut source = Node::new();
    source.append_and_apply(&workload.entries).await;
    let snapshot = source.state.get_snapshot_builder().await.build_snapshot().await.unwrap();
    let mut node = Node::new();
    node.append_and_apply(&workload.entries[..20]).await;
    node.state.store().flush().unwrap();
    // Killed on the way: the snapshot is kept, and the pointer still names the old database.
    let before = node.killed();
    let received = ship(&snapshot.snapshot, &node.state);
    node.state.install_snapshot(&snapshot.meta, received).await.unwrap();
    let Node { log, state, directory } = before;
    drop((log, state));
    copy_directory(&node.directory.path().join("state/snapshots"), &directory.path().join("state/snapshots"));
    assert!(directory.path().join("state/db-1").exists());

    let mut killed = Node::open(directory);
    assert_eq!(applied(&mut killed.state).await.0, Some(workload.entries[19].log_id));
    let state = killed.start().await;
    assert_eq!(applied(&mut killed.state).await.0, Some(workload.entries[99].log_id));
    assert_eq!(state.snapshot_meta.last_log_id, Some(workload.entries[99].log_id));
    assert_eq!(rows(killed.state.store()), rows(&workload.stores[99]));
}

#[tokio::test]
async fn a_state_that_is_ahead_of_its_log_is_covered_by_a_snapshot() {
    let workload = Workload::new(74, 100);
    let mut node = Node::new();
    node.append_and_apply(&workload.entries[..40]).await;
    let old = node.snapshot().await;
    node.append_and_apply(&workload.entries[40..60]).await;
    // Committed by the others' disks, applied and flushed here before this node's log was synced.
    apply(&mut node.state, &workload.entries[60..100]).await.unwrap();
    node.state.store().flush().unwrap();

    let mut killed = node.killed();
    let last_log_id = killed.log.get_log_state().await.unwrap().last_log_id;
    assert_eq!(last_log_id, Some(workload.entries[59].log_id));
    let current = killed.state.get_current_snapshot().await.unwrap().unwrap();
    assert_eq!(current.meta.last_log_id, Some(old));
    assert!(killed.state.cover(last_log_id).await.unwrap());
    let state = killed.start().await;
    let last_applied = Some(workload.entries[99].log_id);
    assert_eq!(killed.log.get_log_state().await.unwrap().last_purged_log_id, last_applied);
    assert_eq!(state.snapshot_meta.last_log_id, last_applied, "others can be brought to where the log begins");
    assert!(!killed.state.cover(last_log_id).await.unwrap(), "once is enough");
}

#[tokio::test]
async fn a_state_that_is_not_ahead_of_its_log_needs_no_snapshot() {
    let workload = Workload::new(75, 20);
    let mut node = Node::new();
    assert!(!node.state.cover(None).await.unwrap());
    node.append_and_apply(&workload.entries).await;
    assert!(!node.state.cover(Some(log_id_of(1, 1, 19))).await.unwrap());
    assert!(node.state.get_current_snapshot().await.unwrap().is_none());
}
