//! Spares followers the requests that say nothing but what is committed.
//!
//! openraft sends such a request whenever an entry is committed and no other is at hand to say it along with. With few
//! entries under way that doubles the requests. But each further request says it as well, and its answer stands for
//! those before: so one without entries is kept back for a moment, and dropped if another follows.

use std::time::Duration;

use futures::stream::{self, Fuse};
use futures::{Stream, StreamExt};
use openraft::raft::AppendEntriesRequest;
use tokio::time::{Instant, timeout_at};

use crate::types::TypeConfig;

type Request = AppendEntriesRequest<TypeConfig>;

/// How long a follower hears later of a commit, and applies it later, if nothing else is to be said. No more than what a
/// heartbeat can be late without harm.
const PATIENCE: Duration = Duration::from_millis(2);

/// The requests of `input` without those that the next one stands for.
pub(super) fn spare<S>(input: S) -> impl Stream<Item = Request> + Send + 'static
where
    S: Stream<Item = Request> + Send + 'static,
{
    // Boxed once for each stream: the next request is awaited from several places.
    stream::unfold(Sparing { input: input.boxed().fuse(), kept: None }, next)
}

struct Sparing<S> {
    input: Fuse<S>,
    kept: Option<Kept>,
}

struct Kept {
    request: Request,
    until: Instant,
}

impl Kept {
    fn new(request: Request) -> Kept {
        Kept { request, until: Instant::now() + PATIENCE }
    }

    /// Whether `next` says all that this one does.
    fn is_spared_by(&self, next: &Request) -> bool {
        self.request.vote == next.vote && self.request.prev_log_id == next.prev_log_id
    }
}

async fn next<S>(mut sparing: Sparing<S>) -> Option<(Request, Sparing<S>)>
where
    S: Stream<Item = Request> + Unpin,
{
    loop {
        let kept = match sparing.kept.take() {
            Some(kept) => kept,
            None => Kept::new(sparing.input.next().await?),
        };
        if !kept.request.entries.is_empty() {
            return Some((kept.request, sparing));
        }
        match timeout_at(kept.until, sparing.input.next()).await {
            Ok(Some(next)) if kept.is_spared_by(&next) => {
                sparing.kept = Some(Kept { request: next, until: kept.until });
            }
            Ok(Some(next)) => {
                sparing.kept = Some(Kept::new(next));
                return Some((kept.request, sparing));
            }
            Ok(None) | Err(_) => return Some((kept.request, sparing)),
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::FutureExt as _;
    use openraft::EntryPayload;
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::UnboundedReceiverStream;

    use super::*;
    use crate::codec::{self, log_id_of};
    use crate::types::{Entry, Proposal};

    fn request(previous: u64, entries: u64, committed: u64) -> Request {
        let entry = |index| {
            let payload = EntryPayload::Normal(Proposal(Bytes::from_static(b"commands")));
            Entry { log_id: log_id_of(1, 1, index), payload }
        };
        AppendEntriesRequest {
            vote: codec::vote(1, 1, true),
            prev_log_id: Some(log_id_of(1, 1, previous)),
            entries: (previous + 1..=previous + entries).map(entry).collect(),
            leader_commit: Some(log_id_of(1, 1, committed)),
        }
    }

    /// What a request is told apart by: entries, and what it says is committed.
    fn told(request: &Request) -> (usize, u64) {
        (request.entries.len(), request.leader_commit.unwrap().index)
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_is_told_along_with_the_next_entry() {
        let input = stream::iter([request(0, 1, 0), request(1, 0, 1), request(1, 1, 1), request(2, 1, 2)]);
        let sent: Vec<_> = spare(input).map(|request| told(&request)).collect().await;
        assert_eq!(sent, [(1, 0), (1, 1), (1, 2)]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_commit_is_told_in_the_end() {
        let input = stream::iter([request(2, 0, 1), request(2, 0, 2)]);
        let sent: Vec<_> = spare(input).map(|request| told(&request)).collect().await;
        assert_eq!(sent, [(0, 2)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_waits_for_a_moment_only_however_many_follow() {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut sent = Box::pin(spare(UnboundedReceiverStream::new(receiver)));
        let began = Instant::now();
        for committed in 1.. {
            sender.send(request(9, 0, committed)).unwrap();
            if sent.next().now_or_never().is_some() {
                break;
            }
            tokio::time::advance(PATIENCE / 4).await;
        }
        assert!(began.elapsed() >= PATIENCE && began.elapsed() <= PATIENCE * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_does_not_follow_on_spares_none() {
        let input = stream::iter([request(5, 0, 5), request(2, 1, 5)]);
        let sent: Vec<_> = spare(input).map(|request| told(&request)).collect().await;
        assert_eq!(sent, [(0, 5), (1, 5)]);
    }
}
