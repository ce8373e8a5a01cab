//! What processes use, as `/proc` tells it.

use std::collections::BTreeMap;
use std::fs;

use anyhow::Context as _;

/// Linux counts in hundredths of a second for user programs, whatever the kernel's own clock.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a process has used so far, with all processes that it started and that live.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// Of all threads, in user mode and in the kernel.
    pub cpu_seconds: f64,
    /// Resident now (`VmRSS`): with file pages that are mapped.
    pub resident_bytes: u64,
    /// Resident now and not of a file (`RssAnon`).
    pub anonymous_bytes: u64,
    /// The most that was resident (`VmHWM`).
    pub peak_bytes: u64,
    /// What it made dirty in the page cache or wrote to the disk directly (`write_bytes`), less what was deleted
    /// before it got there (`cancelled_write_bytes`).
    pub written_bytes: u64,
}

impl Usage {
    /// Of a process and its descendants.
    pub fn of_tree(root: u32) -> anyhow::Result<Usage> {
        let mut total = Usage::default();
        for process in tree(root)? {
            // A helper process may have ended since it was listed.
            match (Usage::of(process), process == root) {
                (Ok(usage), _) => total.add(&usage),
                (Err(error), true) => return Err(error.context("a server has ended")),
                (Err(_), false) => {}
            }
        }
        Ok(total)
    }

    fn of(process: u32) -> anyhow::Result<Usage> {
        let read = |name: &str| fs::read_to_string(format!("/proc/{process}/{name}"));
        let (status, io) = (read("status")?, read("io")?);
        let (written, cancelled) = (field(&io, "write_bytes"), field(&io, "cancelled_write_bytes"));
        Ok(Usage {
            cpu_seconds: cpu_seconds(&read("stat")?)?,
            resident_bytes: field(&status, "VmRSS") * 1024,
            anonymous_bytes: field(&status, "RssAnon") * 1024,
            peak_bytes: field(&status, "VmHWM") * 1024,
            written_bytes: written.saturating_sub(cancelled),
        })
    }

    /// Takes another process's in.
    pub fn add(&mut self, other: &Usage) {
        self.cpu_seconds += other.cpu_seconds;
        self.resident_bytes += other.resident_bytes;
        self.anonymous_bytes += other.anonymous_bytes;
        self.peak_bytes += other.peak_bytes;
        self.written_bytes += other.written_bytes;
    }
}

/// CPU seconds of this process so far.
pub fn own_cpu_seconds() -> anyhow::Result<f64> {
    cpu_seconds(&fs::read_to_string("/proc/self/stat")?)
}

/// A process and its descendants.
pub fn tree(root: u32) -> anyhow::Result<Vec<u32>> {
    let mut children: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let Some(process) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // It may have ended meanwhile.
        let Ok(stat) = fs::read_to_string(format!("/proc/{process}/stat")) else { continue };
        if let Some(parent) = parent(&stat) {
            children.entry(parent).or_default().push(process);
        }
    }
    let mut found = vec![root];
    let mut position = 0;
    while let Some(process) = found.get(position) {
        // Removed, so that a process number that is used again makes no circle.
        let further = children.remove(process).unwrap_or_default();
        found.extend(further);
        position += 1;
    }
    Ok(found)
}

/// The fields after the program's name, which stands in parentheses and may hold spaces.
fn stat_fields(stat: &str) -> Option<impl Iterator<Item = &str>> {
    Some(stat.rsplit_once(')')?.1.split_whitespace())
}

fn parent(stat: &str) -> Option<u32> {
    stat_fields(stat)?.nth(1)?.parse().ok()
}

fn cpu_seconds(stat: &str) -> anyhow::Result<f64> {
    let fields = stat_fields(stat).context("/proc/PID/stat has another form")?;
    let ticks = fields.skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    Ok(ticks as f64 / TICKS_PER_SECOND)
}

/// A number in a file of `name: number` lines; 0 if it is not there.
fn field(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.and_then(|value| value.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str = "12 (a (b) c) S 7 12 12 0 -1 4194560 1 2 3 4 250 150 9 9 20 0 1 0 100 1 1";

    #[test]
    fn a_program_name_with_spaces_and_parentheses_does_not_confuse() {
        assert_eq!(parent(STAT), Some(7));
        assert!((cpu_seconds(STAT).unwrap() - 4.0).abs() < 1e-9);
        assert!(cpu_seconds("nonsense").is_err());
    }

    #[test]
    fn numbers_are_found_by_their_whole_name() {
        let io = "wchar: 5\nwrite_bytes: 4096\ncancelled_write_bytes: 512\n";
        assert_eq!((field(io, "write_bytes"), field(io, "cancelled_write_bytes"), field(io, "none")), (4096, 512, 0));
        assert_eq!(field("VmHWM:\t    2048 kB\n", "VmHWM"), 2048);
    }

    #[test]
    fn this_process_uses_something() {
        let usage = Usage::of_tree(std::process::id()).unwrap();
        assert!(usage.peak_bytes >= usage.resident_bytes && usage.anonymous_bytes > 0);
    }
}
