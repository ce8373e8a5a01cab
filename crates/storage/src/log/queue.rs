//! What waits to be written, in the order in which it has to be.

use std::collections::VecDeque;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use prometheus::IntGauge;
use tokio::sync::OwnedSemaphorePermit;

use super::entry::LogEntry;
use super::{LogError, Written};

/// A change of a group's log.
#[derive(Debug)]
pub(super) enum Change {
    /// Entries, consecutive.
    Append(Vec<LogEntry>),
    /// A key of the group.
    Put(Vec<u8>, Vec<u8>),
    /// The group's vote, to be kept besides in the log, and before it is there.
    KeepVote(Vec<u8>),
    /// Entries below this position are not needed any more.
    Compact(u64),
}

/// Changes that are written together, and who waits for them.
pub(super) struct Request {
    pub group: u64,
    pub changes: Vec<Change>,
    /// Without one, the request is lazy: nobody waits, and it rides on the next write.
    pub written: Option<Written>,
    /// Room taken in the queue, given back when the request is dropped.
    pub room: Option<OwnedSemaphorePermit>,
}

impl Request {
    fn weight(&self) -> usize {
        let change = |change: &Change| match change {
            Change::Append(entries) => entries.iter().map(LogEntry::weight).sum(),
            Change::Put(key, value) => key.len() + value.len(),
            Change::KeepVote(vote) => vote.len(),
            Change::Compact(_) => size_of::<u64>(),
        };
        self.changes.iter().map(change).sum()
    }
}

/// The writes of all groups, in order. One writer takes from it.
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    length: IntGauge,
}

#[derive(Default)]
struct State {
    requests: VecDeque<Request>,
    /// The number of the next request.
    next_number: u64,
    /// How many of the requests somebody waits for.
    awaited: usize,
    closed: bool,
    failed: Option<LogError>,
}

/// What the writer takes at once: requests, and the number of the last one.
pub(super) struct Taken {
    pub requests: Vec<Request>,
    pub last_number: u64,
}

impl Queue {
    pub fn new(length: IntGauge) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), length }
    }

    /// Adds a request and returns its number. Numbers grow in the order of writing.
    pub fn push(&self, request: Request) -> Result<u64, LogError> {
        let mut state = self.state.lock();
        if let Some(error) = &state.failed {
            return Err(error.clone());
        }
        let is_awaited = request.written.is_some();
        state.awaited += usize::from(is_awaited);
        state.requests.push_back(request);
        let number = state.next_number;
        state.next_number += 1;
        self.length.set(state.requests.len() as i64);
        drop(state);
        if is_awaited {
            self.changed.notify_one();
        }
        Ok(number)
    }

    /// Waits until somebody waits, and takes what fits into `bytes_max`, at least one request. None when the
    /// queue was closed and is empty.
    pub fn take(&self, bytes_max: usize) -> Option<Taken> {
        let mut state = self.state.lock();
        while state.awaited == 0 && !state.closed {
            self.changed.wait(&mut state);
        }
        let mut bytes = 0;
        let mut requests = Vec::with_capacity(state.requests.len());
        while let Some(request) = state.requests.front() {
            bytes += request.weight();
            if bytes > bytes_max && !requests.is_empty() {
                break;
            }
            requests.extend(state.requests.pop_front());
        }
        state.awaited -= requests.iter().filter(|request| request.written.is_some()).count();
        self.length.set(state.requests.len() as i64);
        let last_number = (state.next_number - state.requests.len() as u64).checked_sub(1)?;
        (!requests.is_empty()).then_some(Taken { requests, last_number })
    }

    /// Lets nothing in any more, and returns what still waited. The first error stays.
    pub fn fail(&self, error: LogError) -> Vec<Request> {
        let mut state = self.state.lock();
        state.failed.get_or_insert(error);
        state.awaited = 0;
        self.length.set(0);
        state.requests.drain(..).collect()
    }

    /// The error after which nothing is written any more.
    pub fn failure(&self) -> Option<LogError> {
        self.state.lock().failed.clone()
    }

    /// Lets the writer end when it has written what is here.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }
}

/// The stored form of a position, and of the absence of one.
pub(super) fn encode_position(position: Option<u64>) -> Vec<u8> {
    position.map(|position| position.to_be_bytes().to_vec()).unwrap_or_default()
}

/// See [`encode_position`].
pub(super) fn decode_position(bytes: &[u8]) -> Result<Option<u64>, LogError> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let bytes: [u8; 8] =
        bytes.try_into().map_err(|_| LogError::Corrupt("a stored position is not 8 bytes long".to_owned()))?;
    Ok(Some(u64::from_be_bytes(bytes)))
}

/// The stored form of a purge: the position, and the caller's note.
pub(super) fn encode_purge(index: u64, note: &[u8]) -> Vec<u8> {
    [&index.to_be_bytes(), note].concat()
}

/// See [`encode_purge`].
pub(super) fn decode_purge(bytes: &[u8]) -> Result<(u64, Bytes), LogError> {
    let (index, note) = bytes
        .split_first_chunk::<8>()
        .ok_or_else(|| LogError::Corrupt("a stored purge is shorter than 8 bytes".to_owned()))?;
    Ok((u64::from_be_bytes(*index), Bytes::copy_from_slice(note)))
}
