//! The log of one group, as its readers see it: ahead of the disk by what is still being written.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};

use super::LogError;
use super::entry::LogEntry;
use super::queue::{decode_position, decode_purge};

/// Keys of the caller, behind this byte.
pub(super) const KEY_CALLER: u8 = b'c';
/// Up to where the log was purged, and the caller's note on it.
pub(super) const KEY_PURGED: &[u8] = b"purged";
/// From where the log was truncated, until something is appended again; empty otherwise.
///
/// raft-engine drops entries only when others are appended over them, so a log reopened in between would
/// have its tail back. The key is written over and never deleted: raft-engine may forget a deletion when it
/// deletes the file that it stands in, and an old marker that came back would cut off what is good.
pub(super) const KEY_TRUNCATED: &[u8] = b"truncated";

/// The log of one group.
pub(super) struct Group {
    pub id: u64,
    state: Mutex<GroupState>,
}

/// What is behind a group's lock.
#[derive(Default)]
pub(super) struct GroupState {
    /// The last purged position and the caller's note on it.
    pub purged: Option<(u64, Bytes)>,
    /// Positions of the entries that are there, the end exclusive. None if there is none.
    pub entries: Option<Range<u64>>,
    /// Set after a truncation, until the next append.
    pub truncated: Option<u64>,
    /// The caller's keys.
    pub values: BTreeMap<Vec<u8>, Bytes>,
    /// The end of the log, as long as it is not on disk, with the numbers of the requests it came in.
    unwritten: VecDeque<(u64, LogEntry)>,
    /// Grows when entries disappear, so that a reader knows that what it read from disk may be mixed.
    pub removals: u64,
}

/// Where to find a range of entries: some on disk, the rest in memory.
pub(super) struct Located {
    pub on_disk: Range<u64>,
    pub in_memory: Vec<LogEntry>,
    pub removals: u64,
}

impl Group {
    /// A group that was never written.
    pub fn new(id: u64) -> Self {
        Self { id, state: Mutex::default() }
    }

    /// What the engine has of a group.
    pub fn load(engine: &raft_engine::Engine, id: u64) -> Result<Self, LogError> {
        let mut state = GroupState::default();
        let mut parsed = Ok(());
        engine
            .scan_raw_messages(id, None, None, false, |key, value| {
                parsed = state.load_key(key, value);
                parsed.is_ok()
            })
            .map_err(|error| LogError::Corrupt(error.to_string()))?;
        parsed?;
        if let (Some(first), Some(last)) = (engine.first_index(id), engine.last_index(id)) {
            state.load_entries(id, first..last + 1)?;
        }
        Ok(Self { id, state: Mutex::new(state) })
    }

    pub fn lock(&self) -> MutexGuard<'_, GroupState> {
        self.state.lock()
    }
}

impl GroupState {
    fn load_key(&mut self, key: &[u8], value: &[u8]) -> Result<(), LogError> {
        match key {
            KEY_PURGED => self.purged = Some(decode_purge(value)?),
            KEY_TRUNCATED => self.truncated = decode_position(value)?,
            [KEY_CALLER, key @ ..] => drop(self.values.insert(key.to_vec(), Bytes::copy_from_slice(value))),
            // Of a newer version.
            _ => {}
        }
        Ok(())
    }

    fn load_entries(&mut self, group: u64, stored: Range<u64>) -> Result<(), LogError> {
        let begin = self.begin();
        if self.purged.is_some() && stored.start > begin {
            return Err(LogError::Corrupt(format!(
                "group {group}: entries {begin} to {} are missing",
                stored.start - 1
            )));
        }
        let end = self.truncated.map_or(stored.end, |truncated| stored.end.min(truncated));
        let entries = stored.start.max(begin)..end;
        self.entries = (!entries.is_empty()).then_some(entries);
        Ok(())
    }

    /// The lowest position that was not purged.
    pub fn begin(&self) -> u64 {
        self.purged.as_ref().map_or(0, |(index, _)| index + 1)
    }

    /// The position at which the log goes on; None if nothing was ever there.
    fn end(&self) -> Option<u64> {
        match (&self.entries, &self.purged) {
            (Some(entries), _) => Some(entries.end),
            (None, Some((index, _))) => Some(index + 1),
            (None, None) => self.truncated,
        }
    }

    /// Checks that `entries` follow each other, and what is there.
    pub fn check_append(&self, group: u64, entries: &[LogEntry]) -> Result<(), LogError> {
        let Some(first) = entries.first().map(LogEntry::index) else { return Ok(()) };
        if let Some((purged, _)) = &self.purged
            && first <= *purged
        {
            return Err(LogError::Purged { group, index: first, purged: *purged });
        }
        // A log may begin anywhere: the first entries may be in a snapshot that was installed.
        let begin = self.end().filter(|end| first > *end).unwrap_or(first);
        for (expected, entry) in (begin..).zip(entries) {
            if entry.index() != expected {
                return Err(LogError::Hole { group, index: entry.index(), expected });
            }
        }
        Ok(())
    }

    /// Notes entries that were queued as request `number`. What was there from their position on is replaced.
    pub fn append(&mut self, number: u64, entries: Vec<LogEntry>) {
        let (Some(first), Some(last)) = (entries.first().map(LogEntry::index), entries.last().map(LogEntry::index))
        else {
            return;
        };
        if self.entries.as_ref().is_some_and(|entries| first < entries.end) {
            self.remove_from(first);
        }
        self.truncated = None;
        let begin = self.entries.as_ref().map_or(first, |entries| entries.start);
        self.entries = Some(begin..last + 1);
        self.unwritten.extend(entries.into_iter().map(|entry| (number, entry)));
    }

    /// Notes a truncation: nothing from `index` on is there any more.
    pub fn truncate(&mut self, index: u64) {
        self.remove_from(index);
        self.truncated = Some(index);
    }

    fn remove_from(&mut self, index: u64) {
        self.removals += 1;
        while self.unwritten.back().is_some_and(|(_, entry)| entry.index() >= index) {
            self.unwritten.pop_back();
        }
        self.entries = self.entries.take().map(|entries| entries.start..entries.end.min(index));
        self.entries = self.entries.take().filter(|entries| !entries.is_empty());
    }

    /// Notes a purge up to and including `index`.
    pub fn purge(&mut self, index: u64, note: Bytes) {
        self.removals += 1;
        self.purged = Some((index, note));
        while self.unwritten.front().is_some_and(|(_, entry)| entry.index() <= index) {
            self.unwritten.pop_front();
        }
        self.entries = self.entries.take().map(|entries| entries.start.max(index + 1)..entries.end);
        self.entries = self.entries.take().filter(|entries| !entries.is_empty());
    }

    /// Forgets what is on disk now: everything of requests up to `number`.
    pub fn written(&mut self, number: u64) {
        while self.unwritten.front().is_some_and(|(request, _)| *request <= number) {
            self.unwritten.pop_front();
        }
    }

    /// Finds those of the entries in `range` that are there.
    pub fn locate(&self, range: Range<u64>) -> Located {
        let entries = self.entries.clone().unwrap_or_default();
        let range = range.start.max(entries.start)..range.end.min(entries.end);
        let first_unwritten = self.unwritten.front().map_or(entries.end, |(_, entry)| entry.index());
        let in_memory = range.start.max(first_unwritten)..range.end;
        let skipped = in_memory.start.saturating_sub(first_unwritten) as usize;
        let count = in_memory.end.saturating_sub(in_memory.start) as usize;
        Located {
            on_disk: range.start..range.end.min(first_unwritten).max(range.start),
            in_memory: self.unwritten.iter().skip(skipped).take(count).map(|(_, entry)| entry.clone()).collect(),
            removals: self.removals,
        }
    }
}
