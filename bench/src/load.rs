//! The process that makes a load: the same messages, windows and acknowledgements for every system.
//!
//! The process that measures starts this one, so that the CPU time of clients is counted apart from its own. They
//! talk in lines of JSON: the assignment; `ready`, whereupon one line starts the load; `measured`; and the report.

pub mod timeline;

use std::io::{BufRead as _, Write as _};

use anyhow::Context as _;
use dwell_client::ClientOptions;
use dwell_load::{Driver, DwellDriver, LoadReport, LoadSpec};
use serde::{Deserialize, Serialize};

use self::timeline::{Moment, Timeline};
use crate::drivers::nats::NatsDriver;
use crate::drivers::rabbitmq::RabbitMqDriver;
use crate::systems::Kind;
use crate::usage;

/// What load to make, and over what.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Assignment {
    /// What is at the addresses.
    pub system: Kind,
    /// host:port of every node. The system's client chooses among them as its users' clients do.
    pub addresses: Vec<String>,
    /// Make the queues first.
    pub declare: bool,
    /// The load.
    pub spec: LoadSpec,
}

/// What the load says, a line each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// Queues are declared, consumers are open; nothing is published yet.
    Ready,
    /// All was published and received. What follows is not measured.
    Measured(Course),
    /// What came of it. Boxed: the others are small.
    Report(Box<LoadReport>),
}

/// How a load went, beside what its report tells.
#[derive(Debug, Serialize, Deserialize)]
pub struct Course {
    /// Used by the process that made the load.
    pub client_cpu_seconds: f64,
    /// How far it was.
    pub timeline: Vec<Moment>,
}

/// Reads the assignment from standard input, makes the load, and reports on standard output.
pub async fn serve() -> anyhow::Result<()> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    let assignment: Assignment = serde_json::from_str(&line).context("the description of the load")?;
    match assignment.system {
        Kind::Dwell => {
            let driver = DwellDriver::new(assignment.addresses.clone(), ClientOptions::default())?;
            make(driver, assignment).await
        }
        Kind::RabbitMq => make(RabbitMqDriver::connect(&assignment).await?, assignment).await,
        Kind::Nats => make(NatsDriver::connect(&assignment).await?, assignment).await,
    }
}

async fn make<D: Driver>(driver: D, assignment: Assignment) -> anyhow::Result<()> {
    if assignment.declare {
        driver.declare(&assignment.spec.queues).await?;
    }
    let prepared = dwell_load::prepare(driver, assignment.spec).await?;
    say(&Event::Ready)?;
    let mut line = String::new();
    // Nobody writes any more if the process that measures is gone.
    anyhow::ensure!(std::io::stdin().lock().read_line(&mut line)? > 0, "nobody wants the load");
    let cpu_seconds_before = usage::own_cpu_seconds()?;
    let timeline = Timeline::start(prepared.run());
    let made = prepared.make().await?;
    let client_cpu_seconds = usage::own_cpu_seconds()? - cpu_seconds_before;
    say(&Event::Measured(Course { client_cpu_seconds, timeline: timeline.finish() }))?;
    say(&Event::Report(Box::new(made.close().await?)))
}

fn say(event: &Event) -> anyhow::Result<()> {
    let mut line = serde_json::to_string(event)?;
    line.push('\n');
    let mut output = std::io::stdout().lock();
    output.write_all(line.as_bytes())?;
    Ok(output.flush()?)
}
