//! The figures that are checked in, and what is measured beside them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use super::HotPath;

/// What a path is expected to take.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figure {
    /// For each message.
    pub instructions: u64,
    /// How far it may be missed, in either direction.
    pub tolerance_percent: f64,
}

/// What all paths are expected to take: the file, and nothing else is in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figures {
    /// Of the last figures. Another compiler makes other instructions of the same source.
    compiler: String,
    paths: BTreeMap<HotPath, Figure>,
}

/// A path's measurement beside its figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    /// What it was to take; `None`: nobody has said.
    pub expected: Option<Figure>,
    /// What it took.
    pub measured: u64,
}

impl Figures {
    /// Reads the file. One that is not there has no figures.
    pub fn read(file: &Path) -> anyhow::Result<Figures> {
        match std::fs::read_to_string(file) {
            Ok(text) => serde_json::from_str(&text).with_context(|| file.display().to_string()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Ok(Figures { compiler: String::new(), paths: BTreeMap::new() })
            }
            Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
        }
    }

    /// Writes the file, with the name of today's compiler.
    pub fn write(&mut self, file: &Path) -> anyhow::Result<()> {
        self.compiler = compiler();
        let text = serde_json::to_string_pretty(self)? + "\n";
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
    }

    /// A measurement beside its figure.
    pub fn compare(&self, path: HotPath, measured: u64) -> Comparison {
        Comparison { expected: self.paths.get(&path).copied(), measured }
    }

    /// Makes a measurement the figure. A tolerance that somebody has chosen stays.
    pub fn set(&mut self, path: HotPath, measured: u64) {
        let before = self.paths.get(&path);
        let tolerance_percent = before.map_or(path.tolerance_percent(), |figure| figure.tolerance_percent);
        self.paths.insert(path, Figure { instructions: measured, tolerance_percent });
    }

    /// What to do about measurements that are not as expected.
    pub fn advice(&self) -> String {
        let compiler = compiler();
        let mut advice = "if this is as it should be, record it: `make instructions ARGS=--update`".to_owned();
        if self.compiler != compiler {
            advice += &format!("\nthe figures are of `{}`, and this is `{compiler}`", self.compiler);
        }
        advice
    }
}

impl Comparison {
    /// How much more was measured than expected; less is negative.
    pub fn deviation_percent(&self) -> Option<f64> {
        let expected = self.expected?.instructions as f64;
        Some((self.measured as f64 - expected) * 100.0 / expected)
    }

    /// What is wrong with the measurement. Too few instructions are wrong as well: the figure is out of date, and
    /// would let them be lost again.
    pub fn problem(&self, path: HotPath) -> Option<String> {
        let (path, measured) = (path.name(), self.measured);
        let (Some(figure), Some(deviation)) = (self.expected, self.deviation_percent()) else {
            return Some(format!("{path}: no figure is recorded, measured {measured} instructions a message"));
        };
        if deviation.abs() <= figure.tolerance_percent {
            return None;
        }
        let direction = if deviation > 0.0 { "more" } else { "fewer" };
        let Figure { instructions, tolerance_percent } = figure;
        Some(format!(
            "{path}: {direction} than expected: {instructions} instructions a message, measured {measured}: {deviation:+.2} %, \
             where {tolerance_percent} % are tolerated"
        ))
    }
}

/// What `rustc` calls itself; empty if it does not answer.
fn compiler() -> String {
    let output = Command::new("rustc").arg("--version").output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: HotPath = HotPath::Publish;

    fn figures() -> Figures {
        let figure = Figure { instructions: 1000, tolerance_percent: 2.0 };
        Figures { compiler: String::new(), paths: BTreeMap::from([(PATH, figure)]) }
    }

    #[test]
    fn a_measurement_within_the_tolerance_is_no_problem() {
        for measured in [980, 1000, 1020] {
            assert_eq!(figures().compare(PATH, measured).problem(PATH), None);
        }
    }

    #[test]
    fn a_measurement_beyond_the_tolerance_is_told_in_either_direction() {
        let problem = |measured| figures().compare(PATH, measured).problem(PATH).unwrap();
        assert_eq!(
            problem(1021),
            "publish: more than expected: 1000 instructions a message, measured 1021: +2.10 %, where 2 % are tolerated"
        );
        assert!(problem(979).starts_with("publish: fewer than expected: 1000"));
    }

    #[test]
    fn a_path_without_a_figure_is_a_problem() {
        let other = HotPath::DecodeEntry;
        assert!(figures().compare(other, 5).problem(other).unwrap().starts_with("decode-entry: no figure"));
    }

    #[test]
    fn an_update_keeps_the_tolerance_and_other_figures() {
        let mut figures = figures();
        figures.set(PATH, 500);
        figures.set(HotPath::DecodeEntry, 7);
        assert_eq!(figures.paths[&PATH], Figure { instructions: 500, tolerance_percent: 2.0 });
        assert_eq!(figures.paths[&HotPath::DecodeEntry].instructions, 7);
    }

    #[test]
    fn what_was_written_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("figures.json");
        let mut figures = figures();
        figures.write(&file).unwrap();
        assert_eq!(Figures::read(&file).unwrap(), figures);
        std::fs::write(&file, "{}").unwrap();
        assert!(Figures::read(&file).is_err());
    }
}
