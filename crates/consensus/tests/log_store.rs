//! openraft's log storage beyond openraft's own suite: reopening, sharing, limits.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use dwell_consensus::codec::{log_id_of, vote};
use dwell_consensus::log_store::{LogStore, REPLICATE_BYTES_MAX};
use dwell_consensus::types::{Entry, NodeAddress, Proposal, TypeConfig};
use dwell_storage::log::{Log, LogOptions};
use futures::TryStreamExt;
use openraft::alias::OneshotReceiverOf;
use openraft::storage::{IOFlushed, RaftLogReader, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use openraft::{EntryPayload, Membership};

fn open_log(directory: &Path, tail_bytes_max: usize) -> Arc<Log> {
    Log::open(directory, LogOptions { tail_bytes_max, ..LogOptions::default() }).unwrap()
}

fn open(directory: &Path) -> LogStore {
    LogStore::open(open_log(directory, LogOptions::default().tail_bytes_max), 1).unwrap()
}

/// A store whose tail keeps nothing: every read goes to the log.
fn open_without_tail(directory: &Path) -> LogStore {
    LogStore::open(open_log(directory, 0), 1).unwrap()
}

fn entry(term: u64, index: u64, length: usize) -> Entry {
    let payload = EntryPayload::Normal(Proposal(Bytes::from(vec![index as u8; length])));
    Entry { log_id: log_id_of(term, 1, index), payload }
}

fn entries(term: u64, range: Range<u64>) -> Vec<Entry> {
    range.map(|index| entry(term, index, 100)).collect()
}

/// Appends and returns the callback's answer.
async fn append_queued(store: &mut LogStore, entries: Vec<Entry>) -> OneshotReceiverOf<TypeConfig, io::Result<()>> {
    let (sender, flushed) = TypeConfig::oneshot();
    store.append(entries, IOFlushed::signal(sender)).await.unwrap();
    flushed
}

async fn append(store: &mut LogStore, entries: Vec<Entry>) {
    append_queued(store, entries).await.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_reopened_store_has_everything() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path());
    let address = |node: u64| NodeAddress { peer: format!("peer{node}:1"), client: format!("client{node}:2") };
    let nodes = [1, 2].map(|node| (node, address(node)));
    let membership = Membership::new(vec![[1, 2].into()], std::collections::BTreeMap::from(nodes)).unwrap();
    let written = [
        vec![Entry { log_id: log_id_of(0, 0, 0), payload: EntryPayload::Membership(membership) }],
        vec![Entry { log_id: log_id_of(2, 1, 1), payload: EntryPayload::Blank }],
        entries(2, 2..10),
    ]
    .concat();
    store.save_vote(&vote(2, 1, true)).await.unwrap();
    append(&mut store, written.clone()).await;
    store.save_committed(Some(log_id_of(2, 1, 7))).await.unwrap();
    drop(store);

    let mut store = open(directory.path());
    assert_eq!(store.read_vote().await.unwrap(), Some(vote(2, 1, true)));
    assert_eq!(store.read_committed().await.unwrap(), Some(log_id_of(2, 1, 7)));
    assert_eq!(store.try_get_log_entries(..).await.unwrap(), written);
    let state = store.get_log_state().await.unwrap();
    assert_eq!((state.last_purged_log_id, state.last_log_id), (None, Some(log_id_of(2, 1, 9))));
}

#[tokio::test]
async fn a_new_store_has_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path());
    assert_eq!(store.read_vote().await.unwrap(), None);
    assert_eq!(store.read_committed().await.unwrap(), None);
    assert_eq!(store.get_log_state().await.unwrap(), Default::default());
    assert_eq!(store.try_get_log_entries(..).await.unwrap(), Vec::new());
}

#[tokio::test]
async fn truncation_and_purge_survive_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path());
    append(&mut store, entries(1, 0..10)).await;
    store.truncate_after(Some(log_id_of(1, 1, 6))).await.unwrap();
    store.purge(log_id_of(1, 1, 2)).await.unwrap();
    for _ in 0..2 {
        let state = store.get_log_state().await.unwrap();
        assert_eq!(state.last_purged_log_id, Some(log_id_of(1, 1, 2)));
        assert_eq!(state.last_log_id, Some(log_id_of(1, 1, 6)));
        assert_eq!(store.try_get_log_entries(..).await.unwrap(), entries(1, 3..7));
        drop(store);
        store = open(directory.path());
    }
    append(&mut store, entries(3, 7..9)).await;
    store.truncate_after(Some(log_id_of(1, 1, 2))).await.unwrap();
    for _ in 0..2 {
        let state = store.get_log_state().await.unwrap();
        assert_eq!(state.last_log_id, Some(log_id_of(1, 1, 2)), "the purged position, with nothing behind it");
        assert_eq!(store.try_get_log_entries(..).await.unwrap(), Vec::new());
        drop(store);
        store = open(directory.path());
    }
}

#[tokio::test]
async fn a_log_goes_on_behind_an_installed_snapshot() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path());
    append(&mut store, entries(1, 0..10)).await;
    store.purge(log_id_of(4, 2, 100)).await.unwrap();
    append(&mut store, entries(4, 101..103)).await;
    assert_eq!(store.try_get_log_entries(..).await.unwrap(), entries(4, 101..103));
    drop(store);
    let mut store = open(directory.path());
    assert_eq!(store.try_get_log_entries(..).await.unwrap(), entries(4, 101..103));
    assert_eq!(store.get_log_state().await.unwrap().last_purged_log_id, Some(log_id_of(4, 2, 100)));
}

#[tokio::test]
async fn fresh_entries_are_neither_decoded_nor_read_from_disk() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open(directory.path());
    let written = entries(1, 0..5);
    append(&mut store, written.clone()).await;
    let mut reader = store.get_log_reader().await;
    let read = [
        reader.limited_get_log_entries(0, 5).await.unwrap(),
        reader.entries_stream(0..5).await.try_collect().await.unwrap(),
    ];
    let address = |entry: &Entry| match &entry.payload {
        EntryPayload::Normal(proposal) => proposal.0.as_ptr(),
        payload => panic!("{payload:?}"),
    };
    for read in read {
        let addresses: Vec<_> = read.iter().map(address).collect();
        assert_eq!(addresses, written.iter().map(address).collect::<Vec<_>>(), "the very bytes that were appended");
    }
}

#[tokio::test]
async fn entries_outside_the_tail_are_read_from_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let mut store = open_without_tail(directory.path());
    append(&mut store, entries(1, 0..50)).await;
    let flushed = append_queued(&mut store, entries(2, 50..60)).await;
    let expected = [entries(1, 0..50), entries(2, 50..60)].concat();
    assert_eq!(store.try_get_log_entries(0..60).await.unwrap(), expected);
    assert_eq!(store.try_get_log_entries(48..=52).await.unwrap(), expected[48..53]);
    flushed.await.unwrap().unwrap();
    assert_eq!(store.try_get_log_entries(0..60).await.unwrap(), expected);
}

#[tokio::test]
async fn an_append_request_is_bounded_in_bytes() {
    for open in [open, open_without_tail] {
        let directory = tempfile::tempdir().unwrap();
        let mut store = open(directory.path());
        let large = |range: Range<u64>| range.map(|index| entry(1, index, REPLICATE_BYTES_MAX / 4)).collect::<Vec<_>>();
        append(&mut store, large(0..10)).await;
        append(&mut store, vec![entry(1, 10, 3 * REPLICATE_BYTES_MAX)]).await;
        let count = store.limited_get_log_entries(2, 11).await.unwrap().len();
        assert!((3..=4).contains(&count), "{count} entries");
        assert_eq!(store.limited_get_log_entries(10, 11).await.unwrap().len(), 1, "one at least");
        assert_eq!(store.try_get_log_entries(0..11).await.unwrap().len(), 11, "no bound where all is asked for");
        let streamed: Vec<Entry> = store.entries_stream(0..11).await.try_collect().await.unwrap();
        assert_eq!(streamed, [large(0..10), vec![entry(1, 10, 3 * REPLICATE_BYTES_MAX)]].concat());
    }
}

#[tokio::test]
async fn groups_on_one_log_are_independent() {
    let directory = tempfile::tempdir().unwrap();
    let log = open_log(directory.path(), 1 << 20);
    let (mut one, mut two) = (LogStore::open(log.clone(), 1).unwrap(), LogStore::open(log.clone(), 2).unwrap());
    append(&mut one, entries(1, 0..10)).await;
    append(&mut two, entries(7, 0..3)).await;
    one.save_vote(&vote(1, 1, true)).await.unwrap();
    two.save_vote(&vote(7, 3, false)).await.unwrap();
    one.purge(log_id_of(1, 1, 4)).await.unwrap();
    drop((one, two, log));

    let log = open_log(directory.path(), 1 << 20);
    let (mut one, mut two) = (LogStore::open(log.clone(), 1).unwrap(), LogStore::open(log, 2).unwrap());
    assert_eq!(one.try_get_log_entries(..).await.unwrap(), entries(1, 5..10));
    assert_eq!(two.try_get_log_entries(..).await.unwrap(), entries(7, 0..3));
    assert_eq!(one.read_vote().await.unwrap(), Some(vote(1, 1, true)));
    assert_eq!(two.read_vote().await.unwrap(), Some(vote(7, 3, false)));
}

#[tokio::test]
async fn a_failed_log_is_an_error_of_every_later_write() {
    let directory = tempfile::tempdir().unwrap();
    let options = LogOptions { file_bytes: 16 * 1024, ..LogOptions::default() };
    let mut store = LogStore::open(Log::open(directory.path(), options).unwrap(), 1).unwrap();
    append(&mut store, entries(1, 0..1)).await;
    // The next file cannot be created.
    std::fs::remove_dir_all(directory.path()).unwrap();
    let mut index = 1;
    while append_queued(&mut store, vec![entry(1, index, 20_000)]).await.await.unwrap().is_ok() {
        index += 1;
    }
    assert!(store.save_vote(&vote(2, 1, false)).await.is_err());
    assert_eq!(store.read_vote().await.unwrap(), None, "a vote that was not saved is not shown");
    assert!(store.append(entries(1, index + 1..index + 2), IOFlushed::noop()).await.is_err());
    assert!(store.truncate_after(None).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_vote_survives_the_loss_of_the_log_and_the_highest_that_is_found_counts() {
    let root = tempfile::tempdir().unwrap();
    let open_at = |log: &str| {
        let options = LogOptions { votes_directory: Some(root.path().join("votes")), ..LogOptions::default() };
        let log = Log::open(&root.path().join(log), options).unwrap();
        LogStore::open(log.clone(), 1).map(|store| (store, log))
    };
    let (mut store, log) = open_at("log").unwrap();
    assert_eq!(store.read_vote().await.unwrap(), None);
    store.save_vote(&vote(3, 1, true)).await.unwrap();
    drop((store, log));
    // The log is gone.
    let (mut store, log) = open_at("another").unwrap();
    assert_eq!(store.read_vote().await.unwrap(), Some(vote(3, 1, true)));
    store.save_vote(&vote(4, 2, false)).await.unwrap();
    drop((store, log));
    // One with an older vote than those kept: as if a crash had come before it was in the log.
    let (mut store, log) = open_at("log").unwrap();
    assert_eq!(store.read_vote().await.unwrap(), Some(vote(4, 2, false)));
    drop((store, log));
    // None are kept: as before there were any. They are made.
    std::fs::remove_dir_all(root.path().join("votes")).unwrap();
    let (mut store, log) = open_at("log").unwrap();
    assert_eq!(store.read_vote().await.unwrap(), Some(vote(4, 2, false)));
    assert_eq!(log.kept_votes(1).unwrap().unwrap().len(), 2);
}
