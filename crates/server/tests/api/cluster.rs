//! Three nodes in this process.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use dwell_proto::v1;
use dwell_proto::v1::cluster_client::ClusterClient;
use dwell_proto::v1::exchanges_client::ExchangesClient;
use dwell_proto::v1::inventory_client::InventoryClient;
use dwell_proto::v1::messages_client::MessagesClient;
use dwell_proto::v1::queues_client::QueuesClient;
use dwell_proto::v1::schedules_client::SchedulesClient;
use dwell_server::{Config, Member};
use tonic::transport::{Channel, Endpoint};

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs as long as it is kept.
pub struct Cluster {
    nodes: Vec<tokio::task::JoinHandle<()>>,
    _directory: tempfile::TempDir,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.nodes.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// The services, as a node that does not lead answers them.
pub struct Client {
    pub messages: MessagesClient<Channel>,
    pub queues: QueuesClient<Channel>,
    pub exchanges: ExchangesClient<Channel>,
    pub inventory: InventoryClient<Channel>,
    pub schedules: SchedulesClient<Channel>,
}

/// Starts a cluster, and connects to one of its followers: every call is forwarded.
pub async fn client_of_a_follower() -> (Cluster, Client) {
    let directory = tempfile::tempdir().unwrap();
    let addresses: Vec<[SocketAddr; 3]> = (0..3).map(|_| free_addresses()).collect();
    let members = addresses.iter().zip(1..).map(|([client, peer, _], node_id)| Member {
        node_id,
        peer_address: peer.to_string(),
        client_address: client.to_string(),
    });
    let members: Vec<Member> = members.collect();
    let nodes = addresses.iter().zip(1..).map(|([client, peer, http], node_id)| {
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
        tokio::spawn(async move { dwell_server::run(config).await.unwrap() })
    });
    let cluster = Cluster { nodes: nodes.collect(), _directory: directory };
    let clients: Vec<SocketAddr> = addresses.iter().map(|[client, ..]| *client).collect();
    let client = connect(follower(&clients).await);
    (cluster, client)
}

fn free_addresses() -> [SocketAddr; 3] {
    // Held together, so that they are three.
    let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    listeners.map(|listener| listener.local_addr().unwrap())
}

/// The address of a node that does not lead, once all know the same leader.
async fn follower(addresses: &[SocketAddr]) -> SocketAddr {
    let deadline = Instant::now() + START_TIMEOUT;
    while Instant::now() < deadline {
        let mut leaders = BTreeSet::new();
        for address in addresses {
            let status = ClusterClient::new(channel(*address)).get_cluster_status(v1::GetClusterStatusRequest {}).await;
            leaders.insert(status.ok().and_then(|status| status.into_inner().leader_id));
        }
        if let (1, Some(Some(leader))) = (leaders.len(), leaders.first()) {
            return addresses[*leader as usize % addresses.len()];
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the nodes did not agree on a leader");
}

fn channel(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy()
}

fn connect(address: SocketAddr) -> Client {
    let channel = channel(address);
    Client {
        messages: MessagesClient::new(channel.clone()),
        queues: QueuesClient::new(channel.clone()),
        exchanges: ExchangesClient::new(channel.clone()),
        inventory: InventoryClient::new(channel.clone()),
        schedules: SchedulesClient::new(channel),
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
