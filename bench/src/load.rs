//! The load: the same messages, windows and acknowledgements for every system, in a process of its own.
//!
//! The process that measures starts this one, so that the CPU time of clients is counted apart from its own. They
//! talk in lines of JSON: `ready`, whereupon one line starts the load; `measured`, `drained`; and the report.

mod consuming;
pub mod identity;
mod ledger;
pub mod measurements;
mod producing;
pub mod report;
mod run;
pub mod schedule;
pub mod spec;
pub mod timeline;

use std::io::{BufRead as _, Write as _};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use self::report::LoadReport;
use self::spec::LoadSpec;
use crate::drivers::Driver;
use crate::drivers::dwell::DwellDriver;
use crate::drivers::nats::NatsDriver;
use crate::drivers::rabbitmq::RabbitMqDriver;
use crate::systems::Kind;

/// What the load says, a line each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Queues are declared, consumers are open; nothing is published yet.
    Ready,
    /// All was published and received. What follows is not measured.
    Measured,
    /// What came of it. Boxed: the others are small.
    Report(Box<LoadReport>),
}

/// Reads the load's description from standard input, makes it, and reports on standard output.
pub async fn serve() -> anyhow::Result<()> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    let spec: LoadSpec = serde_json::from_str(&line).context("the description of the load")?;
    match spec.system {
        Kind::Dwell => make(DwellDriver::connect(&spec)?, spec).await,
        Kind::RabbitMq => make(RabbitMqDriver::connect(&spec).await?, spec).await,
        Kind::Nats => make(NatsDriver::connect(&spec).await?, spec).await,
    }
}

async fn make<D: Driver>(driver: D, spec: LoadSpec) -> anyhow::Result<()> {
    let prepared = run::prepare(driver, spec).await?;
    say(&Event::Ready)?;
    let mut line = String::new();
    // Nobody writes any more if the process that measures is gone.
    anyhow::ensure!(std::io::stdin().lock().read_line(&mut line)? > 0, "nobody wants the load");
    let report = prepared.run(|| say(&Event::Measured)).await?;
    say(&Event::Report(Box::new(report)))
}

fn say(event: &Event) -> anyhow::Result<()> {
    let mut line = serde_json::to_string(event)?;
    line.push('\n');
    let mut output = std::io::stdout().lock();
    output.write_all(line.as_bytes())?;
    Ok(output.flush()?)
}
