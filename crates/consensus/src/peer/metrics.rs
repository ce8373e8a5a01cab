//! What the peer network counts.

use prometheus::{IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry};

/// Metrics of the connections to other nodes; cheap to clone.
#[derive(Debug, Clone)]
pub struct PeerMetrics {
    pub(super) reachable: IntGaugeVec,
    pub(super) failures: IntCounterVec,
    pub(super) append_bytes: IntCounterVec,
    pub(super) snapshot_bytes: IntCounterVec,
    pub(super) dead_leaders: IntCounter,
    pub(super) identity_refusals: IntCounter,
}

impl PeerMetrics {
    /// Registers the metrics. Fails if they are registered already: once for each node.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let per_peer = |name: &str, help: &str| IntCounterVec::new(Opts::new(name, help), &["peer"]);
        let metrics = Self {
            reachable: IntGaugeVec::new(
                Opts::new("dwell_peer_reachable", "1 if the last call to this peer address was answered, else 0"),
                &["peer"],
            )?,
            failures: per_peer("dwell_peer_failures_total", "Calls to this peer address that were not answered")?,
            append_bytes: per_peer("dwell_peer_append_bytes_total", "Bytes of log entries sent to this peer")?,
            snapshot_bytes: per_peer("dwell_peer_snapshot_bytes_total", "Bytes of snapshots sent to this peer")?,
            dead_leaders: IntCounter::new(
                "dwell_dead_leaders_total",
                "Leaders that this node found dead by their broken connection",
            )?,
            identity_refusals: IntCounter::new(
                "dwell_peer_identity_refusals_total",
                "Calls refused because they came from a node of another cluster, or one whose disk has forgotten",
            )?,
        };
        registry.register(Box::new(metrics.reachable.clone()))?;
        registry.register(Box::new(metrics.failures.clone()))?;
        registry.register(Box::new(metrics.append_bytes.clone()))?;
        registry.register(Box::new(metrics.snapshot_bytes.clone()))?;
        registry.register(Box::new(metrics.dead_leaders.clone()))?;
        registry.register(Box::new(metrics.identity_refusals.clone()))?;
        Ok(metrics)
    }
}
