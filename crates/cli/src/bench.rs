//! `dwell bench`: load, measured and checked message by message.

pub mod arguments;
mod consumer;
mod identity;
mod ledger;
mod measurements;
mod producer;
mod report;
mod run;

use anyhow::bail;

use self::arguments::BenchArguments;
use self::report::Report;
use crate::arguments::{GlobalArguments, Output};
use crate::output;

/// Runs the benchmark, prints what came of it, and fails if a confirmed message was lost or one was early.
pub async fn run(global: &GlobalArguments, arguments: BenchArguments) -> anyhow::Result<()> {
    arguments.check()?;
    let report = run::run(global, &arguments).await?;
    match global.output {
        Output::Table => report.print()?,
        Output::Json => output::line(serde_json::to_string(&report)?)?,
    }
    verdict(&report)
}

fn verdict(report: &Report) -> anyhow::Result<()> {
    if report.lost > 0 || report.early > 0 {
        bail!("{} confirmed messages were lost and {} deliveries were early", report.lost, report.early);
    }
    Ok(())
}
