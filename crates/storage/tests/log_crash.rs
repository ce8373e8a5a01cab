//! Copies a log's files while it is written, as a crash would leave them, and opens the copy.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod log_support;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use bytes::Bytes;
use dwell_storage::log::{Log, LogEntry, LogOptions};
use futures::executor::block_on;

use log_support::*;

const ROUNDS: usize = 25;
const APPENDS_PER_ROUND: usize = 60;
const TERM_ENTRIES: u64 = 100;

/// Positions whose callbacks have come: everything below was on disk.
#[derive(Default)]
struct Acknowledged {
    entries: AtomicU64,
    vote: AtomicU64,
}

/// Copies what a crash at this moment might leave: the oldest files first and the newest last, while the
/// writer goes on. A file that is deleted meanwhile was not needed when its successor was copied.
fn copy_while_written(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    // The mark first: it is written after what it speaks of.
    let mut names = vec![from.join("IDENTITY"), from.join(MARK)];
    names.extend(files(from));
    // Entries are moved here before their file goes, so this queue is listed after the other was copied.
    for file in names {
        copy_if_there(&file, to);
    }
    for file in files_named(from, ".rewrite") {
        copy_if_there(&file, to);
    }
}

fn copy_if_there(file: &Path, to: &Path) {
    // Read at once, so that a file that is recycled while it is copied is not half one and half the other.
    if let Ok(bytes) = fs::read(file) {
        fs::write(to.join(file.file_name().unwrap()), bytes).unwrap();
    }
}

fn term(index: u64) -> u64 {
    index / TERM_ENTRIES
}

/// Queues one round of writes, as fast as it can, from the entry at `index` on. Returns where it ended.
fn write_round(log: &Log, acknowledged: &Arc<Acknowledged>, mut index: u64) -> u64 {
    for _ in 0..APPENDS_PER_ROUND {
        let count = 1 + index % 4;
        // A vote at each change of term, before the entries of the term.
        if index == 0 || term(index - 1) < term(index + count - 1) {
            let (vote, acknowledged) = (term(index + count - 1), acknowledged.clone());
            let written = move |result: Written| {
                result.unwrap();
                acknowledged.vote.store(vote, Ordering::SeqCst);
            };
            log.put(1, b"vote", Bytes::from(vote.to_string()), written).unwrap();
        }
        let length = (index * 31 % 1_501) as usize;
        let batch: Vec<LogEntry> = (index..index + count).map(|at| entry(1, term(at), at, length)).collect();
        index += count;
        let acknowledged = acknowledged.clone();
        let written = move |result: Written| {
            result.unwrap();
            acknowledged.entries.store(index, Ordering::SeqCst);
        };
        block_on(log.append(1, batch, written)).unwrap();
    }
    index
}

fn check_copy(copy: &Path, options: LogOptions, entries_min: u64, vote_min: u64) {
    let log = Log::open(copy, options).unwrap();
    let read = read_all(&log, 1);
    assert!(read.len() as u64 >= entries_min, "{} entries of {entries_min}", read.len());
    for (index, read) in read.iter().enumerate() {
        let expected = format!("group 1 term {} index {index} ", term(index as u64));
        assert!(read.payload().starts_with(expected.as_bytes()), "entry {index}");
    }
    let vote: u64 = get(&log, 1, "vote").map_or(0, |vote| vote.parse().unwrap());
    assert!(vote >= vote_min, "vote {vote} of {vote_min}");
    if let Some(last) = read.last() {
        assert!(vote >= term(last.index()), "the vote was written before the entries of its term");
    }
    append(&log, 1, entries(1, 9, read.len() as u64..read.len() as u64 + 1));
}

#[test]
fn whatever_was_acknowledged_before_a_crash_is_there_after_it() {
    let directory = tempfile::tempdir().unwrap();
    let (original, copy) = (directory.path().join("original"), directory.path().join("copy"));
    let options = || LogOptions { registry: Default::default(), ..small_files() };
    let log = Log::open(&original, options()).unwrap();
    let acknowledged = Arc::new(Acknowledged::default());
    let mut index = 0;
    for _ in 0..ROUNDS {
        let before = index;
        let (entries_min, vote_min) = thread::scope(|scope| {
            let writer = scope.spawn(|| write_round(&log, &acknowledged, before));
            // Into the middle of the round's writes.
            while acknowledged.entries.load(Ordering::SeqCst) <= before {
                thread::yield_now();
            }
            let minimums = (acknowledged.entries.load(Ordering::SeqCst), acknowledged.vote.load(Ordering::SeqCst));
            copy_while_written(&original, &copy);
            index = writer.join().unwrap();
            minimums
        });
        check_copy(&copy, options(), entries_min, vote_min);
        fs::remove_dir_all(&copy).unwrap();
    }
    assert!(files(&original).len() > 10, "the copies span many files");
}
