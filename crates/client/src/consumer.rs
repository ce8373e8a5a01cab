//! Consuming a queue over a stream that is opened again when it breaks.

mod driver;
mod link;
mod settling;
mod shared;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::{Stream, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::call::Core;
use crate::delivery::Delivery;
use crate::error::Error;
use crate::message::milliseconds;
use crate::options::{ConsumeOptions, random_id};

use self::driver::{Attachment, Driver};
pub(crate) use self::link::Link;
pub(crate) use self::shared::SharedStreams;

/// Commands that may wait for the driver; those who settle wait beyond it.
const COMMANDS: usize = 4096;

/// What a consumer's driver is asked to do.
#[derive(Debug)]
enum Command {
    Settle(settling::Settle),
    Close(oneshot::Sender<Result<(), Error>>),
}

/// Consumes a queue: yields deliveries as they come.
///
/// The consumers of a client share streams, up to 1000 each. When its stream breaks it attaches again, to another node if need be, under the same consumer id and with
/// the leases that it holds, until [`ClientOptions::retry_deadline`](crate::ClientOptions::retry_deadline).
/// What was on the way is sent again by the server, and what is here already is not delivered twice.
///
/// Dropping it takes it off the stream: what it held unsettled stays leased for its session timeout. Deliveries
/// taken from it before can still be settled. [`Consumer::close`] gives everything back at once.
#[derive(Debug)]
pub struct Consumer {
    consumer_id: String,
    link: Arc<Link>,
    retry_deadline: std::time::Duration,
    _running: DropGuard,
}

impl Consumer {
    pub(crate) async fn start(core: Arc<Core>, queue: String, options: ConsumeOptions) -> Result<Consumer, Error> {
        let consumer_id = options.consumer_id.unwrap_or_else(random_id);
        let attachment = Attachment {
            queue: queue.clone(),
            consumer_id: consumer_id.clone(),
            credit: options.credit,
            session_timeout_ms: milliseconds(options.session_timeout),
        };
        let (commands, receiver) = mpsc::channel(COMMANDS);
        let retry_deadline = core.options.retry_deadline;
        let link = Arc::new(Link::new(core.clone(), queue, options.credit, commands));
        let running = CancellationToken::new();
        let (attached, answer) = oneshot::channel();
        let driver = Driver::new(core, attachment, link.clone(), receiver, attached);
        let stopped = running.clone();
        tokio::spawn(async move { stopped.run_until_cancelled_owned(driver.run()).await });
        // From here on, giving up this future stops the driver.
        let running = running.drop_guard();
        answer.await.map_err(|_| Error::Closed)??;
        Ok(Consumer { consumer_id, link, retry_deadline, _running: running })
    }

    /// The consumer's id, by which it may be resumed.
    pub fn consumer_id(&self) -> &str {
        &self.consumer_id
    }

    /// The next delivery, when there is one. An error is the last thing it yields: [`Error::NotFound`] if the
    /// queue was deleted, [`Error::Displaced`] if another consumer attached with the same id,
    /// [`Error::Unavailable`] or [`Error::Timeout`] if no node could be reached within the retry deadline.
    /// Cancel safe.
    pub async fn next(&mut self) -> Option<Result<Delivery, Error>> {
        StreamExt::next(self).await
    }

    /// Ends the consumer: settlements under way are finished, and all other leases, of deliveries taken and
    /// not, return to the queue at once. Errors: [`Error::Timeout`]; what ended the consumer before, if
    /// something did.
    pub async fn close(self) -> Result<(), Error> {
        let (answer, closed) = oneshot::channel();
        let closing = async {
            match self.link.command(Command::Close(answer)).await {
                Ok(()) => closed.await.unwrap_or(Err(Error::Closed)),
                Err(_) => Err(self.link.take_end().unwrap_or(Error::Closed)),
            }
        };
        let timeout = || Error::Timeout { deadline: self.retry_deadline, reason: "closing the consumer".into() };
        tokio::time::timeout(self.retry_deadline, closing).await.unwrap_or_else(|_| Err(timeout()))
    }
}

impl Stream for Consumer {
    type Item = Result<Delivery, Error>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.link.poll_next(context)
    }
}
