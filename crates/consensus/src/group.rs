//! One Raft group of a node: its stores, its Raft, its proposer and its timer service.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use dwell_machine::{Effect, Machine};
use dwell_storage::log::GroupLogs;
use dwell_storage::state::{StateReader, StateStore};
use openraft::ReadPolicy;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::storage::RaftLogStorage as _;
use prometheus::Registry;
use tokio::sync::watch;

use crate::announcements::{self, Announcements, Announcer};
use crate::clock::Clock;
use crate::identity::ClusterIdentity;
use crate::leadership::{self, Leadership};
use crate::log_store::LogStore;
use crate::membership;
use crate::options::{RaftOptions, raft_config};
use crate::peer::PeerNetwork;
use crate::proposer::Proposer;
use crate::recovery::RecoveryGate;
use crate::state_machine::{ApplyObserver, StateMachine};
use crate::timer;
use crate::types::{GroupId, LogId, NodeAddress, NodeId, Raft};

/// How often the size of the log is looked at.
const LOG_SIZE_INTERVAL: std::time::Duration = std::time::Duration::from_secs(1);
/// How often it is looked whether Raft still runs.
const WATCH_INTERVAL: std::time::Duration = std::time::Duration::from_secs(1);

/// Takes the effects of committed entries; called in log order, right after they are readable, and expected
/// to return at once.
pub trait EffectSink: Send + Sync + 'static {
    /// `released_due_ms`: due times of messages that were just released.
    fn effects(&self, effects: Vec<Effect>, released_due_ms: Vec<u64>);

    /// The whole state was replaced by a snapshot.
    fn replaced(&self) {}
}

/// What a group is started with.
pub struct GroupOptions {
    /// This node.
    pub node_id: NodeId,
    /// The group.
    pub group_id: GroupId,
    /// The first membership, for a group that has none yet: the same list on every node. Empty: the node waits until it
    /// is made a member.
    pub members: BTreeMap<NodeId, NodeAddress>,
    /// The node's logs.
    pub logs: Arc<dyn GroupLogs>,
    /// The group's state.
    pub state: StateStore,
    /// Reaches the other nodes.
    pub network: PeerNetwork,
    /// Elections, snapshots.
    pub raft: RaftOptions,
    /// Closed to elections while this node recovers from damage.
    pub gate: RecoveryGate,
    /// The wall clock for proposals.
    pub clock: Arc<dyn Clock>,
    /// Where the effects go.
    pub effects: Arc<dyn EffectSink>,
    /// Which cluster the node's data is of.
    pub identity: ClusterIdentity,
    /// What the node says of itself.
    pub announcer: Announcer,
}

/// Why a group did not start.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// A store did not open.
    #[error("opening the group's stores failed: {0}")]
    Storage(#[from] io::Error),
    /// The options contradict each other.
    #[error("the Raft options are invalid: {0}")]
    Options(String),
    /// openraft gave up.
    #[error("starting Raft failed: {0}")]
    Raft(String),
    /// A metric is registered twice.
    #[error("registering a metric failed: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Why a read was not answered.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Only the leader can tell what is current.
    #[error("this node is not the leader")]
    NotLeader,
    /// Raft has stopped.
    #[error("the node is stopping: {0}")]
    Stopped(String),
}

/// A running group; cheap to clone.
#[derive(Clone)]
pub struct Group {
    /// This node's id.
    pub node_id: NodeId,
    /// openraft's handle, for status and the peer service.
    pub raft: Raft,
    /// Where commands go in.
    pub proposer: Proposer,
    /// Reads stored messages.
    pub reader: StateReader,
    /// Who leads.
    pub leadership: watch::Receiver<Leadership>,
    /// Which cluster this is.
    pub identity: ClusterIdentity,
    /// What the members say of themselves, while this node leads.
    pub announcements: Announcements,
}

/// A group as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupStatus {
    /// The current term.
    pub term: u64,
    /// `None` while there is no leader.
    pub leader_id: Option<NodeId>,
    /// Index of the last entry in this node's log; 0 if it is empty, as for the others.
    pub last_log_index: u64,
    /// Index up to which the log is committed, as far as this node knows.
    pub committed_index: u64,
    /// Index up to which the log is applied here.
    pub applied_index: u64,
    /// Index of the last snapshot.
    pub snapshot_index: u64,
    /// Index up to which the log is purged.
    pub purged_index: u64,
    /// Members with their addresses, and whether they vote.
    pub members: Vec<(NodeId, NodeAddress, bool)>,
    /// Why Raft has stopped, if it has.
    pub failure: Option<String>,
}

/// How current a read must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// Sees everything that was confirmed before the read began.
    Linearizable,
    /// Sees what this node has applied so far.
    Stale,
}

impl Group {
    /// Opens the stores, starts Raft and, on the leader, the timer service.
    pub async fn start(options: GroupOptions, registry: &Registry) -> Result<Group, GroupError> {
        let (next_wake, next_wake_ms) = watch::channel(None);
        let observer = Arc::new(Observer { next_wake, effects: options.effects });
        let reader = options.state.reader();
        let mut log_store = LogStore::open(options.logs.clone(), options.group_id)?;
        let mut state_machine = StateMachine::open(options.state, observer, registry)?;
        // After a crash the flushed state may be ahead of this node's own log. openraft then drops that log, and
        // other nodes can be brought to where it ended by a snapshot only.
        let last_log_id = log_store.get_log_state().await?.last_log_id;
        if state_machine.cover(last_log_id).await? {
            tracing::info!("made a snapshot of a state that was ahead of the log");
        }
        let mut config = raft_config(&options.raft).map_err(|error| GroupError::Options(error.to_string()))?;
        let is_recovering = options.gate.is_recovering();
        let identity = options.identity;
        // A first membership, which a node writes itself before it has heard of anybody, is no data.
        let has_data = last_log_id.is_some_and(|last| last.index > 0) || state_machine.has_applied();
        if !has_data && !is_recovering {
            identity.began_empty();
        }
        let network = options.network.identified(identity.clone());
        let links = network.links().clone();
        config.enable_elect = !is_recovering;
        let raft = Raft::new(options.node_id, Arc::new(config), network, log_store, state_machine)
            .await
            .map_err(|error| GroupError::Raft(error.to_string()))?;
        let leadership = leadership::watch(&raft);
        let announcements = Announcements::default();
        let proposer = Proposer::start(raft.clone(), options.clock.clone(), announcements.clone(), registry)?;
        tokio::spawn(timer::run(proposer.clone(), options.clock, next_wake_ms, leadership.clone()));
        tokio::spawn(bound_log(raft.clone(), options.logs, options.raft));
        tokio::spawn(membership::complete_changes(raft.clone(), leadership.clone()));
        let node_id = options.node_id;
        let group = Group { node_id, raft, proposer, reader, leadership, identity, announcements };
        tokio::spawn(announcements::run(group.clone(), links, options.group_id, options.announcer));
        // A node that recovers is a member of a group that there is.
        if !is_recovering {
            group.initialize(options.members).await?;
        }
        Ok(group)
    }

    /// Forms the group, if it has no membership yet. Every node of the first membership does so, with the same
    /// list: openraft makes sure that one election comes of it.
    async fn initialize(&self, members: BTreeMap<NodeId, NodeAddress>) -> Result<(), GroupError> {
        let initialized = self.raft.is_initialized().await.map_err(|error| GroupError::Raft(error.to_string()))?;
        if initialized || members.is_empty() {
            return Ok(());
        }
        match self.raft.initialize(members).await {
            Ok(()) => Ok(()),
            // Another node's first message arrived in between.
            Err(openraft::errors::RaftError::APIError(openraft::errors::InitializeError::NotAllowed(_))) => Ok(()),
            Err(error) => Err(GroupError::Raft(error.to_string())),
        }
    }

    /// The group as this node sees it.
    pub fn status(&self) -> GroupStatus {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let index = |log_id: Option<LogId>| log_id.map_or(0, |log_id| log_id.index);
        let membership = &metrics.membership_config;
        let voters: std::collections::BTreeSet<NodeId> = membership.voter_ids().collect();
        GroupStatus {
            term: metrics.current_term,
            leader_id: metrics.current_leader,
            last_log_index: metrics.last_log_index.unwrap_or(0),
            committed_index: index(metrics.local_committed),
            applied_index: index(metrics.last_applied),
            snapshot_index: index(metrics.snapshot),
            purged_index: index(metrics.purged),
            members: membership.nodes().map(|(id, address)| (*id, address.clone(), voters.contains(id))).collect(),
            failure: metrics.running_state.as_ref().err().map(ToString::to_string),
        }
    }

    /// Resolves when Raft has stopped, and says why: its storage failed, or it panicked, of which the status says nothing.
    pub async fn stopped(&self) -> String {
        loop {
            if let Err(failure) = self.raft.with_raft_state(|_| ()).await {
                return failure.to_string();
            }
            tokio::time::sleep(WATCH_INTERVAL).await;
        }
    }

    /// Reads from the machine in memory.
    pub async fn read<V: Send + 'static>(
        &self,
        consistency: Consistency,
        read: impl FnOnce(&Machine) -> V + Send + 'static,
    ) -> Result<V, ReadError> {
        self.await_current(consistency).await?;
        self.raft
            .with_state_machine(|state_machine: &mut StateMachine| {
                let value = read(state_machine.machine());
                Box::pin(async move { value })
            })
            .await
            .map_err(|error| ReadError::Stopped(error.to_string()))
    }

    /// Reads from the machine and its rows, both as of the same entry. No entry is applied meanwhile, so it must
    /// be a bounded number of rows.
    pub async fn read_rows<V: Send + 'static>(
        &self,
        consistency: Consistency,
        read: impl FnOnce(&Machine, &StateStore) -> V + Send + 'static,
    ) -> Result<V, ReadError> {
        self.await_current(consistency).await?;
        self.raft
            .with_state_machine(|state_machine: &mut StateMachine| {
                let value = state_machine.read_rows(read);
                Box::pin(async move { value })
            })
            .await
            .map_err(|error| ReadError::Stopped(error.to_string()))
    }

    /// Waits until a read on this node is as current as asked for.
    pub(crate) async fn await_current(&self, consistency: Consistency) -> Result<(), ReadError> {
        if consistency == Consistency::Linearizable {
            // ReadIndex, never a lease: a deposed leader finds out before it answers.
            let linearizer =
                self.raft.get_read_linearizer(ReadPolicy::ReadIndex).await.map_err(|_| ReadError::NotLeader)?;
            linearizer.await_ready(&self.raft).await.map_err(|error| ReadError::Stopped(error.to_string()))?;
        }
        Ok(())
    }
}

/// Asks for a snapshot when the log's files take too much room, so that it can be purged.
async fn bound_log(raft: Raft, logs: Arc<dyn GroupLogs>, options: RaftOptions) {
    loop {
        tokio::time::sleep(LOG_SIZE_INTERVAL).await;
        let (applied, snapshot) = {
            let metrics = raft.metrics();
            let metrics = metrics.borrow_watched();
            if metrics.running_state.is_err() {
                return;
            }
            let index = |log_id: Option<LogId>| log_id.map_or(0, |log_id| log_id.index);
            (index(metrics.last_applied), index(metrics.snapshot))
        };
        // Behind a snapshot some entries are kept: one that covers no more than those again would free little.
        let is_worth_it = applied > snapshot + options.snapshot_log_entries_kept;
        if is_worth_it && logs.used_bytes() > options.snapshot_log_bytes {
            tracing::info!(applied, snapshot, "the log has grown large: making a snapshot");
            if let Err(error) = raft.trigger().snapshot().await {
                tracing::warn!(%error, "the snapshot was not begun");
            }
        }
    }
}

struct Observer {
    next_wake: watch::Sender<Option<u64>>,
    effects: Arc<dyn EffectSink>,
}

impl Observer {
    fn set_next_wake(&self, next_wake_ms: Option<u64>) {
        self.next_wake.send_if_modified(|current| std::mem::replace(current, next_wake_ms) != next_wake_ms);
    }
}

impl ApplyObserver for Observer {
    fn applied(&self, effects: Vec<Effect>, released_due_ms: Vec<u64>, next_wake_ms: Option<u64>) {
        if !effects.is_empty() || !released_due_ms.is_empty() {
            self.effects.effects(effects, released_due_ms);
        }
        self.set_next_wake(next_wake_ms);
    }

    fn replaced(&self, next_wake_ms: Option<u64>) {
        self.effects.replaced();
        self.set_next_wake(next_wake_ms);
    }
}
