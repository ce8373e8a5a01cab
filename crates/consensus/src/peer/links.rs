//! The connections to other nodes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dwell_proto::peer::raft_client::RaftClient;
use dwell_transport::{Tcp, Transport, connect_lazily};
use parking_lot::Mutex;
use prometheus::{IntCounter, IntGauge};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::{MESSAGE_BYTES_MAX, PeerMetrics};

/// A node on the same network accepts within a millisecond. What takes longer than this is gone, and the
/// caller should know so that it can back off and try again.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// A process that dies breaks its connections at once. A machine that loses its power or its network does not:
/// only a ping that stays unanswered tells. Idle connections are pinged too, because votes go over connections
/// that carry nothing else.
const PING_INTERVAL: Duration = Duration::from_millis(500);

/// A ping waits behind what was sent before it, so a full window on a slow line must not be taken for a peer that
/// vanished: this is a window of 8 MiB at 22 Mbit/s.
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// The same for snapshots, where a window is always full, and nobody waits for a vote: 7 Mbit/s.
const BULK_PING_TIMEOUT: Duration = Duration::from_secs(10);

/// What a stream may have in flight unread, in bytes: more than bandwidth times delay of a 10 Gbit/s network
/// with 5 ms, so that flow control never slows a follower that keeps up.
pub(super) const STREAM_WINDOW_BYTES: u32 = 8 * 1024 * 1024;

/// The same for all streams of a connection: several times a stream's, so that one group's slow reader
/// leaves room for the others.
pub(super) const CONNECTION_WINDOW_BYTES: u32 = 64 * 1024 * 1024;

/// Why there can be no connection.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LinkError {
    /// Not a host:port.
    #[error("peer address `{address}` is not host:port: {reason}")]
    Address {
        /// The address as configured.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// The connections to all other nodes; cheap to clone, shared by all groups of a node.
#[derive(Debug, Clone)]
pub struct PeerLinks {
    links: Arc<Mutex<BTreeMap<String, PeerLink>>>,
    metrics: PeerMetrics,
    transport: Arc<dyn Transport>,
}

impl PeerLinks {
    /// No connections yet: each is made when first needed, and made again when it breaks.
    pub fn new(metrics: PeerMetrics) -> Self {
        Self::over(Arc::new(Tcp), metrics)
    }

    /// The same over another transport than TCP.
    pub fn over(transport: Arc<dyn Transport>, metrics: PeerMetrics) -> Self {
        Self { links: Arc::default(), metrics, transport }
    }

    /// The connections to a node's peer address (host:port). Must be called in a tokio runtime.
    pub fn link(&self, address: &str) -> Result<PeerLink, LinkError> {
        let mut links = self.links.lock();
        if let Some(link) = links.get(address) {
            return Ok(link.clone());
        }
        let link = PeerLink::new(address, &self.transport, &self.metrics)?;
        links.insert(address.to_owned(), link.clone());
        Ok(link)
    }
}

/// The connections to one node; cheap to clone.
#[derive(Debug, Clone)]
pub struct PeerLink {
    calls: Channel,
    bulk: Channel,
    address: String,
    reachable: IntGauge,
    failures: IntCounter,
    /// What a peer said last when it refused calls for good.
    refusal: Arc<Mutex<String>>,
    pub(super) append_bytes: IntCounter,
    pub(super) snapshot_bytes: IntCounter,
}

impl PeerLink {
    fn new(address: &str, transport: &Arc<dyn Transport>, metrics: &PeerMetrics) -> Result<Self, LinkError> {
        let endpoint = endpoint(address)?;
        Ok(Self {
            calls: connect_lazily(&endpoint.clone().keep_alive_timeout(PING_TIMEOUT), transport),
            bulk: connect_lazily(&endpoint.keep_alive_timeout(BULK_PING_TIMEOUT), transport),
            address: address.to_owned(),
            refusal: Arc::default(),
            reachable: metrics.reachable.with_label_values(&[address]),
            failures: metrics.failures.with_label_values(&[address]),
            append_bytes: metrics.append_bytes.with_label_values(&[address]),
            snapshot_bytes: metrics.snapshot_bytes.with_label_values(&[address]),
        })
    }

    /// For votes and entries.
    pub(crate) fn calls(&self) -> RaftClient<Channel> {
        client(self.calls.clone())
    }

    /// For snapshots: a connection of its own, lest heartbeats wait behind megabytes in the socket's buffer.
    pub(super) fn bulk(&self) -> RaftClient<Channel> {
        client(self.bulk.clone())
    }

    pub(super) fn answered(&self) {
        self.reachable.set(1);
    }

    pub(super) fn failed(&self, status: &Status) {
        self.reachable.set(0);
        self.failures.inc();
        // Something that does not mend itself: said once, as long as it stays the same.
        let mut refusal = self.refusal.lock();
        if status.code() == Code::FailedPrecondition && *refusal != status.message() {
            status.message().clone_into(&mut refusal);
            tracing::warn!(address = self.address, reason = status.message(), "a peer refuses this node's calls");
        }
        tracing::debug!(code = ?status.code(), message = status.message(), "peer call failed");
    }
}

fn client(channel: Channel) -> RaftClient<Channel> {
    RaftClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

fn endpoint(address: &str) -> Result<Endpoint, LinkError> {
    let refused = |reason: String| LinkError::Address { address: address.to_owned(), reason };
    if !address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) {
        return Err(refused("it lacks a host or a port".to_owned()));
    }
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|error| refused(error.to_string()))?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links() -> PeerLinks {
        PeerLinks::new(PeerMetrics::new(&prometheus::Registry::new()).unwrap())
    }

    #[tokio::test]
    async fn an_address_without_port_is_refused() {
        for address in ["", "node-1", "node-1:", ":7601", "node 1:7601", "node-1:70000"] {
            assert!(links().link(address).is_err(), "`{address}` was accepted");
        }
    }

    #[tokio::test]
    async fn names_and_both_kinds_of_ip_addresses_are_accepted() {
        for address in ["dwell-0.dwell:7601", "10.0.0.7:7601", "[::1]:7601"] {
            assert!(links().link(address).is_ok(), "`{address}` was refused");
        }
    }
}
