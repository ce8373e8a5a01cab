//! A log that lost writes that were synced is refused; one that lost only what a crash tore is not.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod log_support;

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use dwell_storage::log::{Log, LogError, LogOptions, read_votes};

use log_support::*;

/// A log with `count` entries, each of them a write of its own, and the end of each record in the file.
fn written(directory: &Path, count: u64) -> (PathBuf, Vec<usize>) {
    let mut ends = Vec::new();
    for index in 0..count {
        let log = open(directory);
        append(&log, 1, vec![entry(1, 1, index, 200)]);
        // The file is as long as its records only when it is closed.
        drop(log);
        ends.push(fs::metadata(&files(directory)[0]).unwrap().len() as usize);
    }
    (files(directory).remove(0), ends)
}

fn is_refused(directory: &Path) -> bool {
    match Log::open(directory, LogOptions::default()) {
        Err(LogError::Corrupt(_)) => true,
        Err(error) => panic!("{error}"),
        Ok(_) => false,
    }
}

#[test]
fn a_byte_flipped_in_the_last_synced_record_is_never_served_nor_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    let (file, ends) = written(directory.path(), 5);
    let mut on_open = 0;
    for position in ends[3]..ends[4] {
        let damaged = copy(directory.path());
        flip(&damaged.path().join(file.file_name().unwrap()), position);
        match Log::open(damaged.path(), LogOptions::default()) {
            Err(LogError::Corrupt(_)) => {
                on_open += 1;
                // Nor is it forgotten: raft-engine has cut the record off by now.
                assert!(is_refused(damaged.path()), "byte {position}, opened again");
            }
            Err(error) => panic!("byte {position}: {error}"),
            // It stands in a field that nobody reads.
            Ok(log) => assert_eq!(read_all(&log, 1), entries(1, 1, 0..5), "byte {position}"),
        }
    }
    assert!(on_open > 250, "{on_open} found");
}

#[test]
fn a_last_file_that_is_short_or_missing_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let (file, ends) = written(directory.path(), 5);
    for length in [0, 1, 100, ends[0], ends[3], ends[3] + 1, ends[4] - 1] {
        let damaged = copy(directory.path());
        let path = damaged.path().join(file.file_name().unwrap());
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length as u64).unwrap();
        assert!(is_refused(damaged.path()), "cut at {length}");
    }
    let damaged = copy(directory.path());
    fs::remove_file(damaged.path().join(file.file_name().unwrap())).unwrap();
    assert!(is_refused(damaged.path()));
}

#[test]
fn a_last_file_of_many_that_is_missing_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let log = Log::open(directory.path(), small_files()).unwrap();
    (0..40).for_each(|index| append(&log, 1, vec![entry(1, 1, index, 10_000)]));
    drop(log);
    fs::remove_file(files(directory.path()).pop().unwrap()).unwrap();
    assert!(matches!(Log::open(directory.path(), small_files()), Err(LogError::Corrupt(_))));
}

#[test]
fn what_is_behind_the_last_synced_record_is_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    let (file, ends) = written(directory.path(), 5);
    // As in a crash after a record was begun, and before its sync: the mark is one behind.
    let before = copy(directory.path());
    let log = open(directory.path());
    append(&log, 1, vec![entry(1, 1, 5, 200)]);
    drop(log);
    let whole = fs::read(&file).unwrap();
    for length in [ends[4] + 1, ends[4] + 16, ends[4] + 100, whole.len() - 1] {
        let torn = copy(directory.path());
        fs::copy(before.path().join(MARK), torn.path().join(MARK)).unwrap();
        fs::write(torn.path().join(file.file_name().unwrap()), &whole[..length]).unwrap();
        assert_eq!(last(&open(torn.path()), 1), Some(4), "cut at {length}");
    }
}

#[test]
fn a_mark_that_a_power_cut_left_behind_does_no_harm() {
    let directory = tempfile::tempdir().unwrap();
    written(directory.path(), 2);
    let mark = fs::read(directory.path().join(MARK)).unwrap();
    let log = open(directory.path());
    append(&log, 1, entries(1, 1, 2..5));
    append(&log, 1, entries(1, 1, 5..6));
    drop(log);
    fs::write(directory.path().join(MARK), mark).unwrap();
    let log = open(directory.path());
    assert_eq!(last(&log, 1), Some(5));
    append(&log, 1, entries(1, 1, 6..7));
    drop(log);
    // And from there on it is exact again.
    let (file, length) = (files(directory.path()).remove(0), fs::metadata(&files(directory.path())[0]).unwrap().len());
    fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(length - 1).unwrap();
    assert!(is_refused(directory.path()));
}

#[test]
fn truncations_and_purges_leave_a_log_that_opens_again() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    append(&log, 1, entries(1, 1, 0..20));
    append(&log, 2, entries(2, 1, 0..3));
    truncate(&log, 1, 10);
    drop(log);
    let log = open(directory.path());
    assert_eq!(last(&log, 1), Some(9));
    append(&log, 1, entries(1, 2, 10..12));
    log.purge(1, 30, Bytes::new()).unwrap();
    put(&log, 1, "key", "value");
    drop(log);
    let log = open(directory.path());
    assert_eq!((last(&log, 1), purged(&log, 1), last(&log, 2)), (None, Some(30), Some(2)));
    append(&log, 1, entries(1, 3, 31..33));
    drop(log);
    assert_eq!(last(&open(directory.path()), 1), Some(32));
}

#[test]
fn a_lost_truncation_is_noticed_too() {
    let directory = tempfile::tempdir().unwrap();
    let (file, _) = written(directory.path(), 5);
    let log = open(directory.path());
    truncate(&log, 1, 2);
    drop(log);
    let length = fs::metadata(&file).unwrap().len();
    fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(length - 1).unwrap();
    assert!(is_refused(directory.path()));
}

#[test]
fn a_missing_mark_is_refused_unless_the_log_is_older_than_marks() {
    let directory = tempfile::tempdir().unwrap();
    written(directory.path(), 2);
    fs::remove_file(directory.path().join(MARK)).unwrap();
    assert!(is_refused(directory.path()));
    // As the version before wrote it: magic, version, stamp, checksum.
    let identity = directory.path().join("IDENTITY");
    let mut bytes = fs::read(&identity).unwrap();
    bytes[11] = 1;
    let end = bytes.len() - 4;
    let checksum = crc32fast::hash(&bytes[..end]).to_be_bytes();
    bytes[end..].copy_from_slice(&checksum);
    fs::write(&identity, bytes).unwrap();
    assert_eq!(last(&open(directory.path()), 1), Some(1));
    assert_eq!(last(&open(directory.path()), 1), Some(1), "and from then on it has one");
}

#[test]
fn a_vote_is_kept_outside_of_the_log() {
    let root = tempfile::tempdir().unwrap();
    let (log_directory, votes) = (root.path().join("log"), root.path().join("votes"));
    let options = || LogOptions { votes_directory: Some(votes.clone()), ..LogOptions::default() };
    let log = Log::open(&log_directory, options()).unwrap();
    for vote in ["first", "second"] {
        let (done, wait) = waiter();
        log.put_vote(1, b"vote", Bytes::from_static(vote.as_bytes()), done).unwrap();
        wait.recv().unwrap().unwrap();
        assert_eq!(get(&log, 1, "vote").as_deref(), Some(vote));
        assert_eq!(read_votes(&votes, 1).unwrap(), [vote, vote]);
    }
    drop(log);
    fs::remove_dir_all(&log_directory).unwrap();
    let log = Log::open(&log_directory, options()).unwrap();
    assert_eq!(log.kept_votes(1).unwrap().unwrap(), ["second", "second"]);
    assert_eq!(get(&log, 1, "vote"), None);
}
