//! A node that does what the test tells it to: streams are handed to the test, calls are answered by a script.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![allow(dead_code, reason = "each test file uses its own part")]

use std::collections::VecDeque;
use std::sync::Arc;

use dwell_proto::v1::cluster_server::{Cluster, ClusterServer};
use dwell_proto::v1::inventory_server::{Inventory, InventoryServer};
use dwell_proto::v1::messages_server::{Messages, MessagesServer};
use dwell_proto::v1::queues_server::{Queues, QueuesServer};
use dwell_proto::v1::schedules_server::{Schedules, SchedulesServer};
use dwell_proto::{metadata, v1};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// One stream that a client opened.
pub struct Session<Q, R> {
    pub requests: Streaming<Q>,
    responses: mpsc::Sender<Result<R, Status>>,
}

impl<Q, R> Session<Q, R> {
    /// The next request.
    pub async fn request(&mut self) -> Q {
        self.requests.message().await.expect("an unbroken stream").expect("another request")
    }

    pub async fn respond(&self, response: R) {
        assert!(self.try_respond(response).await, "a client that reads");
    }

    /// False if the client has left the stream.
    pub async fn try_respond(&self, response: R) -> bool {
        self.responses.send(Ok(response)).await.is_ok()
    }

    /// Ends the stream, if the client has not left it already.
    pub async fn fail(self, status: Status) {
        let _ = self.responses.send(Err(status)).await;
    }
}

impl ConsumeSession {
    /// The next request, which must be an attach, and the number of the consumer.
    pub async fn attach(&mut self) -> (u32, v1::Attach) {
        let request = self.request().await;
        match request.request {
            Some(v1::consume_request::Request::Attach(attach)) => (request.consumer, attach),
            other => panic!("not an attach: {other:?}"),
        }
    }
}

pub type PublishSession = Session<v1::PublishStreamRequest, v1::PublishStreamResponse>;
pub type ConsumeSession = Session<v1::ConsumeRequest, v1::ConsumeResponse>;

/// What the node was asked, and how it is to answer.
#[derive(Default)]
pub struct Script {
    /// Sent with every response.
    pub leader: Option<String>,
    /// How many calls are answered with UNAVAILABLE first, and the hint that they carry.
    pub unavailable: usize,
    pub retry_after_ms: Option<u64>,
    /// If set, GetClusterStatus answers it.
    pub status: Option<v1::GetClusterStatusResponse>,
    /// Names of queues declared here.
    pub declared: Vec<String>,
    /// Consistency metadata of the reads.
    pub consistencies: Vec<Option<String>>,
    /// The leases of each Ack call.
    pub acknowledged: Vec<Vec<v1::Lease>>,
    /// The answers to Ack calls; then nothing is lost.
    pub ack_answers: VecDeque<Result<Vec<v1::Lease>, Status>>,
    /// The requests of Nack calls.
    pub returned: Vec<v1::NackRequest>,
    /// The requests of UpdateQueue calls.
    pub updates: Vec<v1::UpdateQueueRequest>,
    /// The requests of Transact calls, and their answers; then each message is stored.
    pub transactions: Vec<v1::TransactRequest>,
    pub transact_answers: VecDeque<Status>,
    /// The requests of Recall calls, and their answers; then nothing is found.
    pub recalls: Vec<v1::RecallRequest>,
    pub recall_answers: VecDeque<Result<Vec<v1::Revised>, Status>>,
    /// The steps of a RecallMatching call.
    pub steps: Vec<Result<v1::ReviseProgress, Status>>,
    /// How often a schedule was triggered.
    pub triggered: usize,
}

#[derive(Clone)]
struct Service {
    script: Arc<Mutex<Script>>,
    published: mpsc::Sender<PublishSession>,
    consumed: mpsc::Sender<ConsumeSession>,
}

/// A running node.
pub struct FakeNode {
    pub address: String,
    pub script: Arc<Mutex<Script>>,
    pub published: mpsc::Receiver<PublishSession>,
    pub consumed: mpsc::Receiver<ConsumeSession>,
    runtime: Option<Runtime>,
}

impl FakeNode {
    pub async fn start() -> FakeNode {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (publish_sender, published) = mpsc::channel(16);
        let (consume_sender, consumed) = mpsc::channel(16);
        let script: Arc<Mutex<Script>> = Arc::default();
        let service = Service { script: script.clone(), published: publish_sender, consumed: consume_sender };
        runtime.spawn(async move {
            let incoming = TcpListenerStream::new(TcpListener::from_std(listener).unwrap());
            tonic::transport::Server::builder()
                .add_service(MessagesServer::new(service.clone()))
                .add_service(QueuesServer::new(service.clone()))
                .add_service(InventoryServer::new(service.clone()))
                .add_service(SchedulesServer::new(service.clone()))
                .add_service(ClusterServer::new(service))
                .serve_with_incoming(incoming)
                .await
        });
        FakeNode { address, script, published, consumed, runtime: Some(runtime) }
    }

    /// The next publish stream.
    pub async fn publish_session(&mut self) -> PublishSession {
        self.published.recv().await.expect("a publish stream")
    }

    /// The next consume stream, and what its first consumer, which is number 1, attaches with.
    pub async fn consume_session(&mut self) -> (ConsumeSession, v1::Attach) {
        let mut session = self.consumed.recv().await.expect("a consume stream");
        let (number, attach) = session.attach().await;
        assert_eq!(number, 1);
        (session, attach)
    }

    /// Breaks all connections, as a killed process does.
    pub fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Service {
    fn check(&self) -> Result<(), Status> {
        let mut script = self.script.lock();
        if script.unavailable == 0 {
            return Ok(());
        }
        script.unavailable -= 1;
        let mut status = Status::unavailable("there is no leader");
        if let Some(hint) = script.retry_after_ms {
            status.metadata_mut().insert(metadata::RETRY_AFTER_MS, hint.into());
        }
        Err(status)
    }

    fn respond<T>(&self, message: T) -> Result<Response<T>, Status> {
        let mut response = Response::new(message);
        if let Some(leader) = &self.script.lock().leader {
            response.metadata_mut().insert(metadata::LEADER, leader.parse().unwrap());
        }
        Ok(response)
    }

    fn note_consistency<T>(&self, request: &Request<T>) {
        let value = request.metadata().get(metadata::CONSISTENCY).map(|value| value.to_str().unwrap().to_owned());
        self.script.lock().consistencies.push(value);
    }

    async fn stream<Q: Send + 'static, R: Send + 'static>(
        &self,
        requests: Streaming<Q>,
        sessions: &mpsc::Sender<Session<Q, R>>,
    ) -> Result<Response<BoxStream<'static, Result<R, Status>>>, Status> {
        self.check()?;
        let (responses, receiver) = mpsc::channel(64);
        sessions.send(Session { requests, responses }).await.map_err(|_| Status::internal("the test is over"))?;
        self.respond(ReceiverStream::new(receiver).boxed())
    }
}

type Responses<T> = std::pin::Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Messages for Service {
    type PublishStreamStream = Responses<v1::PublishStreamResponse>;
    type ConsumeStream = Responses<v1::ConsumeResponse>;

    async fn publish_stream(
        &self,
        request: Request<Streaming<v1::PublishStreamRequest>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        self.stream(request.into_inner(), &self.published).await
    }

    async fn consume(
        &self,
        request: Request<Streaming<v1::ConsumeRequest>>,
    ) -> Result<Response<Self::ConsumeStream>, Status> {
        self.stream(request.into_inner(), &self.consumed).await
    }

    async fn ack(&self, request: Request<v1::AckRequest>) -> Result<Response<v1::AckResponse>, Status> {
        let answer = {
            let mut script = self.script.lock();
            script.acknowledged.push(request.into_inner().leases);
            script.ack_answers.pop_front().unwrap_or(Ok(Vec::new()))
        };
        self.respond(v1::AckResponse { lost: answer? })
    }

    async fn get_queue_counts(
        &self,
        request: Request<v1::GetQueueCountsRequest>,
    ) -> Result<Response<v1::GetQueueCountsResponse>, Status> {
        self.note_consistency(&request);
        self.respond(v1::GetQueueCountsResponse::default())
    }

    async fn publish(&self, _: Request<v1::PublishRequest>) -> Result<Response<v1::PublishResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn receive(&self, _: Request<v1::ReceiveRequest>) -> Result<Response<v1::ReceiveResponse>, Status> {
        self.check()?;
        self.respond(v1::ReceiveResponse { deliveries: vec![delivery(1, 1)] })
    }

    async fn nack(&self, request: Request<v1::NackRequest>) -> Result<Response<v1::NackResponse>, Status> {
        self.script.lock().returned.push(request.into_inner());
        self.respond(v1::NackResponse::default())
    }

    async fn transact(&self, request: Request<v1::TransactRequest>) -> Result<Response<v1::TransactResponse>, Status> {
        let request = request.into_inner();
        let results = request.messages.iter().map(|_| stored(1, false)).collect();
        let answer = {
            let mut script = self.script.lock();
            script.transactions.push(request);
            script.transact_answers.pop_front()
        };
        match answer {
            Some(status) => Err(status),
            None => self.respond(v1::TransactResponse { results }),
        }
    }

    async fn extend(&self, _: Request<v1::ExtendRequest>) -> Result<Response<v1::ExtendResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }
}

#[tonic::async_trait]
impl Queues for Service {
    async fn declare_queue(
        &self,
        request: Request<v1::DeclareQueueRequest>,
    ) -> Result<Response<v1::DeclareQueueResponse>, Status> {
        self.check()?;
        self.script.lock().declared.push(request.into_inner().queue);
        self.respond(v1::DeclareQueueResponse { created: true })
    }

    async fn update_queue(
        &self,
        request: Request<v1::UpdateQueueRequest>,
    ) -> Result<Response<v1::UpdateQueueResponse>, Status> {
        self.script.lock().updates.push(request.into_inner());
        self.respond(v1::UpdateQueueResponse {})
    }

    async fn delete_queue(
        &self,
        request: Request<v1::DeleteQueueRequest>,
    ) -> Result<Response<v1::DeleteQueueResponse>, Status> {
        self.check()?;
        Err(Status::not_found(format!("queue `{}` does not exist", request.into_inner().queue)))
    }

    /// Two pages: `a` and `b`.
    async fn list_queues(
        &self,
        request: Request<v1::ListQueuesRequest>,
    ) -> Result<Response<v1::ListQueuesResponse>, Status> {
        self.note_consistency(&request);
        let (name, next) = if request.get_ref().page_token.is_empty() { ("a", "more") } else { ("b", "") };
        let queue = v1::Queue { name: name.into(), ..Default::default() };
        self.respond(v1::ListQueuesResponse { queues: vec![queue], next_page_token: next.into() })
    }

    async fn describe_queue(
        &self,
        _: Request<v1::DescribeQueueRequest>,
    ) -> Result<Response<v1::DescribeQueueResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }
}

#[tonic::async_trait]
impl Inventory for Service {
    type RecallMatchingStream = Responses<v1::ReviseProgress>;
    type RescheduleMatchingStream = Responses<v1::ReviseProgress>;
    type ExpireMatchingStream = Responses<v1::ReviseProgress>;

    async fn recall(&self, request: Request<v1::RecallRequest>) -> Result<Response<v1::ReviseResponse>, Status> {
        let answer = {
            let mut script = self.script.lock();
            script.recalls.push(request.into_inner());
            script.recall_answers.pop_front().unwrap_or(Ok(Vec::new()))
        };
        self.respond(v1::ReviseResponse { revised: answer?, has_more: false })
    }

    async fn recall_matching(
        &self,
        _: Request<v1::RecallMatchingRequest>,
    ) -> Result<Response<Self::RecallMatchingStream>, Status> {
        self.check()?;
        let steps = std::mem::take(&mut self.script.lock().steps);
        self.respond(futures::stream::iter(steps).boxed())
    }

    async fn reschedule_matching(
        &self,
        _: Request<v1::RescheduleMatchingRequest>,
    ) -> Result<Response<Self::RescheduleMatchingStream>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn expire_matching(
        &self,
        _: Request<v1::ExpireMatchingRequest>,
    ) -> Result<Response<Self::ExpireMatchingStream>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    /// Two pages: sequences 1 and 2, and 3.
    async fn browse_messages(
        &self,
        request: Request<v1::BrowseMessagesRequest>,
    ) -> Result<Response<v1::BrowseMessagesResponse>, Status> {
        self.note_consistency(&request);
        let (sequences, next) = match request.get_ref().page_token.as_ref() {
            b"" => (vec![1, 2], "more"),
            _ => (vec![3], ""),
        };
        let message = |sequence| v1::StoredMessage {
            handle: Some(v1::Handle { sequence, ..Default::default() }),
            ..Default::default()
        };
        let messages = sequences.into_iter().map(message).collect();
        self.respond(v1::BrowseMessagesResponse { messages, next_page_token: next.into() })
    }

    async fn reschedule(&self, _: Request<v1::RescheduleRequest>) -> Result<Response<v1::ReviseResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn expire_now(&self, _: Request<v1::ExpireNowRequest>) -> Result<Response<v1::ReviseResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn get_message(&self, _: Request<v1::GetMessageRequest>) -> Result<Response<v1::GetMessageResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn forecast(&self, _: Request<v1::ForecastRequest>) -> Result<Response<v1::ForecastResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }
}

#[tonic::async_trait]
impl Schedules for Service {
    async fn trigger_schedule(
        &self,
        _: Request<v1::TriggerScheduleRequest>,
    ) -> Result<Response<v1::TriggerScheduleResponse>, Status> {
        self.script.lock().triggered += 1;
        self.check()?;
        self.respond(v1::TriggerScheduleResponse::default())
    }

    async fn declare_schedule(
        &self,
        _: Request<v1::DeclareScheduleRequest>,
    ) -> Result<Response<v1::DeclareScheduleResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn delete_schedule(
        &self,
        _: Request<v1::DeleteScheduleRequest>,
    ) -> Result<Response<v1::DeleteScheduleResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn pause_schedule(
        &self,
        _: Request<v1::PauseScheduleRequest>,
    ) -> Result<Response<v1::PauseScheduleResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn resume_schedule(
        &self,
        _: Request<v1::ResumeScheduleRequest>,
    ) -> Result<Response<v1::ResumeScheduleResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn describe_schedule(
        &self,
        _: Request<v1::DescribeScheduleRequest>,
    ) -> Result<Response<v1::DescribeScheduleResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn list_schedules(
        &self,
        _: Request<v1::ListSchedulesRequest>,
    ) -> Result<Response<v1::ListSchedulesResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn preview_schedule(
        &self,
        _: Request<v1::PreviewScheduleRequest>,
    ) -> Result<Response<v1::PreviewScheduleResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }
}

#[tonic::async_trait]
impl Cluster for Service {
    async fn get_cluster_status(
        &self,
        _: Request<v1::GetClusterStatusRequest>,
    ) -> Result<Response<v1::GetClusterStatusResponse>, Status> {
        match self.script.lock().status.clone() {
            Some(status) => Ok(Response::new(status)),
            None => Err(Status::unimplemented("not scripted")),
        }
    }

    async fn make_snapshot(
        &self,
        _request: Request<v1::MakeSnapshotRequest>,
    ) -> Result<Response<v1::MakeSnapshotResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn get_state_digest(
        &self,
        _: Request<v1::GetStateDigestRequest>,
    ) -> Result<Response<v1::GetStateDigestResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }
}

/// An address where nobody listens.
pub fn dead_address() -> String {
    format!("127.0.0.1:{}", dwell_local_cluster::free_ports(1).unwrap()[0])
}

/// A delivery of queue `q`.
pub fn delivery(sequence: u64, token: u64) -> v1::Delivery {
    v1::Delivery {
        handle: Some(v1::Handle { namespace: "default".into(), queue: "q".into(), sequence }),
        token,
        message: Some(v1::Message { body: sequence.to_string().into(), ..Default::default() }),
        lease_deadline_ms: i64::MAX,
        ..Default::default()
    }
}

/// What became of a message that is stored.
pub fn stored(sequence: u64, duplicate: bool) -> v1::PublishResult {
    let handle = v1::Handle { sequence, ..Default::default() };
    let outcome = v1::PublishOutcome::Stored.into();
    v1::PublishResult { handle: Some(handle), duplicate, outcome, ..Default::default() }
}

/// The status of a cluster led by `leader`, of which these are the members.
pub fn cluster_status(leader: u64, members: &[(u64, &str)]) -> v1::GetClusterStatusResponse {
    let member = |&(node_id, address): &(u64, &str)| v1::Member {
        node_id,
        client_address: address.into(),
        voter: true,
        ..Default::default()
    };
    let members = members.iter().map(member).collect();
    v1::GetClusterStatusResponse { leader_id: Some(leader), members, ..Default::default() }
}
