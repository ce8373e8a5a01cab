//! A node from start to stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dwell_consensus::announcements::Announcer;
use dwell_consensus::clock::{Clock, SystemClock};
use dwell_consensus::group::{Group, GroupError, GroupOptions};
use dwell_consensus::identity::{ClusterIdentity, IdentityError};
use dwell_consensus::peer::{self, Groups, PeerLinks, PeerMetrics, PeerNetwork};
use dwell_consensus::types::DEFAULT_GROUP;
use dwell_machine::COMMAND_FORMAT;
use dwell_proto::externalscaler::external_scaler_server::ExternalScalerServer;
use dwell_proto::v1::backups_server::BackupsServer;
use dwell_proto::v1::cluster_server::ClusterServer;
use dwell_proto::v1::exchanges_server::ExchangesServer;
use dwell_proto::v1::inventory_server::InventoryServer;
use dwell_proto::v1::membership_server::MembershipServer;
use dwell_proto::v1::messages_server::MessagesServer;
use dwell_proto::v1::queues_server::QueuesServer;
use dwell_proto::v1::schedules_server::SchedulesServer;
use dwell_proto::v1::users_server::UsersServer;
use dwell_storage::damage::Damage;
use dwell_storage::log::GroupLogs;
use dwell_storage::recovery::DataDirectory;
use dwell_transport::{Incoming, Tcp, Transport};
use prometheus::Registry;
use tokio::net::TcpListener;
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::access::{Access, AccessMetrics, Authenticate, FirstUser, Gated, KeysError, Tokens};
use crate::config::Config;
use crate::forward::ForwardLayer;
use crate::http;
use crate::hub::Hub;
use crate::metrics::{self, HubMetrics, PublishMetrics};
use crate::process::ProcessCollector;
use crate::recovery::{Recovery, RecoveryError, Stores};
use crate::services::{Backups, SCALER_REQUEST_BYTES_MAX, Scaler, Services};
use crate::stop::{Signals, Stopping};
use crate::tls::TlsPorts;
use crate::traces::{ExportError, Traces};
use crate::validate::Limits;
use crate::watermarks::Watermarks;

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
    /// Certificates or keys are of no use.
    #[error("TLS: {0}")]
    Tls(#[from] dwell_transport::TlsError),
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
    /// The node's disk is not that of its cluster's member.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The keys for tokens are of no use.
    #[error("keys for tokens: {0}")]
    Keys(#[from] KeysError),
    /// The first user's password is not there.
    #[error("reading the first user's password from {file}: {source}")]
    InitialPassword {
        /// The file.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// The group did not start.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// A metric is registered twice.
    #[error("registering a metric failed: {0}")]
    Metrics(#[from] prometheus::Error),
    /// Traces cannot be exported.
    #[error("exporting traces: {0}")]
    Traces(#[from] ExportError),
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
    /// How clients reach this node.
    pub client_transport: Arc<dyn Transport>,
    /// How peers are reached, and reach this node.
    pub peer_transport: Arc<dyn Transport>,
    /// The Raft logs; `None`: on disk, in the data directory.
    pub logs: Option<Arc<dyn GroupLogs>>,
    /// See [`dwell_storage::state::StateOptions::compacts`].
    pub state_compacts: bool,
}

impl Default for Environment {
    /// The operating system's.
    fn default() -> Environment {
        Environment {
            clock: Arc::new(SystemClock),
            client_transport: Arc::new(Tcp),
            peer_transport: Arc::new(Tcp),
            logs: None,
            state_compacts: true,
        }
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
    scaler: Scaler,
    backups: Backups,
    client_incoming: Incoming,
    peer_incoming: Incoming,
}

/// Runs a node until SIGTERM or SIGINT, or until its storage fails.
pub async fn run(config: Config) -> Result<(), ServerError> {
    let signals = Signals::listen()?;
    let http_listener = TcpListener::bind(config.http_address).await.map_err(|source| ServerError::Listen {
        address: config.http_address,
        purpose: "HTTP",
        source,
    })?;
    let (node_id, data_directory) = (config.node_id, config.data_dir.clone());
    let stop_timeout = Duration::from_millis(config.stop_timeout_ms);
    let mut tls = TlsPorts::open(&config)?;
    let environment =
        Environment { client_transport: tls.clients(), peer_transport: tls.peers(), ..Environment::default() };
    let node = Node::start(config, environment).await?;
    tls.keep_up(&node.registry)?;
    let group = node.group().clone();
    let stopping = node.services.stopping.clone();
    let traces = node.services.traces.clone();
    node.registry.register(Box::new(ProcessCollector::new()?))?;
    metrics::register_build(&node.registry)?;
    let Services { watermarks, announcer, .. } = node.services.clone();
    let watching = watermarks.watch(data_directory, node_id, announcer, group.announcements.clone());
    tokio::spawn(watching);
    let routes = http::router(http::Node {
        group: group.clone(),
        registry: node.registry.clone(),
        gate: node.recovery.gate.clone(),
        stopping: stopping.clone(),
    });
    let http_server = axum::serve(http_listener, routes).into_future();
    let outcome = tokio::select! {
        served = node.serve() => served,
        served = http_server => served.map_err(ServerError::from),
        () = stopping.on_signal(signals, &group, stop_timeout) => Ok(()),
    };
    tracing::info!("node is stopping");
    traces.flush().await;
    // Nothing else need be flushed: what was confirmed is in the log. This closes the stores in order.
    if let Err(error) = group.raft.shutdown().await {
        tracing::warn!(%error, "Raft did not stop in order");
    }
    outcome
}

impl Node {
    /// Opens the stores, starts Raft, and listens.
    pub async fn start(config: Config, environment: Environment) -> Result<Node, ServerError> {
        let client_incoming = listen(&environment.client_transport, config.client_address, "clients").await?;
        let peer_incoming = listen(&environment.peer_transport, config.peer_address, "peers").await?;
        let first_user = FirstUser::read(&config)?;
        let tokens = config.token_settings().map(Tokens::open).transpose()?;
        let registry = Registry::new();
        let clock = environment.clock.clone();
        let hub = Hub::new(clock.clone(), HubMetrics::register(&registry)?);
        let peer_metrics = PeerMetrics::new(&registry)?;
        let links = PeerLinks::over(environment.peer_transport.clone(), peer_metrics.clone());
        let Stores { logs, state, recovery } = Stores::open(&config, &environment, &registry)?;
        let snapshot_directory = state.snapshot_directory().to_owned();
        let identity = identity_of(&config)?;
        let announcer = Announcer::new(env!("CARGO_PKG_VERSION"), COMMAND_FORMAT);
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
            identity: identity.clone(),
            announcer: announcer.clone(),
        };
        let started = Group::start(options, &registry).await;
        // Damage that is met on the way has been noted, and is the cause of whatever went wrong.
        if let (Err(_), Some(found)) = (&started, recovery.damage.damage()) {
            return Err(ServerError::Damaged(found));
        }
        let group = started?;
        let groups = Groups::new(config.node_id, peer_metrics)
            .over(environment.peer_transport.clone())
            .behind(recovery.gate.clone())
            .identified(identity, announcer.clone());
        groups.insert(DEFAULT_GROUP, group.raft.clone(), snapshot_directory);
        hub.follow(group.leadership.clone());
        let limits = Limits { body_bytes_max: config.body_bytes_max };
        let published = PublishMetrics::register(&registry)?;
        let access_metrics = AccessMetrics::register(&registry)?;
        let access = match config.authentication {
            true => Access::on(tokens, access_metrics, group.clone(), hub.users_changed()).await,
            false => Access::off(),
        };
        let watermarks = Watermarks::new(config.watermark_limits(), &registry)?;
        let stopping = Stopping::default();
        let traces = Traces::start(&config, &registry)?;
        let services =
            Services { group, hub, clock, limits, published, stopping, announcer, watermarks, access, traces };
        let scaler = Scaler::new(services.clone(), recovery.gate.clone(), &registry)?;
        if let Some(first_user) = first_user {
            tokio::spawn(first_user.make(services.clone()));
        }
        let backups = Backups::new(services.clone(), &registry)?;
        tracing::info!(
            node_id = config.node_id,
            client_address = %config.client_address,
            peer_address = %config.peer_address,
            http_address = %config.http_address,
            data_dir = %config.data_dir.display(),
            "node started"
        );
        Ok(Node {
            config,
            environment,
            registry,
            groups,
            links,
            recovery,
            services,
            scaler,
            backups,
            client_incoming,
            peer_incoming,
        })
    }

    /// The group that the node takes part in.
    pub fn group(&self) -> &Group {
        &self.services.group
    }

    /// Serves clients and peers, until something fails, or the node is told to stop and its clients' calls have ended.
    pub async fn serve(self) -> Result<(), ServerError> {
        let Node {
            config,
            environment,
            groups,
            links,
            recovery,
            services,
            scaler,
            backups,
            client_incoming,
            peer_incoming,
            ..
        } = self;
        let group = services.group.clone();
        let stopping = services.stopping.clone();
        let (reporter, health) = tonic_health::server::health_reporter();
        report_health(&reporter, ServingStatus::Serving).await;
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(dwell_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
            .map_err(|error| ServerError::Reflection(error.to_string()))?;
        let request_bytes_max = config.request_bytes_max + ENVELOPE_BYTES;
        let for_clients = api(&services, request_bytes_max)
            .add_service(Gated::new(ClusterServer::new(services.clone()), &services.access))
            .add_service(Gated::new(BackupsServer::new(backups), &services.access))
            .add_service(Gated::new(
                ExternalScalerServer::new(scaler).max_decoding_message_size(SCALER_REQUEST_BYTES_MAX),
                &services.access,
            ))
            .add_service(health)
            .add_service(reflection);
        let client_server = Server::builder()
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
            .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            // Before a call is passed on, so that the leader is told whose it is.
            .layer(Authenticate::layer(&services.access))
            .layer(ForwardLayer::new(group.leadership.clone(), environment.peer_transport, stopping.clone()))
            .add_routes(for_clients)
            .serve_with_incoming_shutdown(client_incoming, stopping.drain_token().cancelled_owned());
        // Peers pass their clients' calls on, to be answered here without another hop.
        let from_peers = api(&services, request_bytes_max);
        let peer_server = peer::serve(peer_incoming, groups, from_peers, std::future::pending());
        let recovered = async {
            match recovery.complete(&config, &group, &links).await {
                Ok(()) => std::future::pending().await,
                Err(error) => error,
            }
        };
        let unhealthy = async {
            stopping.begun().await;
            report_health(&reporter, ServingStatus::NotServing).await;
            std::future::pending().await
        };
        tokio::select! {
            // First: Raft stops for it too, and says less of it.
            biased;
            found = recovery.damage.reported() => {
                recovery.count(&found);
                Err(ServerError::Damaged(found))
            }
            error = recovered => Err(error.into()),
            () = unhealthy => Ok(()),
            trouble = group.identity.trouble() => Err(ServerError::Identity(trouble)),
            served = client_server => served.map_err(ServerError::from),
            served = peer_server => served.map_err(ServerError::from),
            failure = group.stopped() => Err(ServerError::Stopped(failure)),
        }
    }
}

/// Which cluster the node's data is of. The id that it would give to a new one is drawn here.
fn identity_of(config: &Config) -> Result<ClusterIdentity, ServerError> {
    let directory = DataDirectory::new(&config.data_dir);
    let noted = directory.cluster_id().map_err(RecoveryError::from)?;
    let keep = move |id| directory.note_cluster_id(id).map_err(std::io::Error::other);
    Ok(ClusterIdentity::new(noted, rand::random(), keep))
}

async fn listen(
    transport: &Arc<dyn Transport>,
    address: SocketAddr,
    purpose: &'static str,
) -> Result<Incoming, ServerError> {
    let listened = transport.listen(address).await;
    listened.map_err(|source| ServerError::Listen { address, purpose, source })
}

/// The services that the leader answers.
fn api(services: &Services, request_bytes_max: usize) -> Routes {
    let access = &services.access;
    let messages = MessagesServer::new(services.clone()).max_decoding_message_size(request_bytes_max);
    // A schedule holds a message, with its body.
    let schedules = SchedulesServer::new(services.clone()).max_decoding_message_size(request_bytes_max);
    Routes::new(Gated::new(messages, access))
        .add_service(Gated::new(QueuesServer::new(services.clone()), access))
        .add_service(Gated::new(ExchangesServer::new(services.clone()), access))
        .add_service(Gated::new(InventoryServer::new(services.clone()), access))
        .add_service(Gated::new(MembershipServer::new(services.clone()), access))
        .add_service(Gated::new(UsersServer::new(services.clone()), access))
        .add_service(Gated::new(schedules, access))
}

/// Tells health checks of each service.
async fn report_health(reporter: &HealthReporter, status: ServingStatus) {
    let services = [
        <MessagesServer<Services> as NamedService>::NAME,
        <QueuesServer<Services> as NamedService>::NAME,
        <ExchangesServer<Services> as NamedService>::NAME,
        <InventoryServer<Services> as NamedService>::NAME,
        <SchedulesServer<Services> as NamedService>::NAME,
        <MembershipServer<Services> as NamedService>::NAME,
        <ExternalScalerServer<Scaler> as NamedService>::NAME,
        <BackupsServer<Backups> as NamedService>::NAME,
    ];
    for service in services {
        reporter.set_service_status(service, status).await;
    }
}
