//! Checks a stored history again.

use std::fs::File;
use std::io::BufReader;

use anyhow::Context as _;
use dwell_jepsen::checkers::check_all;
use dwell_jepsen::history::History;
use dwell_jepsen::report::text;

use crate::arguments::CheckArguments;

/// Reads a run's history, and says whether nothing was found.
pub fn check(arguments: &CheckArguments) -> anyhow::Result<bool> {
    let path = arguments.directory.join("history.jsonl");
    let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
    let history = History::read_json(BufReader::new(file))?;
    let report = check_all(&history);
    println!("{} events", history.events.len());
    print!("{}", text(&report));
    Ok(report.is_valid())
}
