//! What clients saw and what was done to the cluster, in the order in which it happened.
//!
//! The form is Jepsen's: each call is an `invoke`, completed by `ok` (it took effect), `fail` (it did not) or `info` (it
//! may or may not have). In difference to Jepsen's processes, one of these may have several calls under way: an answer
//! names the call that it completes.

mod edn;
mod recorder;

use std::io::{BufRead, Write};

use serde::{Deserialize, Serialize};

pub use self::recorder::{Invocation, Recorder};

/// Why a history cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file or stream failed.
    #[error("a history cannot be written or read: {0}")]
    Stream(#[from] std::io::Error),
    /// A line is no event.
    #[error("an event cannot be written or read: {0}")]
    Event(#[from] serde_json::Error),
}

/// Everything that happened in one run, by index.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// Their indexes count from 0, their times never fall.
    pub events: Vec<Event>,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Its place in the history, from 0.
    pub index: u64,
    /// Whose it is.
    pub process: Process,
    /// Whether it begins or ends a call.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// What was called; completions repeat it.
    #[serde(rename = "f")]
    pub function: Function,
    /// True time since the run began, in nanoseconds. No fault touches this clock.
    #[serde(rename = "time")]
    pub time_ns: u64,
    /// The call, its answer, or what was done to the cluster.
    pub value: Value,
}

/// Who acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Process {
    /// One of the workload's.
    Client(u32),
    /// Who injects faults and looks at the nodes.
    Nemesis,
}

/// What an event says about its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// It begins.
    Invoke,
    /// It took effect.
    Ok,
    /// It had no effect.
    Fail,
    /// It may have had an effect, or may still. Everything of the nemesis is of this kind too.
    Info,
}

/// The name of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)] // The names of `Call` and `Deed`.
pub enum Function {
    Publish,
    Receive,
    Settle,
    Revise,
    ReviseMatching,
    Transact,
    OpenConsumer,
    CloseConsumer,
    DeclareSchedule,
    StopSchedule,
    Browse,
    Topology,
    StartFault,
    StopFault,
    Clock,
    Digest,
    Healed,
}

impl Function {
    /// The name as it is written, in words joined by hyphens.
    pub fn name(self) -> &'static str {
        match self {
            Function::Publish => "publish",
            Function::Receive => "receive",
            Function::Settle => "settle",
            Function::Revise => "revise",
            Function::ReviseMatching => "revise-matching",
            Function::Transact => "transact",
            Function::OpenConsumer => "open-consumer",
            Function::CloseConsumer => "close-consumer",
            Function::DeclareSchedule => "declare-schedule",
            Function::StopSchedule => "stop-schedule",
            Function::Browse => "browse",
            Function::Topology => "topology",
            Function::StartFault => "start-fault",
            Function::StopFault => "stop-fault",
            Function::Clock => "clock",
            Function::Digest => "digest",
            Function::Healed => "healed",
        }
    }
}

/// What an event carries.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Value {
    /// Of an invocation.
    Call(Call),
    /// Of a completion.
    Answer {
        /// Index of the invocation.
        call: u64,
        /// What came back; of a call that is `ok` only.
        answer: Option<Answer>,
        /// Why it is not `ok`.
        error: Option<String>,
    },
    /// Of the nemesis.
    Deed(Deed),
}

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Call {
    /// Publish all of these in one request.
    Publish {
        /// The request's producer and its number with it, if the workload chose them: to repeat the request.
        producer: Option<(String, u64)>,
        /// In order.
        messages: Vec<Publication>,
    },
    /// Wait for messages: of a stream if there is a consumer, or else by one call.
    Receive {
        /// Where from.
        queue: String,
        /// The id of the stream's consumer.
        consumer: Option<String>,
    },
    /// End or extend a lease.
    Settle {
        /// Which.
        lease: Lease,
        /// How.
        settlement: Settlement,
    },
    /// Change plans for one message.
    Revise {
        /// The queue that holds it.
        queue: String,
        /// Of its handle.
        sequence: u64,
        /// What to do with it.
        revision: Revision,
        /// Even if it is leased.
        revoke: bool,
    },
    /// Recall all messages of a queue that belong to a batch.
    ReviseMatching {
        /// The queue.
        queue: String,
        /// See [`Publication::batch`].
        batch: u64,
    },
    /// Acknowledge and publish in one step.
    Transact {
        /// What to acknowledge.
        leases: Vec<Lease>,
        /// What to publish.
        messages: Vec<Publication>,
    },
    /// Open a consumer, or resume one.
    OpenConsumer {
        /// Of what.
        queue: String,
        /// Its id.
        consumer: String,
        /// How long its leases outlive its stream.
        session_timeout_ms: u64,
    },
    /// End a consumer: its leases return.
    CloseConsumer {
        /// Of what.
        queue: String,
        /// Its id.
        consumer: String,
    },
    /// Declare a schedule.
    DeclareSchedule(ScheduleFacts),
    /// Pause a schedule, and ask how often it fired.
    StopSchedule {
        /// Its name.
        schedule: String,
    },
    /// Read what stands in a queue.
    Browse {
        /// The queue.
        queue: String,
    },
}

impl Call {
    /// Its name.
    pub fn function(&self) -> Function {
        match self {
            Call::Publish { .. } => Function::Publish,
            Call::Receive { .. } => Function::Receive,
            Call::Settle { .. } => Function::Settle,
            Call::Revise { .. } => Function::Revise,
            Call::ReviseMatching { .. } => Function::ReviseMatching,
            Call::Transact { .. } => Function::Transact,
            Call::OpenConsumer { .. } => Function::OpenConsumer,
            Call::CloseConsumer { .. } => Function::CloseConsumer,
            Call::DeclareSchedule(_) => Function::DeclareSchedule,
            Call::StopSchedule { .. } => Function::StopSchedule,
            Call::Browse { .. } => Function::Browse,
        }
    }
}

/// One message as it is published.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Publication {
    /// Unique to the message; its copies and dead letters carry it too.
    pub message: u64,
    /// Where to: a queue, or an exchange if [`Publication::through_exchange`].
    pub to: String,
    /// Whether `to` is an exchange.
    #[serde(default)]
    pub through_exchange: bool,
    /// Ready so long after the commit; none is at once.
    pub delay_ms: Option<u64>,
    /// Ready at this time instead, in milliseconds since the epoch.
    #[serde(default)]
    pub deliver_at_ms: Option<i64>,
    /// See the API.
    pub ttl_ms: Option<u64>,
    /// It expires at this time, wherever it stands, in milliseconds since the epoch.
    #[serde(default)]
    pub expire_at_ms: Option<i64>,
    /// See the API.
    pub priority: u8,
    /// See the API.
    pub group: Option<String>,
    /// See the API.
    pub dedupe_id: Option<String>,
    /// Messages that may be recalled together, by a header.
    pub batch: Option<u64>,
}

/// Names a lease.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Lease {
    /// The queue that holds the message.
    pub queue: String,
    /// Of the message's handle.
    pub sequence: u64,
    /// Of the delivery.
    pub token: u64,
}

/// What to do with a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Settlement {
    /// The message is done with.
    Ack,
    /// It is to come again: after so long, or by the queue's backoff.
    Nack {
        /// In milliseconds.
        delay_ms: Option<u64>,
    },
    /// It becomes a dead letter.
    Reject,
    /// It may take longer.
    Extend {
        /// From now.
        timeout_ms: u64,
    },
}

/// How to change plans.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Revision {
    /// Nobody is to see it.
    Recall,
    /// It is to come so long after the commit.
    Reschedule {
        /// In milliseconds.
        delay_ms: u64,
    },
    /// It is to expire now.
    Expire,
}

/// A recurring publication.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScheduleFacts {
    /// Its name.
    pub schedule: String,
    /// Where it publishes to.
    pub queue: String,
    /// What all its messages carry.
    pub message: u64,
    /// From one due time to the next.
    pub every_ms: u64,
    /// A due time handled later than this is missed.
    pub misfire_after_ms: u64,
    /// How many of due times missed one after the other fire nevertheless.
    pub misfires_max: u32,
}

/// What comes back from a call that is `ok`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// Nothing to tell.
    Done,
    /// One for each message published.
    Published(Vec<Stored>),
    /// Messages that came; none is no error.
    Received(Vec<Delivered>),
    /// What became of the message that was to be revised.
    Revised(Revised),
    /// How many were recalled in a bulk recall.
    Recalled {
        /// Messages.
        messages: u64,
    },
    /// A schedule that was stopped.
    Schedule {
        /// How often it fired.
        fired: u64,
    },
    /// Everything that stands in the queue.
    Found(Vec<Found>),
}

/// What became of one published message.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Stored {
    /// Where it is stored; empty if it is not.
    pub copies: Vec<StoredCopy>,
    /// Why it is not.
    pub refused: Option<String>,
}

/// One copy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredCopy {
    /// Of its handle.
    pub queue: String,
    /// Of its handle.
    pub sequence: u64,
    /// It, or another one with its `dedupe_id`, was stored before.
    pub duplicate: bool,
}

/// One delivery.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Delivered {
    /// What its body says.
    pub message: u64,
    /// Of its handle.
    pub sequence: u64,
    /// Of its lease.
    pub token: u64,
    /// How often it came back before.
    pub delivery_count: u32,
    /// By the leaders' clocks, in milliseconds since the epoch: when the publish was committed.
    pub published_at_ms: i64,
    /// By the same: when it became ready.
    pub ready_at_ms: i64,
    /// By the same: when the lease times out.
    pub deadline_ms: i64,
    /// Of a schedule's message: the due time, in milliseconds since the epoch.
    pub schedule_due_ms: Option<i64>,
    /// Of a dead letter: the queue where it died last, and when by the leaders' clocks.
    pub died: Option<(String, i64)>,
}

/// What became of a message that was to be revised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Revised {
    /// It is done.
    Done,
    /// A consumer has it.
    Leased,
    /// It is no more.
    Gone,
    /// It never was.
    Unknown,
    /// It is no more, which an earlier attempt of the same call may have done.
    DoneOrGone,
}

/// A message where it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// What its message id says.
    pub message: u64,
    /// Of its handle.
    pub sequence: u64,
    /// In which state.
    pub state: State,
    /// By the leaders' clocks: when it becomes, or became, ready.
    pub ready_at_ms: i64,
    /// Of a schedule's message: the due time, in milliseconds since the epoch.
    #[serde(default)]
    pub schedule_due_ms: Option<i64>,
    /// Of a dead letter: the queue where it died last, and when.
    pub died: Option<(String, i64)>,
}

/// Where a message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It waits for its time.
    Scheduled,
    /// It waits for a consumer.
    Ready,
    /// A consumer has it.
    Leased,
}

/// What was done to the cluster, or seen of its nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Deed {
    /// What the workload declared.
    Topology(Topology),
    /// A fault begins.
    StartFault {
        /// Its kind, such as `partition`; not under way twice at a time.
        fault: String,
        /// For a person.
        description: String,
        /// Those it concerns.
        nodes: Vec<String>,
    },
    /// It is healed.
    StopFault {
        /// Its kind.
        fault: String,
        /// For a person.
        description: String,
    },
    /// A node's clock is to be wrong by so much from now on, until the next such event.
    Clock {
        /// The node.
        node: String,
        /// Its clock less the true time, in milliseconds. Of a clock that drifts: what is furthest from zero.
        error_ms: i64,
    },
    /// The state of a node's machine.
    Digest {
        /// The node.
        node: String,
        /// The last entry that it has applied.
        applied_index: u64,
        /// Of everything in the state machine.
        digest: String,
    },
    /// All faults are healed, and none will come: from here on, the workload finishes.
    Healed,
}

impl Deed {
    /// Its name.
    pub fn function(&self) -> Function {
        match self {
            Deed::Topology(_) => Function::Topology,
            Deed::StartFault { .. } => Function::StartFault,
            Deed::StopFault { .. } => Function::StopFault,
            Deed::Clock { .. } => Function::Clock,
            Deed::Digest { .. } => Function::Digest,
            Deed::Healed => Function::Healed,
        }
    }
}

/// Queues and exchanges.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Topology {
    /// All queues.
    pub queues: Vec<QueueFacts>,
    /// All exchanges, each of which leads to all of its queues.
    pub exchanges: Vec<ExchangeFacts>,
}

/// A queue.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct QueueFacts {
    /// Its name.
    pub name: String,
    /// How long a lease lasts.
    pub lease_timeout_ms: u64,
    /// The longest wait of a message that comes back by itself.
    pub backoff_ms: u64,
    /// How often a message may come back; 0 is without limit.
    pub delivery_limit: u32,
    /// How long a message may be ready; 0 is without limit.
    pub message_ttl_ms: u64,
    /// Where dead letters go.
    pub dead_letters: Option<String>,
    /// The workload takes nothing from it, and finds there what came in.
    pub kept: bool,
}

/// An exchange.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ExchangeFacts {
    /// Its name.
    pub name: String,
    /// Where it leads.
    pub queues: Vec<String>,
}

impl History {
    /// Writes one event a line in Jepsen's form, as EDN.
    pub fn write_edn(&self, out: &mut impl Write) -> Result<(), HistoryError> {
        let mut processes = edn::Processes::default();
        for event in &self.events {
            edn::write_event(event, processes.of(event), out)?;
        }
        Ok(out.flush()?)
    }

    /// Writes one event a line, as JSON, which [`History::read_json`] reads.
    pub fn write_json(&self, out: &mut impl Write) -> Result<(), HistoryError> {
        for event in &self.events {
            serde_json::to_writer(&mut *out, event)?;
            out.write_all(b"\n")?;
        }
        Ok(out.flush()?)
    }

    /// Reads what [`History::write_json`] wrote.
    pub fn read_json(input: impl BufRead) -> Result<History, HistoryError> {
        let mut events = Vec::new();
        for line in input.lines() {
            let line = line?;
            if !line.trim().is_empty() {
                events.push(serde_json::from_str(&line)?);
            }
        }
        Ok(History { events })
    }
}

#[cfg(test)]
mod tests;
