//! What the harness tells whoever keeps the history.

use std::sync::Arc;

use crate::harness::{Fault, NodeId};

/// Something that the harness did or saw.
#[derive(Debug, Clone)]
pub struct Event {
    /// What it is about.
    pub kind: EventKind,
    /// The fault, if it is about one.
    pub fault: Option<Fault>,
    /// The nodes concerned.
    pub nodes: Vec<NodeId>,
    /// In words.
    pub text: String,
}

/// What an [`Event`] is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// A fault begins. Told before anything is done.
    FaultStarted,
    /// A fault is over. Told after it is.
    FaultStopped,
    /// A node's clock is to be wrong by so many milliseconds.
    Clock(i64),
    /// What showed that a fault took effect.
    Evidence,
    /// Nothing showed that a fault took effect.
    NoEvidence,
    /// A fault could not be tried here.
    NotRun,
    /// A node ended by itself.
    Exited,
    /// A node that had ended by itself is started again.
    Restarted,
    /// All nodes are up and agree again, or fail to.
    Recovery,
}

impl EventKind {
    /// The word for it in logs and histories.
    pub fn name(self) -> &'static str {
        match self {
            EventKind::FaultStarted => "start",
            EventKind::FaultStopped => "stop",
            EventKind::Clock(_) => "clock",
            EventKind::Evidence => "evidence",
            EventKind::NoEvidence => "no-evidence",
            EventKind::NotRun => "not-run",
            EventKind::Exited => "exited",
            EventKind::Restarted => "restarted",
            EventKind::Recovery => "recovery",
        }
    }
}

type Listener = dyn Fn(&Event) + Send + Sync;

/// Where events go. Cheap to clone.
#[derive(Clone)]
pub struct Events(Arc<Listener>);

impl Events {
    /// Calls `listener` with each event, at once and in the task where it happens.
    pub fn new(listener: impl Fn(&Event) + Send + Sync + 'static) -> Events {
        Events(Arc::new(listener))
    }

    pub(crate) fn tell(&self, kind: EventKind, node: Option<NodeId>, text: impl Into<String>) {
        self.send(Event { kind, fault: None, nodes: node.into_iter().collect(), text: text.into() });
    }

    pub(crate) fn tell_fault(&self, kind: EventKind, fault: Fault, nodes: &[NodeId], text: impl Into<String>) {
        self.send(Event { kind, fault: Some(fault), nodes: nodes.to_vec(), text: text.into() });
    }

    pub(crate) fn tell_clock(&self, node: NodeId, error_ms: i64) {
        let text = format!("{error_ms:+} ms");
        self.send(Event { kind: EventKind::Clock(error_ms), fault: None, nodes: vec![node], text });
    }

    fn send(&self, event: Event) {
        (self.0)(&event);
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Events")
    }
}
