//! What is measured: the workloads, by the letters of the list in `bench/README.md`.

mod backlog;
pub mod delays;
pub mod failover;
mod measure;
mod throughput;

use std::path::PathBuf;

use clap::ValueEnum;
use dwell_load::{Consume, LoadSpec, Produce};

use crate::load::Assignment;
use crate::results::Outcome;
use crate::systems::network::Network;
use crate::systems::{Cluster, Kind, Programs};

pub use self::backlog::Backlog;
pub use self::delays::{Lateness, Operations};
pub use self::failover::{Failover, Fault};
pub use self::throughput::Throughput;

/// Producers and unconfirmed messages of each.
pub const WINDOWS: [(u32, usize); 3] = [(1, 1), (4, 256), (64, 64)];
/// What most workloads use.
pub const WINDOW: (u32, usize) = WINDOWS[1];
/// Messages that a consumer may hold.
pub const CREDIT: u32 = 1000;
/// Consumers, unless there are more queues.
pub const CONSUMERS: u32 = 4;
/// Bytes of a body.
pub const BODIES: [usize; 3] = [100, 1024, 16 * 1024];
/// What most workloads use.
pub const BODY: usize = BODIES[1];
/// Give up when nothing has come for so long.
pub const PATIENCE_SECONDS: f64 = 60.0;

/// A group of workloads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Group {
    /// Throughput: publish, confirm, consume, acknowledge, as fast as it goes.
    A,
    /// Latencies at a fixed moderate rate.
    B,
    /// Backlog: fill, then drain.
    C,
    /// Delays.
    D,
    /// Failover.
    E,
}

/// Who is measured.
#[derive(Debug, Clone)]
pub struct Contestant {
    /// As the results name it.
    pub label: String,
    /// What it is.
    pub kind: Kind,
    /// Where its programs are.
    pub programs: Programs,
}

impl Contestant {
    /// Starts its servers, on loopback, in a folder of its own.
    pub async fn start(&self, directory: &std::path::Path) -> anyhow::Result<Cluster> {
        self.start_in(directory, Network::Loopback).await
    }

    /// The same on another network.
    pub async fn start_in(&self, directory: &std::path::Path, network: Network) -> anyhow::Result<Cluster> {
        let directory: PathBuf = directory.join(&self.label);
        Cluster::start(self.kind, &self.programs, &directory, network).await
    }
}

/// Something to be measured, by itself, on a fresh cluster.
#[derive(Debug, Clone)]
pub enum Workload {
    /// (a) and (b).
    Throughput(Throughput),
    /// (c).
    Backlog(Backlog),
    /// (d): how late messages come.
    Lateness(Lateness),
    /// (d): what can be done while they are pending.
    Operations(Operations),
    /// (e).
    Failover(Failover),
}

impl Workload {
    /// As the results name it.
    pub fn name(&self) -> String {
        match self {
            Workload::Throughput(workload) => workload.name(),
            Workload::Backlog(workload) => workload.name(),
            Workload::Lateness(workload) => workload.name(),
            Workload::Operations(workload) => workload.name(),
            Workload::Failover(workload) => workload.name(),
        }
    }

    /// Whether it can be measured of a system.
    pub fn takes_part(&self, kind: Kind) -> bool {
        match self {
            Workload::Throughput(_) | Workload::Backlog(_) | Workload::Failover(_) => true,
            Workload::Lateness(workload) => workload.takes_part(kind),
            Workload::Operations(workload) => workload.takes_part(kind),
        }
    }

    /// Measures it, in a directory that is empty and deleted afterwards.
    pub async fn measure(&self, contestant: &Contestant, directory: &std::path::Path) -> anyhow::Result<Outcome> {
        match self {
            Workload::Throughput(workload) => workload.measure(contestant, directory).await,
            Workload::Backlog(workload) => workload.measure(contestant, directory).await,
            Workload::Lateness(workload) => workload.measure(contestant, directory).await,
            Workload::Operations(workload) => workload.measure(contestant, directory).await,
            Workload::Failover(workload) => workload.measure(contestant, directory).await,
        }
    }
}

/// A number of messages as people write it: 1m, 250k.
pub fn short(messages: u64) -> String {
    match messages {
        0 => "0".to_owned(),
        _ if messages.is_multiple_of(1_000_000) => format!("{}m", messages / 1_000_000),
        _ if messages.is_multiple_of(1000) => format!("{}k", messages / 1000),
        _ => messages.to_string(),
    }
}

/// Reads it.
pub fn parse_count(text: &str) -> Result<u64, String> {
    let (digits, factor) = match text.to_lowercase().chars().last() {
        Some('m') => (&text[..text.len() - 1], 1_000_000),
        Some('k') => (&text[..text.len() - 1], 1000),
        _ => (text, 1),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{text}: not a number such as 5000, 250k or 10m"))?;
    number.checked_mul(factor).ok_or_else(|| format!("{text} is too large"))
}

/// Bytes as people write them: 100 B, 1 KiB.
fn bytes(count: usize) -> String {
    if count >= 1024 && count.is_multiple_of(1024) { format!("{} KiB", count / 1024) } else { format!("{count} B") }
}

/// The names of so many queues.
fn queue_names(count: u32) -> Vec<String> {
    (0..count).map(|number| format!("bench-{number}")).collect()
}

/// A load over all nodes of a cluster, by way of so many queues, which are made first.
fn load(cluster: &Cluster, queues: u32, produce: Produce, consume: Option<Consume>) -> Assignment {
    let spec = LoadSpec { run: rand::random(), queues: queue_names(queues), produce: Some(produce), consume };
    Assignment { system: cluster.kind, addresses: cluster.addresses(), declare: true, spec }
}

/// Consumes one queue as most workloads do.
fn consume() -> Consume {
    Consume { consumers: CONSUMERS, credit: CREDIT, expect: Vec::new(), patience_seconds: PATIENCE_SECONDS }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_as_they_are_written() {
        for count in [0, 7, 1000, 250_000, 1_000_000, 50_000_000] {
            assert_eq!(parse_count(&short(count)), Ok(count));
        }
        assert_eq!(parse_count("10M"), Ok(10_000_000));
        assert!(parse_count("m").is_err() && parse_count("").is_err() && parse_count("1.5m").is_err());
    }

    #[test]
    fn whole_kibibytes_are_written_so() {
        assert_eq!([100, 1024, 16 * 1024, 1500].map(bytes), ["100 B", "1 KiB", "16 KiB", "1500 B"]);
    }
}
