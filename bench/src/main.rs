//! `dwell-bench`: measures Dwell beside its peers, builds of it against each other, and the instructions of its hot
//! paths. See `bench/README.md`.

mod arguments;
mod client;
mod drivers;
mod instructions;
mod load;
mod report;
mod results;
mod runner;
mod systems;
mod usage;
mod workloads;

use std::process::ExitCode;

use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};

use crate::arguments::{Arguments, Command};

/// The allocator of the `dwell` binary, so that counted instructions are those of the server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let outcome = match Arguments::parse().command {
        // Without the threads of a runtime that it does not need.
        Command::Instructed(arguments) => instructions::instructed(&arguments),
        command => run_until_stopped(command),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn run_until_stopped(command: Command) -> anyhow::Result<()> {
    tokio::select! {
        outcome = run(command) => outcome,
        stopped = stopped() => stopped,
    }
}

async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run(arguments) => runner::run(&arguments).await,
        Command::Quick(arguments) => runner::quick(&arguments).await,
        Command::Report(arguments) => report::write(&arguments.output),
        Command::Instructions(arguments) => instructions::run(&arguments).await,
        Command::Instructed(arguments) => instructions::instructed(&arguments),
        Command::Load => load::serve().await,
    }
}

/// Resolves when this program is told to end: what it has started is then ended by being dropped.
async fn stopped() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted?,
        _ = terminate.recv() => {}
    }
    anyhow::bail!("stopped")
}
