//! From commands to log entries: the leader's group commit.
//!
//! Commands wait in a bounded queue, and callers wait for room in it: that is the backpressure that reaches
//! the clients. One task takes all that wait at the moment, up to a limit, as one log entry. A few entries may
//! be under way at a time; while they are, the next batch grows. So an idle node adds no wait, and a busy one
//! writes large batches, without a timer.

use std::collections::VecDeque;
use std::sync::Arc;

use dwell_machine::limits::{REVISE_HANDLES_MAX, REVISE_STEP_MAX};
use dwell_machine::{Ack, Batch, Command, DetachAll, Extend, Nack, PublishMessage, Receive, Reply, Revise};
use futures::StreamExt;
use futures::stream::FuturesOrdered;
use openraft::impls::ProgressResponder;
use openraft::raft::ClientWriteResult;
use prometheus::{Histogram, HistogramOpts, IntGauge, Registry, exponential_buckets};
use tokio::sync::{mpsc, oneshot};

use crate::clock::Clock;
use crate::types::{Proposal, Raft, TypeConfig};

/// Commands that may wait for a batch.
const QUEUE_COMMANDS_MAX: usize = 4096;
/// Most commands of one log entry.
const BATCH_COMMANDS_MAX: usize = 1024;
/// A batch takes no further command once its commands weigh this much: see [`weight`].
const BATCH_WEIGHT_MAX: usize = 1024 * 1024;
/// What a message or a lease weighs besides its body, so that a batch holds no more than some thousand: applying
/// them takes ten milliseconds or so, for which the commands of others wait.
const ITEM_WEIGHT: usize = 512;
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
}

struct Pending {
    command: Command,
    reply: oneshot::Sender<Result<Reply, ProposeError>>,
}

/// Where commands go in; cheap to clone.
#[derive(Clone)]
pub struct Proposer {
    queue: mpsc::Sender<Pending>,
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
    /// Starts the task that makes log entries.
    pub fn start(raft: Raft, clock: Arc<dyn Clock>, registry: &Registry) -> Result<Proposer, prometheus::Error> {
        let metrics = Metrics::register(registry)?;
        let (queue, commands) = mpsc::channel(QUEUE_COMMANDS_MAX);
        let worker = Worker { raft, clock, metrics, commands, carried: None, introduced: None, introducing: false };
        tokio::spawn(worker.run());
        Ok(Proposer { queue })
    }

    /// Hands a command over, waiting for room. Commands of one caller are applied in the order of its calls.
    pub async fn submit(&self, command: Command) -> PendingReply {
        let (reply, receiver) = oneshot::channel();
        // A closed queue drops the sender, which the receiver reports.
        let _ = self.queue.send(Pending { command, reply }).await;
        PendingReply(receiver)
    }

    /// Hands a command over and waits until it is applied.
    pub async fn propose(&self, command: Command) -> Result<Reply, ProposeError> {
        self.submit(command).await.wait().await
    }
}

type WriteOutcome = Result<ClientWriteResult<TypeConfig>, String>;
type LeaderId = openraft::impls::leader_id_adv::LeaderId<u64, u64>;

struct Worker {
    raft: Raft,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    commands: mpsc::Receiver<Pending>,
    /// Taken from the queue, and over the last batch's limit.
    carried: Option<Pending>,
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
                first = next_command(&mut self.carried, &mut self.commands), if may_propose => {
                    let Some(first) = first else { return };
                    let batch = self.collect(first);
                    self.metrics.waiting.set(self.commands.len() as i64);
                    if let Some((write, entry)) = self.propose(batch).await {
                        in_flight.push_back(write);
                        waiting.push_back(entry);
                    }
                }
            }
        }
    }

    /// All that waits, up to the limits of one entry.
    fn collect(&mut self, first: Pending) -> Vec<Pending> {
        let mut total = weight(&first.command);
        let mut batch = vec![first];
        while batch.len() < BATCH_COMMANDS_MAX && total < BATCH_WEIGHT_MAX {
            let Ok(next) = self.commands.try_recv() else { break };
            total += weight(&next.command);
            if total > BATCH_WEIGHT_MAX {
                self.carried = Some(next);
                break;
            }
            batch.push(next);
        }
        batch
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

async fn next_command(carried: &mut Option<Pending>, commands: &mut mpsc::Receiver<Pending>) -> Option<Pending> {
    match carried.take() {
        Some(pending) => Some(pending),
        None => commands.recv().await,
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

/// How much a command adds to a batch: its bodies, and the work of its messages and leases.
fn weight(command: &Command) -> usize {
    match command {
        Command::Publish(publish) => weight_of_messages(&publish.messages),
        Command::Transact(transact) => {
            let leases: usize = transact.acks.iter().map(|ack| ack.leases.len()).sum();
            leases * ITEM_WEIGHT + weight_of_messages(&transact.publish.messages)
        }
        Command::Ack(Ack { leases, .. })
        | Command::Nack(Nack { leases, .. })
        | Command::Extend(Extend { leases, .. }) => leases.len() * ITEM_WEIGHT,
        Command::Receive(Receive { messages_max, .. }) => *messages_max as usize * ITEM_WEIGHT,
        Command::Revise(Revise { sequences, .. }) => sequences.len() * ITEM_WEIGHT,
        // How many messages these find is known when they are applied: they count as if they found the most.
        Command::ReviseById(_) => REVISE_HANDLES_MAX * ITEM_WEIGHT,
        Command::ReviseMatching(_) => REVISE_STEP_MAX * ITEM_WEIGHT,
        Command::DeclareSchedule(declare) => weight_of_messages(std::slice::from_ref(&declare.definition.message)),
        _ => ITEM_WEIGHT,
    }
}

fn weight_of_messages(messages: &[PublishMessage]) -> usize {
    messages.iter().map(|message| message.content.body.len() + ITEM_WEIGHT).sum()
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
