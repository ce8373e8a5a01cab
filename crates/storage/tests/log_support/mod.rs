//! What the tests of the log share.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use dwell_storage::log::{Log, LogEntry, LogError, LogOptions};
use futures::executor::block_on;

pub type Written = Result<(), LogError>;

/// Files of 64 KiB, so that a test sees many of them.
pub fn small_files() -> LogOptions {
    LogOptions { file_bytes: 64 * 1024, purge_threshold_bytes: 256 * 1024, ..LogOptions::default() }
}

pub fn open(directory: &Path) -> Arc<Log> {
    Log::open(directory, LogOptions::default()).expect("opens")
}

/// An entry that says whose it is: group, term and index, and then filling up to `length`.
pub fn entry(group: u64, term: u64, index: u64, length: usize) -> LogEntry {
    let mut payload = format!("group {group} term {term} index {index} ").into_bytes();
    payload.resize(payload.len().max(length), b'.');
    LogEntry::new(index, Bytes::from(payload))
}

pub fn entries(group: u64, term: u64, range: std::ops::Range<u64>) -> Vec<LogEntry> {
    range.map(|index| entry(group, term, index, 100)).collect()
}

/// A callback, and where its result arrives.
pub fn waiter() -> (impl FnOnce(Written) + Send + 'static, mpsc::Receiver<Written>) {
    let (sender, receiver) = mpsc::channel();
    (move |result| drop(sender.send(result)), receiver)
}

/// Appends without waiting for the disk.
pub fn append_queued(log: &Log, group: u64, entries: Vec<LogEntry>) -> mpsc::Receiver<Written> {
    let (written, wait) = waiter();
    block_on(log.append(group, entries, written)).expect("accepted");
    wait
}

pub fn append(log: &Log, group: u64, entries: Vec<LogEntry>) {
    append_queued(log, group, entries).recv().expect("answered").expect("written");
}

pub fn put(log: &Log, group: u64, key: &str, value: &str) {
    let (written, wait) = waiter();
    log.put(group, key.as_bytes(), Bytes::copy_from_slice(value.as_bytes()), written).expect("accepted");
    wait.recv().expect("answered").expect("written");
}

pub fn get(log: &Log, group: u64, key: &str) -> Option<String> {
    let value = log.get(group, key.as_bytes()).expect("a group");
    value.map(|value| String::from_utf8(value.to_vec()).expect("text"))
}

pub fn truncate(log: &Log, group: u64, index: u64) {
    let (written, wait) = waiter();
    log.truncate(group, index, written).expect("accepted");
    wait.recv().expect("answered").expect("written");
}

pub fn read(log: &Log, group: u64, range: std::ops::Range<u64>) -> Vec<LogEntry> {
    block_on(log.read(group, range, usize::MAX)).expect("reads")
}

pub fn read_all(log: &Log, group: u64) -> Vec<LogEntry> {
    read(log, group, 0..u64::MAX)
}

pub fn last(log: &Log, group: u64) -> Option<u64> {
    log.extent(group).expect("a group").last
}

pub fn purged(log: &Log, group: u64) -> Option<u64> {
    log.extent(group).expect("a group").purged.map(|(index, _)| index)
}

/// The log files of the append queue, oldest first.
pub fn files(directory: &Path) -> Vec<PathBuf> {
    files_named(directory, ".raftlog")
}

pub fn files_named(directory: &Path, suffix: &str) -> Vec<PathBuf> {
    let names = fs::read_dir(directory).expect("a directory").map(|file| file.expect("a file").path());
    let mut names: Vec<_> = names.filter(|path| path.to_string_lossy().ends_with(suffix)).collect();
    names.sort();
    names
}

/// Where `needle` stands in a file.
pub fn position(file: &Path, needle: &[u8]) -> Option<usize> {
    let bytes = fs::read(file).expect("a file");
    bytes.windows(needle.len()).position(|window| window == needle)
}

pub fn flip(file: &Path, position: usize) {
    let mut bytes = fs::read(file).expect("a file");
    bytes[position] ^= 0x40;
    fs::write(file, bytes).expect("written");
}

/// Values of a histogram: how many observations, and their sum.
pub fn histogram(options: &LogOptions, name: &str) -> (u64, f64) {
    let metric = metric(options, name);
    (metric.get_histogram().get_sample_count(), metric.get_histogram().get_sample_sum())
}

pub fn gauge(options: &LogOptions, name: &str) -> f64 {
    metric(options, name).get_gauge().get_value()
}

fn metric(options: &LogOptions, name: &str) -> prometheus::proto::Metric {
    let families = options.registry.gather();
    families.iter().find(|family| family.name() == name).expect("registered").get_metric()[0].clone()
}

/// The file that says up to where the log was synced.
pub const MARK: &str = "DURABLE";

/// The files of a closed log, elsewhere.
pub fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.path().join(file.file_name())).unwrap();
    }
    to
}
