//! Tables and plots of what was measured: medians, smallest to largest, and the ratios to Dwell.

mod latest;
mod metrics;
mod plots;
mod points;
mod statistics;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;

use self::latest::{Latest, Systems, Values, values};
use self::plots::Plots;
use self::statistics::Summary;
use crate::results;

/// The file of an output directory that holds the tables.
const FILE_NAME: &str = "results.md";
/// Whom the others are compared with, if it is among them.
const REFERENCE: &str = "dwell";
/// What differs between the runs of one machine.
const OF_THE_RUN: [&str; 2] = ["began", "command"];

/// Writes tables and plots beside the results.
pub fn write(directory: &Path) -> anyhow::Result<()> {
    let lines = results::read(directory)?;
    let latest = Latest::of(&lines);
    let plots = plots::write(directory, &latest)?;
    let path = directory.join(FILE_NAME);
    std::fs::write(&path, render(&latest, &plots)).with_context(|| format!("cannot write {}", path.display()))?;
    eprintln!("tables and plots are in {}", path.display());
    Ok(())
}

/// All of it as Markdown.
fn render(latest: &Latest<'_>, plots: &Plots) -> String {
    let mut text = format!("# Measurements\n\n{}", environment(latest));
    for (title, file) in &plots.overviews {
        text.push_str(&image(title, file));
    }
    for (workload, systems) in &latest.outcomes {
        text.push_str(&table(workload, systems));
        if let Some(file) = plots.curves.get(*workload) {
            text.push_str(&image(workload, file));
        }
    }
    for ((workload, system), failures) in &latest.failures {
        for ((_, round), error) in failures {
            // Writing to a string cannot fail.
            let _ = write!(text, "\nFailed: {workload}, {system}, round {}: {error}\n", round + 1);
        }
    }
    text
}

/// The machine, the runs and the systems' settings.
fn environment(latest: &Latest<'_>) -> String {
    let mut text = String::new();
    let machine = latest.runs.last().into_iter().flat_map(|run| run.iter());
    for (name, value) in machine.filter(|(name, _)| !OF_THE_RUN.contains(&name.as_str())) {
        let _ = writeln!(text, "- {name}: {value}");
    }
    for run in &latest.runs {
        let [began, command] = OF_THE_RUN.map(|name| run.get(name).map_or("", String::as_str));
        let _ = writeln!(text, "- {began}: `{command}`");
    }
    for (system, settings) in &latest.settings {
        let _ = write!(text, "\n{system}:\n\n");
        for (name, value) in *settings {
            let _ = writeln!(text, "- {name}: {value}");
        }
    }
    text
}

fn image(title: &str, file: &str) -> String {
    format!("\n![{title}]({file})\n")
}

/// One workload: a row for each metric, a column for each system, and one for each ratio.
fn table(workload: &str, systems: &Systems<'_>) -> String {
    let mut names: Vec<&str> = metrics(systems).into_iter().collect();
    names.sort_by_key(|name| metrics::rank(name));
    let reference = systems.get(REFERENCE);
    let others: Vec<&str> = systems.keys().copied().filter(|name| *name != REFERENCE && reference.is_some()).collect();
    let mut head = vec![String::new()];
    head.extend(systems.keys().map(|system| (*system).to_owned()));
    head.extend(others.iter().map(|system| format!("{REFERENCE} / {system}")));
    let mut text = format!("\n## {workload}\n\n| {} |\n|{}\n", head.join(" | "), "---|".repeat(head.len()));
    for name in names {
        let mut row = vec![name.to_owned()];
        row.extend(systems.values().map(|rounds| shown(Summary::of(values(rounds, name).into_values()))));
        let of = reference.map(|rounds| values(rounds, name)).unwrap_or_default();
        row.extend(others.iter().map(|system| shown(ratio(&of, &values(&systems[system], name)))));
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    text
}

fn metrics<'a>(systems: &Systems<'a>) -> BTreeSet<&'a str> {
    let outcomes = systems.values().flat_map(|rounds| rounds.values());
    outcomes.flat_map(|outcome| outcome.metrics.keys().map(String::as_str)).collect()
}

/// Of the values of the same rounds, so that what slowed a round down slowed down both.
fn ratio(of: &Values, to: &Values) -> Option<Summary> {
    Summary::of(of.iter().filter_map(|(round, value)| Some(value / to.get(round).filter(|other| **other != 0.0)?)))
}

fn shown(summary: Option<Summary>) -> String {
    summary.map_or_else(String::new, |summary| summary.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{Line, Outcome};

    fn tables(lines: &[Line]) -> String {
        render(&Latest::of(lines), &Plots::default())
    }

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
        let text = tables(&lines);
        assert!(
            text.contains("| messages_per_second | 200 (100 to 300) | 50.0 (50.0 to 50.0) | 3.00 (2.00 to 4.00) |"),
            "{text}"
        );
    }

    #[test]
    fn a_failure_is_told() {
        let failure = Line::Failure { workload: "w".into(), system: "s".into(), round: 0, error: "why".into() };
        assert!(tables(&[failure]).contains("Failed: w, s, round 1: why"));
    }
}
