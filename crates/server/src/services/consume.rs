//! Consuming over one stream: deliveries out as the machine grants them, settlements in.

use std::pin::pin;
use std::time::Duration;

use dwell_consensus::leadership::Leadership;
use dwell_consensus::proposer::{Hurry, PendingReply};
use dwell_machine::{Attach, Command, Detach, Reply, SetCredit};
use dwell_proto::v1;
use dwell_proto::v1::consume_request::Request as ConsumerRequest;
use dwell_proto::v1::consume_response::Response as ConsumerResponse;
use futures::StreamExt;
use futures::future::{BoxFuture, FusedFuture, FutureExt};
use futures::stream::FuturesOrdered;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::deliveries::leases_of;
use super::publish_stream::failure_of;
use super::{Services, accepted};
use crate::hub::{StreamEvent, Subscription};
use crate::status::{Invalid, RequestError, unavailable};
use crate::validate;

/// Settlements of a stream that may be under way; the server reads no further until then.
const SETTLEMENTS_MAX: usize = 256;
/// Events taken from the hub at once.
const EVENTS_MAX: usize = 256;
/// A response takes no further delivery once it holds this many body bytes.
const RESPONSE_BYTES_MAX: usize = 1024 * 1024;
/// Responses waiting for the client to read them.
const RESPONSES_MAX: usize = 4;
/// Between attempts to detach a consumer while the leader cannot reach the others.
const DETACH_RETRY_PAUSE: Duration = Duration::from_millis(100);

type Response = Result<v1::ConsumeResponse, Status>;
type Settlement = BoxFuture<'static, Result<v1::Settled, Status>>;

impl Services {
    pub(super) async fn open_consume_stream(
        &self,
        mut requests: Streaming<v1::ConsumeRequest>,
    ) -> Result<ReceiverStream<Response>, RequestError> {
        let first = requests.message().await.ok().flatten().and_then(|request| request.request);
        let Some(ConsumerRequest::Attach(attach)) = first else {
            let problem = "must be `attach` in the first request of the stream".to_owned();
            return Err(Invalid { field: "request".into(), problem }.into());
        };
        let mut attach = validate::attach(attach)?;
        attach.attachment = rand::random();
        if attach.consumer_id.is_empty() {
            attach.consumer_id = format!("{:032x}", rand::random::<u128>());
        }
        let (responses, receiver) = mpsc::channel(RESPONSES_MAX);
        // In a task of its own: a client that goes away cancels this call, and must be detached all the same.
        let (opened, attached) = tokio::sync::oneshot::channel();
        tokio::spawn(self.clone().serve_consumer(attach, requests, responses, opened));
        attached.await.unwrap_or(Err(RequestError::UnexpectedReply))?;
        Ok(ReceiverStream::new(receiver))
    }

    async fn serve_consumer(
        self,
        attach: Attach,
        requests: Streaming<v1::ConsumeRequest>,
        responses: mpsc::Sender<Response>,
        opened: tokio::sync::oneshot::Sender<Result<(), RequestError>>,
    ) {
        let attachment = attach.attachment;
        let (queue, consumer_id) = (attach.queue.clone(), attach.consumer_id.clone());
        let holding = Holding { credit: attach.credit, leases: attach.holding.len(), in_groups: false };
        let subscription = self.hub.subscribe(attachment);
        let mut attaching = pin!(self.group.proposer.propose(Command::Attach(attach)).fuse());
        let attached = self.in_tenure(&mut attaching).await.and_then(accepted);
        let term = self.group.leadership.borrow().term;
        let (consumer, resumed, lost) = match attached {
            Ok(Reply::Attached { consumer, resumed, lost }) => (consumer, resumed, lost),
            outcome => {
                let _ = opened.send(Err(outcome.err().unwrap_or(RequestError::UnexpectedReply)));
                // Nobody waits for it any more, but it may come about yet.
                if !attaching.is_terminated()
                    && let Ok(Reply::Attached { consumer, .. }) = attaching.await
                {
                    let term = self.group.leadership.borrow().term;
                    self.detach(Detach { consumer, attachment, close: false }, term).await;
                }
                return;
            }
        };
        let _ = opened.send(Ok(()));
        tracing::debug!(%queue, %consumer_id, resumed, "consumer attached");
        let attached = v1::Attached { consumer_id: consumer_id.clone(), resumed, lost: leases_of(lost) };
        let mut stream = ConsumerStream {
            services: self.clone(),
            consumer,
            attachment,
            queue,
            holding,
            subscription,
            responses,
            settlements: FuturesOrdered::new(),
        };
        let end = match stream.respond(ConsumerResponse::Attached(attached)).await {
            Ok(()) => stream.serve(requests).await,
            Err(end) => end,
        };
        if let StreamEnd::Failed(status) = &end {
            let _ = stream.responses.send(Err(status.clone())).await;
        }
        let close = matches!(end, StreamEnd::Closed);
        tracing::debug!(%consumer_id, close, "consumer detached");
        self.detach(Detach { consumer, attachment, close }, term).await;
    }

    /// Detaches a consumer that was attached by the term `term`. A leader that cannot reach the others refuses that, and
    /// may lead on in the same term when it can again: then it would send to nobody what falls to the consumer. Every
    /// other leadership begins with detaching all.
    async fn detach(&self, detach: Detach, term: u64) {
        let mut leadership = self.group.leadership.clone();
        let own_id = self.group.node_id;
        let is_another = |now: &Leadership| {
            now.term != term || now.leader.as_ref().is_some_and(|(leader_id, _)| *leader_id != own_id)
        };
        while self.group.proposer.propose(Command::Detach(detach.clone())).await.is_err() {
            // An error means that the group has stopped.
            if tokio::time::timeout(DETACH_RETRY_PAUSE, leadership.wait_for(is_another)).await.is_ok() {
                return;
            }
        }
    }
}

/// Why a stream ended.
enum StreamEnd {
    /// The client closed its consumer.
    Closed,
    /// The client is gone, or has no more to say.
    Gone,
    /// To be told to the client.
    Failed(Status),
}

struct ConsumerStream {
    services: Services,
    consumer: u64,
    attachment: u64,
    queue: String,
    holding: Holding,
    subscription: Subscription,
    responses: mpsc::Sender<Response>,
    settlements: FuturesOrdered<Settlement>,
}

/// What the client holds, as far as this stream has seen.
struct Holding {
    credit: u32,
    /// Some may have ended otherwise since: then what follows errs on the side of hurry.
    leases: usize,
    /// A message of an ordering group was among them.
    in_groups: bool,
}

impl Holding {
    /// A settlement is in a hurry if another delivery may wait for it: that of the group's next message, or one for
    /// which the client's credit does not last. Otherwise it need not have a log entry of its own.
    fn hurry(&self) -> Hurry {
        let credit_is_short = self.leases.saturating_mul(2) >= self.credit as usize;
        if self.in_groups || credit_is_short { Hurry::Now } else { Hurry::None }
    }
}

impl ConsumerStream {
    async fn serve(&mut self, mut requests: Streaming<v1::ConsumeRequest>) -> StreamEnd {
        loop {
            let step = tokio::select! {
                Some(settled) = self.settlements.next() => match settled {
                    Ok(settled) => self.respond(ConsumerResponse::Settled(settled)).await,
                    Err(status) => Err(StreamEnd::Failed(status)),
                },
                request = requests.message(), if self.settlements.len() < SETTLEMENTS_MAX => match request {
                    Ok(Some(request)) => self.request(request.request).await,
                    Ok(None) | Err(_) => Err(StreamEnd::Gone),
                },
                events = self.subscription.next(EVENTS_MAX) => self.events(events).await,
                () = self.responses.closed() => Err(StreamEnd::Gone),
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    async fn respond(&mut self, response: ConsumerResponse) -> Result<(), StreamEnd> {
        let response = v1::ConsumeResponse { response: Some(response) };
        self.responses.send(Ok(response)).await.map_err(|_| StreamEnd::Gone)
    }

    async fn request(&mut self, request: Option<ConsumerRequest>) -> Result<(), StreamEnd> {
        let queue = self.queue.clone();
        let mut hurry = Hurry::Now;
        let (request_id, command) = match request {
            Some(ConsumerRequest::Ack(ack)) => {
                hurry = self.holding.hurry();
                self.holding.leases = self.holding.leases.saturating_sub(ack.leases.len());
                (ack.request_id, validate::ack(queue, ack.leases).map(Command::Ack))
            }
            Some(ConsumerRequest::Nack(nack)) => {
                let command = validate::nack(queue, nack.leases, nack.delay_ms, nack.reject);
                (nack.request_id, command.map(Command::Nack))
            }
            Some(ConsumerRequest::Extend(extend)) => {
                let command = validate::extend(queue, extend.leases, extend.lease_timeout_ms);
                (extend.request_id, command.map(Command::Extend))
            }
            Some(ConsumerRequest::Credit(credit)) => return self.set_credit(credit.credit).await,
            Some(ConsumerRequest::Close(_)) => return Err(StreamEnd::Closed),
            Some(ConsumerRequest::Attach(_)) | None => {
                let problem = "must not be `attach`, nor empty, after the first request".to_owned();
                let error = RequestError::from(Invalid { field: "request".into(), problem });
                return Err(StreamEnd::Failed(error.into()));
            }
        };
        match command {
            Ok(command) => {
                let pending = self.services.group.proposer.submit(command, hurry).await;
                self.settlements.push_back(settlement(request_id, pending).boxed());
            }
            Err(error) => {
                let settled = v1::Settled { request_id, refused: Some(failure_of(error.into())), ..Default::default() };
                self.settlements.push_back(std::future::ready(Ok(settled)).boxed());
            }
        }
        Ok(())
    }

    async fn set_credit(&mut self, credit: u32) -> Result<(), StreamEnd> {
        let failed = |error: RequestError| StreamEnd::Failed(error.into());
        let credit = validate::credit("credit", credit).map_err(|error| failed(error.into()))?;
        let command = SetCredit { consumer: self.consumer, attachment: self.attachment, credit };
        self.services.propose(Command::SetCredit(command)).await.map_err(failed)?;
        self.holding.credit = credit;
        Ok(())
    }

    async fn events(&mut self, events: Vec<StreamEvent>) -> Result<(), StreamEnd> {
        if events.is_empty() {
            return Err(StreamEnd::Failed(unavailable("this node is not the leader any more")));
        }
        let mut deliveries = Vec::new();
        let mut bytes = 0;
        for event in events {
            match event {
                StreamEvent::Deliver(delivery) => {
                    let delivery = self.services.delivery(&self.queue, delivery);
                    let delivery = delivery.map_err(|error| StreamEnd::Failed(error.into()))?;
                    let Some(delivery) = delivery else { continue };
                    bytes += delivery.message.as_ref().map_or(0, |message| message.body.len());
                    self.holding.leases += 1;
                    self.holding.in_groups |= !delivery.group.is_empty();
                    deliveries.push(delivery);
                    if bytes >= RESPONSE_BYTES_MAX {
                        bytes = 0;
                        self.send(std::mem::take(&mut deliveries)).await?;
                    }
                }
                StreamEvent::Close(reason) => {
                    self.send(deliveries).await?;
                    return Err(StreamEnd::Failed(closed(&self.queue, reason)));
                }
            }
        }
        self.send(deliveries).await
    }

    async fn send(&mut self, deliveries: Vec<v1::Delivery>) -> Result<(), StreamEnd> {
        if deliveries.is_empty() {
            return Ok(());
        }
        self.respond(ConsumerResponse::Deliveries(v1::Deliveries { deliveries })).await
    }
}

async fn settlement(request_id: u64, pending: PendingReply) -> Result<v1::Settled, Status> {
    match super::accepted(pending.wait().await.map_err(RequestError::from)?) {
        Ok(Reply::Settled { lost }) => Ok(v1::Settled { request_id, lost: leases_of(lost), refused: None }),
        Ok(_) => Err(RequestError::UnexpectedReply.into()),
        Err(error) => Ok(v1::Settled { request_id, refused: Some(failure_of(error)), ..Default::default() }),
    }
}

fn closed(queue: &str, reason: dwell_machine::CloseReason) -> Status {
    match reason {
        dwell_machine::CloseReason::Displaced => Status::aborted("another stream attached with the same consumer id"),
        dwell_machine::CloseReason::QueueDeleted => Status::not_found(format!("queue `{queue}` was deleted")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ack_is_in_a_hurry_if_a_delivery_may_wait_for_it() {
        let hurry = |credit, leases, in_groups| Holding { credit, leases, in_groups }.hurry();
        assert_eq!(hurry(1, 1, false), Hurry::Now, "no credit is left");
        assert_eq!(hurry(10, 5, false), Hurry::Now);
        assert_eq!(hurry(1000, 1, false), Hurry::None);
        assert_eq!(hurry(1000, 1, true), Hurry::Now, "the group's next message waits");
    }
}
