//! Runs workloads, in turn, and writes down what came of them.

use std::path::PathBuf;

use anyhow::Context as _;
use tempfile::TempDir;

use crate::arguments::{QuickArguments, RATE, RunArguments};
use crate::results::{self, Line, Outcome, Results};
use crate::systems::Kind;
use crate::workloads::{Backlog, Contestant, Failover, Fault, Group, Throughput, Workload, delays};

/// How long `quick` publishes, or messages fall due, each time.
const QUICK_SECONDS: f64 = 4.0;
/// Messages that stand in the queue of `quick`, or are pending.
const QUICK_MESSAGES: u64 = 200_000;
/// Leaders that `quick` kills.
const QUICK_FAULTS: usize = 3;

/// `dwell-bench run`.
pub async fn run(arguments: &RunArguments) -> anyhow::Result<()> {
    let contestants = arguments.contestants()?;
    let mut workloads = Vec::new();
    for group in &arguments.workloads {
        workloads.extend(workloads_of(*group, arguments));
    }
    if let Some(only) = &arguments.only {
        workloads.retain(|workload| workload.name().contains(only));
    }
    anyhow::ensure!(!workloads.is_empty(), "no workload has such a name");
    let plan = Plan { contestants, workloads, rounds: arguments.rounds, output: arguments.places.output.clone() };
    plan.run().await
}

/// `dwell-bench quick`.
pub async fn quick(arguments: &QuickArguments) -> anyhow::Result<()> {
    let contestants = arguments.places.contestants(&[Kind::Dwell])?;
    let plan = Plan { contestants, workloads: quick_workloads(), rounds: 1, output: arguments.places.output.clone() };
    plan.run().await
}

/// Something of each group, for a look and not for figures to be quoted.
fn quick_workloads() -> Vec<Workload> {
    let mut workloads: Vec<Workload> =
        Throughput::matrix(QUICK_SECONDS, false).into_iter().map(Workload::Throughput).collect();
    workloads.push(Workload::Throughput(Throughput::at_rate(RATE, QUICK_SECONDS)));
    workloads.push(Workload::Backlog(Backlog { depth: QUICK_MESSAGES }));
    workloads.extend(delays::quick(QUICK_MESSAGES, QUICK_SECONDS));
    workloads.push(Workload::Failover(Failover { fault: Fault::Kill, times: QUICK_FAULTS }));
    workloads
}

fn workloads_of(group: Group, arguments: &RunArguments) -> Vec<Workload> {
    match group {
        Group::A => {
            let matrix = Throughput::matrix(arguments.seconds, arguments.full);
            matrix.into_iter().map(Workload::Throughput).collect()
        }
        Group::B => vec![Workload::Throughput(Throughput::at_rate(arguments.rate, arguments.seconds))],
        Group::C => arguments.depth.iter().map(|depth| Workload::Backlog(Backlog { depth: *depth })).collect(),
        Group::D => delays::workloads(&arguments.pending, arguments.burst, arguments.seconds),
        Group::E => {
            let failover = |fault| Workload::Failover(Failover { fault, times: arguments.faults });
            [Fault::Kill, Fault::Freeze, Fault::Cut].map(failover).into()
        }
    }
}

/// What is to be measured.
pub struct Plan {
    /// Who.
    pub contestants: Vec<Contestant>,
    /// What.
    pub workloads: Vec<Workload>,
    /// How often.
    pub rounds: usize,
    /// Where results go.
    pub output: PathBuf,
}

impl Plan {
    /// Measures all of it: every round measures each contestant once in every workload, and another one goes first.
    pub async fn run(&self) -> anyhow::Result<()> {
        let mut results = Results::open(&self.output)?;
        results.write(&results::environment())?;
        let mut known = Vec::new();
        let total = self.rounds * self.workloads.iter().map(|workload| self.taking_part(workload).len()).sum::<usize>();
        anyhow::ensure!(total > 0, "none of these systems takes part in these workloads");
        let mut done = 0;
        for round in 0..self.rounds {
            for workload in &self.workloads {
                let mut contestants = self.taking_part(workload);
                let first = round % contestants.len().max(1);
                contestants.rotate_left(first);
                for contestant in contestants {
                    done += 1;
                    let line = measure(workload, contestant, round, &mut results, &mut known).await?;
                    tell(&line, done, total);
                    results.write(&line)?;
                }
            }
        }
        eprintln!("results are in {}", self.output.join(results::FILE_NAME).display());
        crate::report::write(&self.output)
    }

    fn taking_part(&self, workload: &Workload) -> Vec<&Contestant> {
        self.contestants.iter().filter(|contestant| workload.takes_part(contestant.kind)).collect()
    }
}

async fn measure(
    workload: &Workload,
    contestant: &Contestant,
    round: usize,
    results: &mut Results,
    known: &mut Vec<String>,
) -> anyhow::Result<Line> {
    let directory = TempDir::with_prefix("dwell-bench-").context("a temporary folder")?;
    if !known.contains(&contestant.label) {
        let cluster = contestant.start(directory.path()).await?;
        let settings = cluster.settings();
        cluster.stop().await?;
        settings.iter().for_each(|(name, value)| eprintln!("{}: {name}: {value}", contestant.label));
        results.write(&Line::Settings { system: contestant.label.clone(), settings })?;
        known.push(contestant.label.clone());
    }
    let (workload_name, system) = (workload.name(), contestant.label.clone());
    Ok(match workload.measure(contestant, directory.path()).await {
        Ok(outcome) => Line::Result { workload: workload_name, system, round, outcome },
        // The others are worth having all the same.
        Err(error) => Line::Failure { workload: workload_name, system, round, error: format!("{error:#}") },
    })
}

fn tell(line: &Line, done: usize, total: usize) {
    match line {
        Line::Result { workload, system, round, outcome } => {
            eprintln!("[{done}/{total}] round {}, {workload}, {system}: {}", round + 1, summary(outcome));
        }
        Line::Failure { workload, system, round, error } => {
            eprintln!("[{done}/{total}] round {}, {workload}, {system}: FAILED: {error}", round + 1);
        }
        Line::Environment(_) | Line::Settings { .. } => {}
    }
}

fn summary(outcome: &Outcome) -> String {
    let numbers = outcome.metrics.iter().map(|(name, value)| format!("{name} {value:.3}"));
    numbers.collect::<Vec<_>>().join(", ")
}
