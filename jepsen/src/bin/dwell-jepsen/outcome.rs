//! What came of runs, for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use dwell_jepsen::checkers::Report;
use dwell_jepsen::harness::{Fault, NodeId, Outcome};

/// Violations that are printed in full; the history has them all.
const PRINTED_MAX: usize = 20;

/// What came of a run.
#[derive(Debug)]
pub struct RunOutcome {
    pub name: String,
    pub seed: u64,
    pub report: Report,
    pub faults: Outcome,
    /// Faults that were asked for, and why they were not injected.
    pub not_run: Vec<(Fault, String)>,
    /// What was not up again at the end.
    pub not_back: Vec<String>,
    /// Whether all queues became empty at the end.
    pub emptied: bool,
    /// How often processes ended by themselves.
    pub exits: BTreeMap<NodeId, u32>,
}

impl RunOutcome {
    /// Whether nothing is wrong with what clients saw.
    pub fn passed(&self) -> bool {
        self.report.is_valid() && self.emptied && self.not_back.is_empty()
    }

    /// Everything that the table does not tell, one a line.
    pub fn text(&self) -> String {
        let mut lines = Vec::new();
        for (fault, reason) in &self.not_run {
            lines.push(format!("NOT RUN: {}: {reason}", fault.name()));
        }
        for (fault, _) in self.faults.injected.iter().filter(|(_, seen)| !seen) {
            lines.push(format!("NOT SEEN: {} was injected, and nothing showed that it took effect", fault.name()));
        }
        lines.extend(self.report.unchecked.iter().map(|unchecked| format!("NOT CHECKED: {unchecked}")));
        lines.extend(self.exits.iter().map(|(node, exits)| format!("EXITS: n{node} ended by itself {exits} times")));
        lines.extend(
            self.not_back.iter().map(|missing| format!("VIOLATION: after the last fault was healed, {missing}")),
        );
        if !self.emptied {
            lines.push("VIOLATION: not all queues became empty after the last fault was healed".to_owned());
        }
        let violations = &self.report.violations;
        lines.extend(violations.iter().take(PRINTED_MAX).map(|violation| format!("VIOLATION: {violation}")));
        if violations.len() > PRINTED_MAX {
            lines.push(format!("and {} more violations", violations.len() - PRINTED_MAX));
        }
        let mut text = String::new();
        for line in lines {
            // Writing into a string does not fail.
            let _ = writeln!(text, "{line}");
        }
        text
    }

    fn row(&self) -> Vec<String> {
        let summary = &self.report.summary;
        let total = |column: usize| summary.calls.values().map(|counts| counts[column]).sum::<u64>();
        let seen = self.faults.injected.iter().filter(|(_, seen)| *seen).count();
        let nodes_back = self.faults.recoveries.iter().map(|recovery| recovery.took).max().unwrap_or_default();
        let confirmed_again = summary.recoveries.iter().filter_map(|recovery| recovery.took_ms).fold(0.0, f64::max);
        vec![
            self.name.clone(),
            self.seed.to_string(),
            format!("{seen}/{}", self.faults.injected.len()),
            (total(0) + total(1) + total(2)).to_string(),
            summary.confirmed.to_string(),
            summary.delivered.to_string(),
            summary.redelivered.to_string(),
            summary.duplicates.to_string(),
            total(1).to_string(),
            total(2).to_string(),
            summary.outages.len().to_string(),
            format!("{:.1} s", summary.longest_gap_ms / 1e3),
            format!("{:.1} s", confirmed_again / 1e3),
            format!("{:.1} s", nodes_back.as_secs_f64()),
            (self.report.violations.len() + usize::from(!self.emptied) + self.not_back.len()).to_string(),
        ]
    }
}

/// The table of some runs.
pub fn table(outcomes: &[RunOutcome]) -> Table {
    let mut table = Table::new();
    table.load_preset(UTF8_FULL_CONDENSED);
    table.set_header([
        "run",
        "seed",
        "faults\nseen",
        "operations",
        "confirmed",
        "delivered",
        "delivered\nagain",
        "found\nstored",
        "failed",
        "unknown",
        "outages\nof 1 s",
        "longest\noutage",
        "write after\nhealing",
        "all nodes\nback",
        "viola-\ntions",
    ]);
    table.add_rows(outcomes.iter().map(RunOutcome::row));
    table
}
