//! The command line.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand, ValueEnum as _};

use crate::instructions::HotPath;
use crate::systems::{Kind, Programs};
use crate::workloads::{Contestant, Group, parse_count};

/// Messages a second of (b), unless the command line says otherwise.
pub const RATE: f64 = 2000.0;

/// Measures Dwell beside its peers, builds of it against each other, and the instructions of its hot paths.
#[derive(Debug, Parser)]
#[command(name = "dwell-bench", version)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Measures systems in turn, round by round
    Run(RunArguments),
    /// Dwell alone in about three minutes: throughput, latency at a fixed rate, backlog, delays, failover
    Quick(QuickArguments),
    /// Renders the results of earlier runs
    Report(ReportArguments),
    /// Counts the instructions of the hot paths, and compares them with the figures that are checked in
    Instructions(InstructionsArguments),
    /// Does the work of a hot path, to be counted
    #[command(hide = true)]
    Instructed(InstructedArguments),
    /// Makes a load that is described on standard input, in a process of its own
    #[command(hide = true)]
    Load,
}

/// Where things are.
#[derive(Debug, Clone, Args)]
pub struct Places {
    /// The `dwell` binary [default: the one beside this program]
    #[arg(long, env = "DWELL_BINARY")]
    pub dwell: Option<PathBuf>,
    /// The directory of RabbitMQ's scripts
    #[arg(long, default_value = "/usr/lib/rabbitmq/bin")]
    pub rabbitmq: PathBuf,
    /// The `nats-server` binary
    #[arg(long, default_value = "nats-server")]
    pub nats: PathBuf,
    /// A `nats-server` of version 2.10 or later, which is told to sync always, and measured besides
    #[arg(long, env = "NATS_SYNCED")]
    pub nats_synced: Option<PathBuf>,
    /// Where results, tables and plots go
    #[arg(long, default_value = "target/bench")]
    pub output: PathBuf,
}

/// Arguments of `run`.
#[derive(Debug, Clone, Args)]
pub struct RunArguments {
    /// Where things are
    #[command(flatten)]
    pub places: Places,
    /// Who is measured
    #[arg(long, value_delimiter = ',', default_value = "dwell,rabbitmq,nats")]
    pub systems: Vec<Kind>,
    /// Another build's `dwell` binary, which is measured besides
    #[arg(long)]
    pub before: Option<PathBuf>,
    /// What is measured
    #[arg(long, value_delimiter = ',', default_value = "a,b,c,d,e")]
    pub workloads: Vec<Group>,
    /// Only workloads whose name contains this
    #[arg(long)]
    pub only: Option<String>,
    /// Each round measures every system once in every workload
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// How long (a) and (b) publish, and messages of (d) are published or fall due at a rate, each time
    #[arg(long, default_value_t = 8.0)]
    pub seconds: f64,
    /// (a) in every combination of body, window and queues
    #[arg(long)]
    pub full: bool,
    /// (b): messages a second
    #[arg(long, default_value_t = RATE)]
    pub rate: f64,
    /// (c): messages that come to stand in the queue
    #[arg(long, value_delimiter = ',', value_parser = parse_count, default_value = "1m")]
    pub depth: Vec<u64>,
    /// (d): messages that are pending meanwhile
    #[arg(long, value_delimiter = ',', value_parser = parse_count, default_value = "1m")]
    pub pending: Vec<u64>,
    /// (d): messages that fall due in one second
    #[arg(long, value_parser = parse_count, default_value = "1m")]
    pub burst: u64,
    /// (e): how often each fault is made, in every round
    #[arg(long, default_value_t = 20)]
    pub faults: usize,
}

/// Arguments of `quick`.
#[derive(Debug, Clone, Args)]
pub struct QuickArguments {
    /// Where things are
    #[command(flatten)]
    pub places: Places,
}

/// Arguments of `report`.
#[derive(Debug, Clone, Args)]
pub struct ReportArguments {
    /// Where the results are, and the tables go
    #[arg(long, default_value = "target/bench")]
    pub output: PathBuf,
}

/// Arguments of `instructions`.
#[derive(Debug, Clone, Args)]
pub struct InstructionsArguments {
    /// Makes what is measured the figures, where it is not compared with them
    #[arg(long)]
    pub update: bool,
    /// Only these paths
    #[arg(long, value_delimiter = ',')]
    pub only: Vec<HotPath>,
    /// The file with the figures
    #[arg(long, default_value = "bench/instructions.json")]
    pub figures: PathBuf,
    /// Keeps callgrind's profiles in this directory, for `callgrind_annotate`
    #[arg(long)]
    pub profiles: Option<PathBuf>,
}

/// Arguments of `instructed`.
#[derive(Debug, Clone, Args)]
pub struct InstructedArguments {
    /// What to do
    pub path: HotPath,
    /// How often
    #[arg(long)]
    pub rounds: u64,
}

impl InstructionsArguments {
    /// The paths to measure.
    pub fn chosen(&self) -> Vec<HotPath> {
        if self.only.is_empty() { HotPath::value_variants().to_vec() } else { self.only.clone() }
    }
}

impl RunArguments {
    /// Those who are measured.
    pub fn contestants(&self) -> anyhow::Result<Vec<Contestant>> {
        let mut contestants = self.places.contestants(&self.systems)?;
        if let Some(before) = &self.before {
            let programs = Programs { dwell: existing(before)?, ..self.places.programs()? };
            contestants.push(Contestant { label: "before".to_owned(), kind: Kind::Dwell, programs });
        }
        Ok(contestants)
    }
}

impl Places {
    /// Where the programs are.
    pub fn programs(&self) -> anyhow::Result<Programs> {
        Ok(Programs { dwell: self.dwell()?, rabbitmq: self.rabbitmq.clone(), nats: self.nats.clone() })
    }

    /// Those who are measured.
    pub fn contestants(&self, kinds: &[Kind]) -> anyhow::Result<Vec<Contestant>> {
        let programs = self.programs()?;
        let mut contestants = Vec::new();
        for kind in kinds {
            contestants.push(Contestant { label: kind.name().to_owned(), kind: *kind, programs: programs.clone() });
            if let (Kind::Nats, Some(nats)) = (kind, &self.nats_synced) {
                let programs = Programs { nats: nats.clone(), ..programs.clone() };
                contestants.push(Contestant { label: "nats-synced".to_owned(), kind: *kind, programs });
            }
        }
        Ok(contestants)
    }

    fn dwell(&self) -> anyhow::Result<PathBuf> {
        let path = match &self.dwell {
            Some(path) => path.clone(),
            None => std::env::current_exe()?.with_file_name("dwell"),
        };
        existing(&path)
    }
}

/// The whole path: servers may run in another folder.
fn existing(dwell: &Path) -> anyhow::Result<PathBuf> {
    let found = std::fs::canonicalize(dwell);
    found.with_context(|| format!("there is no {}: `cargo build --release -p dwell-cli`", dwell.display()))
}
