//! Raft for Dwell: openraft over the stores and over tonic, proposals, and the leader's timer service.

pub mod codec;
pub mod log_store;
pub mod options;
pub mod peer;
pub mod state_machine;
pub mod types;
