//! What the tests of the state machine have in common.
#![allow(dead_code, reason = "no test uses all of it")]

pub mod workload;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use bytes::Bytes;
use dwell_consensus::log_store::LogStore;
use dwell_consensus::state_machine::{ApplyObserver, StateMachine};
use dwell_consensus::types::{DEFAULT_GROUP, Entry, LogId, StoredMembership};
use dwell_machine::{Effect, StoreRead, Table};
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

/// All rows, in order.
pub fn rows(store: &impl StoreRead) -> Vec<(Table, Bytes, Bytes)> {
    let mut all = Vec::new();
    for table in Table::ALL {
        let rows = store.scan(table, &[], &[0xff; 512], usize::MAX).unwrap();
        all.extend(rows.into_iter().map(|(key, value)| (table, key, value)));
    }
    all
}

/// A copy of a directory in use, as it would be found after the process was killed at this moment: what is held
/// in memory is not in it. Background work may change files while they are copied, so it is copied until nothing
/// has changed meanwhile.
pub fn copy_directory(from: &Path, to: &Path) {
    loop {
        let before = listing(from);
        if copy_files(from, to).is_ok() && listing(from) == before {
            return;
        }
        fs::remove_dir_all(to).unwrap();
    }
}

fn copy_files(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_files(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

/// All files with length and time of change, as far as they hold still.
fn listing(directory: &Path) -> BTreeMap<PathBuf, Option<(u64, SystemTime)>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(listing(&path));
        }
        let metadata = entry.metadata().ok();
        files.insert(path, metadata.and_then(|metadata| Some((metadata.len(), metadata.modified().ok()?))));
    }
    files
}

/// Takes a snapshot to another state, as the network does.
pub fn ship(snapshot: &Snapshot, to: &StateMachine) -> Snapshot {
    let mut receiver = SnapshotReceiver::new(to.store().snapshot_directory(), snapshot.manifest_bytes()).unwrap();
    for file in snapshot.files() {
        receiver.write(&file.name, 0, &snapshot.read(file, 0, usize::MAX).unwrap()).unwrap();
    }
    receiver.finish().unwrap()
}
