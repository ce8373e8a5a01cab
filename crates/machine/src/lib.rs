//! The deterministic state machine of Dwell.
//!
//! It is a function from state, machine time and commands to new state, replies and effects. It does no I/O,
//! reads no clock, draws no random number and knows neither gRPC nor Raft nor RocksDB: it sees ordered rows
//! through the small [`Store`] trait. Every rule of `docs/semantics.md` lives here.

mod backoff;
mod body;
mod capacity;
mod command;
mod consumer;
mod death;
mod digest;
mod due;
mod exchange;
mod group;
mod identity;
mod key;
mod lease;
mod lifecycle;
pub mod limits;
mod machine;
mod migrate;
mod producer;
mod publish;
mod queue;
mod ready;
mod record;
mod recurrence;
mod release;
mod reply;
mod revise;
mod revise_matching;
mod routing;
mod schedule;
mod state;
mod store;
mod topology;
mod transact;
mod user;
mod view;

pub use body::read_message;
pub use command::*;
pub use digest::{DigestBuilder, StateDigest};
pub use due::{DueCount, Forecast};
pub use identity::found_anew;
pub use machine::Machine;
pub use record::{Counts, Death, DeathReason, FiringRecord, MessageRecord, Totals, UserRecord};
pub use reply::{Applied, CloseReason, Delivery, Effect, PublishResult, Refusal, Reply, RevisionOutcome, RoutedCopy};
pub use schedule::preview;
pub use store::{MemoryStore, Store, StoreError, StoreRead, Table};
pub use view::{ExchangeView, MessageState, MessageView, Page, QueueView, ScheduleView};
