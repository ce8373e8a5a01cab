//! Rows about exchanges and schedules.

use prost::Message;

use crate::command::{DeclareExchange, ScheduleDefinition};

/// A row of [`crate::Table::Exchanges`].
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ExchangeRecord {
    #[prost(message, required, tag = "1")]
    pub declaration: DeclareExchange,
    #[prost(uint64, tag = "2")]
    pub created_at_ms: u64,
}

/// A row of [`crate::Table::Schedules`].
#[derive(Clone, PartialEq, Message)]
pub(crate) struct ScheduleRecord {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, required, tag = "2")]
    pub definition: ScheduleDefinition,
    #[prost(uint64, tag = "3")]
    pub created_at_ms: u64,
    #[prost(bool, tag = "4")]
    pub paused: bool,
    /// The next due time; 0: there is none, or it is paused.
    #[prost(uint64, tag = "5")]
    pub next_due_ms: u64,
    /// When its timer fires: at the next due time and jitter, or when a finished one is dropped; 0: it has none.
    #[prost(uint64, tag = "6")]
    pub timer_ms: u64,
    /// Due times missed one after the other that fired nevertheless.
    #[prost(uint32, tag = "7")]
    pub misfires: u32,
    /// How often it fired.
    #[prost(uint64, tag = "8")]
    pub fired: u64,
    /// How many due times were skipped, as far as they were counted.
    #[prost(uint64, tag = "9")]
    pub skipped: u64,
    /// The last firings, the newest last.
    #[prost(message, repeated, tag = "10")]
    pub history: Vec<FiringRecord>,
}

/// One firing of a schedule.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct FiringRecord {
    /// The due time; 0: it was triggered.
    #[prost(uint64, tag = "1")]
    pub due_ms: u64,
    /// Machine time of the firing.
    #[prost(uint64, tag = "2")]
    pub fired_ms: u64,
    /// Sequences of the stored copies.
    #[prost(uint64, repeated, tag = "3")]
    pub sequences: Vec<u64>,
    /// What kept it from being stored; empty: nothing did.
    #[prost(string, tag = "4")]
    pub problem: String,
    /// It was skipped, and all due times after it that had been missed as well.
    #[prost(bool, tag = "5")]
    pub skipped: bool,
}
