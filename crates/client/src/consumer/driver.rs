//! The task behind a consumer: attaches, and attaches again.

use std::sync::Arc;
use std::time::Duration;

use dwell_proto::v1;
use dwell_proto::v1::consume_request::Request;
use dwell_proto::v1::consume_response::Response;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tonic::{Code, Status};

use super::Command;
use super::link::Link;
use super::settling::Settling;
use super::shared::ConsumerStream;
use crate::backoff::Backoff;
use crate::call::{Core, describe, retry_after};
use crate::connections::Connection;
use crate::error::{Error, is_transient};

/// For how long an attach whose outcome is unknown may still reach the leader and displace the stream that
/// came after it.
const STRAY_ATTACH: Duration = Duration::from_secs(10);
/// Commands that are taken before anything is sent.
const STRIDE: usize = 1024;

/// What the consumer attaches with.
#[derive(Debug)]
pub(super) struct Attachment {
    pub(super) queue: String,
    pub(super) consumer_id: String,
    pub(super) credit: u32,
    pub(super) session_timeout_ms: i64,
}

pub(super) struct Driver {
    core: Arc<Core>,
    attachment: Attachment,
    link: Arc<Link>,
    commands: mpsc::Receiver<Command>,
    settling: Settling,
    backoff: Backoff,
    /// Answered by the first attach.
    attached: Option<oneshot::Sender<Result<(), Error>>>,
    closing: Option<oneshot::Sender<Result<(), Error>>>,
    stray_attach_until: Option<Instant>,
    /// The stream was moved to the leader and has brought nothing since: it is not moved again.
    moved: bool,
}

/// Why there is no stream.
enum Failure {
    /// Again after a pause, perhaps one that the server asked for.
    Transient { sent: bool, reason: String, hint: Option<Duration> },
    /// It will not work.
    Final(Error),
}

/// Why a stream ended.
enum End {
    Broken(String),
    Moved,
    Closed,
    Final(Error),
}

impl Driver {
    pub(super) fn new(
        core: Arc<Core>,
        attachment: Attachment,
        link: Arc<Link>,
        commands: mpsc::Receiver<Command>,
        attached: oneshot::Sender<Result<(), Error>>,
    ) -> Driver {
        Driver {
            core,
            attachment,
            link,
            commands,
            settling: Settling::default(),
            backoff: Backoff::default(),
            attached: Some(attached),
            closing: None,
            stray_attach_until: None,
            moved: false,
        }
    }

    /// Runs until the consumer is closed or cannot go on.
    pub(super) async fn run(mut self) {
        let result = self.run_to_end().await;
        if let Some(attached) = self.attached.take() {
            let _ = attached.send(result.clone());
        }
        if let Some(closing) = self.closing.take() {
            let _ = closing.send(result.clone());
        }
        self.link.end(result.err());
        // What is left in `settling` and `commands` is dropped here: those who wait go on by single calls.
    }

    async fn run_to_end(&mut self) -> Result<(), Error> {
        loop {
            let stream = self.attach_until_deadline().await?;
            if let Some(attached) = self.attached.take() {
                let _ = attached.send(Ok(()));
            }
            match self.serve(stream).await {
                End::Closed => return Ok(()),
                End::Final(error) => return Err(error),
                End::Moved => {}
                End::Broken(reason) => {
                    tracing::debug!(reason, consumer = self.attachment.consumer_id, "the consumer attaches again");
                    tokio::time::sleep(self.backoff.next_delay(None)).await;
                }
            }
            self.settling.stream_broke();
        }
    }

    async fn attach_until_deadline(&mut self) -> Result<ConsumerStream, Error> {
        let deadline = Instant::now() + self.core.options.retry_deadline;
        let mut perhaps_attached = false;
        loop {
            let (reason, hint) = match self.attach().await {
                Ok(stream) => return Ok(stream),
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Transient { sent, reason, hint }) => {
                    if sent {
                        perhaps_attached = true;
                        self.stray_attach_until = Some(Instant::now() + STRAY_ATTACH);
                    }
                    (reason, hint)
                }
            };
            let delay = self.backoff.next_delay(hint);
            if Instant::now() + delay >= deadline {
                return Err(self.core.gave_up(perhaps_attached, reason));
            }
            tokio::time::sleep(delay).await;
        }
    }

    /// One attempt: joins a stream, and waits for `Attached`.
    async fn attach(&mut self) -> Result<ConsumerStream, Failure> {
        let connection = self.core.connect_for_stream().await;
        let connection = connection.map_err(|reason| Failure::Transient { sent: false, reason, hint: None })?;
        let patience = self.core.options.attempt_timeout;
        match tokio::time::timeout(patience, self.attach_to(connection.clone())).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(status)) => Err(self.attach_failed(&connection, &status)),
            Err(_) => {
                self.core.directory.unreachable(&connection.address);
                let reason = format!("{}: no answer within {patience:?}", connection.address);
                Err(Failure::Transient { sent: true, reason, hint: None })
            }
        }
    }

    async fn attach_to(&mut self, connection: Connection) -> Result<ConsumerStream, Status> {
        let attach = v1::Attach {
            namespace: String::new(),
            queue: self.attachment.queue.clone(),
            consumer_id: self.attachment.consumer_id.clone(),
            credit: self.attachment.credit,
            session_timeout_ms: self.attachment.session_timeout_ms,
            holding: self.link.holding(),
        };
        let mut stream = self.core.consumer_streams.attach(&self.core, connection, attach);
        let attached = match stream.response().await? {
            Some(Response::Attached(attached)) => attached,
            Some(_) => return Err(Status::internal("the first response is not `attached`")),
            None => return Err(Status::unavailable("the server ended the consumer")),
        };
        self.link.lost(&attached.lost);
        self.settling.lost(&self.link, &attached.lost);
        Ok(stream)
    }

    fn attach_failed(&mut self, connection: &Connection, status: &Status) -> Failure {
        if !is_transient(status) && status.code() != Code::ResourceExhausted && !self.is_stray(status) {
            return Failure::Final(Error::from_status(status));
        }
        self.core.failed(connection, status);
        let reason = describe(&connection.address, status);
        Failure::Transient { sent: true, reason, hint: retry_after(status.metadata()) }
    }

    /// True if an earlier attach of this consumer itself displaced the stream.
    fn is_stray(&self, status: &Status) -> bool {
        status.code() == Code::Aborted && self.stray_attach_until.is_some_and(|until| Instant::now() < until)
    }

    async fn serve(&mut self, mut stream: ConsumerStream) -> End {
        let connection = stream.connection().clone();
        let leader = self.core.directory.leader();
        if !self.moved && leader.is_some_and(|leader| leader != connection.address) {
            self.moved = true;
            return End::Moved;
        }
        // Nothing more is to be sent.
        let mut said_all = false;
        let mut commands = Vec::with_capacity(STRIDE);
        loop {
            if !said_all {
                said_all = self.send(&stream);
            }
            tokio::select! {
                response = stream.response() => match response {
                    Ok(Some(response)) => {
                        if let Err(reason) = self.take(response) {
                            self.core.directory.not_ready(&connection.address);
                            return End::Broken(format!("{}: {reason}", connection.address));
                        }
                    }
                    Ok(None) if said_all => return End::Closed,
                    Ok(None) => return End::Broken(format!("{}: the consumer's end of the stream is gone", connection.address)),
                    Err(status) => return self.stream_failed(&connection, &status),
                },
                count = self.commands.recv_many(&mut commands, STRIDE), if !said_all => {
                    // The link, which this task shares, holds a sender: the channel does not end before it.
                    if count == 0 {
                        return End::Closed;
                    }
                    commands.drain(..).for_each(|command| self.accept(command));
                }
            }
        }
    }

    fn accept(&mut self, command: Command) {
        match command {
            Command::Settle(settle) => self.settling.push(settle),
            Command::Close(answer) => self.closing = Some(answer),
        }
    }

    /// Sends what waits. True if that was the last: the consumer closes.
    fn send(&mut self, stream: &ConsumerStream) -> bool {
        self.settling.requests().into_iter().for_each(|request| stream.send(request));
        let last = self.closing.is_some() && self.settling.is_empty();
        if last {
            stream.send(Request::Close(v1::CloseConsumer {}));
        }
        last
    }

    fn take(&mut self, response: Response) -> Result<(), String> {
        self.backoff.reset();
        self.moved = false;
        match response {
            Response::Deliveries(deliveries) => {
                if self.closing.is_none() {
                    self.link.deliver(deliveries.deliveries);
                }
                Ok(())
            }
            Response::Settled(settled) => self.settling.settled(&self.link, settled),
            Response::Attached(_) | Response::Ended(_) => Ok(()),
        }
    }

    fn stream_failed(&mut self, connection: &Connection, status: &Status) -> End {
        if is_transient(status) || status.code() == Code::ResourceExhausted || self.is_stray(status) {
            self.core.failed(connection, status);
            return End::Broken(describe(&connection.address, status));
        }
        End::Final(Error::from_status(status))
    }
}
