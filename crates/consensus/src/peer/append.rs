//! The leader's side of replication: one stream, many requests under way.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dwell_proto::peer as wire;
use dwell_proto::peer::append_request::Part;
use futures::{Stream, StreamExt, stream};
use openraft::base::BoxStream;
use openraft::errors::RPCError;
use openraft::raft::{AppendEntriesRequest, StreamAppendResult};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tonic::{Response, Status, Streaming};

use super::commits;
use super::convert::{append_entries_to_wire, append_result_from_wire};
use super::network::{nonsense, unreachable};
use super::{PeerClient, PeerLink};
use crate::types::TypeConfig;

/// The follower opens its side of the stream when it has read who calls; a connection may have to be made
/// first. A stream that is open has no limit: idle, it waits for entries, and a peer that vanished is noticed
/// by its connection's pings.
const OPEN_TIMEOUT: Duration = Duration::from_secs(1);

/// Most requests that wait for a follower's answer at a time. Enough to hide a round trip and an fsync.
const REQUESTS_IN_FLIGHT_MAX: u32 = 64;

/// Most bytes of entries that wait for a follower's answer at a time, in KiB. A follower that keeps up never
/// has as much; one that does not must not make the leader hold more.
const KIB_IN_FLIGHT_MAX: u32 = 16 * 1024;

/// The follower's answers, in the order of the requests.
pub(super) type AppendAnswers<'s> = BoxStream<'s, AppendAnswer>;

type AppendAnswer = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>;

/// Sends what comes from `input`, and returns the follower's answers in the same order; requests that others stand for have
/// none of their own.
pub(super) async fn stream_append<'s, S>(
    client: &'s mut PeerClient,
    input: S,
) -> Result<AppendAnswers<'s>, RPCError<TypeConfig>>
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
{
    // openraft's own backoff delays requests; a stream that does not open asks for none.
    client.retry.wait().await;
    let window = Arc::new(AppendWindow::new());
    let link = client.link()?.clone();
    let opened = open(&link, client.route(), requests(input, window.clone(), link.clone())).await;
    client.retry.note(opened.is_ok());
    match opened {
        Ok(answers) => Ok(Box::pin(stream::unfold(Some(Answers { answers, window, link }), next_answer))),
        Err(status) => Err(unreachable(&link, &status).into()),
    }
}

async fn open(
    link: &PeerLink,
    route: wire::Route,
    entries: impl Stream<Item = Part> + Send + 'static,
) -> Result<Streaming<wire::AppendResponse>, Status> {
    let parts = stream::iter([Part::Begin(route)]).chain(entries).chain(stream::iter([Part::End(wire::AppendEnd {})]));
    let messages = parts.map(|part| wire::AppendRequest { part: Some(part) });
    match tokio::time::timeout(OPEN_TIMEOUT, link.calls().append(messages)).await {
        Ok(opened) => opened.map(Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded("the stream was not opened in time")),
    }
}

fn requests<S>(input: S, window: Arc<AppendWindow>, link: PeerLink) -> impl Stream<Item = Part> + Send + 'static
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + 'static,
{
    commits::spare(input).filter_map(move |request| {
        let message = append_entries_to_wire(&request);
        let (window, link) = (window.clone(), link.clone());
        async move {
            let bytes: usize = message.entries.iter().map(Bytes::len).sum();
            link.append_bytes.inc_by(bytes as u64);
            // The window closes only with the stream.
            window.enter(bytes).await.then_some(Part::Entries(message))
        }
    })
}

struct Answers {
    answers: Streaming<wire::AppendResponse>,
    window: Arc<AppendWindow>,
    link: PeerLink,
}

async fn next_answer(state: Option<Answers>) -> Option<(AppendAnswer, Option<Answers>)> {
    let mut state = state?;
    match state.answers.message().await {
        Ok(None) => None,
        Ok(Some(response)) => {
            state.link.answered();
            state.window.leave();
            match append_result_from_wire(response) {
                Ok(result) => Some((Ok(result), Some(state))),
                Err(error) => Some((Err(nonsense(error).into()), None)),
            }
        }
        Err(status) => Some((Err(unreachable(&state.link, &status).into()), None)),
    }
}

/// Bounds what is under way, by count and bytes.
struct AppendWindow {
    room: Semaphore,
    taken: Mutex<VecDeque<u32>>,
}

impl AppendWindow {
    fn new() -> Self {
        Self { room: Semaphore::new(KIB_IN_FLIGHT_MAX as usize), taken: Mutex::default() }
    }

    /// Waits until there is room for a request. False if there will never be any.
    async fn enter(&self, bytes: usize) -> bool {
        let cost = cost(bytes);
        match self.room.acquire_many(cost).await {
            Ok(permit) => {
                permit.forget();
                self.taken.lock().push_back(cost);
                true
            }
            Err(_) => false,
        }
    }

    /// Answers come in the order of the requests: this one is the oldest's.
    fn leave(&self) {
        if let Some(cost) = self.taken.lock().pop_front() {
            self.room.add_permits(cost as usize);
        }
    }
}

/// What a request takes of the window, in KiB: at least its share by count, at most all.
fn cost(bytes: usize) -> u32 {
    let kib = u32::try_from(bytes / 1024).unwrap_or(u32::MAX);
    kib.clamp(KIB_IN_FLIGHT_MAX / REQUESTS_IN_FLIGHT_MAX, KIB_IN_FLIGHT_MAX)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn small_requests_are_bounded_by_their_count() {
        let window = AppendWindow::new();
        for _ in 0..REQUESTS_IN_FLIGHT_MAX {
            assert_eq!(window.enter(0).now_or_never(), Some(true));
        }
        assert_eq!(window.enter(0).now_or_never(), None);
        window.leave();
        assert_eq!(window.enter(0).now_or_never(), Some(true));
    }

    #[test]
    fn large_requests_are_bounded_by_their_bytes() {
        let window = AppendWindow::new();
        for _ in 0..4 {
            assert_eq!(window.enter(4 * 1024 * 1024).now_or_never(), Some(true));
        }
        assert_eq!(window.enter(0).now_or_never(), None);
    }

    #[test]
    fn a_request_larger_than_the_window_passes_alone() {
        let window = AppendWindow::new();
        assert_eq!(window.enter(usize::MAX).now_or_never(), Some(true));
        assert_eq!(window.enter(0).now_or_never(), None);
        window.leave();
        assert_eq!(window.enter(usize::MAX).now_or_never(), Some(true));
    }
}
