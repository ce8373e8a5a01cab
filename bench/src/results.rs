//! What is measured, a line of JSON each, in the order in which it was.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// The file of an output directory that holds the results.
pub const FILE_NAME: &str = "results.jsonl";

/// Points of a curve.
pub type Curve = Vec<(f64, f64)>;

/// What one measurement came to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// By name, with the unit last.
    pub metrics: BTreeMap<String, f64>,
    /// By name: `Y by X`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub curves: BTreeMap<String, Curve>,
}

impl Outcome {
    /// Adds a number.
    pub fn set(&mut self, name: impl Into<String>, value: f64) {
        self.metrics.insert(name.into(), value);
    }
}

/// A line of the results.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// Where and how it was measured.
    Environment(BTreeMap<String, String>),
    /// What a system is, and its settings.
    Settings {
        /// Who.
        system: String,
        /// What.
        settings: Vec<(String, String)>,
    },
    /// One measurement.
    Result {
        /// What was done.
        workload: String,
        /// By whom.
        system: String,
        /// From 0.
        round: usize,
        /// What came of it.
        outcome: Outcome,
    },
    /// One that failed.
    Failure {
        /// What was to be done.
        workload: String,
        /// By whom.
        system: String,
        /// From 0.
        round: usize,
        /// Why.
        error: String,
    },
}

/// Where results are written to.
pub struct Results {
    file: File,
}

impl Results {
    /// Opens the results of an output directory; a new run is added to what is there.
    pub fn open(directory: &Path) -> anyhow::Result<Results> {
        std::fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
        let path = directory.join(FILE_NAME);
        let file = OpenOptions::new().create(true).append(true).open(&path);
        Ok(Results { file: file.with_context(|| format!("cannot write {}", path.display()))? })
    }

    /// Writes a line.
    pub fn write(&mut self, line: &Line) -> anyhow::Result<()> {
        Ok(self.file.write_all(format!("{}\n", serde_json::to_string(line)?).as_bytes())?)
    }
}

/// Reads all lines of an output directory.
pub fn read(directory: &Path) -> anyhow::Result<Vec<Line>> {
    let path = directory.join(FILE_NAME);
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let line = |line| serde_json::from_str(line).with_context(|| format!("not a line of results: {line}"));
    text.lines().map(line).collect()
}

/// The machine, for the reader of the results.
pub fn environment() -> Line {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
    };
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let command: Vec<String> = std::env::args().skip(1).collect();
    let entries = [
        ("command", format!("dwell-bench {}", command.join(" "))),
        ("processors", format!("{processors} x {}", field(&read("/proc/cpuinfo"), "model name"))),
        ("memory", field(&read("/proc/meminfo"), "MemTotal")),
        ("kernel", read("/proc/sys/kernel/osrelease").trim().to_owned()),
        ("filesystem", filesystem(&std::env::temp_dir(), &read("/proc/mounts"))),
        ("began", humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string()),
    ];
    Line::Environment(entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// The type of the file system that holds a path.
fn filesystem(path: &Path, mounts: &str) -> String {
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let holding = mounts.filter(|(place, _)| path.starts_with(place)).max_by_key(|(place, _)| place.len());
    holding.map(|(_, kind)| kind.to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_back_as_they_were_written() {
        let directory = tempfile::tempdir().unwrap();
        let mut outcome = Outcome::default();
        outcome.set("messages_per_second", 1.5);
        outcome.curves.insert("a by b".into(), vec![(1.0, 2.0)]);
        let lines = [
            environment(),
            Line::Result { workload: "w".into(), system: "s".into(), round: 1, outcome },
            Line::Failure { workload: "w".into(), system: "s".into(), round: 2, error: "e".into() },
        ];
        let mut results = Results::open(directory.path()).unwrap();
        lines.iter().try_for_each(|line| results.write(line)).unwrap();
        assert_eq!(read(directory.path()).unwrap(), lines);
    }

    #[test]
    fn the_innermost_mount_holds_a_path() {
        let mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n";
        assert_eq!(filesystem(Path::new("/tmp/x"), mounts), "tmpfs");
        assert_eq!(filesystem(Path::new("/var"), mounts), "ext4");
    }
}
