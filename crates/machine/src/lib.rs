//! The deterministic state machine of Dwell.
//!
//! It is a function from state, machine time and commands to new state, replies and effects. It does no I/O,
//! reads no clock, draws no random number and knows neither gRPC nor Raft nor RocksDB: it sees ordered rows
//! through the small [`Store`] trait. Every rule of `docs/semantics.md` lives here.

mod command;
mod consumer;
mod key;
mod lease;
mod lifecycle;
pub mod limits;
mod machine;
mod publish;
mod queue;
mod ready;
mod record;
mod release;
mod reply;
mod state;
mod store;

pub use command::*;
pub use machine::{Machine, QueueView, read_message};
pub use record::{Counts, MessageRecord, Totals};
pub use reply::{Applied, CloseReason, Delivery, Effect, Refusal, Reply};
pub use store::{MemoryStore, Store, StoreError, StoreRead, Table};
