//! Where a node keeps things: the log on raft-engine, the state on RocksDB, snapshots as checkpoints.

pub mod damage;
mod durable;
pub mod log;
pub mod recovery;
mod sealed;
pub mod snapshot;
pub mod state;
