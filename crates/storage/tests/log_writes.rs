//! How writes share the disk, keep their order, and fail.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod log_support;

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;

use bytes::Bytes;
use dwell_storage::log::{Log, LogEntry, LogError, LogOptions};
use futures::FutureExt;
use futures::executor::block_on;

use log_support::*;

/// Stops the writer in a callback, until the sender that is returned goes.
fn hold_writer(log: &Log) -> mpsc::Sender<()> {
    let (release, released) = mpsc::channel::<()>();
    let (held, is_held) = mpsc::channel();
    let hold = move |_: Written| {
        held.send(()).expect("waited for");
        released.recv().expect_err("only dropped");
    };
    log.put(99, b"hold", Bytes::new(), hold).unwrap();
    is_held.recv().unwrap();
    release
}

#[test]
fn everything_that_waits_shares_one_fsync() {
    let directory = tempfile::tempdir().unwrap();
    let options = LogOptions::default();
    let log = Log::open(directory.path(), options.clone()).unwrap();
    let release = hold_writer(&log);
    let waits: Vec<_> = (0..100)
        .flat_map(|index| [1, 2, 3].map(|group| append_queued(&log, group, entries(group, 1, index..index + 1))))
        .collect();
    assert_eq!(histogram(&options, "dwell_log_batch_entries"), (1, 0.0), "only the write that holds the writer");
    assert_eq!(gauge(&options, "dwell_log_write_queue"), 300.0);
    drop(release);
    waits.into_iter().for_each(|wait| wait.recv().unwrap().unwrap());
    assert_eq!(histogram(&options, "dwell_log_batch_entries"), (2, 300.0));
    assert_eq!(histogram(&options, "dwell_log_fsync_seconds").0, 2);
    assert!(histogram(&options, "dwell_log_batch_bytes").1 > 30_000.0);
}

#[test]
fn a_batch_ends_at_its_limit() {
    let directory = tempfile::tempdir().unwrap();
    let options = LogOptions { batch_bytes_max: 10_000, ..LogOptions::default() };
    let log = Log::open(directory.path(), options.clone()).unwrap();
    let release = hold_writer(&log);
    let waits: Vec<_> = (0..10).map(|index| append_queued(&log, 1, vec![entry(1, 1, index, 4_000)])).collect();
    drop(release);
    waits.into_iter().for_each(|wait| wait.recv().unwrap().unwrap());
    assert_eq!(histogram(&options, "dwell_log_batch_entries"), (1 + 5, 10.0), "two fit");
}

#[test]
fn appended_entries_are_readable_before_they_are_on_disk() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    append(&log, 1, entries(1, 1, 0..5));
    let release = hold_writer(&log);
    let wait = append_queued(&log, 1, entries(1, 1, 5..10));
    assert_eq!(read_all(&log, 1), entries(1, 1, 0..10), "half from disk, half from memory");
    assert_eq!(read(&log, 1, 6..8), entries(1, 1, 6..8));

    let (written, truncated) = waiter();
    log.truncate(1, 3, written).unwrap();
    assert_eq!(read_all(&log, 1), entries(1, 1, 0..3));
    let replaced = append_queued(&log, 1, entries(1, 2, 3..7));
    assert_eq!(read_all(&log, 1), [entries(1, 1, 0..3), entries(1, 2, 3..7)].concat());
    assert!(wait.try_recv().is_err() && replaced.try_recv().is_err());

    drop(release);
    [wait, truncated, replaced].into_iter().for_each(|wait| wait.recv().unwrap().unwrap());
    assert_eq!(read_all(&log, 1), [entries(1, 1, 0..3), entries(1, 2, 3..7)].concat());
    drop(log);
    assert_eq!(read_all(&open(directory.path()), 1), [entries(1, 1, 0..3), entries(1, 2, 3..7)].concat());
}

#[test]
fn votes_and_entries_are_written_in_the_order_of_the_calls() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    let release = hold_writer(&log);
    let (sender, order) = mpsc::channel();
    for step in 0..50_u64 {
        let (vote, entry_written) = (sender.clone(), sender.clone());
        let value = Bytes::from(step.to_string());
        log.put(1, b"vote", value, move |result| vote.send((step, "vote", result)).unwrap()).unwrap();
        let written = move |result| entry_written.send((step, "entry", result)).unwrap();
        block_on(log.append(1, entries(1, step, step..step + 1), written)).unwrap();
    }
    drop((release, sender));
    let expected: Vec<_> = (0..50).flat_map(|step| [(step, "vote", Ok(())), (step, "entry", Ok(()))]).collect();
    assert_eq!(order.iter().collect::<Vec<_>>(), expected);
}

#[test]
fn lazy_writes_ride_on_the_next_write() {
    let directory = tempfile::tempdir().unwrap();
    let options = LogOptions::default();
    let log = Log::open(directory.path(), options.clone()).unwrap();
    for position in 0..100 {
        log.put_lazily(1, b"committed", Bytes::from(position.to_string())).unwrap();
    }
    log.purge(1, 4, Bytes::new()).unwrap();
    assert_eq!(histogram(&options, "dwell_log_fsync_seconds").0, 0);
    append(&log, 1, entries(1, 1, 5..6));
    assert_eq!(histogram(&options, "dwell_log_fsync_seconds").0, 1);
    assert_eq!(get(&log, 1, "committed").as_deref(), Some("99"));
}

#[test]
fn an_append_waits_while_the_queue_is_full() {
    let directory = tempfile::tempdir().unwrap();
    let log = Log::open(directory.path(), LogOptions { queue_bytes_max: 10_000, ..LogOptions::default() }).unwrap();
    let release = hold_writer(&log);
    let first = append_queued(&log, 1, vec![entry(1, 1, 0, 9_000)]);
    let (written, second) = waiter();
    let mut append = Box::pin(log.append(1, vec![entry(1, 1, 1, 9_000)], written));
    assert!(append.as_mut().now_or_never().is_none());
    assert_eq!(last(&log, 1), Some(0));
    drop(release);
    block_on(append).unwrap();
    [first, second].into_iter().for_each(|wait| wait.recv().unwrap().unwrap());
    // Larger than the queue: it gets the queue to itself.
    append_queued(&log, 1, vec![entry(1, 1, 2, 50_000)]).recv().unwrap().unwrap();
    assert_eq!(last(&log, 1), Some(2));
}

#[test]
fn a_read_stops_at_its_limit_but_not_before_the_first_entry() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    append(&log, 1, (0..10).map(|index| entry(1, 1, index, 1_000)).collect());
    let release = hold_writer(&log);
    let wait = append_queued(&log, 1, (10..20).map(|index| entry(1, 1, index, 1_000)).collect());
    let count = |range, bytes_max| block_on(log.read(1, range, bytes_max)).unwrap().len();
    assert_eq!(count(0..20, 1), 1);
    assert_eq!(count(0..20, 5_500), 5);
    assert_eq!(count(0..20, 15_500), 15, "the limit falls among those in memory");
    assert_eq!(count(15..20, 1), 1);
    assert_eq!(count(5..5, 1), 0);
    assert_eq!(count(30..40, 1), 0);
    drop(release);
    wait.recv().unwrap().unwrap();
}

/// Replaces the end of the log again and again, in two appends, while somebody reads all of it.
#[test]
fn a_read_never_mixes_what_was_there_at_different_moments() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    append(&log, 1, entries(1, 0, 0..10));
    let done = AtomicBool::new(false);
    let term = |entry: &LogEntry| {
        let text = String::from_utf8(entry.payload().to_vec()).unwrap();
        text.split(' ').nth(3).unwrap().parse::<u64>().unwrap()
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            for round in 1..=400 {
                log.truncate(1, 10, |_| {}).unwrap();
                append_queued(&log, 1, entries(1, round, 10..15));
                let wait = append_queued(&log, 1, entries(1, round, 15..20));
                // Some rounds find the last one on disk, some in memory.
                if round % 2 == 0 {
                    wait.recv().unwrap().unwrap();
                }
            }
            done.store(true, Ordering::Relaxed);
        });
        while !done.load(Ordering::Relaxed) {
            let read = read_all(&log, 1);
            assert!([10, 15, 20].contains(&read.len()), "{} entries", read.len());
            assert!(read[..10].iter().all(|entry| term(entry) == 0));
            assert!(read[10..].iter().all(|entry| term(entry) == term(&read[10])), "of one round");
        }
    });
}

#[test]
fn after_a_failed_write_every_later_one_answers_the_error() {
    let directory = tempfile::tempdir().unwrap();
    let log = Log::open(directory.path(), small_files()).unwrap();
    append(&log, 1, entries(1, 1, 0..1));
    // The next file cannot be created.
    fs::remove_dir_all(directory.path()).unwrap();
    let failed = (1..).find_map(|index| append_queued(&log, 1, vec![entry(1, 1, index, 10_000)]).recv().unwrap().err());
    let error = failed.unwrap();
    assert!(matches!(error, LogError::Failed(_)), "{error}");
    assert_eq!(log.failure(), Some(error.clone()));
    let next = last(&log, 1).unwrap() + 1;
    assert_eq!(block_on(log.append(1, entries(1, 1, next..next + 1), |_| panic!("not called"))), Err(error.clone()));
    assert_eq!(log.put(1, b"vote", Bytes::new(), |_| panic!("not called")), Err(error.clone()));
    assert_eq!(log.put_lazily(2, b"committed", Bytes::new()), Err(error.clone()));
    assert_eq!(log.truncate(1, 0, |_| panic!("not called")), Err(error.clone()));
    assert_eq!(log.purge(1, 0, Bytes::new()), Err(error));
}

#[test]
fn dropping_the_log_writes_what_is_queued() {
    let directory = tempfile::tempdir().unwrap();
    let log = open(directory.path());
    let waits: Vec<_> = (0..100).map(|index| append_queued(&log, 1, entries(1, 1, index..index + 1))).collect();
    drop(log);
    waits.into_iter().for_each(|wait| wait.try_recv().expect("answered before drop returned").unwrap());
    assert_eq!(read_all(&open(directory.path()), 1), entries(1, 1, 0..100));
}
