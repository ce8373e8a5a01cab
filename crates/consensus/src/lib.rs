//! Raft for Dwell: openraft over the stores and over tonic, proposals, and the leader's timer service.

pub mod announcements;
pub mod backup;
pub mod blocking;
pub mod clock;
pub mod codec;
pub mod digest;
pub mod group;
pub mod identity;
pub mod leadership;
pub mod log_store;
pub mod membership;
pub mod options;
pub mod peer;
pub mod proposer;
pub mod recovery;
mod resignation;
pub mod snapshotting;
pub mod state_machine;
mod timer;
pub mod types;
