//! Where a node keeps things: the log on raft-engine, the state on RocksDB, snapshots as checkpoints.

mod durable;
pub mod log;
mod sealed;
pub mod snapshot;
pub mod state;
