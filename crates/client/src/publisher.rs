//! Publishing over one stream, with confirms, and each request stored once however often it must be sent.

mod backlog;
mod driver;
mod request;
mod window;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use dwell_proto::v1;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use crate::call::Core;
use crate::connections::MESSAGE_BYTES_MAX;
use crate::error::Error;
use crate::message::{PublishMessage, encoded_bytes};
use crate::options::{PublisherOptions, random_id};
use crate::published::{PublishOutcome, Published, all_stored};
use crate::trace;

use self::driver::Driver;
use self::request::{Request, Room, Waiter};

/// Most requests that may be unconfirmed: the server remembers the outcomes of as many.
const WINDOW: usize = 256;
/// Most single messages that may be unconfirmed. They travel merged, so that they take few places in the window.
const SINGLES: usize = 8192;
/// Most bytes that may be unconfirmed, in units of [`BYTES_UNIT`].
const BYTES_UNITS: u32 = 64 * 1024;
/// One KiB: a semaphore counts to no more than some thousand million on small machines.
const BYTES_UNIT: usize = 1024;

/// Publishes messages over one stream. Clones share it, and may be used from several tasks at once.
///
/// Requests take effect in the order in which they were submitted. When the stream breaks, everything
/// unconfirmed is sent again, in order and under the same sequence numbers, before anything new: the server
/// recognizes what it has stored already. When all clones are dropped, what was submitted is still sent.
#[derive(Debug, Clone)]
pub struct Publisher {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    core: Arc<Core>,
    submissions: mpsc::Sender<Request>,
    requests: Arc<Semaphore>,
    singles: Arc<Semaphore>,
    bytes: Arc<Semaphore>,
}

impl Publisher {
    pub(crate) fn start(core: Arc<Core>, options: PublisherOptions) -> Publisher {
        // Room for all that the semaphores admit, so that submitting never waits here.
        let (submissions, receiver) = mpsc::channel(WINDOW + SINGLES);
        let producer_id = options.producer_id.unwrap_or_else(random_id);
        tokio::spawn(Driver::new(core.clone(), producer_id, receiver).run());
        let shared = Shared {
            core,
            submissions,
            requests: Arc::new(Semaphore::new(WINDOW)),
            singles: Arc::new(Semaphore::new(SINGLES)),
            bytes: Arc::new(Semaphore::new(BYTES_UNITS as usize)),
        };
        Publisher { shared: Arc::new(shared) }
    }

    /// Submits messages to be stored all or none: 1 to 1000. Waits while 256 requests, or 64 MiB, are
    /// unconfirmed, and returns the confirm to wait for. Dropping the confirm does not take the request back.
    ///
    /// Errors, here: [`Error::Closed`]. From the confirm, with nothing stored: [`Error::NotFound`] if a queue or
    /// exchange does not exist, [`Error::Unroutable`] if a mandatory message reaches no queue,
    /// [`Error::InvalidArgument`], [`Error::ResourceExhausted`], [`Error::Unavailable`] if the messages were never
    /// sent. Besides: [`Error::Timeout`] if they were sent and may be stored; and, unless [`Confirm::outcomes`] is
    /// used, [`Error::Unroutable`], [`Error::Rejected`] or [`Error::NotAllStored`] if a message is not stored.
    pub async fn publish(&self, messages: Vec<PublishMessage>) -> Result<Confirm, Error> {
        self.submit(messages, &self.shared.requests, false).await
    }

    /// Submits one message. Single messages for the same queue or exchange that wait at the same time travel in one
    /// request; nothing is ever held back for it. Waits while 8192 of them, or 64 MiB, are unconfirmed.
    pub async fn submit_one(&self, message: PublishMessage) -> Result<Confirm, Error> {
        self.submit(vec![message], &self.shared.singles, true).await
    }

    /// Publishes one message, as [`Publisher::submit_one`] does, and waits for its confirm.
    pub async fn publish_one(&self, message: PublishMessage) -> Result<Published, Error> {
        let published = self.submit_one(message).await?.await?;
        published.into_iter().next().ok_or_else(|| Error::Server {
            code: tonic::Code::Internal,
            message: "the confirm holds no result for the message".into(),
        })
    }

    /// True if nothing can be published any more, because the runtime that it was made on is gone.
    pub fn is_closed(&self) -> bool {
        self.shared.submissions.is_closed()
    }

    async fn submit(
        &self,
        messages: Vec<PublishMessage>,
        places: &Arc<Semaphore>,
        mergeable: bool,
    ) -> Result<Confirm, Error> {
        let mut messages: Vec<v1::PublishMessage> = messages.into_iter().map(PublishMessage::into_proto).collect();
        // Before anything is waited for: then as later the context may be another one.
        if let Some(headers) = trace::Headers::current() {
            messages.iter_mut().for_each(|message| headers.put_on(message));
        }
        let bytes = messages.iter().map(encoded_bytes).sum::<usize>();
        if bytes >= MESSAGE_BYTES_MAX {
            return Err(Error::InvalidArgument(format!(
                "messages: {bytes} bytes in one request; at most {MESSAGE_BYTES_MAX} can be sent"
            )));
        }
        // A request larger than all room waits until it is alone.
        let units = u32::try_from(bytes.div_ceil(BYTES_UNIT)).unwrap_or(BYTES_UNITS).min(BYTES_UNITS);
        let bytes_room = self.shared.bytes.clone().acquire_many_owned(units).await.map_err(|_| Error::Closed)?;
        let place = places.clone().acquire_owned().await.map_err(|_| Error::Closed)?;
        let deadline = Instant::now() + self.shared.core.options.retry_deadline;
        let (answer, receiver) = oneshot::channel();
        let room = Room { _place: place, _bytes: bytes_room };
        let waiter = Waiter::new(messages.len(), deadline, answer, room);
        let request = Request::new(messages, bytes, waiter, mergeable);
        self.shared.submissions.send(request).await.map_err(|_| Error::Closed)?;
        Ok(Confirm { answer: receiver })
    }
}

/// The confirm of one request: resolves when every message of it is stored, to one [`Published`] for each, in order.
/// A message that is not stored is an error; [`Confirm::outcomes`] tells of each message instead. For the errors see
/// [`Publisher::publish`].
#[derive(Debug)]
#[must_use = "whether the messages are stored shows when it is awaited"]
pub struct Confirm {
    answer: oneshot::Receiver<Result<Vec<PublishOutcome>, Error>>,
}

impl Confirm {
    /// What became of each message, in order: an error only if the request as a whole was refused or its outcome is
    /// unknown. Cancel safe.
    pub async fn outcomes(&mut self) -> Result<Vec<PublishOutcome>, Error> {
        (&mut self.answer).await.unwrap_or(Err(Error::Closed))
    }
}

impl Future for Confirm {
    type Output = Result<Vec<Published>, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = Pin::new(&mut self.answer).poll(context);
        answer.map(|answer| answer.unwrap_or(Err(Error::Closed)).and_then(all_stored))
    }
}
