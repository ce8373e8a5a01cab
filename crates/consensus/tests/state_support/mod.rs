//! What the tests of the state machine have in common.
#![allow(dead_code, reason = "no test uses all of it")]

#[path = "../../../storage/tests/support/looking.rs"]
pub mod looking;
pub mod workload;

use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use dwell_consensus::log_store::LogStore;
use dwell_consensus::state_machine::{ApplyObserver, StateMachine};
use dwell_consensus::types::{DEFAULT_GROUP, Entry, LogId, StoredMembership};
use dwell_machine::Effect;
use dwell_storage::log::{Log, LogOptions};
use dwell_storage::snapshot::{Snapshot, SnapshotReceiver};
use dwell_storage::state::{StateOptions, StateResources, StateStore};
use openraft::storage::RaftStateMachine;
use parking_lot::Mutex;
use prometheus::Registry;

/// Hears everything.
#[derive(Default)]
pub struct Recorder {
    pub heard: Mutex<Heard>,
}

#[derive(Debug, Default, Clone, PartialEq)]
pub struct Heard {
    pub effects: Vec<Effect>,
    pub released_due_ms: Vec<u64>,
    pub next_wake_ms: Option<u64>,
    pub replacements: usize,
}

impl ApplyObserver for Recorder {
    fn applied(&self, effects: Vec<Effect>, released_due_ms: Vec<u64>, next_wake_ms: Option<u64>) {
        let mut heard = self.heard.lock();
        heard.effects.extend(effects);
        heard.released_due_ms.extend(released_due_ms);
        heard.next_wake_ms = next_wake_ms;
    }

    fn replaced(&self, next_wake_ms: Option<u64>) {
        let mut heard = self.heard.lock();
        heard.next_wake_ms = next_wake_ms;
        heard.replacements += 1;
    }
}

pub fn open_state(directory: &Path) -> io::Result<StateMachine> {
    open_observed(directory, Arc::new(Recorder::default()))
}

pub fn open_observed(directory: &Path, observer: Arc<dyn ApplyObserver>) -> io::Result<StateMachine> {
    static RESOURCES: OnceLock<StateResources> = OnceLock::new();
    let resources = RESOURCES.get_or_init(|| StateResources::new(StateOptions::default()).unwrap());
    StateMachine::open(StateStore::open(directory, resources)?, observer, &Registry::new())
}

pub fn open_log(directory: &Path) -> LogStore {
    let log = Log::open(directory, LogOptions { file_bytes: 1 << 20, ..LogOptions::default() }).unwrap();
    LogStore::open(log, DEFAULT_GROUP).unwrap()
}

/// Applies entries nobody waits for.
pub async fn apply(machine: &mut StateMachine, entries: &[Entry]) -> io::Result<()> {
    machine.apply(futures::stream::iter(entries.iter().cloned().map(|entry| Ok((entry, None))))).await
}

pub async fn applied(machine: &mut StateMachine) -> (Option<LogId>, StoredMembership) {
    machine.applied_state().await.unwrap()
}

/// Takes a snapshot to another state, as the network does.
pub fn ship(snapshot: &Snapshot, to: &StateMachine) -> Snapshot {
    let mut receiver = SnapshotReceiver::new(to.store().snapshot_directory(), snapshot.manifest_bytes()).unwrap();
    for file in snapshot.files() {
        receiver.write(&file.name, 0, &snapshot.read(file, 0, usize::MAX).unwrap()).unwrap();
    }
    receiver.finish().unwrap()
}
