//! How the nodes of a cluster reach each other: Raft over gRPC.
//!
//! - [`PeerLinks`] holds the connections, one set per peer address, shared by all groups.
//! - [`PeerNetwork`] is what a group's Raft sends through.
//! - [`Groups`] and [`PeerService`] are the receiving side; [`serve`] runs it on a listener.
//!
//! The receiving side also notices that the leader's process has died, by its broken stream, and starts an
//! election without waiting for silence.

mod append;
mod commits;
mod convert;
mod groups;
mod incoming;
mod links;
mod metrics;
mod network;
mod position;
mod probe;
mod receive;
mod retry;
mod serve;
mod service;
mod ship;
mod succession;

pub use groups::Groups;
pub use links::{LinkError, PeerLink, PeerLinks};
pub use metrics::PeerMetrics;
pub use network::{PeerClient, PeerNetwork};
pub(crate) use position::position_of;
pub use serve::serve;
pub use service::PeerService;

/// Largest message that a node takes from another one, in bytes. The log reader cuts requests at a few
/// megabytes, but an entry is never cut: it may hold one message of 16 MiB, and whatever it was batched with.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
