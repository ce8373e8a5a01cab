//! Consuming over a stream that many consumers share: deliveries out as the machine grants them, settlements in.

mod attachment;
mod batch;
mod consumer;

use std::collections::HashMap;

use dwell_consensus::leadership::Tenure;
use dwell_consensus::proposer::{Hurry, PendingReply};
use dwell_machine::{CloseReason, Command, Reply, SetCredit};
use dwell_proto::v1;
use dwell_proto::v1::consume_request::Request as ConsumerRequest;
use dwell_proto::v1::consume_response::Response as ConsumerResponse;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{BoxStream, FuturesUnordered, StreamExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use self::attachment::Attached;
use self::batch::Batch;
use self::consumer::{Holding, Phase, StreamConsumer};
use super::deliveries::leases_of;
use super::publish_stream::failure_of;
use super::{Services, accepted};
use crate::access::Caller;
use crate::hub::{STREAM_CONSUMERS_MAX, STREAM_CREDIT_MAX, StreamEvent, Subscription};
use crate::status::{Invalid, RequestError, unavailable};
use crate::traces::Settling;
use crate::validate;

/// Leases in settlements that may be under way; the server reads no further until then. One request may hold as many.
const SETTLING_LEASES_MAX: usize = 10_000;
/// Requests that may be under way: each consumer may be attached and taken off, and settle in a few ways.
const PENDING_MAX: usize = 10 * STREAM_CONSUMERS_MAX;
/// Events taken from the hub, requests read and answers gathered before what came of them is sent.
const STRIDE: usize = 1024;
/// Batches of responses waiting for the client to read them.
const BATCHES_MAX: usize = 4;

pub(super) type ConsumeResponses = BoxStream<'static, Result<v1::ConsumeResponse, Status>>;

impl Services {
    pub(super) fn open_consume_stream(
        &self,
        caller: Caller,
        requests: Streaming<v1::ConsumeRequest>,
    ) -> ConsumeResponses {
        let (responses, receiver) = mpsc::channel(BATCHES_MAX);
        let stream = ConsumerStream {
            services: self.clone(),
            caller,
            subscription: self.hub.subscribe(),
            consumers: HashMap::new(),
            numbers: HashMap::new(),
            pending: FuturesUnordered::new(),
            settling_leases: 0,
            batch: Batch::default(),
            responses,
        };
        // A task of its own: a client that goes away cancels this call, and its consumers must be detached all the same.
        tokio::spawn(stream.run(requests));
        ReceiverStream::new(receiver).flat_map(futures::stream::iter).boxed()
    }
}

struct ConsumerStream {
    services: Services,
    caller: Caller,
    subscription: Subscription,
    /// By the number that the client gave each.
    consumers: HashMap<u32, StreamConsumer>,
    /// The numbers, by attachment.
    numbers: HashMap<u64, u32>,
    pending: FuturesUnordered<BoxFuture<'static, Done>>,
    settling_leases: usize,
    batch: Batch,
    responses: mpsc::Sender<batch::Responses>,
}

/// Something that was waited for.
enum Done {
    Attached { number: u32, attachment: u64, outcome: Result<Attached, RequestError> },
    Settled { number: u32, leases: usize, outcome: Result<v1::Settled, Status> },
    CreditSet { number: u32, attachment: u64, credit: u32, outcome: Result<Reply, RequestError> },
    Detached { number: u32 },
}

/// Why a stream ended.
enum StreamEnd {
    /// The client is gone, or has no more to say.
    Gone,
    /// To be told to the client.
    Failed(Status),
}

impl ConsumerStream {
    async fn run(mut self, requests: Streaming<v1::ConsumeRequest>) {
        let tenure = Tenure::current(&self.services.group.leadership);
        if let StreamEnd::Failed(status) = self.serve(requests).await {
            self.batch.fail(self.services.redirected(status, &tenure).await);
            let _ = self.flush().await;
        }
        // Dropping its consumers detaches them.
    }

    async fn serve(&mut self, mut requests: Streaming<v1::ConsumeRequest>) -> StreamEnd {
        let stopping = self.services.stopping.clone();
        loop {
            // What was read is answered before the stream ends.
            if stopping.is_draining() && self.pending.is_empty() {
                return StreamEnd::Failed(unavailable("this node is stopping"));
            }
            let step = tokio::select! {
                Some(done) = self.pending.next() => self.take_done(done),
                () = stopping.draining(), if !stopping.is_draining() => Ok(()),
                request = requests.message(), if self.may_read() && !stopping.is_draining() => {
                    self.take_requests(request, &mut requests).await
                }
                events = self.subscription.next(STRIDE) => self.take_events(events).await,
                () = self.responses.closed() => Err(StreamEnd::Gone),
            };
            // What was put together before the end is sent all the same.
            let flushed = self.flush().await;
            if let Err(end) = step.and(flushed) {
                return end;
            }
        }
    }

    fn may_read(&self) -> bool {
        self.settling_leases < SETTLING_LEASES_MAX && self.pending.len() < PENDING_MAX
    }

    /// Sends what was put together.
    async fn flush(&mut self) -> Result<(), StreamEnd> {
        match self.batch.take() {
            Some(responses) => self.responses.send(responses).await.map_err(|_| StreamEnd::Gone),
            None => Ok(()),
        }
    }

    fn take_done(&mut self, first: Done) -> Result<(), StreamEnd> {
        self.done(first)?;
        for _ in 1..STRIDE {
            let Some(Some(done)) = self.pending.next().now_or_never() else { break };
            self.done(done)?;
        }
        Ok(())
    }

    fn done(&mut self, done: Done) -> Result<(), StreamEnd> {
        match done {
            Done::Attached { number, attachment, outcome } => self.attached(number, attachment, outcome),
            Done::Settled { number, leases, outcome } => {
                self.settling_leases -= leases;
                let settled = outcome.map_err(StreamEnd::Failed)?;
                self.batch.push(number, ConsumerResponse::Settled(settled));
                Ok(())
            }
            Done::CreditSet { number, attachment, credit, outcome } => {
                let Some(consumer) = self.consumer_of(number, attachment) else { return Ok(()) };
                match outcome {
                    Ok(_) => consumer.holding.credit = credit,
                    Err(error) => self.end(number, failure_of(error)),
                }
                Ok(())
            }
            Done::Detached { number } => {
                let ended = v1::ConsumerEnded { failure: None };
                self.batch.push(number, ConsumerResponse::Ended(ended));
                Ok(())
            }
        }
    }

    fn consumer_of(&mut self, number: u32, attachment: u64) -> Option<&mut StreamConsumer> {
        self.consumers.get_mut(&number).filter(|consumer| consumer.attachment_id == attachment)
    }

    async fn take_requests(
        &mut self,
        first: Result<Option<v1::ConsumeRequest>, Status>,
        requests: &mut Streaming<v1::ConsumeRequest>,
    ) -> Result<(), StreamEnd> {
        let mut next = first;
        for _ in 0..STRIDE {
            let Ok(Some(request)) = next else { return Err(StreamEnd::Gone) };
            self.request(request).await?;
            if !self.may_read() {
                break;
            }
            match requests.message().now_or_never() {
                Some(message) => next = message,
                None => break,
            }
        }
        Ok(())
    }

    async fn request(&mut self, request: v1::ConsumeRequest) -> Result<(), StreamEnd> {
        let number = request.consumer;
        match request.request {
            Some(ConsumerRequest::Attach(attach)) => return self.attach(number, attach),
            Some(ConsumerRequest::Ack(ack)) => {
                let hurry = self.consumers.get_mut(&number).map(|consumer| consumer.holding.settle(ack.leases.len()));
                let count = ack.leases.len();
                let command = |queue| validate::ack(queue, ack.leases).map(Command::Ack);
                self.settle(number, ack.request_id, count, hurry.unwrap_or(Hurry::Now), command).await;
            }
            Some(ConsumerRequest::Nack(nack)) => {
                let count = nack.leases.len();
                let command = |queue| validate::nack(queue, nack.leases, nack.delay_ms, nack.reject).map(Command::Nack);
                self.settle(number, nack.request_id, count, Hurry::Now, command).await;
            }
            Some(ConsumerRequest::Extend(extend)) => {
                let count = extend.leases.len();
                let command =
                    |queue| validate::extend(queue, extend.leases, extend.lease_timeout_ms).map(Command::Extend);
                self.settle(number, extend.request_id, count, Hurry::Now, command).await;
            }
            Some(ConsumerRequest::Credit(credit)) => return self.set_credit(number, credit.credit),
            Some(ConsumerRequest::Close(_)) => self.leave(number, true),
            Some(ConsumerRequest::Detach(_)) => self.leave(number, false),
            None => return Err(StreamEnd::Failed(invalid("request", "must not be empty").into())),
        }
        Ok(())
    }

    fn attach(&mut self, number: u32, attach: v1::Attach) -> Result<(), StreamEnd> {
        if self.consumers.contains_key(&number) {
            let problem = format!("{number} is attached already, and must not `attach` again");
            return Err(StreamEnd::Failed(invalid("consumer", problem).into()));
        }
        // What a consumer asks for later is of its queue alone. A user whose rights change loses the stream.
        if let Err(status) = self.caller.may(&attach) {
            self.end(number, failure_of(status));
            return Ok(());
        }
        let mut attach = match self.admit(attach) {
            Ok(attach) => attach,
            Err(error) => {
                self.end(number, failure_of(RequestError::from(error)));
                return Ok(());
            }
        };
        attach.attachment = rand::random();
        if attach.consumer_id.is_empty() {
            attach.consumer_id = format!("{:032x}", rand::random::<u128>());
        }
        let attachment_id = attach.attachment;
        self.subscription.add(attachment_id);
        self.numbers.insert(attachment_id, number);
        let (queue, consumer_id) = (attach.queue.clone(), attach.consumer_id.clone());
        let (holding, phase) = (Holding::of(&attach), Phase::Attaching { early: Vec::new() });
        let (attachment, outcome) = self.services.attach(attach);
        let consumer = StreamConsumer { queue, consumer_id, attachment_id, attachment, holding, phase };
        self.consumers.insert(number, consumer);
        let attaching = outcome.map(move |outcome| {
            let outcome = outcome.unwrap_or(Err(RequestError::UnexpectedReply));
            Done::Attached { number, attachment: attachment_id, outcome }
        });
        self.pending.push(attaching.boxed());
        Ok(())
    }

    /// Looks whether the stream takes one more consumer.
    fn admit(&self, attach: v1::Attach) -> Result<dwell_machine::Attach, Invalid> {
        let attach = validate::attach(attach)?;
        if self.consumers.len() >= STREAM_CONSUMERS_MAX {
            return Err(invalid_field("consumer", format!("is one too many: a stream takes {STREAM_CONSUMERS_MAX}")));
        }
        self.admit_credit("attach.credit", attach.credit)?;
        Ok(attach)
    }

    fn admit_credit(&self, field: &str, more: u32) -> Result<(), Invalid> {
        let credit: usize = self.consumers.values().map(|consumer| consumer.holding.credit as usize).sum();
        if credit + more as usize > STREAM_CREDIT_MAX {
            let problem = format!("is too much: a stream's consumers have {STREAM_CREDIT_MAX} together, at most");
            return Err(invalid_field(field, problem));
        }
        Ok(())
    }

    fn attached(
        &mut self,
        number: u32,
        attachment: u64,
        outcome: Result<Attached, RequestError>,
    ) -> Result<(), StreamEnd> {
        // The client may have let go of it meanwhile.
        let Some(consumer) = self.consumer_of(number, attachment) else { return Ok(()) };
        let Attached { consumer: machine_consumer, resumed, lost } = match outcome {
            Ok(attached) => attached,
            Err(error) => {
                self.end(number, failure_of(error));
                return Ok(());
            }
        };
        let consumer_id = consumer.consumer_id.clone();
        tracing::debug!(queue = consumer.queue, consumer_id, resumed, "consumer attached");
        let early = consumer.attached(machine_consumer);
        let response = v1::Attached { consumer_id, resumed, lost: leases_of(lost) };
        self.batch.push(number, ConsumerResponse::Attached(response));
        for event in early {
            self.event(number, event)?;
        }
        Ok(())
    }

    async fn settle(
        &mut self,
        number: u32,
        request_id: u64,
        leases: usize,
        hurry: Hurry,
        command: impl FnOnce(String) -> Result<Command, Invalid>,
    ) {
        let command = match self.consumers.get(&number) {
            Some(consumer) => command(consumer.queue.clone()),
            None => Err(not_attached(number)),
        };
        match command {
            Ok(command) => {
                let settling = self.services.traces.settling(&command);
                let pending = self.services.group.proposer.submit(command, hurry).await;
                let settlement = settlement(request_id, pending, settling);
                self.settling_leases += leases;
                self.pending.push(settlement.map(move |outcome| Done::Settled { number, leases, outcome }).boxed());
            }
            Err(error) => {
                let settled = v1::Settled {
                    request_id,
                    refused: Some(failure_of(RequestError::from(error))),
                    ..Default::default()
                };
                self.batch.push(number, ConsumerResponse::Settled(settled));
            }
        }
    }

    fn set_credit(&mut self, number: u32, credit: u32) -> Result<(), StreamEnd> {
        let Some(consumer) = self.consumers.get(&number) else {
            self.end(number, failure_of(RequestError::from(not_attached(number))));
            return Ok(());
        };
        let (attachment, old) = (consumer.attachment_id, consumer.holding.credit);
        let Phase::Attached { consumer } = consumer.phase else {
            let problem = format!("{number} is still attaching: it has the credit that it attaches with");
            return Err(StreamEnd::Failed(invalid("consumer", problem).into()));
        };
        let command = SetCredit { consumer, attachment, credit };
        let checked = validate::credit("credit", credit);
        if let Err(error) = checked.and_then(|credit| self.admit_credit("credit", credit.saturating_sub(old))) {
            self.end(number, failure_of(RequestError::from(error)));
            return Ok(());
        }
        let services = self.services.clone();
        let setting = async move { services.propose(Command::SetCredit(command)).await };
        let done = setting.map(move |outcome| Done::CreditSet { number, attachment, credit, outcome });
        self.pending.push(done.boxed());
        Ok(())
    }

    /// The client ends a consumer, and is told when that is done.
    fn leave(&mut self, number: u32, close: bool) {
        match self.remove(number) {
            Some(consumer) => {
                let leaving = consumer.attachment.leave(close);
                self.pending.push(leaving.map(move |()| Done::Detached { number }).boxed());
            }
            None => self.end(number, failure_of(RequestError::from(not_attached(number)))),
        }
    }

    /// A consumer has ended, and the client is to hear of it.
    fn end(&mut self, number: u32, failure: v1::Failure) {
        drop(self.remove(number));
        self.batch.push(number, ConsumerResponse::Ended(v1::ConsumerEnded { failure: Some(failure) }));
    }

    fn remove(&mut self, number: u32) -> Option<StreamConsumer> {
        let consumer = self.consumers.remove(&number)?;
        self.numbers.remove(&consumer.attachment_id);
        self.subscription.remove(consumer.attachment_id);
        Some(consumer)
    }

    async fn take_events(&mut self, events: Vec<(u64, StreamEvent)>) -> Result<(), StreamEnd> {
        if events.is_empty() {
            return Err(StreamEnd::Failed(unavailable("this node is not the leader any more")));
        }
        for (attachment, event) in events {
            let Some(&number) = self.numbers.get(&attachment) else { continue };
            self.event(number, event)?;
            if self.batch.is_full() {
                self.flush().await?;
            }
        }
        Ok(())
    }

    fn event(&mut self, number: u32, event: StreamEvent) -> Result<(), StreamEnd> {
        let Some(consumer) = self.consumers.get_mut(&number) else { return Ok(()) };
        if let Phase::Attaching { early } = &mut consumer.phase {
            early.push(event);
            return Ok(());
        }
        match event {
            StreamEvent::Deliver(delivery) => {
                let delivery = self.services.delivery(&consumer.queue, delivery);
                let Some(delivery) = delivery.map_err(|error| StreamEnd::Failed(error.into()))? else { return Ok(()) };
                consumer.holding.take(&delivery);
                self.batch.deliver(number, delivery);
            }
            StreamEvent::Close(reason) => {
                let failure = failure_of(closed(&consumer.queue, reason));
                self.end(number, failure);
            }
        }
        Ok(())
    }
}

async fn settlement(
    request_id: u64,
    pending: PendingReply,
    settling: Option<Box<Settling>>,
) -> Result<v1::Settled, Status> {
    let lost = match accepted(pending.wait().await.map_err(RequestError::from)?) {
        Ok(Reply::Settled { lost }) => Ok(leases_of(lost)),
        Ok(_) => return Err(RequestError::UnexpectedReply.into()),
        Err(error) => Err(Status::from(error)),
    };
    if let Some(settling) = settling {
        settling.answered(lost.as_deref());
    }
    match lost {
        Ok(lost) => Ok(v1::Settled { request_id, lost, refused: None }),
        Err(status) => Ok(v1::Settled { request_id, refused: Some(failure_of(status)), ..Default::default() }),
    }
}

fn closed(queue: &str, reason: CloseReason) -> Status {
    match reason {
        CloseReason::Displaced => Status::aborted("another stream attached with the same consumer id"),
        CloseReason::QueueDeleted => Status::not_found(format!("queue `{queue}` was deleted")),
    }
}

fn not_attached(number: u32) -> Invalid {
    invalid_field("consumer", format!("{number} is not attached to this stream: `attach` it first"))
}

fn invalid_field(field: &str, problem: impl Into<String>) -> Invalid {
    Invalid { field: field.to_owned(), problem: problem.into() }
}

fn invalid(field: &str, problem: impl Into<String>) -> RequestError {
    invalid_field(field, problem).into()
}
