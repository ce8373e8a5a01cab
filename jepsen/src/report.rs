//! Histories for people: tables as text, a timeline as one page, plots as SVG.

mod plots;
mod tables;
mod timeline;

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use crate::checkers::Report;
use crate::history::{Deed, History, HistoryError, Value};

pub use self::tables::text;

/// Why a report cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The directory or a file in it.
    #[error("the report cannot be written: {0}")]
    Stream(#[from] std::io::Error),
    /// The history in it.
    #[error(transparent)]
    History(#[from] HistoryError),
    /// The report as JSON.
    #[error("the report cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// A plot.
    #[error("a plot cannot be drawn: {0}")]
    Plot(String),
}

/// Writes into a directory, which is made if need be: `history.edn`, `history.jsonl` (which can be checked again),
/// `report.txt`, `report.json`, `timeline.html`, `latency.svg` and `rate.svg`.
pub fn write_all(directory: &Path, history: &History, report: &Report) -> Result<(), ReportError> {
    fs::create_dir_all(directory)?;
    let create = |name: &str| File::create(directory.join(name)).map(BufWriter::new);
    history.write_edn(&mut create("history.edn")?)?;
    history.write_json(&mut create("history.jsonl")?)?;
    fs::write(directory.join("report.txt"), text(report))?;
    serde_json::to_writer_pretty(create("report.json")?, report)?;
    let mut page = create("timeline.html")?;
    timeline::write(history, report, &mut page)?;
    page.flush()?;
    fs::write(directory.join("latency.svg"), plots::latency(history)?)?;
    fs::write(directory.join("rate.svg"), plots::rate(history)?)?;
    Ok(())
}

/// A fault, from beginning to end.
#[derive(Debug, Clone, PartialEq)]
struct Band {
    fault: String,
    description: String,
    from_ns: u64,
    to_ns: u64,
}

/// The faults of a history. One that was not healed lasts to the end.
fn bands(history: &History) -> Vec<Band> {
    let end_ns = history.events.last().map_or(0, |event| event.time_ns);
    let mut bands: Vec<Band> = Vec::new();
    for event in &history.events {
        match &event.value {
            Value::Deed(Deed::StartFault { fault, description, nodes }) => bands.push(Band {
                fault: fault.clone(),
                description: format!("{description} {}", nodes.join(" ")),
                from_ns: event.time_ns,
                to_ns: end_ns,
            }),
            Value::Deed(Deed::StopFault { fault, .. }) => {
                let open = bands.iter_mut().rev().find(|band| band.fault == *fault && band.to_ns == end_ns);
                if let Some(band) = open {
                    band.to_ns = event.time_ns;
                }
            }
            _ => {}
        }
    }
    bands
}

#[cfg(test)]
mod tests;
