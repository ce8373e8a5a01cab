//! Tables of what was measured: medians, smallest to largest, and the peers' ratios to Dwell.

mod statistics;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;

use self::statistics::Summary;
use crate::results::{self, Line};

/// The file of an output directory that holds the tables.
const FILE_NAME: &str = "results.md";
/// Whom the others are compared with, if it is among them.
const REFERENCE: &str = "dwell";

/// By workload, metric and system: the value of each round.
type Values = BTreeMap<String, BTreeMap<String, BTreeMap<String, BTreeMap<usize, f64>>>>;

/// Writes the tables beside the results.
pub fn write(directory: &Path) -> anyhow::Result<()> {
    let path = directory.join(FILE_NAME);
    std::fs::write(&path, render(&results::read(directory)?))
        .with_context(|| format!("cannot write {}", path.display()))?;
    eprintln!("tables are in {}", path.display());
    Ok(())
}

/// All of it as Markdown.
fn render(lines: &[Line]) -> String {
    let mut text = String::from("# Measurements\n");
    for line in lines {
        // Writing to a string cannot fail.
        let _ = match line {
            Line::Environment(entries) => {
                let entries = entries.iter().map(|(name, value)| format!("- {name}: {value}"));
                write!(text, "\n{}\n", entries.collect::<Vec<_>>().join("\n"))
            }
            Line::Settings { system, settings } => {
                let settings = settings.iter().map(|(name, value)| format!("- {name}: {value}"));
                write!(text, "\n{system}:\n\n{}\n", settings.collect::<Vec<_>>().join("\n"))
            }
            Line::Result { .. } | Line::Failure { .. } => Ok(()),
        };
    }
    for (workload, metrics) in values(lines) {
        text.push_str(&table(&workload, &metrics));
    }
    for line in lines {
        if let Line::Failure { workload, system, round, error } = line {
            let _ = write!(text, "\nFailed: {workload}, {system}, round {}: {error}\n", round + 1);
        }
    }
    text
}

fn values(lines: &[Line]) -> Values {
    let mut values = Values::new();
    for line in lines {
        let Line::Result { workload, system, round, outcome } = line else { continue };
        let metrics = values.entry(workload.clone()).or_default();
        for (metric, value) in &outcome.metrics {
            metrics.entry(metric.clone()).or_default().entry(system.clone()).or_default().insert(*round, *value);
        }
    }
    values
}

/// One workload: a row for each metric, a column for each system, and one for each ratio.
fn table(workload: &str, metrics: &BTreeMap<String, BTreeMap<String, BTreeMap<usize, f64>>>) -> String {
    let systems: BTreeSet<&String> = metrics.values().flat_map(BTreeMap::keys).collect();
    let others: Vec<&String> = systems
        .iter()
        .copied()
        .filter(|name| *name != REFERENCE && systems.iter().any(|of| *of == REFERENCE))
        .collect();
    let mut head = vec![String::new()];
    head.extend(systems.iter().map(|system| (*system).clone()));
    head.extend(others.iter().map(|system| format!("{REFERENCE} / {system}")));
    let mut text = format!("\n## {workload}\n\n| {} |\n|{}\n", head.join(" | "), "---|".repeat(head.len()));
    for (metric, by_system) in metrics {
        let mut row = vec![metric.clone()];
        let summary =
            |system: &&String| by_system.get(*system).and_then(|rounds| Summary::of(rounds.values().copied()));
        row.extend(systems.iter().map(|system| summary(system).map_or_else(String::new, |found| found.to_string())));
        row.extend(others.iter().map(|system| ratio(by_system.get(REFERENCE), by_system.get(*system))));
        text.push_str(&format!("| {} |\n", row.join(" | ")));
    }
    text
}

/// Of the values of the same rounds, so that what slowed a round down slowed down both.
fn ratio(of: Option<&BTreeMap<usize, f64>>, to: Option<&BTreeMap<usize, f64>>) -> String {
    let (Some(of), Some(to)) = (of, to) else { return String::new() };
    let pairs = of.iter().filter_map(|(round, value)| Some(value / to.get(round).filter(|other| **other != 0.0)?));
    Summary::of(pairs).map_or_else(String::new, |found| found.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Outcome;

    fn result(system: &str, round: usize, value: f64) -> Line {
        let mut outcome = Outcome::default();
        outcome.set("messages_per_second", value);
        Line::Result { workload: "a: x".into(), system: system.into(), round, outcome }
    }

    #[test]
    fn ratios_are_of_the_same_rounds_with_their_spread() {
        let lines = [
            result("dwell", 0, 100.0),
            result("nats", 0, 50.0),
            result("dwell", 1, 200.0),
            result("nats", 1, 50.0),
            result("dwell", 2, 300.0),
        ];
        let text = render(&lines);
        assert!(
            text.contains("| messages_per_second | 200 (100 to 300) | 50.0 (50.0 to 50.0) | 3.00 (2.00 to 4.00) |"),
            "{text}"
        );
    }

    #[test]
    fn a_failure_is_told() {
        let failure = Line::Failure { workload: "w".into(), system: "s".into(), round: 0, error: "why".into() };
        assert!(render(&[failure]).contains("Failed: w, s, round 1: why"));
    }
}
