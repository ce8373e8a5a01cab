//! The real stores, and proposals for them.

use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use dwell_consensus::log_store::LogStore;
use dwell_consensus::state_machine::{ApplyObserver, StateMachine};
use dwell_consensus::types::{DEFAULT_GROUP, Proposal, Raft};
use dwell_machine::{Batch, Command, Content, DeclareQueue, Effect, Publish, PublishMessage, QueueSettings};
use dwell_storage::log::{Log, LogOptions};
use dwell_storage::state::{StateOptions, StateResources, StateStore};

const QUEUE: &str = "orders";

struct Unobserved;

impl ApplyObserver for Unobserved {
    fn applied(&self, _effects: Vec<Effect>, _released_due_ms: Vec<u64>, _next_wake_ms: Option<u64>) {}

    fn replaced(&self, _next_wake_ms: Option<u64>) {}
}

/// Closing a store flushes it, which takes a while: a process that is killed does not do that. So somebody holds
/// on to the stores while their node is killed.
pub type Hold = Box<dyn Any + Send>;

/// Opens a node's stores, and tells where it receives snapshots.
pub fn open(directory: &Path) -> (LogStore, StateMachine, PathBuf, Hold) {
    let log = Log::open(&directory.join("log"), LogOptions::default()).unwrap();
    let log_store = LogStore::open(log.clone(), DEFAULT_GROUP).unwrap();
    let resources = StateResources::new(StateOptions { memory_bytes: 32 << 20, ..StateOptions::default() }).unwrap();
    let state = StateStore::open(&directory.join("state"), &resources).unwrap();
    let snapshots = state.snapshot_directory().to_path_buf();
    let hold = Box::new((log, state.reader()));
    let state_machine = StateMachine::open(state, Arc::new(Unobserved), &prometheus::Registry::new()).unwrap();
    (log_store, state_machine, snapshots, hold)
}

/// Makes the queue that [`message`] publishes to.
pub fn queue() -> Proposal {
    let settings = QueueSettings { lease_timeout_ms: 30_000, ..QueueSettings::default() };
    propose(Command::DeclareQueue(DeclareQueue { queue: QUEUE.to_owned(), settings }))
}

/// One message with this body.
pub fn message(body: impl Into<Bytes>) -> Proposal {
    let content = Content { body: body.into(), ..Content::default() };
    let message = PublishMessage { routing_key: QUEUE.to_owned(), content, ..PublishMessage::default() };
    propose(Command::Publish(Publish { messages: vec![message], producer: None }))
}

fn propose(command: Command) -> Proposal {
    Proposal(Batch::encode(1, [command]))
}

/// What a node's machine holds, for comparison.
pub async fn contents(raft: &Raft) -> String {
    raft.with_state_machine(|state_machine: &mut StateMachine| {
        let queues = format!("{:?}", state_machine.machine().queues("", None, 100));
        Box::pin(async move { queues })
    })
    .await
    .unwrap()
}
