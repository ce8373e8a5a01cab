//! The task behind a publisher: keeps a stream while there is one to be had, and the window moving.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use dwell_proto::v1;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryFutureExt, TryStreamExt, stream};
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::WINDOW;
use super::backlog::Backlog;
use super::request::Request;
use super::window::{Interruption, Window};
use crate::backoff::Backoff;
use crate::call::{Core, describe, retry_after};
use crate::client::messages;
use crate::connections::Connection;
use crate::error::{Error, is_transient};

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(100);
/// Submissions, or confirms, that are taken before something is sent again.
const STRIDE: usize = 512;

pub(super) struct Driver {
    core: Arc<Core>,
    submissions: mpsc::Receiver<Request>,
    /// Some publisher is left that may submit.
    accepting: bool,
    backlog: Backlog,
    window: Window,
    backoff: Backoff,
    /// The stream was moved to the leader and nothing confirmed since: it is not moved again.
    moved: bool,
    /// What the last attempt failed with.
    reason: String,
    /// The server's message, if that was for want of something that the cluster is short of.
    exhausted: Option<String>,
}

/// What a stream brings.
enum Event {
    /// The server accepted the stream.
    Opened,
    Confirm(v1::PublishStreamResponse),
}

/// Why a stream ended.
enum End {
    /// Everything is done and nobody submits any more.
    Finished,
    /// Another node leads.
    Moved,
    /// Again after a pause, perhaps one that the server asked for.
    Failed(Option<Duration>),
}

impl Driver {
    pub(super) fn new(core: Arc<Core>, producer_id: String, submissions: mpsc::Receiver<Request>) -> Driver {
        Driver {
            core,
            submissions,
            accepting: true,
            backlog: Backlog::default(),
            window: Window::new(producer_id),
            backoff: Backoff::default(),
            moved: false,
            reason: "nothing was tried".into(),
            exhausted: None,
        }
    }

    pub(super) async fn run(mut self) {
        while self.wait_for_work().await {
            let pause = match self.core.connect_for_stream().await {
                Ok(connection) => match self.serve(&connection).await {
                    End::Finished => return,
                    End::Moved => None,
                    End::Failed(hint) => Some(hint),
                },
                Err(reason) => {
                    self.failed_with(reason);
                    Some(None)
                }
            };
            if let Some(hint) = pause {
                tracing::debug!(reason = self.reason, "the publisher's stream is to be opened again");
                tokio::time::sleep(self.backoff.next_delay(hint)).await;
            }
            self.take_submitted();
            self.expire();
        }
    }

    /// Without a stream: waits until there is something to send. False if there never will be.
    async fn wait_for_work(&mut self) -> bool {
        if self.is_idle() && self.accepting {
            match self.submissions.recv().await {
                Some(request) => self.backlog.push(request),
                None => self.accepting = false,
            }
        }
        !self.is_idle()
    }

    fn is_idle(&self) -> bool {
        self.window.is_empty() && self.backlog.is_empty()
    }

    fn take_submitted(&mut self) {
        while let Ok(request) = self.submissions.try_recv() {
            self.backlog.push(request);
        }
    }

    /// A failure that is no watermark's is what the messages that are given up are told.
    fn failed_with(&mut self, reason: String) {
        self.reason = reason;
        self.exhausted = None;
    }

    /// True if everything that was sent has been given up.
    fn expire(&mut self) -> bool {
        let now = Instant::now();
        let sent = self.core.gave_up(true, self.reason.clone());
        let unsent = match &self.exhausted {
            Some(message) => Error::ResourceExhausted(message.clone()),
            None => self.core.gave_up(false, self.reason.clone()),
        };
        self.backlog.expire(now, &unsent);
        self.window.expire(now, &sent, &unsent)
    }

    async fn serve(&mut self, connection: &Connection) -> End {
        let (outbound, requests) = mpsc::channel(WINDOW);
        let mut events = self.open(connection, requests);
        self.window.begin_stream();
        let mut submitted = Vec::with_capacity(STRIDE);
        let mut tick = ticks();
        let mut progress_at = Instant::now();
        loop {
            if !self.window.is_on_wire() {
                progress_at = Instant::now();
            }
            self.window.send(&mut self.backlog, &outbound, Instant::now());
            if !self.accepting && self.is_idle() {
                return End::Finished;
            }
            let busy = !self.is_idle();
            tokio::select! {
                event = events.next() => {
                    progress_at = Instant::now();
                    if let Some(end) = self.take_events(connection, event, &mut events) {
                        return end;
                    }
                }
                count = self.submissions.recv_many(&mut submitted, STRIDE), if self.accepting => {
                    self.accepting = count > 0;
                    submitted.drain(..).for_each(|request| self.backlog.push(request));
                }
                _ = tick.tick(), if busy => {
                    if self.is_stalled(connection, progress_at) || self.expire() {
                        return End::Failed(None);
                    }
                }
            }
        }
    }

    fn open(
        &self,
        connection: &Connection,
        requests: mpsc::Receiver<v1::PublishStreamRequest>,
    ) -> BoxStream<'static, Result<Event, Status>> {
        let mut client = messages(connection.channel.clone());
        let core = self.core.clone();
        // Sending does not wait for the server to accept the stream, nor need the server accept it before the
        // first request.
        let call = async move { client.publish_stream(ReceiverStream::new(requests)).await };
        call.map_ok(move |response| {
            core.directory.observe(response.metadata());
            let opened = stream::once(ready(Ok(Event::Opened)));
            opened.chain(response.into_inner().map_ok(Event::Confirm))
        })
        .try_flatten_stream()
        .boxed()
    }

    /// Takes one event and all that came with it.
    fn take_events(
        &mut self,
        connection: &Connection,
        first: Option<Result<Event, Status>>,
        events: &mut BoxStream<'static, Result<Event, Status>>,
    ) -> Option<End> {
        let mut next = first;
        for _ in 0..STRIDE {
            if let Some(end) = self.take_event(connection, next) {
                return Some(end);
            }
            match events.next().now_or_never() {
                Some(event) => next = event,
                None => break,
            }
        }
        None
    }

    fn take_event(&mut self, connection: &Connection, event: Option<Result<Event, Status>>) -> Option<End> {
        match event {
            Some(Ok(Event::Opened)) => {
                let leader = self.core.directory.leader();
                if !self.moved && leader.is_some_and(|leader| leader != connection.address) {
                    self.moved = true;
                    return Some(End::Moved);
                }
                None
            }
            Some(Ok(Event::Confirm(response))) => match self.window.confirm(response) {
                Ok(()) => {
                    self.backoff.reset();
                    self.moved = false;
                    self.exhausted = None;
                    None
                }
                Err(Interruption::Transient(reason)) => {
                    self.core.directory.not_ready(&connection.address);
                    self.failed_with(format!("{}: {reason}", connection.address));
                    Some(End::Failed(None))
                }
                Err(Interruption::Exhausted(message)) => {
                    self.core.directory.not_ready(&connection.address);
                    self.failed_with(format!("{}: {message}", connection.address));
                    self.exhausted = Some(message);
                    Some(End::Failed(None))
                }
            },
            Some(Err(status)) => Some(self.stream_failed(connection, &status)),
            None => {
                self.core.directory.not_ready(&connection.address);
                self.failed_with(format!("{}: the server ended the stream", connection.address));
                Some(End::Failed(None))
            }
        }
    }

    fn stream_failed(&mut self, connection: &Connection, status: &Status) -> End {
        self.failed_with(describe(&connection.address, status));
        if is_transient(status) || status.code() == Code::ResourceExhausted {
            self.core.failed(connection, status);
        } else {
            self.window.blame(&Error::from_status(status));
        }
        End::Failed(retry_after(status.metadata()))
    }

    /// A node that confirms nothing for long, and breaks nothing either, is tried no further.
    fn is_stalled(&mut self, connection: &Connection, progress_at: Instant) -> bool {
        let patience = self.core.options.attempt_timeout;
        let stalled = self.window.is_on_wire() && progress_at.elapsed() > patience;
        if stalled {
            self.core.directory.unreachable(&connection.address);
            self.failed_with(format!("{}: no confirm within {patience:?}", connection.address));
        }
        stalled
    }
}

/// The first of them after a while: who is refused at once is not among those that wait for an answer.
fn ticks() -> Interval {
    let mut tick = tokio::time::interval_at(Instant::now() + TICK, TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    tick
}
