//! The harness: a cluster of server processes, each with its own network, disk and clock, and the faults that it is
//! put through.

mod clock;
mod cluster;
mod command;
mod disk;
mod error;
mod events;
mod namespace;
mod nemesis;
mod network;
mod node;
mod plan;
mod probe;
mod sandbox;

pub use self::cluster::{Cluster, ClusterOptions, NodeView, Recovery};
pub use self::error::HarnessError;
pub use self::events::{Event, EventKind, Events};
pub use self::nemesis::{Choice, Evidence, Fault, Injected, Nemesis, Situation};
pub use self::network::{CLIENTS, LinkRule, LinkTraffic, Network, Overhead};
pub use self::plan::{Episode, Outcome, Pace, Plan, Selection};
pub use self::sandbox::{Abilities, Sandbox};

/// A node's number, from 1.
pub type NodeId = u64;
