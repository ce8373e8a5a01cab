//! The API without the client library, for tests in which the single call to the single node is the point.

use std::time::Duration;

use anyhow::Context as _;
use dwell_proto::v1::cluster_client::ClusterClient;
use dwell_proto::v1::consume_request::Request;
use dwell_proto::v1::consume_response::Response;
use dwell_proto::v1::exchanges_client::ExchangesClient;
use dwell_proto::v1::inventory_client::InventoryClient;
use dwell_proto::v1::membership_client::MembershipClient;
use dwell_proto::v1::messages_client::MessagesClient;
use dwell_proto::v1::queues_client::QueuesClient;
use dwell_proto::v1::schedules_client::SchedulesClient;
use dwell_proto::v1::{
    Attach, Attached, ConsumeRequest, ConsumeResponse, ConsumerEnded, DeclareQueueRequest, Delivery, Lease, Message,
    PublishMessage, PublishRequest, PublishResult, QueueCounts, QueueSettings, SettleAck, Settled, Timing, timing,
};
use dwell_proto::v1::{CloseConsumer, GetQueueCountsRequest};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

/// Nothing here takes longer, unless it hangs.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Of the only consumer of a stream.
const NUMBER: u32 = 7;
/// Above what the server allows, so that it is the server that refuses.
const MESSAGE_BYTES_MAX: usize = 256 * 1024 * 1024;

/// All services of one node, over one connection of its own.
#[derive(Debug, Clone)]
pub struct RawClient {
    /// Publishing, consuming, settling.
    pub messages: MessagesClient<Channel>,
    /// Queues.
    pub queues: QueuesClient<Channel>,
    /// Exchanges and bindings.
    pub exchanges: ExchangesClient<Channel>,
    /// What stands in a queue.
    pub inventory: InventoryClient<Channel>,
    /// Schedules.
    pub schedules: SchedulesClient<Channel>,
    /// The cluster.
    pub cluster: ClusterClient<Channel>,
    /// Its members.
    pub membership: MembershipClient<Channel>,
}

impl RawClient {
    /// Connects to one node (host:port), and to no other later.
    pub async fn connect(address: &str) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?.connect_timeout(TIMEOUT);
        let channel = endpoint.connect().await.with_context(|| address.to_owned())?;
        Ok(Self {
            messages: MessagesClient::new(channel.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
            queues: QueuesClient::new(channel.clone()),
            exchanges: ExchangesClient::new(channel.clone()),
            inventory: InventoryClient::new(channel.clone()),
            schedules: SchedulesClient::new(channel.clone()),
            cluster: ClusterClient::new(channel.clone()),
            membership: MembershipClient::new(channel),
        })
    }

    /// Declares a queue with these settings.
    pub async fn declare(&mut self, queue: &str, settings: QueueSettings) -> Result<bool, Status> {
        let request = DeclareQueueRequest { queue: queue.to_owned(), settings: Some(settings), ..Default::default() };
        Ok(self.queues.declare_queue(request).await?.into_inner().created)
    }

    /// Publishes messages in one request, without a producer sequence.
    pub async fn publish(&mut self, messages: Vec<PublishMessage>) -> Result<Vec<PublishResult>, Status> {
        let request = PublishRequest { messages, ..Default::default() };
        Ok(self.messages.publish(request).await?.into_inner().results)
    }

    /// Linearizable counts of a queue.
    pub async fn counts(&mut self, queue: &str) -> Result<QueueCounts, Status> {
        let request = GetQueueCountsRequest { queue: queue.to_owned(), ..Default::default() };
        Ok(self.messages.get_queue_counts(request).await?.into_inner().counts.unwrap_or_default())
    }

    /// Opens a consumer.
    pub async fn attach(&mut self, attach: Attach) -> Result<RawConsumer, Status> {
        RawConsumer::open(&mut self.messages, Some(Request::Attach(attach))).await
    }
}

/// A message that is ready at once, or after a delay.
pub fn message(queue: &str, body: impl Into<bytes::Bytes>, delay_ms: Option<i64>) -> PublishMessage {
    PublishMessage {
        routing_key: queue.to_owned(),
        message: Some(Message { body: body.into(), ..Default::default() }),
        timing: delay_ms
            .map(|delay_ms| Timing { visible: Some(timing::Visible::DelayMs(delay_ms)), ..Default::default() }),
        ..Default::default()
    }
}

/// The lease that came with a delivery.
pub fn lease_of(delivery: &Delivery) -> Lease {
    let sequence = delivery.handle.as_ref().map_or(0, |handle| handle.sequence);
    Lease { sequence, token: delivery.token }
}

/// A stream with one consumer. Dropping it, with the [`RawClient`] it came from, breaks the connection.
#[derive(Debug)]
pub struct RawConsumer {
    requests: mpsc::Sender<ConsumeRequest>,
    responses: Streaming<ConsumeResponse>,
    /// The server's first answer.
    pub attached: Attached,
}

impl RawConsumer {
    /// Opens a stream with any first request, and waits for the first answer.
    pub async fn open(messages: &mut MessagesClient<Channel>, first: Option<Request>) -> Result<Self, Status> {
        let (requests, receiver) = mpsc::channel(64);
        let first = ConsumeRequest { request: first, consumer: NUMBER };
        requests.send(first).await.map_err(|_| Status::internal("the stream closed before it opened"))?;
        let opening = messages.consume(ReceiverStream::new(receiver));
        let responses = within(opening).await??.into_inner();
        let mut consumer = Self { requests, responses, attached: Attached::default() };
        match consumer.next().await? {
            Response::Attached(attached) => consumer.attached = attached,
            other => return Err(Status::internal(format!("the first response is {other:?}"))),
        }
        Ok(consumer)
    }

    /// Sends a request on the stream.
    pub async fn send(&self, request: Request) -> Result<(), Status> {
        self.send_as(NUMBER, request).await
    }

    /// The same for another consumer, whose responses come among this one's.
    pub async fn send_as(&self, consumer: u32, request: Request) -> Result<(), Status> {
        let sent = self.requests.send(ConsumeRequest { request: Some(request), consumer }).await;
        sent.map_err(|_| Status::cancelled("the stream is closed"))
    }

    /// The next response; an error is the end of the consumer or of the stream, with its status.
    pub async fn next(&mut self) -> Result<Response, Status> {
        within(self.next_unbounded()).await?
    }

    /// The same without a limit of time.
    pub async fn next_unbounded(&mut self) -> Result<Response, Status> {
        let next = self.responses.message().await?;
        match next.and_then(|response| response.response) {
            Some(Response::Ended(ConsumerEnded { failure: Some(failure) })) => {
                Err(Status::new(failure.code.into(), failure.message))
            }
            Some(Response::Ended(ConsumerEnded { failure: None })) => Err(Status::ok("the consumer ended")),
            Some(response) => Ok(response),
            None => Err(Status::ok("the stream ended")),
        }
    }

    /// Waits for exactly so many deliveries; anything else on the stream is an error.
    pub async fn take(&mut self, count: usize) -> anyhow::Result<Vec<Delivery>> {
        let mut taken = Vec::new();
        while taken.len() < count {
            match self.next().await.with_context(|| format!("{} of {count} deliveries came", taken.len()))? {
                Response::Deliveries(deliveries) => taken.extend(deliveries.deliveries),
                other => anyhow::bail!("expected deliveries, got {other:?}"),
            }
        }
        anyhow::ensure!(taken.len() == count, "expected {count} deliveries, got {}", taken.len());
        Ok(taken)
    }

    /// True if no response comes for so long.
    pub async fn is_silent(&mut self, during: Duration) -> bool {
        tokio::time::timeout(during, self.responses.message()).await.is_err()
    }

    /// Acknowledges leases over the stream, and answers the server's answer; deliveries that come before it are
    /// an error.
    pub async fn ack(&mut self, leases: Vec<Lease>) -> anyhow::Result<Settled> {
        self.settle(Request::Ack(SettleAck { request_id: 77, leases })).await
    }

    /// Sends a settling request and waits for its answer.
    pub async fn settle(&mut self, request: Request) -> anyhow::Result<Settled> {
        self.send(request).await?;
        match self.next().await? {
            Response::Settled(settled) => Ok(settled),
            other => anyhow::bail!("expected an answer to the settlement, got {other:?}"),
        }
    }

    /// Closes the consumer, and waits until the server says that it has ended.
    pub async fn close(mut self) -> anyhow::Result<()> {
        self.send(Request::Close(CloseConsumer {})).await?;
        loop {
            match self.next().await {
                Ok(_) => {}
                Err(status) if status.code() == Code::Ok => return Ok(()),
                Err(status) => return Err(status.into()),
            }
        }
    }
}

/// Nothing in a test waits for ever.
async fn within<T>(future: impl Future<Output = T>) -> Result<T, Status> {
    let elapsed = |_| Status::deadline_exceeded(format!("no answer within {TIMEOUT:?}"));
    tokio::time::timeout(TIMEOUT, future).await.map_err(elapsed)
}
