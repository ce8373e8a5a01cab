//! openraft's log storage, over the node's logs.
//!
//! What openraft asks for, and where it is kept:
//! - Writes are serialized, votes and entries alike: all go through the log's one queue.
//! - An append is readable when it returns: it is in the tail, and in the log's memory until it is on disk.
//!   Its callback comes from the log's writer, after the fsync.
//! - A vote is kept besides in the log, so that it survives damage of the log: of those that are found, the highest
//!   counts.
//! - A vote, and a truncation, are on disk before the call returns. A truncation that came back after a crash
//!   could stand behind a snapshot that was installed since, and contradict it.
//! - The committed position and a purge are lazy: they ride on the next fsync. Both may be lost in a crash
//!   without harm: the state machine then replays to an older position before the leader tells it of the
//!   newer one, and entries that a snapshot covers are there once more.

mod tail;

use std::cmp::Ordering;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;

use bytes::Bytes;
use dwell_storage::log::{GroupLogs, LogEntry, LogError, Written};
use futures::{Stream, TryStreamExt, stream};
use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use self::tail::Tail;
use crate::codec;
use crate::types::{Entry, GroupId, LogId, TypeConfig, Vote};

const KEY_VOTE: &[u8] = b"vote";
const KEY_COMMITTED: &[u8] = b"committed";

/// Entries of one append request to a peer, at most about this (bytes): large enough to keep a fast network
/// busy, small enough that a slow one does not delay heartbeats. A single entry may be larger.
pub const REPLICATE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// What is read from disk at once (bytes), when more is asked for.
const CHUNK_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The log of one group, as openraft sees it. Clones share it.
#[derive(Clone)]
pub struct LogStore {
    log: Arc<dyn GroupLogs>,
    group: GroupId,
    shared: Arc<Mutex<Shared>>,
}

/// What is asked for often, decoded.
struct Shared {
    tail: Tail,
    vote: Option<Vote>,
    committed: Option<LogId>,
    purged: Option<LogId>,
    /// The last entry that is there.
    last: Option<LogId>,
}

impl LogStore {
    /// The log of `group`, with what it has.
    ///
    /// # Errors
    /// If what is there cannot be read or decoded.
    pub fn open(log: Arc<dyn GroupLogs>, group: GroupId) -> io::Result<Self> {
        let extent = log.extent(group)?;
        let purged = extent.purged.map(|(_, log_id)| codec::decode_log_id(log_id)).transpose()?;
        let last = extent.last.map(|index| read_last(&*log, group, index)).transpose()?;
        // Empty where None was saved.
        let committed = log.get(group, KEY_COMMITTED)?.filter(|bytes| !bytes.is_empty());
        let shared = Shared {
            tail: Tail::new(log.tail_bytes_max()),
            vote: open_vote(&*log, group)?,
            committed: committed.map(codec::decode_log_id).transpose()?,
            purged,
            last,
        };
        Ok(Self { log, group, shared: Arc::new(Mutex::new(shared)) })
    }

    /// Entries of `range` that are there, from the tail or from disk.
    async fn read(&self, range: Range<u64>, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let range = {
            let shared = self.shared.lock();
            let begin = shared.purged.map_or(0, |log_id| log_id.index + 1);
            let end = shared.last.map_or(begin, |log_id| log_id.index + 1);
            let range = range.start.max(begin)..range.end.min(end);
            if range.is_empty() {
                return Ok(Vec::new());
            }
            if let Some(entries) = shared.tail.get(range.clone(), bytes_max) {
                return Ok(entries);
            }
            range
        };
        let entries = self.log.read(self.group, range, bytes_max).await?;
        entries.into_iter().map(|entry| Ok(codec::decode_entry(entry.into_payload())?)).collect()
    }
}

/// The highest of the votes in the log and beside it. Where one of them is missing or lower, as after damage or a
/// crash, it is made up for. Blocks for that: this is for opening only.
fn open_vote(log: &dyn GroupLogs, group: GroupId) -> io::Result<Option<Vote>> {
    let in_log = log.get(group, KEY_VOTE)?.map(codec::decode_vote).transpose()?;
    let Some(copies) = log.kept_votes(group)? else { return Ok(in_log) };
    let kept: Vec<Vote> = copies.into_iter().map(codec::decode_vote).collect::<Result<_, _>>()?;
    let mut highest = in_log;
    for vote in &kept {
        highest = match highest.map(|highest| (highest, highest.partial_cmp(vote))) {
            None | Some((_, Some(Ordering::Less))) => Some(*vote),
            Some((highest, Some(_))) => Some(highest),
            // Two votes of which none is the higher cannot both have been given.
            Some((highest, None)) => {
                let message = format!("group {group}: the votes {highest} and {vote} contradict each other");
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
        };
    }
    let is_kept = in_log == highest && kept.len() == 2 && kept.iter().all(|vote| Some(*vote) == highest);
    if let Some(vote) = highest
        && !is_kept
    {
        let (written, wait) = waiter();
        log.put_vote(group, KEY_VOTE, codec::encode_vote(&vote), written)?;
        futures::executor::block_on(wait)?;
    }
    Ok(highest)
}

/// The id of the last entry. Blocks for one read: this is for opening only.
fn read_last(log: &dyn GroupLogs, group: GroupId, index: u64) -> io::Result<LogId> {
    let entries = futures::executor::block_on(log.read(group, index..index + 1, 1))?;
    let entry = entries.into_iter().next().ok_or_else(|| {
        let message = format!("group {group}: the last entry, {index}, is missing");
        io::Error::new(io::ErrorKind::InvalidData, message)
    })?;
    Ok(codec::decode_entry(entry.into_payload())?.log_id)
}

/// A callback for the log, and what waits for it.
fn waiter() -> (Written, impl Future<Output = io::Result<()>> + Send) {
    let (sender, receiver) = oneshot::channel();
    let written = move |result| {
        // Whoever waited may have been cancelled.
        let _: Result<(), _> = sender.send(result);
    };
    let wait = async {
        match receiver.await {
            Ok(result) => Ok(result?),
            Err(_) => Err(io::Error::other("the log was closed")),
        }
    };
    (Box::new(written), wait)
}

fn index_range(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> io::Result<Vec<Entry>>
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.read(index_range(&range), usize::MAX).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        Ok(self.shared.lock().vote)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        self.read(start..end, REPLICATE_BYTES_MAX).await
    }

    /// In chunks: what is to be applied after a restart or an election may be more than fits in memory.
    async fn entries_stream<RB>(&mut self, range: RB) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        RB: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let range = index_range(&range);
        let chunks = stream::try_unfold((self.clone(), range), |(store, range)| async move {
            let entries = store.read(range.clone(), CHUNK_BYTES_MAX).await?;
            let Some(last) = entries.last().map(|entry| entry.log_id.index) else { return Ok(None) };
            Ok::<_, io::Error>(Some((stream::iter(entries.into_iter().map(Ok)), (store, last + 1..range.end))))
        });
        chunks.try_flatten()
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let shared = self.shared.lock();
        Ok(LogState { last_purged_log_id: shared.purged, last_log_id: shared.last.or(shared.purged) })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        let (written, wait) = waiter();
        self.log.put_vote(self.group, KEY_VOTE, codec::encode_vote(vote), written)?;
        wait.await?;
        self.shared.lock().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        let bytes = committed.as_ref().map(codec::encode_log_id).unwrap_or_default();
        self.log.put_lazily(self.group, KEY_COMMITTED, bytes)?;
        self.shared.lock().committed = committed;
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        Ok(self.shared.lock().committed)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let encoded: Vec<LogEntry> =
            entries.iter().map(|entry| LogEntry::new(entry.log_id.index, codec::encode_entry(entry))).collect();
        let last = entries.last().map(|entry| entry.log_id);
        let written = |result: Result<(), LogError>| callback.io_completed(result.map_err(io::Error::from));
        self.log.append(self.group, encoded, Box::new(written)).await?;
        let mut shared = self.shared.lock();
        shared.tail.append(entries);
        shared.last = last.or(shared.last);
        Ok(())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogId>) -> io::Result<()> {
        let index = last_log_id.map_or(0, |log_id| log_id.index + 1);
        let (written, wait) = waiter();
        self.log.truncate(self.group, index, written)?;
        // The id of the entry that is the last now is the caller's, unless the log was shorter all along.
        {
            let mut shared = self.shared.lock();
            shared.tail.truncate(index);
            if shared.last.is_some_and(|last| last.index >= index) {
                shared.last =
                    last_log_id.filter(|log_id| Some(log_id.index) > shared.purged.map(|purged| purged.index));
            }
        }
        wait.await
    }

    async fn purge(&mut self, log_id: LogId) -> io::Result<()> {
        let note: Bytes = codec::encode_log_id(&log_id);
        self.log.purge(self.group, log_id.index, note)?;
        let mut shared = self.shared.lock();
        if shared.purged.is_some_and(|purged| log_id.index <= purged.index) {
            return Ok(());
        }
        shared.tail.purge(log_id.index);
        shared.purged = Some(log_id);
        shared.last = shared.last.filter(|last| last.index > log_id.index);
        Ok(())
    }
}
