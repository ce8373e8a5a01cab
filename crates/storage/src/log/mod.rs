//! The Raft logs of all groups of a node, on one raft-engine.
//!
//! Every write of every group goes through one queue and one thread, which takes all that waits and writes
//! it with one fsync: the more there is to do, the more share a write, and nobody waits for company. The
//! order of the queue is the order on disk, also between a group's votes and its entries.
//!
//! A group's readers see a change as soon as it is queued. Entries stay in memory until they are on disk.

mod entry;
mod error;
mod group;
mod group_logs;
mod identity;
mod mark;
mod metrics;
mod options;
mod queue;
mod reader;
mod tail;
mod votes;
mod writer;

use std::collections::HashMap;
use std::fs;
use std::ops::Range;
use std::panic::catch_unwind;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use raft_engine::Engine;
use tokio::sync::{Semaphore, oneshot};

pub use self::entry::LogEntry;
pub use self::error::LogError;
pub use self::group_logs::{GroupLogs, Written};
pub use self::options::LogOptions;
pub use self::votes::read_votes;

use self::group::{Group, KEY_CALLER, KEY_PURGED, KEY_TRUNCATED, Located};
use self::identity::Identity;
use self::mark::Mark;
use self::metrics::LogMetrics;
use self::queue::{Change, Queue, Request, encode_position, encode_purge};
use self::reader::{ReadRequest, Reader};
use self::votes::Votes;
use self::writer::{Cleaner, GROUP_RESERVED, KEY_BATCH, Writer, panic_message};
use crate::damage::DamagedPart;

/// How often a read that met a moving log tries again before it takes what it sees for damage.
const READ_ATTEMPTS: usize = 8;

/// The Raft logs of a node's groups.
///
/// Dropping it writes what is queued, and returns when that is on disk.
pub struct Log {
    shared: Arc<Shared>,
    room: Arc<Semaphore>,
    options: LogOptions,
    /// None only while the log is dropped: without it the reading thread ends.
    reads: Option<mpsc::Sender<ReadRequest>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What the log shares with its threads.
struct Shared {
    engine: Engine,
    queue: Queue,
    groups: RwLock<HashMap<u64, Arc<Group>>>,
    metrics: LogMetrics,
}

/// Which entries a group's log has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Extent {
    /// The last purged position, with the note given to [`Log::purge`].
    pub purged: Option<(u64, Bytes)>,
    /// The position of the last entry that is there.
    pub last: Option<u64>,
}

impl Log {
    /// Opens the log in `directory`, or begins one if the directory is empty or missing.
    ///
    /// The last write is cut off if a crash tore it: nobody was answered for it. Any other damage that can
    /// be seen without reading every entry is an error, also that of a last write that somebody was answered for;
    /// entries are checked when they are read.
    pub fn open(directory: &Path, options: LogOptions) -> Result<Arc<Self>, LogError> {
        let config = options.engine_config(directory)?;
        fs::create_dir_all(directory).map_err(|error| LogError::open(directory, error))?;
        let Identity { stamp, has_mark } = identity::open(directory)?;
        let mut mark = Mark::open(directory, &stamp, !has_mark)?;
        tail::check(directory, &stamp)?;
        let engine = open_engine(directory, config)?;
        // raft-engine does not make the name of its first file durable.
        identity::sync_directory(directory).map_err(|error| LogError::open(directory, error))?;
        check_end(&engine, &mut mark)?;
        let groups = load_groups(&engine)?;
        let votes = options.votes_directory.as_deref().map(Votes::open).transpose();
        let votes = votes.map_err(|error| LogError::open(directory, error))?;

        // Not before: who sets a damaged log aside opens another one, with the same registry.
        let metrics = LogMetrics::register(&options.registry)?;
        let queue = Queue::new(metrics.write_queue.clone());
        let shared = Arc::new(Shared { engine, queue, groups: RwLock::new(groups), metrics });
        // One waiting wake-up is enough: it is only looked at when the cleaner is done.
        let (compacted, wake) = mpsc::sync_channel(1);
        let batch_bytes_max = options.batch_bytes_max;
        let writer = Writer { shared: shared.clone(), stamp, mark, votes, compacted, batch_bytes_max };
        let cleaner = Cleaner { shared: shared.clone(), compacted: wake };
        let (reads, requests) = mpsc::channel();
        let reader = Reader { shared: shared.clone(), requests };
        let threads = vec![
            spawn("log-reader", move || reader.run()).map_err(|error| LogError::open(directory, error))?,
            spawn("log-writer", move || writer.run()).map_err(|error| LogError::open(directory, error))?,
            spawn("log-cleaner", move || cleaner.run()).map_err(|error| LogError::open(directory, error))?,
        ];
        let room = Arc::new(Semaphore::new(options.queue_bytes_max.min(Semaphore::MAX_PERMITS)));
        Ok(Arc::new(Self { shared, room, options, reads: Some(reads), threads: Mutex::new(threads) }))
    }

    /// What the log was opened with.
    pub fn options(&self) -> &LogOptions {
        &self.options
    }

    /// Bytes of the files that the log needs, over all groups.
    pub fn used_bytes(&self) -> u64 {
        self.shared.engine.get_used_size() as u64
    }

    /// The error after which nothing is written any more, if there was one.
    pub fn failure(&self) -> Option<LogError> {
        self.shared.queue.failure()
    }

    /// Which entries a group's log has.
    pub fn extent(&self, group: u64) -> Result<Extent, LogError> {
        let group = self.shared.group(group)?;
        let state = group.lock();
        Ok(Extent { purged: state.purged.clone(), last: state.entries.as_ref().map(|entries| entries.end - 1) })
    }

    /// Appends entries; they are readable when this returns. `written` is called when they are on disk.
    ///
    /// They must follow each other, and the last entry or purged position. An entry that is there already is
    /// replaced, and so is all behind it. Waits while [`LogOptions::queue_bytes_max`] are queued; dropped
    /// while it waits, it has done nothing. On an error `written` is not called.
    pub async fn append(
        &self,
        group: u64,
        entries: Vec<LogEntry>,
        written: impl FnOnce(Result<(), LogError>) + Send + 'static,
    ) -> Result<(), LogError> {
        let group = self.shared.group(group)?;
        let weight: usize = entries.iter().map(LogEntry::weight).sum();
        // An append larger than the queue waits until it has the queue to itself.
        let room = weight.min(self.options.queue_bytes_max).min(u32::MAX as usize) as u32;
        let room = self.room.clone().acquire_many_owned(room).await;
        let room = room.map_err(|error| LogError::Failed(error.to_string()))?;

        let mut state = group.lock();
        state.check_append(group.id, &entries)?;
        let mut changes = Vec::with_capacity(2);
        if !entries.is_empty() {
            changes.push(Change::Append(entries.clone()));
            if state.truncated.is_some() {
                changes.push(Change::Put(KEY_TRUNCATED.to_vec(), encode_position(None)));
            }
        }
        let request = Request { group: group.id, changes, written: Some(Box::new(written)), room: Some(room) };
        // Queued under the group's lock: the order of the queue is the order in which readers see changes.
        let number = self.shared.queue.push(request)?;
        state.append(number, entries);
        Ok(())
    }

    /// Removes the entries from `index` on; they are gone for readers when this returns. `written` is called
    /// when they cannot come back. On an error `written` is not called.
    pub fn truncate(
        &self,
        group: u64,
        index: u64,
        written: impl FnOnce(Result<(), LogError>) + Send + 'static,
    ) -> Result<(), LogError> {
        let group = self.shared.group(group)?;
        let mut state = group.lock();
        let is_needed = state.entries.as_ref().is_some_and(|entries| index < entries.end);
        let changes = match is_needed {
            true => vec![Change::Put(KEY_TRUNCATED.to_vec(), encode_position(Some(index)))],
            false => Vec::new(),
        };
        self.shared.queue.push(Request { group: group.id, changes, written: Some(Box::new(written)), room: None })?;
        if is_needed {
            state.truncate(index);
        }
        Ok(())
    }

    /// Removes the entries up to and including `index`, which may be beyond the last one; the log then goes
    /// on behind it. `note` is kept with the position.
    ///
    /// Gone for readers when this returns. Written with the next write that somebody waits for: until then a
    /// crash brings the entries back. Going back is ignored.
    pub fn purge(&self, group: u64, index: u64, note: Bytes) -> Result<(), LogError> {
        let group = self.shared.group(group)?;
        let mut state = group.lock();
        if state.purged.as_ref().is_some_and(|(purged, _)| index <= *purged) {
            return Ok(());
        }
        let changes = vec![
            Change::Put(KEY_PURGED.to_vec(), encode_purge(index, &note)),
            Change::Compact(index.saturating_add(1)),
        ];
        self.shared.queue.push(Request { group: group.id, changes, written: None, room: None })?;
        state.purge(index, note);
        Ok(())
    }

    /// Stores a value of a group under `key`; it is readable when this returns. `written` is called when it
    /// is on disk, and then so is everything that was changed before. On an error `written` is not called.
    pub fn put(
        &self,
        group: u64,
        key: &[u8],
        value: Bytes,
        written: impl FnOnce(Result<(), LogError>) + Send + 'static,
    ) -> Result<(), LogError> {
        self.put_request(group, key, value, Some(Box::new(written)))
    }

    /// As [`Log::put`], for the group's vote: it is on disk also in [`LogOptions::votes_directory`], where it
    /// survives the loss of the log.
    pub fn put_vote(
        &self,
        group: u64,
        key: &[u8],
        vote: Bytes,
        written: impl FnOnce(Result<(), LogError>) + Send + 'static,
    ) -> Result<(), LogError> {
        let keep = Change::KeepVote(vote.to_vec());
        self.put_changes(group, key, vote, vec![keep], Some(Box::new(written)))
    }

    /// The copies of a group's vote that are kept besides in the log, those of the two that are readable. None if
    /// none are kept.
    pub fn kept_votes(&self, group: u64) -> Result<Option<Vec<Bytes>>, LogError> {
        let Some(directory) = &self.options.votes_directory else { return Ok(None) };
        read_votes(directory, group).map(Some).map_err(|error| LogError::open(directory, error))
    }

    /// As [`Log::put`], but nobody waits: it costs no fsync, is written with the next write that somebody
    /// waits for, and may be lost in a crash before that.
    pub fn put_lazily(&self, group: u64, key: &[u8], value: Bytes) -> Result<(), LogError> {
        self.put_request(group, key, value, None)
    }

    fn put_request(&self, group: u64, key: &[u8], value: Bytes, written: Option<Written>) -> Result<(), LogError> {
        self.put_changes(group, key, value, Vec::new(), written)
    }

    fn put_changes(
        &self,
        group: u64,
        key: &[u8],
        value: Bytes,
        mut changes: Vec<Change>,
        written: Option<Written>,
    ) -> Result<(), LogError> {
        let group = self.shared.group(group)?;
        let mut state = group.lock();
        changes.push(Change::Put([&[KEY_CALLER], key].concat(), value.to_vec()));
        self.shared.queue.push(Request { group: group.id, changes, written, room: None })?;
        state.values.insert(key.to_vec(), value);
        Ok(())
    }

    /// The value that a group has under `key`.
    pub fn get(&self, group: u64, key: &[u8]) -> Result<Option<Bytes>, LogError> {
        Ok(self.shared.group(group)?.lock().values.get(key).cloned())
    }

    /// Reads those entries of `range` that are there: consecutive, missing only at either end. Stops when
    /// there would be more than `bytes_max` of them, but not before the first.
    ///
    /// Shows the log as it was at one moment. What is not on disk yet comes from memory, at once.
    pub async fn read(&self, group: u64, range: Range<u64>, bytes_max: usize) -> Result<Vec<LogEntry>, LogError> {
        let group = self.shared.group(group)?;
        let mut attempt = 1;
        loop {
            let Located { on_disk, in_memory, removals } = group.lock().locate(range.clone());
            let count = on_disk.end - on_disk.start;
            let read = match count {
                0 => Ok(Vec::new()),
                _ => self.read_from_disk(group.id, on_disk, bytes_max).await,
            };
            // Entries were removed, and maybe others appended in their place, while the disk was read.
            if group.lock().removals != removals {
                continue;
            }
            match read {
                Ok(mut entries) => {
                    // Otherwise there was more on disk than may be returned.
                    if entries.len() as u64 == count {
                        extend_within(&mut entries, in_memory, bytes_max);
                    }
                    return Ok(entries);
                }
                // Files may also have been replaced: raft-engine moves entries that outlive their file.
                Err(_) if attempt < READ_ATTEMPTS => attempt += 1,
                Err(error) => {
                    if matches!(error, LogError::Corrupt(_)) {
                        self.options.damage.report(DamagedPart::Log, &error);
                    }
                    return Err(error);
                }
            }
        }
    }

    async fn read_from_disk(&self, group: u64, range: Range<u64>, bytes_max: usize) -> Result<Vec<LogEntry>, LogError> {
        let stopped = || LogError::Failed("the reading thread has stopped".to_owned());
        let (reply, read) = oneshot::channel();
        let reads = self.reads.as_ref().ok_or_else(stopped)?;
        reads.send(ReadRequest { group, range, bytes_max, reply }).map_err(|_| stopped())?;
        read.await.map_err(|_| stopped())?
    }
}

fn extend_within(entries: &mut Vec<LogEntry>, more: Vec<LogEntry>, bytes_max: usize) {
    let mut bytes: usize = entries.iter().map(|entry| entry.payload().len()).sum();
    for entry in more {
        bytes += entry.payload().len();
        if bytes > bytes_max && !entries.is_empty() {
            break;
        }
        entries.push(entry);
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.shared.queue.close();
        self.reads = None;
        for handle in self.threads.lock().drain(..) {
            // The last owner may have been a callback, on the writer's own thread.
            if handle.thread().id() != thread::current().id() && handle.join().is_err() {
                tracing::error!("a thread of the log panicked");
            }
        }
    }
}

impl Shared {
    fn group(&self, id: u64) -> Result<Arc<Group>, LogError> {
        if id == GROUP_RESERVED {
            return Err(LogError::ReservedGroup);
        }
        if let Some(group) = self.groups.read().get(&id) {
            return Ok(group.clone());
        }
        Ok(self.groups.write().entry(id).or_insert_with(|| Arc::new(Group::new(id))).clone())
    }

    fn forget_written(&self, requests: &[Request], last_number: u64) {
        let groups = self.groups.read();
        let mut before = None;
        for request in requests {
            // Mostly runs of one group.
            if before.replace(request.group) != Some(request.group)
                && let Some(group) = groups.get(&request.group)
            {
                group.lock().written(last_number);
            }
        }
    }
}

fn open_engine(directory: &Path, config: raft_engine::Config) -> Result<Engine, LogError> {
    catch_unwind(|| Engine::open(config))
        .map_err(|panic| LogError::Corrupt(format!("{}: {}", directory.display(), panic_message(&*panic))))?
        .map_err(|error| match error {
            raft_engine::Error::Corruption(_) | raft_engine::Error::Codec(_) | raft_engine::Error::Protobuf(_) => {
                LogError::Corrupt(format!("{}: {error}", directory.display()))
            }
            error => LogError::open(directory, error),
        })
}

/// Refuses a log that lacks batches that are known to have been synced.
fn check_end(engine: &Engine, mark: &mut Mark) -> Result<(), LogError> {
    let number = engine.get(GROUP_RESERVED, KEY_BATCH).map(|number| {
        let number = <[u8; 8]>::try_from(number);
        number.map_err(|_| LogError::Corrupt("the number of a batch is not 8 bytes long".to_owned()))
    });
    // None: the log is empty, or older than the numbers.
    let last = number.transpose()?.map_or(0, u64::from_be_bytes);
    if last < mark.batch() {
        return Err(LogError::Corrupt(format!(
            "it ends with batch {last}, but batch {} was synced: what was acknowledged is missing",
            mark.batch()
        )));
    }
    mark.resume(last);
    Ok(())
}

fn load_groups(engine: &Engine) -> Result<HashMap<u64, Arc<Group>>, LogError> {
    let mut groups = HashMap::new();
    for id in engine.raft_groups().into_iter().filter(|id| *id != GROUP_RESERVED) {
        let group = Group::load(engine, id)?;
        // raft-engine may have forgotten a compaction whose file is gone. Left alone, old entries far below
        // the next append would look to it like a hole.
        let begin = group.lock().begin();
        if engine.first_index(id).is_some_and(|first| first < begin) {
            engine.compact_to(id, begin);
        }
        groups.insert(id, Arc::new(group));
    }
    Ok(groups)
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(run)
}
