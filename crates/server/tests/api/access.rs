//! Who may do what: every call, as everybody.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{Buf as _, BufMut as _, Bytes};
use dwell_proto::externalscaler::{GetMetricsRequest, ScaledObjectRef};
use dwell_proto::{metadata, v1};
use http::uri::PathAndQuery;
use prost::Message as _;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Request, Status, Streaming};

use crate::cluster::{Cluster, channel, follower, message, start};

/// A call that is let through may wait for something; one that is refused is refused at once.
const LET_THROUGH_AFTER: Duration = Duration::from_secs(2);
const DEADLINE: Duration = Duration::from_secs(30);

/// Sends and receives messages of any type.
#[derive(Debug, Clone, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, into: &mut EncodeBuf<'_>) -> Result<(), Status> {
        into.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
}

fn password_of(user: &str) -> String {
    format!("password of {user}")
}

/// Calls one node.
#[derive(Clone)]
struct Caller {
    address: SocketAddr,
    authorization: Option<String>,
    /// As a client may put into its metadata that would be another.
    pretends: Option<&'static str>,
}

impl Caller {
    fn new(address: SocketAddr, user: &str) -> Caller {
        Caller { address, authorization: Some(basic(user, &password_of(user))), pretends: None }
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(authorization) = &self.authorization {
            request.metadata_mut().insert("authorization", authorization.parse().unwrap());
        }
        if let Some(other) = self.pretends {
            request.metadata_mut().insert(metadata::CALLER, other.parse().unwrap());
        }
        request
    }

    /// Sends one message, after which the requests go on without end, so that a stream stands.
    async fn open(&self, method: &str, message: Vec<u8>) -> Result<Streaming<Bytes>, Status> {
        use futures::StreamExt as _;
        let mut grpc = tonic::client::Grpc::new(channel(self.address));
        grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
        let is_unary = !method.ends_with("Consume") && !method.ends_with("PublishStream");
        let rest = if is_unary { futures::stream::empty().boxed() } else { futures::stream::pending().boxed() };
        let messages = futures::stream::iter([message]).chain(rest);
        let path: PathAndQuery = method.parse().unwrap();
        Ok(grpc.streaming(self.request(messages), path, Raw).await?.into_inner())
    }

    /// The first answer.
    async fn call(&self, method: &str, message: Vec<u8>) -> Result<Bytes, Status> {
        let answer = async { self.open(method, message).await?.message().await };
        let answer = match tokio::time::timeout(LET_THROUGH_AFTER, answer).await {
            Ok(answer) => answer?.unwrap_or_default(),
            Err(_) => return Ok(Bytes::new()),
        };
        match refusal_within(method, &answer) {
            Some(failure) => Err(Status::new(failure.code.into(), failure.message)),
            None => Ok(answer),
        }
    }

    /// Why the call is refused for the caller's sake; `None`: it is not.
    async fn refusal(&self, method: &str, message: Vec<u8>) -> Option<Code> {
        let code = self.call(method, message).await.err().map(|status| status.code());
        code.filter(|code| matches!(code, Code::Unauthenticated | Code::PermissionDenied))
    }
}

/// A request of a stream that is refused by itself: the stream goes on.
fn refusal_within(method: &str, answer: &Bytes) -> Option<v1::Failure> {
    let answer = answer.clone();
    match method.rsplit('/').next()? {
        "PublishStream" => match v1::PublishStreamResponse::decode(answer).ok()?.outcome? {
            v1::publish_stream_response::Outcome::Refused(failure) => Some(failure),
            v1::publish_stream_response::Outcome::Confirmed(_) => None,
        },
        "Consume" => match v1::ConsumeResponse::decode(answer).ok()?.response? {
            v1::consume_response::Response::Ended(ended) => ended.failure,
            _ => None,
        },
        _ => None,
    }
}

async fn nodes(directory: &Path) -> (Cluster, SocketAddr) {
    let file = directory.join("password");
    std::fs::write(&file, password_of("root") + "\n").unwrap();
    let (cluster, addresses) = start(|config| dwell_server::Config {
        authentication: true,
        initial_user: "root".to_owned(),
        initial_password_file: Some(file.clone()),
        ..config
    });
    let root = basic("root", &password_of("root"));
    (cluster, follower(&addresses, Some(&root)).await)
}

async fn add_user(root: &Caller, user: &str, administrator: bool, patterns: [&str; 3]) {
    let [configure, write, read] = patterns.map(str::to_owned);
    let request = v1::AddUserRequest {
        user: user.into(),
        password: password_of(user),
        administrator,
        permission: Some(v1::Permission { configure, write, read }),
    };
    root.call("/dwell.v1.Users/AddUser", request.encode_to_vec()).await.unwrap();
    // This node follows the leader, and has the user a moment later.
    let caller = Caller::new(root.address, user);
    let status = || caller.refusal("/dwell.v1.Cluster/GetClusterStatus", Vec::new());
    tokio::time::timeout(DEADLINE, async {
        while status().await.is_some() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap();
}

/// Every call, with a request, and what it takes: `r`ead, `w`rite, `c`onfigure, `a`dministrator; nothing: to be a user.
fn table() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let q = || "q".to_owned();
    let settings = v1::QueueSettings {
        dead_letter: Some(v1::DeadLetter { exchange: "x".into(), routing_key: None }),
        ..Default::default()
    };
    let declare = |settings| v1::DeclareQueueRequest { queue: q(), settings, ..Default::default() }.encode_to_vec();
    let publish = v1::PublishRequest { messages: vec![message("q", "body")], ..Default::default() };
    let attach = v1::Attach { queue: q(), credit: 1, ..Default::default() };
    let consume = v1::ConsumeRequest { request: Some(v1::consume_request::Request::Attach(attach)), consumer: 1 };
    let acks = vec![v1::QueueLeases { queue: q(), leases: Vec::new() }];
    let transact = v1::TransactRequest { acks, messages: vec![message("q", "body")], ..Default::default() };
    let binding = v1::Binding {
        exchange: "x".into(),
        destination: Some(v1::binding::Destination::Queue(q())),
        ..Default::default()
    };
    let target = Some(v1::Target { queue: q(), ..Default::default() });
    let selection = Some(v1::Selection { queue: q(), ..Default::default() });
    let definition = Some(v1::ScheduleDefinition { message: Some(message("q", "body")), ..Default::default() });
    let of_queue = v1::ReceiveRequest { queue: q(), messages_max: 1, ..Default::default() };
    let schedule = v1::PauseScheduleRequest { schedule: "s".into(), ..Default::default() }.encode_to_vec();
    let exchange = v1::DeclareExchangeRequest { exchange: "x".into(), ..Default::default() };
    let scaler_metadata = [("queue".to_owned(), "q".to_owned())].into();
    let scaled = ScaledObjectRef { name: "workers".into(), namespace: "default".into(), scaler_metadata };
    let list = Vec::new;
    vec![
        ("Messages/Publish", publish.encode_to_vec(), "w"),
        (
            "Messages/PublishStream",
            v1::PublishStreamRequest { request_id: 1, publish: Some(publish) }.encode_to_vec(),
            "w",
        ),
        ("Messages/Consume", consume.encode_to_vec(), "r"),
        ("Messages/Receive", of_queue.encode_to_vec(), "r"),
        ("Messages/Ack", v1::AckRequest { queue: q(), ..Default::default() }.encode_to_vec(), "r"),
        ("Messages/Nack", v1::NackRequest { queue: q(), ..Default::default() }.encode_to_vec(), "r"),
        ("Messages/Extend", v1::ExtendRequest { queue: q(), ..Default::default() }.encode_to_vec(), "r"),
        ("Messages/Transact", transact.encode_to_vec(), "rw"),
        (
            "Messages/GetQueueCounts",
            v1::GetQueueCountsRequest { queue: q(), ..Default::default() }.encode_to_vec(),
            "r",
        ),
        ("Queues/DeclareQueue", declare(None), "c"),
        ("Queues/DeclareQueue", declare(Some(settings)), "cw"),
        ("Queues/UpdateQueue", v1::UpdateQueueRequest { queue: q(), ..Default::default() }.encode_to_vec(), "c"),
        ("Queues/DescribeQueue", v1::DescribeQueueRequest { queue: q(), ..Default::default() }.encode_to_vec(), "r"),
        ("Queues/ListQueues", list(), ""),
        ("Exchanges/DeclareExchange", exchange.encode_to_vec(), "c"),
        (
            "Exchanges/DeclareExchange",
            v1::DeclareExchangeRequest { alternate: "y".into(), ..exchange }.encode_to_vec(),
            "cw",
        ),
        ("Exchanges/ListExchanges", list(), ""),
        (
            "Exchanges/Bind",
            v1::BindRequest { binding: Some(binding.clone()), ..Default::default() }.encode_to_vec(),
            "rw",
        ),
        ("Exchanges/Unbind", v1::UnbindRequest { binding: Some(binding), ..Default::default() }.encode_to_vec(), "rw"),
        ("Exchanges/ListBindings", list(), ""),
        (
            "Exchanges/DeleteExchange",
            v1::DeleteExchangeRequest { exchange: "x".into(), ..Default::default() }.encode_to_vec(),
            "c",
        ),
        ("Inventory/Recall", v1::RecallRequest { target: target.clone(), ..Default::default() }.encode_to_vec(), "w"),
        (
            "Inventory/Reschedule",
            v1::RescheduleRequest { target: target.clone(), ..Default::default() }.encode_to_vec(),
            "w",
        ),
        ("Inventory/ExpireNow", v1::ExpireNowRequest { target, ..Default::default() }.encode_to_vec(), "w"),
        (
            "Inventory/RecallMatching",
            v1::RecallMatchingRequest { selection: selection.clone(), ..Default::default() }.encode_to_vec(),
            "w",
        ),
        (
            "Inventory/RescheduleMatching",
            v1::RescheduleMatchingRequest { selection: selection.clone(), ..Default::default() }.encode_to_vec(),
            "w",
        ),
        (
            "Inventory/ExpireMatching",
            v1::ExpireMatchingRequest { selection, ..Default::default() }.encode_to_vec(),
            "w",
        ),
        ("Inventory/GetMessage", v1::GetMessageRequest { queue: q(), ..Default::default() }.encode_to_vec(), "r"),
        (
            "Inventory/BrowseMessages",
            v1::BrowseMessagesRequest { queue: q(), ..Default::default() }.encode_to_vec(),
            "r",
        ),
        ("Inventory/Forecast", v1::ForecastRequest { queue: q(), ..Default::default() }.encode_to_vec(), "r"),
        (
            "Schedules/DeclareSchedule",
            v1::DeclareScheduleRequest { schedule: "s".into(), definition, ..Default::default() }.encode_to_vec(),
            "cw",
        ),
        ("Schedules/PauseSchedule", schedule.clone(), "c"),
        ("Schedules/ResumeSchedule", schedule.clone(), "c"),
        ("Schedules/TriggerSchedule", schedule.clone(), "w"),
        ("Schedules/DescribeSchedule", schedule.clone(), "r"),
        ("Schedules/DeleteSchedule", schedule, "c"),
        ("Schedules/ListSchedules", list(), "a"),
        ("Schedules/PreviewSchedule", list(), ""),
        ("Queues/DeleteQueue", v1::DeleteQueueRequest { queue: q(), ..Default::default() }.encode_to_vec(), "c"),
        ("Cluster/GetClusterStatus", list(), ""),
        ("Cluster/GetStateDigest", list(), "a"),
        ("Cluster/MakeSnapshot", list(), "a"),
        ("Backups/CreateBackup", list(), "a"),
        ("Backups/GetBackupIndex", list(), "a"),
        // Without a node they change nothing.
        ("Membership/AddMember", list(), "a"),
        ("Membership/RemoveMember", list(), "a"),
        (
            "Membership/TransferLeader",
            v1::TransferLeaderRequest { node_id: Some(0), ..Default::default() }.encode_to_vec(),
            "a",
        ),
        ("externalscaler.ExternalScaler/IsActive", scaled.encode_to_vec(), "r"),
        ("externalscaler.ExternalScaler/StreamIsActive", scaled.encode_to_vec(), "r"),
        ("externalscaler.ExternalScaler/GetMetricSpec", scaled.encode_to_vec(), "r"),
        (
            "externalscaler.ExternalScaler/GetMetrics",
            GetMetricsRequest { scaled_object_ref: Some(scaled), ..Default::default() }.encode_to_vec(),
            "r",
        ),
        ("Users/AddUser", list(), "a"),
        ("Users/RemoveUser", list(), "a"),
        ("Users/SetPassword", list(), "a"),
        ("Users/SetPermission", list(), "a"),
        ("Users/ListUsers", list(), "a"),
    ]
}

fn path(call: &str) -> String {
    if call.contains('.') { format!("/{call}") } else { format!("/dwell.v1.{call}") }
}

#[test]
fn the_table_names_every_call_there_is() {
    let files = prost_types::FileDescriptorSet::decode(dwell_proto::FILE_DESCRIPTOR_SET).unwrap();
    let of_clients = files.file.iter().filter(|file| ["dwell.v1", "externalscaler"].contains(&file.package()));
    let calls: BTreeSet<String> = of_clients
        .flat_map(|file| file.service.iter().map(|service| (file.package(), service)))
        .flat_map(|(package, service)| {
            service.method.iter().map(move |method| format!("/{package}.{}/{}", service.name(), method.name()))
        })
        .collect();
    let named: BTreeSet<String> = table().into_iter().map(|(call, ..)| path(call)).collect();
    assert_eq!(named, calls);
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_may_do_what_the_table_says_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let (_cluster, address) = nodes(directory.path()).await;
    let root = Caller::new(address, "root");
    add_user(&root, "reader", false, ["", "", ".*"]).await;
    add_user(&root, "writer", false, ["", ".*", ""]).await;
    add_user(&root, "configurer", false, [".*", "", ""]).await;
    add_user(&root, "administrator", true, [""; 3]).await;
    let users = [("reader", "r"), ("writer", "w"), ("configurer", "c"), ("administrator", "a"), ("root", "rwca")];

    let nobody = Caller { authorization: None, ..root.clone() };
    let wrong = Caller { authorization: Some(basic("root", "another password")), ..root.clone() };
    let unknown = Caller::new(address, "unknown");
    let pretender = Caller { pretends: Some("root"), ..nobody.clone() };
    for (call, request, needed) in table() {
        let method = path(call);
        for (who, caller) in [("nobody", &nobody), ("wrong", &wrong), ("unknown", &unknown), ("pretender", &pretender)]
        {
            let refusal = caller.refusal(&method, request.clone()).await;
            assert_eq!(refusal, Some(Code::Unauthenticated), "{call} as {who}");
        }
        for (user, has) in users {
            // Whatever he says in the metadata, he is who he proved to be.
            let caller = Caller { pretends: Some("root"), ..Caller::new(address, user) };
            let expected = (!needed.chars().all(|need| has.contains(need))).then_some(Code::PermissionDenied);
            assert_eq!(caller.refusal(&method, request.clone()).await, expected, "{call} as {user}");
        }
    }
    assert_eq!(nobody.refusal("/grpc.health.v1.Health/Check", Vec::new()).await, None, "health is for everybody");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pattern_permits_what_it_matches() {
    let directory = tempfile::tempdir().unwrap();
    let (_cluster, address) = nodes(directory.path()).await;
    let root = Caller::new(address, "root");
    add_user(&root, "team", false, ["team-.*", "team-.*|events", "team-in"]).await;
    let team = Caller::new(address, "team");
    let publish = |to: &str, exchange: &str| {
        let message = v1::PublishMessage { exchange: exchange.into(), ..message(to, "body") };
        v1::PublishRequest { messages: vec![message], ..Default::default() }.encode_to_vec()
    };
    for (to, exchange, may) in
        [("team-a", "", true), ("other", "", false), ("other", "events", true), ("team-a", "other", false)]
    {
        let refusal = team.refusal("/dwell.v1.Messages/Publish", publish(to, exchange)).await;
        assert_eq!(refusal.is_none(), may, "{to} {exchange}");
    }
    let declare = |queue: &str| v1::DeclareQueueRequest { queue: queue.into(), ..Default::default() }.encode_to_vec();
    assert_eq!(team.refusal("/dwell.v1.Queues/DeclareQueue", declare("team-a")).await, None);
    assert!(team.refusal("/dwell.v1.Queues/DeclareQueue", declare("a-team-a")).await.is_some());
    let error = team.call("/dwell.v1.Queues/DeclareQueue", declare("others")).await.unwrap_err();
    assert_eq!(error.message(), "user `team` lacks the permission to configure `others`");

    // One message of many that may not be published keeps all of them from it, in a stream too.
    let messages = vec![message("team-a", "x"), message("other", "x")];
    let both = v1::PublishRequest { messages, ..Default::default() };
    assert!(team.refusal("/dwell.v1.Messages/Publish", both.encode_to_vec()).await.is_some());
    let in_stream = v1::PublishStreamRequest { request_id: 1, publish: Some(both) }.encode_to_vec();
    let mut stream = team.open("/dwell.v1.Messages/PublishStream", in_stream).await.unwrap();
    let answer = stream.message().await.unwrap().unwrap();
    let refusal = refusal_within("/dwell.v1.Messages/PublishStream", &answer).unwrap();
    assert_eq!(refusal.message, "user `team` lacks the permission to write to `other`");
    let goes_on = tokio::time::timeout(Duration::from_millis(200), stream.message()).await;
    assert!(goes_on.is_err(), "one refused request does not end the others' stream");
}

#[tokio::test(flavor = "multi_thread")]
async fn open_streams_end_with_their_user() {
    let directory = tempfile::tempdir().unwrap();
    let (_cluster, address) = nodes(directory.path()).await;
    let root = Caller::new(address, "root");
    let declare = v1::DeclareQueueRequest { queue: "q".into(), ..Default::default() }.encode_to_vec();
    root.call("/dwell.v1.Queues/DeclareQueue", declare).await.unwrap();
    add_user(&root, "ada", false, ["", "", ".*"]).await;
    let ada = Caller::new(address, "ada");
    let consume = table().into_iter().find(|(call, ..)| *call == "Messages/Consume").unwrap().1;
    let attach = || async {
        let mut stream = ada.open("/dwell.v1.Messages/Consume", consume.clone()).await.unwrap();
        assert!(stream.message().await.unwrap().is_some(), "attached");
        stream
    };
    let end_of = |mut stream: Streaming<Bytes>| async move {
        let end = async {
            while stream.message().await?.is_some() {}
            Err::<(), _>(Status::new(Code::Ok, "ended"))
        };
        tokio::time::timeout(DEADLINE, end).await.expect("it ends").unwrap_err().code()
    };

    let stream = attach().await;
    let permission = Some(v1::Permission { read: "q".into(), ..Default::default() });
    let narrow = v1::SetPermissionRequest { user: "ada".into(), permission, ..Default::default() };
    root.call("/dwell.v1.Users/SetPermission", narrow.encode_to_vec()).await.unwrap();
    assert_eq!(end_of(stream).await, Code::Unavailable, "to be opened anew");

    let stream = attach().await;
    let password = v1::SetPasswordRequest { user: "ada".into(), password: "another password".into() };
    root.call("/dwell.v1.Users/SetPassword", password.encode_to_vec()).await.unwrap();
    assert_eq!(end_of(stream).await, Code::Unauthenticated);
    assert_eq!(ada.refusal("/dwell.v1.Cluster/GetClusterStatus", Vec::new()).await, Some(Code::Unauthenticated));

    let ada = Caller { authorization: Some(basic("ada", "another password")), ..ada };
    let mut stream = ada.open("/dwell.v1.Messages/Consume", consume.clone()).await.unwrap();
    assert!(stream.message().await.unwrap().is_some(), "attached");
    let remove = v1::RemoveUserRequest { user: "ada".into() };
    root.call("/dwell.v1.Users/RemoveUser", remove.encode_to_vec()).await.unwrap();
    assert_eq!(end_of(stream).await, Code::Unauthenticated);
}

#[tokio::test(flavor = "multi_thread")]
async fn users_are_listed_without_their_passwords_and_the_last_administrator_stays() {
    let directory = tempfile::tempdir().unwrap();
    let (_cluster, address) = nodes(directory.path()).await;
    let root = Caller::new(address, "root");
    add_user(&root, "ada", false, ["", "", "q"]).await;
    let listed = root.call("/dwell.v1.Users/ListUsers", Vec::new()).await.unwrap();
    let listed = v1::ListUsersResponse::decode(listed).unwrap().users;
    let shown: Vec<_> = listed.iter().map(|user| (user.name.as_str(), user.administrator, user.has_password)).collect();
    assert_eq!(shown, [("ada", false, true), ("root", true, true)]);
    assert_eq!(listed[0].permission.as_ref().unwrap().read, "q");

    let remove = v1::RemoveUserRequest { user: "root".into() }.encode_to_vec();
    assert_eq!(root.call("/dwell.v1.Users/RemoveUser", remove).await.unwrap_err().code(), Code::FailedPrecondition);
    let again = v1::AddUserRequest { user: "ada".into(), password: "12345678".into(), ..Default::default() };
    let error = root.call("/dwell.v1.Users/AddUser", again.encode_to_vec()).await.unwrap_err();
    assert_eq!(error.code(), Code::AlreadyExists);
}
