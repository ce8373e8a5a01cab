//! What happens to a log whose files a crash tore, or something damaged.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod log_support;

use std::fs;
use std::path::{Path, PathBuf};

use dwell_storage::log::{Log, LogError, LogOptions};
use futures::executor::block_on;

use log_support::*;

/// A log with ten records, each with one entry, and where each record begins and ends in the file, with the mark of what
/// was synced up to there.
fn ten_records(directory: &Path) -> (PathBuf, Vec<usize>, Vec<Vec<u8>>) {
    let log = open(directory);
    put(&log, 1, "vote", "first");
    let length = || fs::metadata(&files(directory)[0]).unwrap().len();
    let mark = || fs::read(directory.join(MARK)).unwrap();
    drop(log);
    let (mut ends, mut marks) = (vec![length() as usize], vec![mark()]);
    for index in 0..10 {
        let log = open(directory);
        append(&log, 1, vec![entry(1, 1, index, 200)]);
        // The file is as long as its records only when it is closed.
        drop(log);
        ends.push(length() as usize);
        marks.push(mark());
    }
    (files(directory).remove(0), ends, marks)
}

#[test]
fn a_torn_tail_costs_only_the_record_it_tore() {
    let directory = tempfile::tempdir().unwrap();
    let (file, ends, marks) = ten_records(directory.path());
    for (index, record) in ends.windows(2).enumerate().skip(7) {
        for length in [record[0] + 1, record[0] + 16, (record[0] + record[1]) / 2, record[1] - 1] {
            let torn = copy(directory.path());
            let torn_file = torn.path().join(file.file_name().unwrap());
            fs::OpenOptions::new().write(true).open(&torn_file).unwrap().set_len(length as u64).unwrap();
            // The crash came before the record was synced.
            fs::write(torn.path().join(MARK), &marks[index]).unwrap();
            let log = open(torn.path());
            let expected: Vec<_> = (0..index as u64).map(|index| entry(1, 1, index, 200)).collect();
            assert_eq!(read_all(&log, 1), expected, "record {index} cut at {length}");
            assert_eq!(get(&log, 1, "vote").as_deref(), Some("first"));
            append(&log, 1, vec![entry(1, 2, index as u64, 200)]);
            drop(log);
            assert_eq!(last(&open(torn.path()), 1), Some(index as u64));
        }
    }
}

#[test]
fn garbage_behind_the_last_record_is_cut_off() {
    let directory = tempfile::tempdir().unwrap();
    let (file, _, _) = ten_records(directory.path());
    let noise: Vec<u8> = (0..50_000_u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    // What fallocate leaves, noise, and what an earlier use of the file could have left.
    for garbage in [vec![0; 100_000], noise, fs::read(&file).unwrap()[69..120].to_vec()] {
        let torn = copy(directory.path());
        let torn_file = torn.path().join(file.file_name().unwrap());
        let bytes = [fs::read(&torn_file).unwrap(), garbage].concat();
        fs::write(&torn_file, bytes).unwrap();
        let log = open(torn.path());
        assert_eq!(read_all(&log, 1).len(), 10);
        append(&log, 1, vec![entry(1, 2, 10, 200)]);
        drop(log);
        assert_eq!(read_all(&open(torn.path()), 1).len(), 11);
    }
}

#[test]
fn a_byte_flipped_anywhere_before_the_last_record_is_never_served() {
    let directory = tempfile::tempdir().unwrap();
    let (file, ends, _) = ten_records(directory.path());
    let (mut on_open, mut on_read) = (0, 0);
    for position in (0..ends[9]).step_by(3) {
        let damaged = copy(directory.path());
        flip(&damaged.path().join(file.file_name().unwrap()), position);
        let log = match Log::open(damaged.path(), LogOptions::default()) {
            Err(LogError::Corrupt(_)) => {
                on_open += 1;
                continue;
            }
            Err(error) => panic!("byte {position}: {error}"),
            Ok(log) => log,
        };
        // Opened: the damage is in an entry, or in a field of the header that nobody reads.
        assert_eq!(last(&log, 1), Some(9), "byte {position}: nothing is cut off");
        for index in 0..10 {
            match block_on(log.read(1, index..index + 1, usize::MAX)) {
                Ok(read) => assert_eq!(read, vec![entry(1, 1, index, 200)], "byte {position}"),
                Err(LogError::Corrupt(_)) => on_read += 1,
                Err(error) => panic!("byte {position}: {error}"),
            }
        }
    }
    assert!(on_open > 100 && on_read > 500, "{on_open} found when opened, {on_read} when read");
}

#[test]
fn damage_in_an_older_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let log = Log::open(directory.path(), small_files()).unwrap();
    (0..40).for_each(|index| append(&log, 1, vec![entry(1, 1, index, 10_000)]));
    drop(log);
    let oldest = &files(directory.path())[0];
    assert!(files(directory.path()).len() > 3);
    // The key of the stamp stands in the record's footer.
    flip(oldest, position(oldest, b"stamp").unwrap());
    assert!(matches!(Log::open(directory.path(), small_files()), Err(LogError::Corrupt(_))));
}

#[test]
fn a_missing_file_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let log = Log::open(directory.path(), small_files()).unwrap();
    (0..40).for_each(|index| append(&log, 1, vec![entry(1, 1, index, 10_000)]));
    log.purge(1, 1, bytes::Bytes::new()).unwrap();
    append(&log, 1, vec![entry(1, 1, 40, 10_000)]);
    drop(log);
    fs::remove_file(&files(directory.path())[2]).unwrap();
    assert!(matches!(Log::open(directory.path(), small_files()), Err(LogError::Corrupt(_))));
}
