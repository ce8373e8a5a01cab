//! A disk for Raft logs that loses what was not synced, is slow, fails, and fills up.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dwell_storage::log::{Extent, GroupLogs, LogEntry, LogError, Written};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::Notify;

/// A node's disk. It outlives the node's process; [`Disk::open`] is called at each start.
#[derive(Clone)]
pub struct Disk {
    state: Arc<Mutex<DiskState>>,
}

/// How the disk behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Behaviour {
    /// What a sync takes, at least and at most.
    pub sync: (Duration, Duration),
    /// Every write fails: the disk is broken, or full.
    pub fails: bool,
    /// Says that it has synced when it has not. For showing that the checkers notice.
    pub lies: bool,
}

impl Default for Behaviour {
    fn default() -> Behaviour {
        Behaviour { sync: (Duration::from_micros(200), Duration::from_millis(3)), fails: false, lies: false }
    }
}

struct DiskState {
    random: StdRng,
    behaviour: Behaviour,
    /// What is safe.
    synced: Groups,
    /// Written since, in order.
    unsynced: VecDeque<Change>,
}

type Groups = BTreeMap<u64, GroupLog>;

/// The log of one group.
#[derive(Clone, Default)]
struct GroupLog {
    purged: Option<(u64, Bytes)>,
    entries: BTreeMap<u64, LogEntry>,
    values: BTreeMap<Vec<u8>, Bytes>,
}

#[derive(Clone)]
struct Change {
    group: u64,
    kind: ChangeKind,
}

#[derive(Clone)]
enum ChangeKind {
    Append(Vec<LogEntry>),
    Truncate(u64),
    Purge(u64, Bytes),
    Put(Vec<u8>, Bytes),
}

impl Disk {
    /// An empty disk.
    pub fn new(seed: u64) -> Disk {
        let random = StdRng::seed_from_u64(seed);
        let state =
            DiskState { random, behaviour: Behaviour::default(), synced: Groups::new(), unsynced: VecDeque::new() };
        Disk { state: Arc::new(Mutex::new(state)) }
    }

    /// Changes how it behaves from now on.
    pub fn set(&self, behaviour: Behaviour) {
        self.state.lock().behaviour = behaviour;
    }

    /// How it behaves.
    pub fn behaviour(&self) -> Behaviour {
        self.state.lock().behaviour
    }

    /// The process died, or the power went: of what was not synced, some first part may have got to the disk.
    pub fn crash(&self) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let survive = match state.behaviour.lies {
            true => 0,
            false => state.random.random_range(0..=state.unsynced.len()),
        };
        for change in state.unsynced.drain(..).take(survive) {
            apply(&mut state.synced, change);
        }
        state.unsynced.clear();
    }

    /// The logs on this disk, for a process that just started. Must be called on its runtime.
    pub fn open(&self) -> Arc<dyn GroupLogs> {
        let current = self.state.lock().synced.clone();
        let shared = Arc::new(Shared {
            disk: self.clone(),
            view: Mutex::new(View { current, requests: VecDeque::new(), failure: None }),
            queued: Notify::new(),
        });
        tokio::spawn(write(Arc::downgrade(&shared)));
        Arc::new(SimulatedLogs { shared })
    }
}

/// The logs of one process.
struct SimulatedLogs {
    shared: Arc<Shared>,
}

struct Shared {
    disk: Disk,
    view: Mutex<View>,
    queued: Notify,
}

/// What the process sees: what it has written, synced or not.
struct View {
    current: Groups,
    requests: VecDeque<Request>,
    failure: Option<LogError>,
}

struct Request {
    change: Change,
    written: Option<Written>,
}

/// Syncs what is queued, as long as the process lives.
async fn write(shared: std::sync::Weak<Shared>) {
    loop {
        let Some(alive) = shared.upgrade() else { return };
        let requests = std::mem::take(&mut alive.view.lock().requests);
        // As in the real log, lazy requests ride along with those that somebody waits for.
        if !requests.iter().any(|request| request.written.is_some()) {
            alive.view.lock().requests = requests;
            alive.queued.notified().await;
            continue;
        }
        let (sync, fails, lies) = {
            let mut state = alive.disk.state.lock();
            let Behaviour { sync, fails, lies } = state.behaviour;
            let sync = state.random.random_range(sync.0..=sync.1);
            state.unsynced.extend(requests.iter().map(|request| request.change.clone()));
            (sync, fails, lies)
        };
        if !lies {
            tokio::time::sleep(sync).await;
        }
        if fails {
            let error = LogError::Failed("the simulated disk does not take it".to_owned());
            let waiting = {
                let mut view = alive.view.lock();
                view.failure = Some(error.clone());
                std::mem::take(&mut view.requests)
            };
            requests.into_iter().chain(waiting).filter_map(|request| request.written).for_each(|written| {
                written(Err(error.clone()));
            });
            return;
        }
        if !lies {
            let mut state = alive.disk.state.lock();
            let state = &mut *state;
            state.unsynced.drain(..).for_each(|change| apply(&mut state.synced, change));
        }
        requests.into_iter().filter_map(|request| request.written).for_each(|written| written(Ok(())));
    }
}

fn apply(groups: &mut Groups, change: Change) {
    let log = groups.entry(change.group).or_default();
    match change.kind {
        ChangeKind::Append(entries) => {
            let Some(first) = entries.first().map(LogEntry::index) else { return };
            log.entries.split_off(&first);
            log.entries.extend(entries.into_iter().map(|entry| (entry.index(), entry)));
        }
        ChangeKind::Truncate(index) => drop(log.entries.split_off(&index)),
        ChangeKind::Purge(index, note) => {
            if log.purged.as_ref().is_none_or(|(purged, _)| index > *purged) {
                log.entries = log.entries.split_off(&(index + 1));
                log.purged = Some((index, note));
            }
        }
        ChangeKind::Put(key, value) => drop(log.values.insert(key, value)),
    }
}

impl SimulatedLogs {
    fn push(&self, group: u64, kind: ChangeKind, written: Option<Written>) -> Result<(), LogError> {
        let mut view = self.shared.view.lock();
        if let Some(failure) = &view.failure {
            return Err(failure.clone());
        }
        let change = Change { group, kind };
        apply(&mut view.current, change.clone());
        view.requests.push_back(Request { change, written });
        drop(view);
        self.shared.queued.notify_one();
        Ok(())
    }

    fn look<V>(&self, group: u64, look: impl FnOnce(&GroupLog) -> V) -> V {
        look(self.shared.view.lock().current.entry(group).or_default())
    }
}

impl GroupLogs for SimulatedLogs {
    fn tail_bytes_max(&self) -> usize {
        // Small, so that older entries are read back.
        16 << 10
    }

    fn used_bytes(&self) -> u64 {
        0
    }

    fn extent(&self, group: u64) -> Result<Extent, LogError> {
        Ok(self.look(group, |log| Extent {
            purged: log.purged.clone(),
            last: log.entries.last_key_value().map(|(index, _)| *index),
        }))
    }

    fn append(&self, group: u64, entries: Vec<LogEntry>, written: Written) -> BoxFuture<'_, Result<(), LogError>> {
        Box::pin(async move { self.push(group, ChangeKind::Append(entries), Some(written)) })
    }

    fn truncate(&self, group: u64, index: u64, written: Written) -> Result<(), LogError> {
        self.push(group, ChangeKind::Truncate(index), Some(written))
    }

    fn purge(&self, group: u64, index: u64, note: Bytes) -> Result<(), LogError> {
        self.push(group, ChangeKind::Purge(index, note), None)
    }

    fn put_vote(&self, group: u64, key: &[u8], vote: Bytes, written: Written) -> Result<(), LogError> {
        self.push(group, ChangeKind::Put(key.to_vec(), vote), Some(written))
    }

    fn kept_votes(&self, _: u64) -> Result<Option<Vec<Bytes>>, LogError> {
        Ok(None)
    }

    fn put_lazily(&self, group: u64, key: &[u8], value: Bytes) -> Result<(), LogError> {
        self.push(group, ChangeKind::Put(key.to_vec(), value), None)
    }

    fn get(&self, group: u64, key: &[u8]) -> Result<Option<Bytes>, LogError> {
        Ok(self.look(group, |log| log.values.get(key).cloned()))
    }

    fn read(&self, group: u64, range: Range<u64>, bytes_max: usize) -> BoxFuture<'_, Result<Vec<LogEntry>, LogError>> {
        let entries = self.look(group, |log| {
            let mut bytes = 0;
            let mut found = Vec::new();
            for (_, entry) in log.entries.range(range) {
                bytes += entry.payload().len();
                if bytes > bytes_max && !found.is_empty() {
                    break;
                }
                found.push(entry.clone());
            }
            found
        });
        Box::pin(async move { Ok(entries) })
    }
}
