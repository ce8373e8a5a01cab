//! The replicated state machine: Dwell's machine over the state on disk, as openraft drives it.
//!
//! # To ensure correctness
//!
//! The state on disk may be older than what was applied before a crash, because only the log is synced at each
//! write. The log is replayed from there, so the entries from the state's position on must still be in the log:
//!
//! - The log is purged only up to a snapshot that is complete and durable.
//! - A snapshot that was built here began with a flush of this state, so the state on disk is at the snapshot or
//!   beyond it, on this start and on every later one.
//! - A snapshot that was received is made durable before the state is replaced by it, and openraft purges after
//!   both. If a crash comes between the two, openraft finds the snapshot newer than the state on the next start,
//!   and installs it again.
//!
//! So the state on disk is never older than the log's beginning.
//!
//! The other way round, the state may be newer than the log: entries are applied when a majority has them on
//! disk, which need not include this node, and RocksDB may flush at any time. openraft then drops the whole log
//! on the next start. [`StateMachine::cover`] sees to it that there is a snapshot in its place.

mod builder;
mod chunk;
mod digests;
mod metrics;

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use dwell_machine::{Applied, Batch, Effect, Machine};
use dwell_storage::snapshot::Snapshot;
use dwell_storage::state::{StateReader, StateStore};
use futures::Stream;
use openraft::storage::{ApplyResponder, EntryResponder, RaftStateMachine, Snapshot as RaftSnapshot};
use openraft::type_config::alias::SnapshotOf;
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use prometheus::Registry;

pub use builder::SnapshotBuilder;
use chunk::Chunk;
pub use digests::PendingDigest;
pub(crate) use digests::{AHEAD_MAX, WAITING_MAX};
use digests::{Begun, Digests};
use metrics::StateMachineMetrics;

use crate::blocking;
use crate::codec::{decode_applied, encode_applied};
use crate::digest::DigestError;
use crate::types::{LogId, Proposal, Replies, SnapshotMeta, StoredMembership, TypeConfig};

/// A snapshot with its meta data, as openraft wants it.
type SnapshotOfState = SnapshotOf<TypeConfig, Snapshot>;

/// Chunks with fewer bytes are applied on the thread that asks: they take less time than handing it over.
const INLINE_BYTES_MAX: usize = 64 << 10;

/// Told of what was applied, after it is readable. Called in the order of the log, from the thread that applies,
/// so it must not block.
pub trait ApplyObserver: Send + Sync + 'static {
    /// Effects of committed entries, in order; `next_wake_ms` is when the machine next wants a release pulse.
    fn applied(&self, effects: Vec<Effect>, released_due_ms: Vec<u64>, next_wake_ms: Option<u64>);

    /// The whole state was replaced by a snapshot.
    fn replaced(&self, next_wake_ms: Option<u64>);
}

/// Applies committed entries to the machine and its store. A fault of either is an error of the group for good:
/// an entry is never skipped.
pub struct StateMachine {
    store: StateStore,
    machine: Machine,
    last_applied: Option<LogId>,
    membership: StoredMembership,
    observer: Arc<dyn ApplyObserver>,
    metrics: StateMachineMetrics,
    digests: Digests,
}

/// What came of a chunk, and who waits for it.
#[derive(Default)]
struct Outcome {
    effects: Vec<Effect>,
    released_due_ms: Vec<u64>,
    answers: Vec<(ApplyResponder<TypeConfig>, Replies)>,
}

impl StateMachine {
    /// Opens the machine on what the store holds. The observer hears of the first pulse that it wants.
    pub fn open(store: StateStore, observer: Arc<dyn ApplyObserver>, registry: &Registry) -> io::Result<StateMachine> {
        let metrics = StateMachineMetrics::register(registry).map_err(io::Error::other)?;
        let digests = Digests::register(registry).map_err(io::Error::other)?;
        store.resources().register_metrics(registry).map_err(io::Error::other)?;
        let SnapshotMeta { last_log_id, last_membership } = applied_meta(store.applied()?)?;
        let machine = Machine::open(&store).map_err(io::Error::other)?;
        if let Some(snapshot) = store.current_snapshot() {
            metrics.set_snapshot_bytes(snapshot.length());
        }
        observer.replaced(machine.next_wake_ms());
        Ok(StateMachine {
            store,
            machine,
            last_applied: last_log_id,
            membership: last_membership,
            observer,
            metrics,
            digests,
        })
    }

    /// False on an empty disk.
    pub(crate) fn has_applied(&self) -> bool {
        self.last_applied.is_some()
    }

    /// The machine, as of the last applied entry.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Index of the last applied entry; 0 before the first one.
    pub fn applied_index(&self) -> u64 {
        self.last_applied.map_or(0, |applied| applied.index)
    }

    /// The rows, as of the last applied entry.
    pub fn store(&self) -> &StateStore {
        &self.store
    }

    /// Reads from the machine and the rows as of the last applied entry. Rows may have to come from the disk.
    pub fn read_rows<V>(&self, read: impl FnOnce(&Machine, &StateStore) -> V) -> V {
        blocking::in_place(|| read(&self.machine, &self.store))
    }

    /// Reads the rows from other threads.
    pub fn reader(&self) -> StateReader {
        self.store.reader()
    }

    /// Asks for the digest of all rows as of an index, or of the next entry. If it is that of the last entry, nothing may
    /// be applied before what is returned besides resolves.
    pub(crate) fn request_digest(
        &mut self,
        at_index: Option<u64>,
    ) -> Result<(PendingDigest, Option<Begun>), DigestError> {
        let pending = self.digests.request(at_index, self.last_applied.map_or(0, |applied| applied.index))?;
        Ok((pending, self.begin_digest()))
    }

    /// Begins the digest that is wanted as of the last applied entry, if there is one.
    fn begin_digest(&mut self) -> Option<Begun> {
        self.digests.reached(self.last_applied?.index, &self.store)
    }

    /// Makes a snapshot if the state is ahead of a log that ends at `last_log_id`. To be called before Raft is
    /// started: it will drop that log, and then only a snapshot can bring others to where it ended. True if one
    /// was made.
    pub async fn cover(&mut self, last_log_id: Option<LogId>) -> io::Result<bool> {
        let current = self.store.current_snapshot().map(|snapshot| snapshot_meta(&snapshot)).transpose()?;
        let covered = current.and_then(|meta| meta.last_log_id);
        if self.last_applied <= last_log_id || self.last_applied <= covered {
            return Ok(false);
        }
        self.get_snapshot_builder().await.build_snapshot().await?;
        Ok(true)
    }

    /// Applies the entries of a chunk and writes them and the new position, all or nothing.
    fn execute(&mut self, chunk: Chunk) -> io::Result<Outcome> {
        let mut outcome = Outcome::default();
        let mut last_applied = self.last_applied;
        let mut membership = self.membership.clone();
        for (entry, responder) in chunk.entries {
            let replies = match entry.payload {
                EntryPayload::Blank => Replies::new(),
                EntryPayload::Membership(members) => {
                    membership = StoredMembership::new(Some(entry.log_id), members);
                    Replies::new()
                }
                EntryPayload::Normal(proposal) => {
                    let applied = self.apply_proposal(proposal)?;
                    outcome.effects.extend(applied.effects);
                    outcome.released_due_ms.extend(applied.released_due_ms);
                    applied.replies
                }
            };
            last_applied = Some(entry.log_id);
            outcome.answers.extend(responder.map(|responder| (responder, replies)));
        }
        self.store.commit(&encode_applied(last_applied.as_ref(), &membership))?;
        self.last_applied = last_applied;
        self.membership = membership;
        Ok(outcome)
    }

    fn apply_proposal(&mut self, proposal: Proposal) -> io::Result<Applied> {
        // What a majority has accepted cannot be refused any more. A node that does not understand it stops,
        // until it runs a version that does.
        let (at_ms, commands) =
            Batch::decode(proposal.0).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        self.machine.apply(&mut self.store, at_ms, commands).map_err(io::Error::other)
    }

    fn install(&mut self, meta: &SnapshotMeta, snapshot: &Snapshot) -> io::Result<()> {
        if snapshot_meta(snapshot)? != *meta {
            let reason = "the snapshot's meta data are not those in its manifest";
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        self.store.install(snapshot)?;
        self.machine = Machine::open(&self.store).map_err(io::Error::other)?;
        self.last_applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
        Ok(())
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = Snapshot;
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> io::Result<(Option<LogId>, StoredMembership)> {
        Ok((self.last_applied, self.membership.clone()))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = io::Result<EntryResponder<TypeConfig>>> + Unpin + OptionalSend,
    {
        while let Some(chunk) = Chunk::next(&mut entries, self.digests.next_index()).await? {
            self.metrics.apply_entries.observe(chunk.entries.len() as f64);
            let timer = self.metrics.apply_seconds.start_timer();
            let outcome = match chunk.bytes {
                0..=INLINE_BYTES_MAX => self.execute(chunk)?,
                _ => blocking::in_place(|| self.execute(chunk))?,
            };
            timer.observe_duration();
            self.metrics.unwritten_bytes.set(i64::try_from(self.store.unwritten_bytes()).unwrap_or(i64::MAX));
            if let Some(begun) = self.begin_digest() {
                // An error means that the digest failed, which is told to those who asked for it.
                let _ = begun.await;
            }
            // Effects before answers: who has his answer may count on the leader acting on it.
            self.observer.applied(outcome.effects, outcome.released_due_ms, self.machine.next_wake_ms());
            for (responder, replies) in outcome.answers {
                responder.send(replies);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder { builder: Some(self.store.snapshot_builder()), metrics: self.metrics.clone() }
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMeta, snapshot: Snapshot) -> io::Result<()> {
        let timer = self.metrics.snapshot_seconds.start_timer();
        blocking::in_place(|| self.install(meta, &snapshot))?;
        timer.observe_duration();
        self.metrics.set_snapshot_bytes(snapshot.length());
        tracing::info!(?snapshot, bytes = snapshot.length(), "snapshot installed");
        self.observer.replaced(self.machine.next_wake_ms());
        if let Some(begun) = self.begin_digest() {
            let _ = begun.await;
        }
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOfState>> {
        let current = self.store.current_snapshot();
        current.map(|snapshot| Ok(RaftSnapshot { meta: snapshot_meta(&snapshot)?, snapshot })).transpose()
    }
}

/// What a snapshot covers, by its own record.
pub(crate) fn snapshot_meta(snapshot: &Snapshot) -> io::Result<SnapshotMeta> {
    applied_meta(Some(snapshot.applied().clone()).filter(|applied| !applied.is_empty()))
}

fn applied_meta(applied: Option<Bytes>) -> io::Result<SnapshotMeta> {
    Ok(applied.map(decode_applied).transpose()?.unwrap_or_default())
}
