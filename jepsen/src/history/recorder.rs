//! Writing a history while it happens.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Answer, Call, Deed, Event, Function, History, Kind, Process, Topology, Value};

/// Writes a history. Clones write the same one.
#[derive(Clone)]
pub struct Recorder {
    /// True time since the run began.
    elapsed: Arc<dyn Fn() -> Duration + Send + Sync>,
    events: Arc<Mutex<Vec<Event>>>,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Recorder").field("events", &self.events()).finish_non_exhaustive()
    }
}

/// A call under way.
#[derive(Debug, Clone, Copy)]
#[must_use = "its completion is to be recorded with it"]
pub struct Invocation {
    index: u64,
    process: Process,
    function: Function,
}

impl Recorder {
    /// The history of a run that began at `start`.
    pub fn new(start: Instant) -> Recorder {
        Recorder::with_clock(move || Instant::now().duration_since(start))
    }

    /// The history of a run whose true time is told by `elapsed`. It must never fall.
    pub fn with_clock(elapsed: impl Fn() -> Duration + Send + Sync + 'static) -> Recorder {
        Recorder { elapsed: Arc::new(elapsed), events: Arc::default() }
    }

    /// True time since the run began.
    pub fn now(&self) -> Duration {
        (self.elapsed)()
    }

    /// A client calls. To be recorded before anything is sent.
    pub fn invoke(&self, process: u32, call: Call) -> Invocation {
        let (process, function) = (Process::Client(process), call.function());
        let index = self.push(process, Kind::Invoke, function, Value::Call(call));
        Invocation { index, process, function }
    }

    /// The call took effect.
    pub fn ok(&self, invocation: Invocation, answer: Answer) {
        self.complete(invocation, Kind::Ok, Some(answer), None);
    }

    /// The call had no effect, and never will.
    pub fn fail(&self, invocation: Invocation, error: impl ToString) {
        self.complete(invocation, Kind::Fail, None, Some(error.to_string()));
    }

    /// The call may have had an effect, or may still.
    pub fn info(&self, invocation: Invocation, error: impl ToString) {
        self.complete(invocation, Kind::Info, None, Some(error.to_string()));
    }

    /// What the workload declared.
    pub fn topology(&self, topology: Topology) {
        self.deed(Deed::Topology(topology));
    }

    /// A fault begins: to be recorded before it is injected.
    pub fn fault_started(
        &self,
        fault: impl Into<String>,
        description: impl Into<String>,
        nodes: impl IntoIterator<Item = impl Into<String>>,
    ) {
        let nodes = nodes.into_iter().map(Into::into).collect();
        self.deed(Deed::StartFault { fault: fault.into(), description: description.into(), nodes });
    }

    /// A fault is healed: to be recorded after it is.
    pub fn fault_stopped(&self, fault: impl Into<String>, description: impl Into<String>) {
        self.deed(Deed::StopFault { fault: fault.into(), description: description.into() });
    }

    /// A node's clock is wrong by so much from now on. To be recorded before it is set wrong, and, with zero, after it is
    /// set right.
    pub fn clock_error(&self, node: impl Into<String>, error_ms: i64) {
        self.deed(Deed::Clock { node: node.into(), error_ms });
    }

    /// The digest of a node's state after it has applied everything up to `applied_index`.
    pub fn digest(&self, node: impl Into<String>, applied_index: u64, digest: impl Into<String>) {
        self.deed(Deed::Digest { node: node.into(), applied_index, digest: digest.into() });
    }

    /// All faults are healed, and none will come.
    pub fn healed(&self) {
        self.deed(Deed::Healed);
    }

    /// What was recorded so far.
    pub fn history(&self) -> History {
        History { events: self.events.lock().clone() }
    }

    /// How many events were recorded so far.
    pub fn events(&self) -> usize {
        self.events.lock().len()
    }

    fn deed(&self, deed: Deed) {
        self.push(Process::Nemesis, Kind::Info, deed.function(), Value::Deed(deed));
    }

    fn complete(&self, invocation: Invocation, kind: Kind, answer: Option<Answer>, error: Option<String>) {
        let value = Value::Answer { call: invocation.index, answer, error };
        self.push(invocation.process, kind, invocation.function, value);
    }

    fn push(&self, process: Process, kind: Kind, function: Function, value: Value) -> u64 {
        let mut events = self.events.lock();
        // Read under the lock, so that times rise with the indexes.
        let time_ns = u64::try_from(self.now().as_nanos()).unwrap_or(u64::MAX);
        let index = events.len() as u64;
        events.push(Event { index, process, kind, function, time_ns, value });
        index
    }
}
