//! `dwell bench`: load, measured and checked message by message.

pub mod arguments;
mod report;

use std::sync::Arc;
use std::time::Duration;

use dwell_client::{Client, Error};
use dwell_load::{Driver, DwellDriver, LoadReport, LoadSpec, Run};

use self::arguments::BenchArguments;
use crate::arguments::{GlobalArguments, Output};
use crate::output;

/// Runs the benchmark, prints what came of it, and fails if a confirmed message was lost or one was early.
pub async fn run(global: &GlobalArguments, arguments: BenchArguments) -> anyhow::Result<()> {
    arguments.check()?;
    let (client, spec) = (global.streaming_client()?, arguments.load());
    let queues = spec.queues.clone();
    let driver = DwellDriver::new(global.server.clone(), global.streaming_options()?)?;
    driver.declare(&queues).await?;
    let outcome = make(driver, spec).await;
    let deleted = if arguments.keep { Ok(()) } else { delete(&client, &queues).await };
    let report = outcome?;
    match global.output {
        Output::Table => report::print(&report)?,
        Output::Json => output::line(serde_json::to_string(&report)?)?,
    }
    report.check()?;
    Ok(deleted?)
}

async fn delete(client: &Client, queues: &[String]) -> Result<(), Error> {
    for queue in queues {
        client.delete_queue(queue, false, false).await?;
    }
    Ok(())
}

async fn make(driver: DwellDriver, spec: LoadSpec) -> anyhow::Result<LoadReport> {
    let prepared = dwell_load::prepare(driver, spec).await?;
    let progress = tokio::spawn(show_progress(prepared.run()));
    let stop = tokio::spawn(stop_when_interrupted(prepared.run()));
    let made = prepared.make().await;
    progress.abort();
    stop.abort();
    made?.close().await
}

async fn stop_when_interrupted(run: Arc<Run>) {
    if tokio::signal::ctrl_c().await.is_ok() {
        eprintln!("stopping; waiting for what is confirmed");
        run.stop();
    }
}

async fn show_progress(run: Arc<Run>) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.tick().await;
    let mut before = run.progress();
    for second in 1.. {
        tick.tick().await;
        let now = run.progress();
        eprintln!(
            "{second:>4} s  confirmed {:>9} ({:>7}/s)  received {:>9} ({:>7}/s)  to come {:>8}  longest silence {:>5} ms",
            now.confirmed,
            now.confirmed - before.confirmed,
            now.received,
            now.received - before.received,
            now.outstanding,
            now.longest_silence.as_millis(),
        );
        before = now;
    }
}
