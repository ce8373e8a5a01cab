//! Runs one seed, and tells what came of it. One, because randomness is seeded for the process as a whole.

use std::fs;
use std::io::BufWriter;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;
use clap::Parser;
use dwell_simulation::trial::{Outcome, Sabotage, Trial};
use rand::SeedableRng;
use rand::rngs::StdRng;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Panics of whatever task: none may be.
static PANICS: AtomicUsize = AtomicUsize::new(0);

/// Runs a simulated cluster. Ends with 1 if an invariant does not hold, or the run does not come to
/// its end
#[derive(Debug, Clone, Parser)]
struct Arguments {
    /// What everything is drawn from
    #[arg(long)]
    seed: u64,

    /// Let nothing go wrong
    #[arg(long)]
    without_faults: bool,

    /// Break something on purpose, to see it noticed
    #[arg(long)]
    sabotage: Option<Sabotage>,

    /// Write the history here, as EDN and as JSON lines
    #[arg(long, value_name = "DIRECTORY")]
    history: Option<PathBuf>,

    /// Where the nodes keep their states meanwhile: best in memory
    #[arg(long, default_value = "/dev/shm")]
    scratch: PathBuf,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    mad_turmoil::rand::set_rng(StdRng::seed_from_u64(arguments.seed));
    let _clocks = mad_turmoil::time::SimClocksGuard::init();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "off".into());
    tracing_subscriber::fmt().with_env_filter(filter).without_time().with_writer(std::io::stderr).init();
    let report_panic = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        report_panic(panic);
    }));
    // A fresh thread: what others keep for each thread is seeded anew.
    let outcome = std::thread::spawn({
        let arguments = arguments.clone();
        move || run(&arguments)
    });
    let outcome = match outcome.join() {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(error)) => {
            eprintln!("seed {}: the simulation failed: {error:#}", arguments.seed);
            return Ok(ExitCode::from(2));
        }
        Err(_) => return Ok(ExitCode::from(2)),
    };
    if let Some(directory) = &arguments.history {
        write_history(&outcome, directory).with_context(|| format!("writing {}", directory.display()))?;
    }
    let panics = PANICS.load(Ordering::Relaxed);
    let summary = &outcome.report.summary;
    println!(
        "seed {} nodes {} faults {} events {} confirmed {} delivered {} redelivered {} violations {} panics {panics} \
         finished {} simulated_s {:.1} fingerprint {:016x}",
        arguments.seed,
        outcome.nodes,
        outcome.plan.len() + outcome.changes.0.len(),
        outcome.history.events.len(),
        summary.confirmed,
        summary.delivered,
        summary.redelivered,
        outcome.report.violations.len(),
        outcome.failure.is_none(),
        outcome.elapsed.as_secs_f64(),
        outcome.fingerprint(),
    );
    if outcome.is_valid() && panics == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    eprint!("seed {}: {outcome}", arguments.seed);
    Ok(ExitCode::FAILURE)
}

fn run(arguments: &Arguments) -> anyhow::Result<Outcome> {
    // A name by lot would be the same one for everybody who runs a seed now.
    let directory = arguments.scratch.join(format!("dwell-simulation-{}", std::process::id()));
    let trial = Trial { seed: arguments.seed, faults: !arguments.without_faults, sabotage: arguments.sabotage };
    let outcome = trial.run(&directory);
    fs::remove_dir_all(&directory)?;
    outcome
}

fn write_history(outcome: &Outcome, directory: &std::path::Path) -> anyhow::Result<()> {
    fs::create_dir_all(directory)?;
    outcome.history.write_edn(&mut BufWriter::new(fs::File::create(directory.join("history.edn"))?))?;
    outcome.history.write_json(&mut BufWriter::new(fs::File::create(directory.join("history.jsonl"))?))?;
    Ok(())
}
