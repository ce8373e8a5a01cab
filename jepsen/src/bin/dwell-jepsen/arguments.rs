//! What the command is told.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

/// Breaks a cluster of `dwell` servers on purpose, and checks what its clients saw
#[derive(Debug, Parser)]
#[command(version)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    #[command(flatten)]
    Break(BreakCommand),
    /// Check a stored history again
    Check(CheckArguments),
}

/// What needs a cluster.
#[derive(Debug, Subcommand)]
pub enum BreakCommand {
    /// One run: a cluster, a workload, faults, a check
    Run(RunArguments),
    /// Each fault alone, in turn, then several at a time
    Suite(SuiteArguments),
}

#[derive(Debug, Clone, Args)]
pub struct CheckArguments {
    /// The directory of a run
    pub directory: PathBuf,
}

/// What all runs have in common.
#[derive(Debug, Clone, Args)]
pub struct CommonArguments {
    /// The `dwell` binary
    #[arg(long, value_name = "PATH")]
    pub binary: PathBuf,

    /// How many nodes
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(3..=9))]
    pub nodes: u64,

    /// What the workload, the faults and their victims are drawn from. Default: by lot
    #[arg(long)]
    pub seed: Option<u64>,

    /// Where history, report, logs and disk images go. What an earlier run left there is overwritten
    #[arg(long, default_value = "jepsen-results")]
    pub directory: PathBuf,

    /// Size of each node's disk, in MiB
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u64).range(128..))]
    pub disk_mib: u64,

    /// Calls a second, all together
    #[arg(long, default_value_t = 200.0)]
    pub rate: f64,

    /// Processes that publish; as many consume by streams, and as many by single calls
    #[arg(long, default_value_t = 8)]
    pub processes: u32,
}

#[derive(Debug, Clone, Args)]
pub struct RunArguments {
    #[command(flatten)]
    pub common: CommonArguments,

    /// For how long faults are injected
    #[arg(long, default_value = "60s", value_parser = humantime::parse_duration)]
    pub time_limit: Duration,

    /// Which faults, separated by commas and in turn; or `mixed`, `none`
    #[arg(long, default_value = "mixed", value_delimiter = ',')]
    pub nemesis: Vec<String>,
}

#[derive(Debug, Clone, Args)]
pub struct SuiteArguments {
    #[command(flatten)]
    pub common: CommonArguments,

    /// Each fault once, and some seconds of several at a time: five to six minutes
    #[arg(long, conflicts_with = "minutes")]
    pub short: bool,

    /// How long all runs take together, about; each fault comes at least once
    #[arg(long, default_value_t = 10)]
    pub minutes: u64,
}
