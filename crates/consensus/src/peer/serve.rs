//! Runs the peer service.

use std::future::Future;
use std::time::Duration;

use dwell_transport::Incoming;
use tonic::service::Routes;
use tonic::transport::Server;

use super::links::{CONNECTION_WINDOW_BYTES, STREAM_WINDOW_BYTES};
use super::{Groups, PeerService};

/// The caller's pings find a dead connection first. These free what a vanished caller left behind.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// Serves the node's peers, and `routes` besides: calls of clients that a peer passes on. Until `shutdown` is ready,
/// and then until their calls have ended.
///
/// Append streams end with their leader, so a caller that means to stop should not wait for this to return.
pub async fn serve(
    incoming: Incoming,
    groups: Groups,
    routes: Routes,
    shutdown: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    Server::builder()
        .http2_keepalive_interval(Some(PING_INTERVAL))
        .http2_keepalive_timeout(Some(PING_TIMEOUT))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .add_routes(routes.add_service(PeerService::new(groups).into_server()))
        .serve_with_incoming_shutdown(incoming, shutdown)
        .await
}
