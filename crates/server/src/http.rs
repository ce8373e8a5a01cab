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

/// How far behind the commit index a node may be and still be called ready, in log entries.
const LAG_MAX: u64 = 1000;

#[derive(Clone)]
struct Node {
    group: Group,
    registry: Registry,
    gate: RecoveryGate,
}

/// The routes `/metrics`, `/healthz` and `/readyz`.
pub fn router(group: Group, registry: Registry, gate: RecoveryGate) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(Node { group, registry, gate })
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

/// Ready for clients: there is a leader, and this node has applied about all that it knows to be committed. Not while
/// it recovers.
async fn readyz(State(node): State<Node>) -> (StatusCode, String) {
    let status = node.group.status();
    if let Some(failure) = status.failure {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("raft has stopped: {failure}\n"));
    }
    if node.gate.is_recovering() {
        return (StatusCode::SERVICE_UNAVAILABLE, "recovering from damage of this node's files\n".into());
    }
    if status.leader_id.is_none() {
        return (StatusCode::SERVICE_UNAVAILABLE, "there is no leader\n".into());
    }
    let lag = status.committed_index.saturating_sub(status.applied_index);
    if lag > LAG_MAX {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("{lag} log entries are still to be applied\n"));
    }
    (StatusCode::OK, "ready\n".into())
}
