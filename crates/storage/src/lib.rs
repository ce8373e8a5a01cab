//! Where a node keeps things: the log on raft-engine, the state on RocksDB, snapshots as checkpoints.

pub mod backup;
pub mod damage;
mod durable;
pub mod enrolment;
pub mod log;
pub mod recovery;
mod sealed;
pub mod snapshot;
pub mod state;
