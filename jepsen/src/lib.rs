//! Breaks Dwell on purpose, and checks what its clients saw.
//!
//! * [`workload`] publishes, consumes, recalls and so on, all drawn from a seed, and writes every call and its answer
//!   into a [`history::Recorder`]. Who injects faults writes them there too.
//! * [`checkers`] judge a stored [`history::History`] against the promises of `docs/semantics.md`. They know nothing of
//!   how the servers work, and take an unknown outcome for what it is: something that happened, or did not.
//! * [`report`] makes it all readable.

pub mod checkers;
pub mod facts;
pub mod harness;
pub mod history;
pub mod report;
pub mod workload;
