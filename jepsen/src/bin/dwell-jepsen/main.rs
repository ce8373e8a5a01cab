//! `dwell-jepsen`: breaks a cluster of `dwell` servers on purpose, and checks what its clients saw.

mod arguments;
mod check;
mod outcome;
mod run;
mod suite;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use dwell_jepsen::harness::Sandbox;
use tokio::signal::unix::{SignalKind, signal};

use self::arguments::{Arguments, BreakCommand, Command};

fn main() -> ExitCode {
    match execute() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute() -> anyhow::Result<bool> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let arguments = Arguments::parse();
    let command = match arguments.command {
        Command::Check(arguments) => return check::check(&arguments),
        Command::Break(command) => command,
    };
    let runtime = tokio::runtime::Runtime::new().context("cannot start the executor")?;
    // The sandbox goes last, after every task that may use a namespace or a mount: it removes what they leave.
    let sandbox = Sandbox::enter()?;
    let outcome = runtime.block_on(async {
        tokio::select! {
            outcome = break_it(&command, &sandbox) => outcome,
            interrupted = interruption() => interrupted.and_then(|()| anyhow::bail!("interrupted")),
        }
    });
    drop(runtime);
    drop(sandbox);
    outcome
}

async fn break_it(command: &BreakCommand, sandbox: &Sandbox) -> anyhow::Result<bool> {
    match command {
        BreakCommand::Run(arguments) => run::run(arguments, sandbox).await,
        BreakCommand::Suite(arguments) => suite::suite(arguments, sandbox).await,
    }
}

/// Waits until somebody wants this process to end.
async fn interruption() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed?,
        _ = terminate.recv() => {}
        _ = hang_up.recv() => {}
    }
    Ok(())
}
