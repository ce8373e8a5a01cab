//! From commands to log entries: the leader's group commit.
//!
//! Commands wait in a bounded queue, and callers wait for room in it: that is the backpressure that reaches
//! the clients. One task takes all that wait at the moment, up to a limit, as one log entry. A few entries may
//! be under way at a time; while they are, the next batch grows. So an idle node adds no wait, and a busy one
//! writes large batches. Only a command that is in no hurry waits for a moment, so that it need not have an entry
//! of its own.

mod batch;

use std::collections::VecDeque;
use std::sync::Arc;

use dwell_machine::{Batch, COMMAND_FORMAT_UNANNOUNCED, Command, DetachAll, Reply};
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResult;
use prometheus::{Histogram, HistogramOpts, IntGauge, Registry, exponential_buckets};
use tokio::sync::{mpsc, oneshot};

use self::batch::Batches;
use crate::announcements::{Announcements, NotUnderstood, members};
use crate::clock::Clock;
use crate::types::{Proposal, Raft, TypeConfig};

/// Commands that may wait for a batch.
const QUEUE_COMMANDS_MAX: usize = 4096;
/// Log entries under way at a time. Two let one be written while the one before is being replicated; more
/// only make the batches smaller.
const ENTRIES_IN_FLIGHT_MAX: usize = 3;

/// Why a command has no reply.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ProposeError {
    /// This node is not the leader. The command was not applied, and will not be.
    #[error("this node is not the leader")]
    NotLeader,
    /// Leadership was lost, or storage failed, while the command was under way: it may be applied or not.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
    /// A member would stop at the command. It was not proposed.
    #[error(transparent)]
    NotUnderstood(#[from] NotUnderstood),
}

struct Pending {
    command: Command,
    hurry: Hurry,
    reply: oneshot::Sender<Result<Reply, ProposeError>>,
}

/// Whether a command may wait for others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hurry {
    /// It becomes part of the next log entry.
    Now,
    /// It may wait up to two milliseconds for another to share a log entry with, and is applied before those that are
    /// handed over later.
    None,
}

/// Where commands go in; cheap to clone.
#[derive(Clone)]
pub struct Proposer {
    queue: mpsc::Sender<Pending>,
    raft: Raft,
    announcements: Announcements,
}

/// A reply that is still to come.
#[derive(Debug)]
pub struct PendingReply(oneshot::Receiver<Result<Reply, ProposeError>>);

impl PendingReply {
    /// Waits until the command is applied.
    pub async fn wait(self) -> Result<Reply, ProposeError> {
        self.0.await.unwrap_or_else(|_| Err(ProposeError::Unknown("the node is stopping".into())))
    }
}

impl Proposer {
    /// Starts the task that makes log entries. `announcements` tell which commands the members understand.
    pub fn start(
        raft: Raft,
        clock: Arc<dyn Clock>,
        announcements: Announcements,
        registry: &Registry,
    ) -> Result<Proposer, prometheus::Error> {
        let metrics = Metrics::register(registry)?;
        let (queue, commands) = mpsc::channel(QUEUE_COMMANDS_MAX);
        let batches = Batches::new(commands);
        let worker = Worker { raft: raft.clone(), clock, metrics, batches, introduced: None, introducing: false };
        tokio::spawn(worker.run());
        Ok(Proposer { queue, raft, announcements })
    }

    /// Hands a command over, waiting for room. Commands of one caller are applied in the order of its calls.
    pub async fn submit(&self, command: Command, hurry: Hurry) -> PendingReply {
        let (reply, receiver) = oneshot::channel();
        if let Err(error) = self.check_understood(&command) {
            let _ = reply.send(Err(error.into()));
            return PendingReply(receiver);
        }
        // A closed queue drops the sender, which the receiver reports.
        let _ = self.queue.send(Pending { command, hurry, reply }).await;
        PendingReply(receiver)
    }

    /// Commands of the first format, which are nearly all, need no look at the members.
    fn check_understood(&self, command: &Command) -> Result<(), NotUnderstood> {
        if command.format() <= COMMAND_FORMAT_UNANNOUNCED {
            return Ok(());
        }
        self.announcements.check(command, members(&self.raft).into_iter().map(|(node_id, _)| node_id))
    }

    /// Hands a command over and waits until it is applied.
    pub async fn propose(&self, command: Command) -> Result<Reply, ProposeError> {
        self.submit(command, Hurry::Now).await.wait().await
    }
}

type WriteOutcome = Result<ClientWriteResult<TypeConfig>, String>;
type LeaderId = openraft::impls::leader_id_adv::LeaderId<u64, u64>;

struct Worker {
    raft: Raft,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    batches: Batches,
    /// The leadership whose first entry was committed: it began with [`DetachAll`].
    introduced: Option<LeaderId>,
    /// Such an entry is under way. It may be refused, as a new leader does until a majority has answered it, and
    /// is proposed again then; nothing may come before it.
    introducing: bool,
}

/// Who waits for an entry under way, and the leadership that it introduces, if it does.
struct Waiting {
    replies: Vec<oneshot::Sender<Result<Reply, ProposeError>>>,
    introduces: Option<LeaderId>,
}

impl Worker {
    async fn run(mut self) {
        let mut in_flight: FuturesOrdered<_> = FuturesOrdered::new();
        let mut waiting: VecDeque<Waiting> = VecDeque::new();
        loop {
            let may_propose = in_flight.len() < ENTRIES_IN_FLIGHT_MAX && !self.introducing;
            tokio::select! {
                Some(outcome) = in_flight.next(), if !in_flight.is_empty() => {
                    if let Some(entry) = waiting.pop_front() {
                        if entry.introduces.is_some() {
                            self.introducing = false;
                            self.introduced = entry.introduces.filter(|_| matches!(outcome, Ok(Ok(_))));
                        }
                        settle(entry.replies, outcome);
                    }
                }
                batch = self.batches.next(), if may_propose => {
                    let Some(batch) = batch else { return };
                    self.metrics.waiting.set(self.batches.waiting() as i64);
                    if let Some((write, entry)) = self.propose(batch).await {
                        in_flight.push_back(write);
                        waiting.push_back(entry);
                    }
                }
            }
        }
    }

    async fn propose(&mut self, batch: Vec<Pending>) -> Option<(impl Future<Output = WriteOutcome> + use<>, Waiting)> {
        let leader = match self.raft.as_leader() {
            Ok(leader) => leader,
            Err(_) => {
                for pending in batch {
                    let _ = pending.reply.send(Err(ProposeError::NotLeader));
                }
                return None;
            }
        };
        let leader_id = *leader.leader_id();
        // A new leader has no streams: whoever was attached to the one before is not any more, and whoever
        // attaches from now on comes later in the log.
        let introduces = (self.introduced != Some(leader_id)).then_some(leader_id);
        self.introducing = introduces.is_some();
        let introduction = introduces.map(|_| Command::DetachAll(DetachAll {}));
        let skipped = usize::from(introduction.is_some());

        let (commands, replies): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|pending| (pending.command, pending.reply)).unzip();
        self.metrics.commands.observe(commands.len() as f64);
        let payload = Batch::encode(self.clock.now_ms(), introduction.into_iter().chain(commands));
        self.metrics.bytes.observe(payload.len() as f64);

        let (responder, complete) = ProgressResponder::complete_only();
        let raft = self.raft.clone();
        let write =
            raft.write(Proposal(payload)).with_leader(leader.to_committed_leader_id()).responder(responder).await;
        let outcome = async move {
            write.map_err(|fatal| fatal.to_string())?;
            let mut result = complete.await.map_err(|_| "the node is stopping".to_string())?;
            if let Ok(response) = &mut result {
                response.data.drain(..skipped.min(response.data.len()));
            }
            Ok(result)
        };
        Some((outcome, Waiting { replies, introduces }))
    }
}

fn settle(waiting: Vec<oneshot::Sender<Result<Reply, ProposeError>>>, outcome: WriteOutcome) {
    let error = match outcome {
        Ok(Ok(response)) if response.data.len() == waiting.len() => {
            for (sender, reply) in waiting.into_iter().zip(response.data) {
                // Whoever does not wait any more has no use for the reply.
                let _ = sender.send(Ok(reply));
            }
            return;
        }
        Ok(Ok(response)) => {
            ProposeError::Unknown(format!("{} replies to {} commands", response.data.len(), waiting.len()))
        }
        Ok(Err(openraft::errors::ClientWriteError::ForwardToLeader(_))) => ProposeError::NotLeader,
        Ok(Err(error)) => ProposeError::Unknown(error.to_string()),
        Err(reason) => ProposeError::Unknown(reason),
    };
    for sender in waiting {
        let _ = sender.send(Err(error.clone()));
    }
}

struct Metrics {
    commands: Histogram,
    bytes: Histogram,
    waiting: IntGauge,
}

impl Metrics {
    fn register(registry: &Registry) -> Result<Metrics, prometheus::Error> {
        let commands = Histogram::with_opts(
            HistogramOpts::new("dwell_proposal_commands", "Commands of one log entry.")
                .buckets(exponential_buckets(1.0, 2.0, 11)?),
        )?;
        let bytes = Histogram::with_opts(
            HistogramOpts::new("dwell_proposal_bytes", "Encoded size of one log entry's commands.")
                .buckets(exponential_buckets(64.0, 4.0, 10)?),
        )?;
        let waiting = IntGauge::new("dwell_proposal_queue", "Commands waiting to become part of a log entry.")?;
        registry.register(Box::new(commands.clone()))?;
        registry.register(Box::new(bytes.clone()))?;
        registry.register(Box::new(waiting.clone()))?;
        Ok(Metrics { commands, bytes, waiting })
    }
}
