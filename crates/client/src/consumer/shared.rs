//! Streams to the nodes, each shared by many consumers: what many queues have to say travels together.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use dwell_proto::v1;
use dwell_proto::v1::consume_request::Request;
use dwell_proto::v1::consume_response::Response;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Code, Status};

use super::settling::REQUESTS_MAX;
use crate::call::Core;
use crate::client::messages;
use crate::connections::Connection;

/// Most consumers of one stream, and the most credit that they have together, by the API.
const CONSUMERS_MAX: usize = 1000;
const CREDIT_MAX: usize = 100_000;
/// Requests of a consumer that may wait to be sent: the attach, more settlements than one round makes, and its end.
const OUTBOUND: usize = REQUESTS_MAX + 3;
/// Responses to a consumer that are no deliveries.
const ANSWERS: usize = REQUESTS_MAX + 2;

/// The open streams of a client.
#[derive(Debug, Default)]
pub(crate) struct SharedStreams {
    open: Mutex<Vec<Weak<Shared>>>,
}

/// One stream. It lasts as long as it has consumers.
#[derive(Debug)]
struct Shared {
    connection: Connection,
    outbound: mpsc::Sender<v1::ConsumeRequest>,
    lines: Arc<Mutex<Lines>>,
    _running: DropGuard,
}

/// Where the responses of a stream go.
#[derive(Debug, Default)]
struct Lines {
    consumers: HashMap<u32, Line>,
    credit: usize,
    last_number: u32,
    ended: bool,
}

#[derive(Debug)]
struct Line {
    credit: usize,
    responses: mpsc::Sender<Result<Response, Status>>,
}

/// A consumer's part of a stream. Dropping it takes the consumer off the stream, as if the stream broke for it alone.
#[derive(Debug)]
pub(super) struct ConsumerStream {
    shared: Arc<Shared>,
    number: u32,
    responses: mpsc::Receiver<Result<Response, Status>>,
}

impl SharedStreams {
    /// Attaches over a stream with room, or else over a new one.
    pub(super) fn attach(&self, core: &Arc<Core>, connection: Connection, attach: v1::Attach) -> ConsumerStream {
        let mut open = self.open.lock();
        open.retain(|shared| shared.strong_count() > 0);
        for shared in open.iter().filter_map(Weak::upgrade) {
            if !shared.connection.is_same(&connection) {
                continue;
            }
            let joined = shared.lines.lock().add(attach.credit as usize);
            if let Some((number, responses)) = joined {
                return ConsumerStream::attach(shared, number, responses, attach);
            }
        }
        let (shared, number, responses) = Shared::open(core.clone(), connection, attach.credit as usize);
        open.push(Arc::downgrade(&shared));
        ConsumerStream::attach(shared, number, responses, attach)
    }
}

impl Shared {
    /// With its first consumer.
    fn open(
        core: Arc<Core>,
        connection: Connection,
        credit: usize,
    ) -> (Arc<Shared>, u32, mpsc::Receiver<Result<Response, Status>>) {
        let (outbound, requests) = mpsc::channel(CONSUMERS_MAX * OUTBOUND);
        let mut lines = Lines::default();
        let (number, responses) = lines.insert(credit);
        let lines = Arc::new(Mutex::new(lines));
        let running = CancellationToken::new();
        let reading = read(core, connection.clone(), requests, lines.clone());
        tokio::spawn(running.clone().run_until_cancelled_owned(reading));
        (Arc::new(Shared { connection, outbound, lines, _running: running.drop_guard() }), number, responses)
    }
}

/// Opens the stream and hands out what comes, until it ends.
async fn read(
    core: Arc<Core>,
    connection: Connection,
    requests: mpsc::Receiver<v1::ConsumeRequest>,
    lines: Arc<Mutex<Lines>>,
) {
    let reading = async {
        let response = messages(connection.channel).consume(ReceiverStream::new(requests)).await?;
        core.directory.observe(response.metadata());
        let mut responses = response.into_inner();
        while let Some(response) = responses.message().await? {
            lines.lock().route(response);
        }
        Err(Status::unavailable("the server ended the stream"))
    };
    let ended: Result<std::convert::Infallible, Status> = reading.await;
    let Err(status) = ended;
    lines.lock().end(&status);
}

impl Lines {
    /// Takes in a consumer, if the stream has room for it.
    fn add(&mut self, credit: usize) -> Option<(u32, mpsc::Receiver<Result<Response, Status>>)> {
        let room = self.consumers.len() < CONSUMERS_MAX && self.credit + credit <= CREDIT_MAX;
        (room && !self.ended).then(|| self.insert(credit))
    }

    fn insert(&mut self, credit: usize) -> (u32, mpsc::Receiver<Result<Response, Status>>) {
        let (responses, receiver) = mpsc::channel(credit + ANSWERS);
        // After four thousand million consumers of one stream a number may still be in use.
        self.last_number = self.last_number.wrapping_add(1);
        while self.consumers.contains_key(&self.last_number) {
            self.last_number = self.last_number.wrapping_add(1);
        }
        self.credit += credit;
        self.consumers.insert(self.last_number, Line { credit, responses });
        (self.last_number, receiver)
    }

    fn remove(&mut self, number: u32) -> Option<Line> {
        let line = self.consumers.remove(&number)?;
        self.credit -= line.credit;
        Some(line)
    }

    fn route(&mut self, response: v1::ConsumeResponse) {
        let number = response.consumer;
        match response.response {
            Some(Response::Ended(ended)) => {
                if let Some((line, failure)) = self.remove(number).zip(ended.failure) {
                    let status = Status::new(Code::from_i32(failure.code), failure.message);
                    let _ = line.responses.try_send(Err(status));
                }
            }
            Some(response) => {
                let Some(line) = self.consumers.get(&number) else { return };
                // More than its credit allows: it is to attach again, and say what it holds.
                if line.responses.try_send(Ok(response)).is_err() {
                    self.remove(number);
                }
            }
            None => {}
        }
    }

    fn end(&mut self, status: &Status) {
        self.ended = true;
        self.credit = 0;
        for (_, line) in self.consumers.drain() {
            let _ = line.responses.try_send(Err(status.clone()));
        }
    }
}

impl ConsumerStream {
    fn attach(
        shared: Arc<Shared>,
        number: u32,
        responses: mpsc::Receiver<Result<Response, Status>>,
        attach: v1::Attach,
    ) -> ConsumerStream {
        let stream = ConsumerStream { shared, number, responses };
        stream.send(Request::Attach(attach));
        stream
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.shared.connection
    }

    /// Sends a request, if the stream is still there; its end is told by [`Self::response`].
    pub(super) fn send(&self, request: Request) {
        let request = v1::ConsumeRequest { request: Some(request), consumer: self.number };
        // There is room for all that consumers may have under way: see `OUTBOUND`.
        let _ = self.shared.outbound.try_send(request);
    }

    /// The next response; none after the end that the client asked for. Cancel safe.
    pub(super) async fn response(&mut self) -> Result<Option<Response>, Status> {
        self.responses.recv().await.transpose()
    }
}

impl Drop for ConsumerStream {
    fn drop(&mut self) {
        // Bound here: the lock is not held while the stream is told.
        let attached = self.shared.lines.lock().remove(self.number).is_some();
        if attached {
            self.send(Request::Detach(v1::DetachConsumer {}));
        }
    }
}
