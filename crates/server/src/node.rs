//! A node from start to stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dwell_consensus::clock::{Clock, SystemClock};
use dwell_consensus::group::{Group, GroupError, GroupOptions};
use dwell_consensus::peer::{self, Groups, PeerLinks, PeerMetrics, PeerNetwork};
use dwell_consensus::types::DEFAULT_GROUP;
use dwell_proto::v1::cluster_server::ClusterServer;
use dwell_proto::v1::exchanges_server::ExchangesServer;
use dwell_proto::v1::inventory_server::InventoryServer;
use dwell_proto::v1::membership_server::MembershipServer;
use dwell_proto::v1::messages_server::MessagesServer;
use dwell_proto::v1::queues_server::QueuesServer;
use dwell_proto::v1::schedules_server::SchedulesServer;
use dwell_storage::damage::Damage;
use dwell_storage::log::GroupLogs;
use dwell_transport::{Incoming, Tcp, Transport};
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tonic::service::Routes;
use tonic::transport::Server;

use crate::config::Config;
use crate::forward::ForwardLayer;
use crate::http;
use crate::hub::Hub;
use crate::metrics::{HubMetrics, PublishMetrics};
use crate::recovery::{Recovery, RecoveryError, Stores};
use crate::services::Services;
use crate::validate::Limits;

/// Unread data of one call that a client may send, and of all calls of one connection.
const STREAM_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
/// Calls and streams of one connection at a time.
const STREAMS_PER_CONNECTION_MAX: u32 = 4096;
/// A client that does not answer a ping for so long is gone.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Room for framing and the small fields around bodies.
const ENVELOPE_BYTES: usize = 64 * 1024;
/// How often the node looks whether Raft still runs, and updates what is measured by looking.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// Why a node did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// An address is taken, or not of this machine.
    #[error("cannot listen on {address} for {purpose}: {source}")]
    Listen {
        /// What was configured.
        address: SocketAddr,
        /// Clients, peers or HTTP.
        purpose: &'static str,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The log did not open.
    #[error("opening the log in {directory}: {source}")]
    Log {
        /// Where it is.
        directory: String,
        /// Why.
        source: dwell_storage::log::LogError,
    },
    /// The state did not open.
    #[error("opening the state in {directory}: {reason}")]
    State {
        /// Where it is.
        directory: String,
        /// Why.
        reason: String,
    },
    /// This node's files are damaged. Started again, it recovers, if it can.
    #[error("{0}; started again, this node recovers from the others")]
    Damaged(Damage),
    /// It cannot.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    /// The group did not start.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// A metric is registered twice.
    #[error("registering a metric failed: {0}")]
    Metrics(#[from] prometheus::Error),
    /// A gRPC server failed.
    #[error("serving gRPC failed: {0}")]
    Serve(#[from] tonic::transport::Error),
    /// The HTTP server failed, or no signal handler could be installed.
    #[error("serving failed: {0}")]
    Io(#[from] std::io::Error),
    /// The reflection service did not take the descriptors.
    #[error("the reflection service did not start: {0}")]
    Reflection(String),
    /// Storage failed, or Raft found itself in an impossible state. The node takes no more writes.
    #[error("Raft has stopped: {0}")]
    Stopped(String),
}

/// What a node has around it. A simulation brings its own.
pub struct Environment {
    /// The wall clock for proposals.
    pub clock: Arc<dyn Clock>,
    /// How clients and peers are reached, and reach this node.
    pub transport: Arc<dyn Transport>,
    /// The Raft logs; `None`: on disk, in the data directory.
    pub logs: Option<Arc<dyn GroupLogs>>,
    /// See [`dwell_storage::state::StateOptions::compacts`].
    pub state_compacts: bool,
}

impl Default for Environment {
    /// The operating system's.
    fn default() -> Environment {
        Environment { clock: Arc::new(SystemClock), transport: Arc::new(Tcp), logs: None, state_compacts: true }
    }
}

/// A node that takes part in its group, and is ready to serve.
pub struct Node {
    config: Config,
    environment: Environment,
    registry: Registry,
    groups: Groups,
    links: PeerLinks,
    recovery: Recovery,
    services: Services,
    client_incoming: Incoming,
    peer_incoming: Incoming,
}

/// Runs a node until SIGTERM or SIGINT, or until its storage fails.
pub async fn run(config: Config) -> Result<(), ServerError> {
    let http_listener = TcpListener::bind(config.http_address).await.map_err(|source| ServerError::Listen {
        address: config.http_address,
        purpose: "HTTP",
        source,
    })?;
    let node = Node::start(config, Environment::default()).await?;
    let group = node.group().clone();
    let routes = http::router(group.clone(), node.registry.clone(), node.recovery.gate.clone());
    let http_server = axum::serve(http_listener, routes).into_future();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let outcome = tokio::select! {
        served = node.serve() => served,
        served = http_server => served.map_err(ServerError::from),
        _ = terminate.recv() => Ok(()),
        _ = interrupt.recv() => Ok(()),
    };
    tracing::info!("node is stopping");
    // Nothing need be flushed: what was confirmed is in the log. This closes the stores in order.
    if let Err(error) = group.raft.shutdown().await {
        tracing::warn!(%error, "Raft did not stop in order");
    }
    outcome
}

impl Node {
    /// Opens the stores, starts Raft, and listens.
    pub async fn start(config: Config, environment: Environment) -> Result<Node, ServerError> {
        let client_incoming = listen(&environment, config.client_address, "clients").await?;
        let peer_incoming = listen(&environment, config.peer_address, "peers").await?;
        let registry = Registry::new();
        let clock = environment.clock.clone();
        let hub = Hub::new(clock.clone(), HubMetrics::register(&registry)?);
        let peer_metrics = PeerMetrics::new(&registry)?;
        let links = PeerLinks::over(environment.transport.clone(), peer_metrics.clone());
        let Stores { logs, state, recovery } = Stores::open(&config, &environment, &registry)?;
        let snapshot_directory = state.snapshot_directory().to_owned();
        let options = GroupOptions {
            node_id: config.node_id,
            group_id: DEFAULT_GROUP,
            members: config.first_members(),
            logs,
            state,
            network: PeerNetwork::new(links.clone(), DEFAULT_GROUP, config.node_id),
            raft: config.raft_options(),
            gate: recovery.gate.clone(),
            clock: clock.clone(),
            effects: hub.clone(),
        };
        let started = Group::start(options, &registry).await;
        // Damage that is met on the way has been noted, and is the cause of whatever went wrong.
        if let (Err(_), Some(found)) = (&started, recovery.damage.damage()) {
            return Err(ServerError::Damaged(found));
        }
        let group = started?;
        let groups =
            Groups::new(config.node_id, peer_metrics).over(environment.transport.clone()).behind(recovery.gate.clone());
        groups.insert(DEFAULT_GROUP, group.raft.clone(), snapshot_directory);
        hub.follow(group.leadership.clone());
        let limits = Limits { body_bytes_max: config.body_bytes_max };
        let published = PublishMetrics::register(&registry)?;
        let services = Services { group, hub, clock, limits, published };
        tracing::info!(
            node_id = config.node_id,
            client_address = %config.client_address,
            peer_address = %config.peer_address,
            http_address = %config.http_address,
            data_dir = %config.data_dir.display(),
            "node started"
        );
        Ok(Node { config, environment, registry, groups, links, recovery, services, client_incoming, peer_incoming })
    }

    /// The group that the node takes part in.
    pub fn group(&self) -> &Group {
        &self.services.group
    }

    /// Serves clients and peers, until something fails.
    pub async fn serve(self) -> Result<(), ServerError> {
        let Node { config, environment, groups, links, recovery, services, client_incoming, peer_incoming, .. } = self;
        let group = services.group.clone();
        let health = tonic_health::server::health_reporter();
        health.0.set_serving::<MessagesServer<Services>>().await;
        health.0.set_serving::<QueuesServer<Services>>().await;
        health.0.set_serving::<ExchangesServer<Services>>().await;
        health.0.set_serving::<InventoryServer<Services>>().await;
        health.0.set_serving::<SchedulesServer<Services>>().await;
        health.0.set_serving::<MembershipServer<Services>>().await;
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(dwell_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
            .map_err(|error| ServerError::Reflection(error.to_string()))?;
        let request_bytes_max = config.request_bytes_max + ENVELOPE_BYTES;
        let for_clients = api(&services, request_bytes_max)
            .add_service(ClusterServer::new(services.clone()))
            .add_service(health.1)
            .add_service(reflection);
        let client_server = Server::builder()
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .layer(ForwardLayer::new(group.leadership.clone(), environment.transport))
            .add_routes(for_clients)
            .serve_with_incoming(client_incoming);
        // Peers pass their clients' calls on, to be answered here without another hop.
        let from_peers = api(&services, request_bytes_max);
        let peer_server = peer::serve(peer_incoming, groups, from_peers, std::future::pending());
        let recovered = async {
            match recovery.complete(&config, &group, &links).await {
                Ok(()) => std::future::pending().await,
                Err(error) => error,
            }
        };
        tokio::select! {
            // First: Raft stops for it too, and says less of it.
            biased;
            found = recovery.damage.reported() => {
                recovery.count(&found);
                Err(ServerError::Damaged(found))
            }
            error = recovered => Err(error.into()),
            served = client_server => served.map_err(ServerError::from),
            served = peer_server => served.map_err(ServerError::from),
            failure = raft_failure(&group) => Err(ServerError::Stopped(failure)),
        }
    }
}

async fn listen(
    environment: &Environment,
    address: SocketAddr,
    purpose: &'static str,
) -> Result<Incoming, ServerError> {
    let listened = environment.transport.listen(address).await;
    listened.map_err(|source| ServerError::Listen { address, purpose, source })
}

/// The services that the leader answers.
fn api(services: &Services, request_bytes_max: usize) -> Routes {
    Routes::new(MessagesServer::new(services.clone()).max_decoding_message_size(request_bytes_max))
        .add_service(QueuesServer::new(services.clone()))
        .add_service(ExchangesServer::new(services.clone()))
        .add_service(InventoryServer::new(services.clone()))
        .add_service(MembershipServer::new(services.clone()))
        // A schedule holds a message, with its body.
        .add_service(SchedulesServer::new(services.clone()).max_decoding_message_size(request_bytes_max))
}

/// Resolves when Raft has stopped by itself.
async fn raft_failure(group: &Group) -> String {
    loop {
        if let Some(failure) = group.status().failure {
            return failure;
        }
        tokio::time::sleep(WATCH_INTERVAL).await;
    }
}
