//! Three nodes in this process.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use dwell_proto::v1;
use dwell_proto::v1::cluster_client::ClusterClient;
use dwell_proto::v1::exchanges_client::ExchangesClient;
use dwell_proto::v1::inventory_client::InventoryClient;
use dwell_proto::v1::messages_client::MessagesClient;
use dwell_proto::v1::queues_client::QueuesClient;
use dwell_proto::v1::schedules_client::SchedulesClient;
use dwell_server::{Config, Member};
use tokio::runtime::{Builder, Runtime};
use tonic::transport::{Channel, Endpoint};

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs as long as it is kept.
pub struct Cluster {
    /// Of the nodes; none only while this is dropped.
    runtime: Option<Runtime>,
    /// Removed when the nodes have closed what is in it: a database that cannot flush at its end keeps those of other tests
    /// from doing so for seconds.
    _directory: tempfile::TempDir,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // Not on this thread, which may be one that runs tasks.
            let ended = std::thread::spawn(move || runtime.shutdown_timeout(START_TIMEOUT)).join();
            assert!(ended.is_ok() || std::thread::panicking());
        }
    }
}

/// The services, as a node that does not lead answers them.
pub struct Client {
    pub messages: MessagesClient<Channel>,
    pub queues: QueuesClient<Channel>,
    pub exchanges: ExchangesClient<Channel>,
    pub inventory: InventoryClient<Channel>,
    pub schedules: SchedulesClient<Channel>,
    /// For services of others.
    pub channel: Channel,
}

/// Starts a cluster, and connects to one of its followers: every call is forwarded.
pub async fn client_of_a_follower() -> (Cluster, Client) {
    let (cluster, addresses) = start(|config| config);
    let client = connect(follower(&addresses, None).await);
    (cluster, client)
}

/// Starts a cluster of nodes that are configured like this. Answers where clients reach them.
pub fn start(configure: impl Fn(Config) -> Config) -> (Cluster, Vec<SocketAddr>) {
    let directory = tempfile::tempdir().unwrap();
    let addresses: Vec<[SocketAddr; 3]> = (0..3).map(|_| free_addresses()).collect();
    let members = addresses.iter().zip(1..).map(|([client, peer, _], node_id)| Member {
        node_id,
        peer_address: peer.to_string(),
        client_address: client.to_string(),
    });
    let members: Vec<Member> = members.collect();
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for ([client, peer, http], node_id) in addresses.iter().zip(1..) {
        let config = Config {
            node_id,
            data_dir: directory.path().join(node_id.to_string()),
            client_address: *client,
            peer_address: *peer,
            http_address: *http,
            members: members.clone(),
            state_memory_bytes: 32 << 20,
            ..Config::default()
        };
        let config = configure(config);
        runtime.spawn(async move { dwell_server::run(config).await.unwrap() });
    }
    let cluster = Cluster { runtime: Some(runtime), _directory: directory };
    (cluster, addresses.iter().map(|[client, ..]| *client).collect())
}

fn free_addresses() -> [SocketAddr; 3] {
    let ports: [u16; 3] = dwell_local_cluster::free_ports(3).unwrap().try_into().unwrap();
    ports.map(|port| (Ipv4Addr::LOCALHOST, port).into())
}

/// The address of a node that does not lead, once all know the same leader.
pub async fn follower(addresses: &[SocketAddr], authorization: Option<&str>) -> SocketAddr {
    let deadline = Instant::now() + START_TIMEOUT;
    while Instant::now() < deadline {
        let mut leaders = BTreeSet::new();
        for address in addresses {
            let mut request = tonic::Request::new(v1::GetClusterStatusRequest {});
            if let Some(authorization) = authorization {
                request.metadata_mut().insert("authorization", authorization.parse().unwrap());
            }
            let status = ClusterClient::new(channel(*address)).get_cluster_status(request).await;
            leaders.insert(status.ok().and_then(|status| status.into_inner().leader_id));
        }
        if let (1, Some(Some(leader))) = (leaders.len(), leaders.first()) {
            return addresses[*leader as usize % addresses.len()];
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the nodes did not agree on a leader");
}

pub fn channel(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy()
}

fn connect(address: SocketAddr) -> Client {
    let channel = channel(address);
    Client {
        messages: MessagesClient::new(channel.clone()),
        queues: QueuesClient::new(channel.clone()),
        exchanges: ExchangesClient::new(channel.clone()),
        inventory: InventoryClient::new(channel.clone()),
        schedules: SchedulesClient::new(channel.clone()),
        channel,
    }
}

impl Client {
    pub async fn declare(&mut self, queue: &str, settings: v1::QueueSettings) {
        let request = v1::DeclareQueueRequest { queue: queue.into(), settings: Some(settings), ..Default::default() };
        self.queues.declare_queue(request).await.unwrap();
    }

    pub async fn publish(
        &mut self,
        messages: Vec<v1::PublishMessage>,
    ) -> Result<Vec<v1::PublishResult>, tonic::Status> {
        let request = v1::PublishRequest { messages, ..Default::default() };
        Ok(self.messages.publish(request).await?.into_inner().results)
    }

    /// All that is ready, up to so many.
    pub async fn receive(&mut self, queue: &str, messages_max: u32) -> Vec<v1::Delivery> {
        let request = v1::ReceiveRequest { queue: queue.into(), messages_max, wait_ms: 5_000, ..Default::default() };
        self.messages.receive(request).await.unwrap().into_inner().deliveries
    }

    pub async fn describe(&mut self, queue: &str) -> v1::Queue {
        let request = v1::DescribeQueueRequest { queue: queue.into(), ..Default::default() };
        self.queues.describe_queue(request).await.unwrap().into_inner().queue.unwrap()
    }
}

/// A message for a queue.
pub fn message(queue: &str, body: impl Into<bytes::Bytes>) -> v1::PublishMessage {
    v1::PublishMessage {
        routing_key: queue.into(),
        message: Some(v1::Message { body: body.into(), ..Default::default() }),
        ..Default::default()
    }
}

pub fn delayed(queue: &str, delay_ms: i64) -> v1::PublishMessage {
    let timing = v1::Timing { visible: Some(v1::timing::Visible::DelayMs(delay_ms)), ..Default::default() };
    v1::PublishMessage { timing: Some(timing), ..message(queue, "delayed") }
}

pub fn lease_of(delivery: &v1::Delivery) -> v1::Lease {
    v1::Lease { sequence: delivery.handle.as_ref().unwrap().sequence, token: delivery.token }
}

pub fn bodies_of(deliveries: &[v1::Delivery]) -> Vec<&[u8]> {
    deliveries.iter().map(|delivery| &delivery.message.as_ref().unwrap().body[..]).collect()
}
