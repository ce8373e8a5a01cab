//! What a log has after it was closed and opened again.

mod log_support;

use bytes::Bytes;
use dwell_storage::log::{Log, LogEntry, LogError, LogOptions};
use futures::executor::block_on;

use log_support::*;

#[test]
fn a_reopened_log_has_everything() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    append(&log, 1, entries(1, 1, 0..10));
    append(&log, 1, entries(1, 2, 10..20));
    put(&log, 1, "vote", "for 2");
    log.purge(1, 4, Bytes::from_static(b"note")).unwrap();
    drop(log);

    let log = open(directory.path());
    assert_eq!(read_all(&log, 1), [entries(1, 1, 5..10), entries(1, 2, 10..20)].concat());
    assert_eq!(get(&log, 1, "vote").as_deref(), Some("for 2"));
    let extent = log.extent(1).unwrap();
    assert_eq!((extent.purged, extent.last), (Some((4, Bytes::from_static(b"note"))), Some(19)));
}

#[test]
fn lazy_writes_are_readable_at_once_and_kept_by_closing() {
    let directory = tempfile::tempdir().unwrap();
    let options = LogOptions::default();
    let log = Log::open(directory.path(), options.clone()).unwrap();
    log.put_lazily(1, b"committed", Bytes::from_static(b"7")).unwrap();
    assert_eq!(get(&log, 1, "committed").as_deref(), Some("7"));
    assert_eq!(histogram(&options, "dwell_log_fsync_seconds").0, 0, "no fsync of its own");
    drop(log);
    assert_eq!(get(&open(directory.path()), 1, "committed").as_deref(), Some("7"));
}

#[test]
fn a_truncated_tail_does_not_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    append(&log, 1, entries(1, 1, 0..10));
    truncate(&log, 1, 6);
    assert_eq!(read_all(&log, 1), entries(1, 1, 0..6));
    drop(log);

    let log = open(directory.path());
    assert_eq!(last(&log, 1), Some(5));
    assert_eq!(read_all(&log, 1), entries(1, 1, 0..6));
    append(&log, 1, entries(1, 2, 6..8));
    drop(log);

    let log = open(directory.path());
    assert_eq!(read_all(&log, 1), [entries(1, 1, 0..6), entries(1, 2, 6..8)].concat());
}

#[test]
fn a_log_truncated_to_nothing_stays_empty() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    append(&log, 1, entries(1, 1, 0..10));
    truncate(&log, 1, 0);
    drop(log);

    let log = open(directory.path());
    assert_eq!((last(&log, 1), read_all(&log, 1)), (None, Vec::new()));
    append(&log, 1, entries(1, 2, 0..3));
    drop(log);
    assert_eq!(read_all(&open(directory.path()), 1), entries(1, 2, 0..3));
}

#[test]
fn a_purged_prefix_does_not_come_back() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    append(&log, 1, entries(1, 1, 0..10));
    log.purge(1, 6, Bytes::new()).unwrap();
    assert_eq!(read_all(&log, 1), entries(1, 1, 7..10));
    drop(log);

    let log = open(directory.path());
    assert_eq!((purged(&log, 1), read_all(&log, 1)), (Some(6), entries(1, 1, 7..10)));
}

#[test]
fn a_purge_beyond_the_end_lets_the_log_go_on_behind_it() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    append(&log, 1, entries(1, 1, 0..10));
    truncate(&log, 1, 5);
    log.purge(1, 20, Bytes::new()).unwrap();
    drop(log);

    let log = open(directory.path());
    assert_eq!((purged(&log, 1), last(&log, 1)), (Some(20), None));
    append(&log, 1, entries(1, 3, 21..25));
    drop(log);

    let log = open(directory.path());
    assert_eq!(read_all(&log, 1), entries(1, 3, 21..25));
}

#[test]
fn a_truncation_and_a_purge_that_leave_nothing_between_them_hold() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    append(&log, 1, entries(1, 1, 0..10));
    truncate(&log, 1, 5);
    log.purge(1, 6, Bytes::new()).unwrap();
    drop(log);

    // Entries 7 to 9 of term 1 are still in the file, behind the purge and truncated.
    let log = open(directory.path());
    assert_eq!((purged(&log, 1), last(&log, 1), read_all(&log, 1)), (Some(6), None, Vec::new()));
    append(&log, 1, entries(1, 2, 7..8));
    drop(log);
    assert_eq!(read_all(&open(directory.path()), 1), entries(1, 2, 7..8));
}

#[test]
fn groups_are_independent() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    append(&log, 1, entries(1, 1, 0..10));
    append(&log, 2, entries(2, 5, 0..4));
    put(&log, 1, "vote", "one");
    put(&log, 2, "vote", "two");
    truncate(&log, 1, 3);
    log.purge(2, 1, Bytes::new()).unwrap();
    assert_eq!(log.extent(3).unwrap(), Default::default());
    assert_eq!(log.extent(0), Err(LogError::ReservedGroup));
    drop(log);

    let log = open(directory.path());
    assert_eq!(read_all(&log, 1), entries(1, 1, 0..3));
    assert_eq!(read_all(&log, 2), entries(2, 5, 2..4));
    assert_eq!(get(&log, 1, "vote").as_deref(), Some("one"));
    assert_eq!(get(&log, 2, "vote").as_deref(), Some("two"));
}

#[test]
fn a_directory_is_open_only_once() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    assert!(matches!(Log::open(directory.path(), LogOptions::default()), Err(LogError::Open { .. })));
    drop(log);
    open(directory.path());
}

/// Votes, truncations and entries that are rewritten and recycled many times over, with an idle group whose
/// few entries and keys raft-engine has to move out of old files.
#[test]
fn nothing_old_comes_back_when_files_are_recycled() {
    let directory = tempfile::tempdir().unwrap();
    let mut log = Log::open(directory.path(), small_files()).unwrap();
    append(&log, 7, entries(7, 1, 0..5));
    truncate(&log, 7, 3);
    append(&log, 7, entries(7, 2, 3..5));
    put(&log, 7, "vote", "old");
    put(&log, 7, "vote", "new");

    let mut first = 0;
    for round in 0..40 {
        for _ in 0..8 {
            append(&log, 1, (first..first + 5).map(|index| entry(1, round, index, 2_000)).collect());
            first += 5;
        }
        truncate(&log, 1, first - 2);
        first -= 2;
        log.purge(1, first - 10, Bytes::new()).unwrap();
        if round % 7 == 0 {
            drop(log);
            log = Log::open(directory.path(), small_files()).unwrap();
        }
        assert_eq!(last(&log, 1), Some(first - 1), "round {round}");
        let read = read_all(&log, 1);
        let expected: Vec<LogEntry> = (first - 9..first).map(|index| entry(1, round, index, 2_000)).collect();
        assert_eq!(read, expected, "round {round}");
        assert_eq!(read_all(&log, 7), [entries(7, 1, 0..3), entries(7, 2, 3..5)].concat(), "round {round}");
        assert_eq!(get(&log, 7, "vote").as_deref(), Some("new"), "round {round}");
    }
    // Without cleaning up there would be 50 files: 3 MB were written.
    drop(log);
    let count = files(directory.path()).len();
    assert!(count <= 8, "{count} files");
    assert!(!files_named(directory.path(), ".rewrite").is_empty(), "the idle group was moved");
}

#[test]
fn entries_that_do_not_follow_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    append(&log, 1, entries(1, 1, 0..5));
    log.purge(1, 2, Bytes::new()).unwrap();
    let refused = |entries: Vec<LogEntry>| block_on(log.append(1, entries, |_| panic!("not called"))).unwrap_err();
    assert_eq!(refused(entries(1, 1, 6..7)), LogError::Hole { group: 1, index: 6, expected: 5 });
    assert_eq!(refused(vec![entry(1, 1, 5, 9), entry(1, 1, 7, 9)]), LogError::Hole { group: 1, index: 7, expected: 6 });
    assert_eq!(refused(entries(1, 1, 2..3)), LogError::Purged { group: 1, index: 2, purged: 2 });
    append(&log, 1, entries(1, 1, 5..6));
    assert_eq!(read_all(&log, 1), entries(1, 1, 3..6));
}
