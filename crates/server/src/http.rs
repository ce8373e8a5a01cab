//! The HTTP port: metrics and health.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use dwell_consensus::group::Group;
use dwell_consensus::recovery::RecoveryGate;
use prometheus::Registry;

use crate::metrics;
use crate::stop::Stopping;

/// How far behind the commit index a node may be and still be called ready, in log entries.
pub const LAG_MAX: u64 = 1000;

/// Where a node says how far it has come in finding its place in a cluster: see `dwell pod run`.
pub const ENROLMENT_PATH: &str = "/enrolment";
/// What one says that takes part.
pub const ENROLMENT_STARTED: &str = "started\n";

/// What the routes tell of.
#[derive(Clone)]
pub struct Node {
    /// The namespace's group.
    pub group: Group,
    /// The node's metrics.
    pub registry: Registry,
    /// Closed while the node recovers.
    pub gate: RecoveryGate,
    /// Whether it stops.
    pub stopping: Stopping,
}

/// The routes `/metrics`, `/healthz`, `/readyz` and `/enrolment`.
pub fn router(node: Node) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        // Asked by nodes that look for their place in a cluster: one that serves has found its own.
        .route(ENROLMENT_PATH, get(async || ENROLMENT_STARTED))
        .with_state(node)
}

async fn metrics(State(node): State<Node>) -> Response {
    match metrics::render(&node.group, &node.registry).await {
        Ok(text) => ([(CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Alive: Raft runs. A node without a leader is alive; restarting it would not help.
async fn healthz(State(node): State<Node>) -> (StatusCode, String) {
    match node.group.status().failure {
        None => (StatusCode::OK, "ok\n".into()),
        Some(failure) => (StatusCode::SERVICE_UNAVAILABLE, format!("raft has stopped: {failure}\n")),
    }
}

/// Ready for clients: there is a leader, and this node has a vote and has applied about all that it knows to be committed.
/// Not while it recovers, nor from the moment that it is told to stop. Who restarts one node after the other may go on when
/// a node is ready: so one that has no vote yet, which helps no majority, is not.
async fn readyz(State(node): State<Node>) -> (StatusCode, String) {
    let status = node.group.status();
    if let Some(failure) = status.failure {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("raft has stopped: {failure}\n"));
    }
    if node.stopping.has_begun() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n".into());
    }
    if node.gate.is_recovering() {
        return (StatusCode::SERVICE_UNAVAILABLE, "recovering from damage of this node's files\n".into());
    }
    if status.leader_id.is_none() {
        return (StatusCode::SERVICE_UNAVAILABLE, "there is no leader\n".into());
    }
    if !status.members.iter().any(|(node_id, _, votes)| *node_id == node.group.node_id && *votes) {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            "this node has no vote: it is copying what there is, or was removed\n".into(),
        );
    }
    let lag = status.committed_index.saturating_sub(status.applied_index);
    if lag > LAG_MAX {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("{lag} log entries are still to be applied\n"));
    }
    (StatusCode::OK, "ready\n".into())
}
