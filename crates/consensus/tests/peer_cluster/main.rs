//! Nodes in one process, each with a runtime, stores and a server of its own, which talk over TCP.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics, in its helpers too")]

mod announcing;
mod cluster;
mod proxy;
mod recovery;
mod refusal;
mod replication;
mod snapshot;
mod stores;
mod succession;
