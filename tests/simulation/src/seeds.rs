//! Runs many seeds, each in a process of its own, and tells which of them failed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Parser;
use parking_lot::Mutex;

/// How often progress is told.
const PROGRESS: Duration = Duration::from_secs(30);

/// Runs the simulation with many seeds
#[derive(Debug, Parser)]
struct Arguments {
    /// How many
    #[arg(long, default_value_t = 1000)]
    seeds: u64,

    /// The first of them; the others follow
    #[arg(long, default_value_t = 1)]
    first: u64,

    /// So many besides, drawn by lot, and told
    #[arg(long, default_value_t = 0)]
    fresh: u64,

    /// How many at a time. Default: one for each processor
    #[arg(long)]
    jobs: Option<usize>,

    /// Run each seed twice: both must have the same history
    #[arg(long)]
    twice: bool,

    /// Where the histories of failed seeds go
    #[arg(long, default_value = "target/simulation")]
    output: PathBuf,

    /// What runs one seed. Default: `simulate` beside this program
    #[arg(long)]
    simulate: Option<PathBuf>,
}

/// What the runs add up to.
#[derive(Debug, Default)]
struct Totals {
    seeds: u64,
    faults: u64,
    events: u64,
    confirmed: u64,
    delivered: u64,
    simulated_s: f64,
    failed: Vec<u64>,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let simulate = match &arguments.simulate {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("simulate"),
    };
    let fresh: Vec<u64> = (0..arguments.fresh).map(|_| rand::random::<u32>().into()).collect();
    if !fresh.is_empty() {
        println!("fresh seeds: {fresh:?}");
    }
    let seeds: Vec<u64> = fresh.into_iter().chain(arguments.first..arguments.first + arguments.seeds).collect();
    let jobs = arguments.jobs.map_or_else(std::thread::available_parallelism, |jobs| {
        Ok(jobs.try_into().unwrap_or(std::num::NonZero::<usize>::MIN))
    })?;

    let started = Instant::now();
    let next = AtomicU64::new(0);
    let totals = Mutex::new(Totals::default());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs.get())
            .map(|_| {
                scope.spawn(|| -> anyhow::Result<()> {
                    let mut told = Instant::now();
                    while let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                        let judged = judge(&simulate, *seed, &arguments)?;
                        let mut totals = totals.lock();
                        totals.add(*seed, &judged);
                        if told.elapsed() >= PROGRESS {
                            told = Instant::now();
                            println!("{} of {} seeds, {} failed", totals.seeds, seeds.len(), totals.failed.len());
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    let totals = totals.lock();
    println!(
        "{} seeds in {:.0} s: {} faults, {} events, {} messages confirmed, {} delivered, {:.0} s of simulated time",
        totals.seeds,
        started.elapsed().as_secs_f64(),
        totals.faults,
        totals.events,
        totals.confirmed,
        totals.delivered,
        totals.simulated_s,
    );
    if totals.failed.is_empty() {
        println!("no violation");
        return Ok(ExitCode::SUCCESS);
    }
    let mut failed = totals.failed.clone();
    failed.sort_unstable();
    println!("{} FAILED: {failed:?}; histories are in {}", failed.len(), arguments.output.display());
    println!("again: {} --seed {}", simulate.display(), failed[0]);
    Ok(ExitCode::FAILURE)
}

/// What one seed came to: its line, or none if it failed.
fn judge(simulate: &Path, seed: u64, arguments: &Arguments) -> anyhow::Result<Option<String>> {
    let run = |more: &[&str]| -> anyhow::Result<Output> {
        let output = Command::new(simulate).arg("--seed").arg(seed.to_string()).args(more).output();
        output.with_context(|| format!("running {}", simulate.display()))
    };
    let output = run(&[])?;
    let line = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() && arguments.twice {
        let again = String::from_utf8_lossy(&run(&[])?.stdout).trim().to_owned();
        if again != line {
            println!("seed {seed} is not the same twice:\n  {line}\n  {again}");
            return Ok(None);
        }
    }
    if output.status.success() {
        return Ok(Some(line));
    }
    let directory = arguments.output.join(seed.to_string());
    fs::create_dir_all(&directory)?;
    fs::write(directory.join("report.txt"), [line.as_bytes(), b"\n", &output.stderr].concat())?;
    println!("{}", String::from_utf8_lossy(&output.stderr).trim());
    run(&["--history", &directory.to_string_lossy()])?;
    Ok(None)
}

impl Totals {
    fn add(&mut self, seed: u64, line: &Option<String>) {
        self.seeds += 1;
        let Some(line) = line else {
            self.failed.push(seed);
            return;
        };
        let mut words = line.split_whitespace();
        while let (Some(name), Some(value)) = (words.next(), words.next()) {
            let number = value.parse().unwrap_or(0);
            match name {
                "faults" => self.faults += number,
                "events" => self.events += number,
                "confirmed" => self.confirmed += number,
                "delivered" => self.delivered += number,
                "simulated_s" => self.simulated_s += value.parse().unwrap_or(0.0),
                _ => {}
            }
        }
    }
}
