//! Any node serves any call: one that does not lead passes it, streams included, to the leader.
//!
//! The call is forwarded as it came, as an HTTP/2 exchange, so there is nothing here for each rpc. It goes to
//! the leader's peer port, where the same services stand without this layer: a call is forwarded at most once.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use dwell_consensus::group::Consistency;
use dwell_consensus::leadership::{Leadership, Tenure};
use dwell_consensus::types::NodeAddress;
use dwell_proto::{metadata, v1};
use dwell_transport::{Transport, connect_lazily};
use futures::future::BoxFuture;
use http::{HeaderMap, HeaderValue, Request, Response};
use parking_lot::Mutex;
use tokio::sync::watch;
use tonic::Status;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tonic::transport::{Channel, Endpoint};
use tower::{Layer, Service, ServiceExt};

use crate::services::{Services, consistency};
use crate::status::{redirected, unavailable};
use crate::stop::Stopping;

/// How long a connection to the leader may take.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// Puts [`Forward`] around the services of the client port.
#[derive(Clone)]
pub struct ForwardLayer {
    leadership: watch::Receiver<Leadership>,
    transport: Arc<dyn Transport>,
    stopping: Stopping,
    channels: Arc<Mutex<HashMap<String, Channel>>>,
}

/// Answers here what this node may answer, and passes the rest to the leader.
#[derive(Clone)]
pub struct Forward<S> {
    inner: S,
    layer: ForwardLayer,
}

impl ForwardLayer {
    /// Follows the group's leader.
    pub fn new(
        leadership: watch::Receiver<Leadership>,
        transport: Arc<dyn Transport>,
        stopping: Stopping,
    ) -> ForwardLayer {
        ForwardLayer { leadership, transport, stopping, channels: Arc::default() }
    }

    /// The connection to the leader; made when first used, and made again by itself after it broke.
    fn channel(&self, address: &NodeAddress) -> Result<Channel, Status> {
        let mut channels = self.channels.lock();
        if let Some(channel) = channels.get(&address.peer) {
            return Ok(channel.clone());
        }
        let endpoint = Endpoint::from_shared(format!("http://{}", address.peer))
            .map_err(|error| Status::internal(format!("the leader's address `{}`: {error}", address.peer)))?;
        let endpoint = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(Duration::from_secs(2))
            .keep_alive_timeout(Duration::from_secs(2))
            .initial_stream_window_size(4 * 1024 * 1024)
            .initial_connection_window_size(16 * 1024 * 1024);
        let channel = connect_lazily(&endpoint, &self.transport);
        // One leader at a time: the others' connections are let go.
        channels.clear();
        channels.insert(address.peer.clone(), channel.clone());
        Ok(channel)
    }
}

impl<S> Layer<S> for ForwardLayer {
    type Service = Forward<S>;

    fn layer(&self, inner: S) -> Forward<S> {
        Forward { inner, layer: self.clone() }
    }
}

impl<S> Service<Request<Body>> for Forward<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // The clone that was polled ready is the one to call.
        let ready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, ready);
        let layer = self.layer.clone();
        Box::pin(async move {
            let tenure = Tenure::current(&layer.leadership);
            let leadership = tenure.leadership().clone();
            let mut response = if leadership.is_local || !needs_leader(&request) {
                inner.call(request).await?
            } else {
                match &leadership.leader {
                    Some((_, address)) => layer.forward(address, request, tenure).await,
                    None => unavailable("there is no leader at the moment").into_http(),
                }
            };
            // As of now: it may have changed meanwhile, and an error sends the client to the one that is named.
            name_leader(&layer.leadership.borrow(), response.headers_mut());
            Ok(response)
        })
    }
}

impl ForwardLayer {
    /// A leader that is deposed while it is frozen or cut off would keep its callers waiting: whatever was
    /// forwarded ends with the tenure.
    async fn forward(&self, address: &NodeAddress, request: Request<Body>, mut tenure: Tenure) -> Response<Body> {
        let channel = match self.channel(address) {
            Ok(channel) => channel,
            Err(status) => return status.into_http(),
        };
        // Other calls are let come to their end.
        let stopping = is_stream(request.uri().path()).then(|| self.stopping.clone());
        let response = tokio::select! {
            response = channel.oneshot(request) => response,
            () = tenure.ended() => return unavailable("the leader changed meanwhile").into_http(),
        };
        match response {
            Ok(response) => response.map(|body| Body::new(EndingBody::new(body, tenure, stopping))),
            Err(error) => unavailable(format!("the leader at {} did not answer: {error}", address.peer)).into_http(),
        }
    }
}

/// False for what each node answers itself: its status, health, reflection, scalers, and reads that may be stale.
fn needs_leader(request: &Request<Body>) -> bool {
    let service = request.uri().path().split('/').nth(1).unwrap_or_default();
    let led = [
        <v1::messages_server::MessagesServer<Services> as NamedService>::NAME,
        <v1::queues_server::QueuesServer<Services> as NamedService>::NAME,
        <v1::exchanges_server::ExchangesServer<Services> as NamedService>::NAME,
        <v1::inventory_server::InventoryServer<Services> as NamedService>::NAME,
        <v1::schedules_server::SchedulesServer<Services> as NamedService>::NAME,
        <v1::membership_server::MembershipServer<Services> as NamedService>::NAME,
        <v1::users_server::UsersServer<Services> as NamedService>::NAME,
    ];
    let metadata = MetadataMap::from_headers(request.headers().clone());
    led.contains(&service) && consistency(&metadata) == Consistency::Linearizable
}

/// True for the path of calls that last as long as the client likes, with a request after the other.
pub(crate) fn is_stream(path: &str) -> bool {
    matches!(path.rsplit('/').next().unwrap_or_default(), "PublishStream" | "Consume")
}

fn name_leader(leadership: &Leadership, headers: &mut HeaderMap) {
    if let Some((_, address)) = &leadership.leader
        && let Ok(value) = HeaderValue::from_str(&address.client)
    {
        headers.insert(metadata::LEADER, value);
    }
}

/// A forwarded response. When the leader's connection breaks, or another node leads, it ends with UNAVAILABLE, as
/// a call does that was never forwarded, and not with a reset stream, which says nothing. So does a stream whose node is
/// told to stop.
struct EndingBody {
    /// `None` once it has ended.
    body: Option<Body>,
    end: BoxFuture<'static, Status>,
}

impl EndingBody {
    /// With `stopping`, it ends also when that begins to drain.
    fn new(body: Body, tenure: Tenure, stopping: Option<Stopping>) -> EndingBody {
        EndingBody { body: Some(body), end: Box::pin(end_of(tenure, stopping)) }
    }

    fn end(&mut self, status: Status) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, Status>>> {
        self.body = None;
        let mut trailers = HeaderMap::new();
        status.add_header(&mut trailers)?;
        Poll::Ready(Some(Ok(http_body::Frame::trailers(trailers))))
    }
}

/// Resolves when another node leads, or this one is told to stop, and says where to go.
async fn end_of(mut tenure: Tenure, stopping: Option<Stopping>) -> Status {
    let told_to_stop = async {
        match &stopping {
            Some(stopping) => stopping.draining().await,
            None => std::future::pending().await,
        }
    };
    let reason = tokio::select! {
        () = tenure.ended() => "the leader changed meanwhile",
        () = told_to_stop => "this node is stopping",
    };
    redirected(unavailable(reason), &tenure, &stopping.unwrap_or_default()).await
}

impl http_body::Body for EndingBody {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Self::Data>, Status>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        match Pin::new(body).poll_frame(context) {
            Poll::Ready(Some(Err(error))) => {
                self.end(unavailable(format!("the connection to the leader broke: {}", error.message())))
            }
            Poll::Pending => match self.end.as_mut().poll(context) {
                Poll::Ready(status) => self.end(status),
                Poll::Pending => Poll::Pending,
            },
            frame => frame,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.as_ref().map(|body| body.size_hint()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    fn request(path: &str) -> Request<Body> {
        Request::builder().uri(path).body(Body::empty()).unwrap()
    }

    #[test]
    fn only_what_the_leader_knows_goes_to_the_leader() {
        assert!(needs_leader(&request("/dwell.v1.Messages/Publish")));
        assert!(needs_leader(&request("/dwell.v1.Queues/DescribeQueue")));
        assert!(needs_leader(&request("/dwell.v1.Exchanges/Bind")));
        assert!(needs_leader(&request("/dwell.v1.Inventory/RecallMatching")));
        assert!(needs_leader(&request("/dwell.v1.Schedules/TriggerSchedule")));
        assert!(needs_leader(&request("/dwell.v1.Membership/AddMember")));
        assert!(needs_leader(&request("/dwell.v1.Users/AddUser")));
        assert!(!needs_leader(&request("/dwell.v1.Cluster/GetClusterStatus")));
        assert!(!needs_leader(&request("/dwell.v1.Cluster/GetStateDigest")));
        assert!(!needs_leader(&request("/dwell.v1.Backups/CreateBackup")));
        assert!(!needs_leader(&request("/grpc.health.v1.Health/Check")));
        assert!(!needs_leader(&request("/externalscaler.ExternalScaler/GetMetrics")));
        let mut stale = request("/dwell.v1.Queues/DescribeQueue");
        stale.headers_mut().insert(metadata::CONSISTENCY, HeaderValue::from_static(metadata::CONSISTENCY_STALE));
        assert!(!needs_leader(&stale));
    }

    #[tokio::test]
    async fn a_broken_forwarded_response_ends_with_unavailable() {
        let broken = futures::stream::iter([Err::<http_body::Frame<bytes::Bytes>, _>(Status::internal("reset"))]);
        let (_sender, leadership) = watch::channel(Leadership::default());
        let body = Body::new(http_body_util::StreamBody::new(broken));
        let body = EndingBody::new(body, Tenure::current(&leadership), None);
        let trailers = body.collect().await.unwrap().trailers().cloned().unwrap();
        assert_eq!(trailers["grpc-status"], "14");
    }

    #[tokio::test]
    async fn a_forwarded_response_that_stays_silent_ends_when_another_node_leads() {
        let (sender, leadership) = watch::channel(Leadership::default());
        let silent = futures::stream::pending::<Result<http_body::Frame<bytes::Bytes>, Status>>();
        let body = Body::new(http_body_util::StreamBody::new(silent));
        let body = EndingBody::new(body, Tenure::current(&leadership), None);
        let ended = tokio::spawn(body.collect());
        sender.send(Leadership { term: 2, ..Leadership::default() }).unwrap();
        assert_eq!(ended.await.unwrap().unwrap().trailers().unwrap()["grpc-status"], "14");
    }

    #[tokio::test]
    async fn a_stream_whose_leader_changes_is_told_who_leads_then() {
        let (sender, leadership) = watch::channel(Leadership::default());
        let silent = futures::stream::pending::<Result<http_body::Frame<bytes::Bytes>, Status>>();
        let body = Body::new(http_body_util::StreamBody::new(silent));
        let ended = tokio::spawn(EndingBody::new(body, Tenure::current(&leadership), None).collect());
        sender.send(Leadership { term: 2, ..Leadership::default() }).unwrap();
        tokio::task::yield_now().await;
        let address = NodeAddress { peer: "b:1".into(), client: "b:2".into() };
        sender.send(Leadership { term: 2, leader: Some((2, address)), is_local: false }).unwrap();
        let trailers = ended.await.unwrap().unwrap().trailers().cloned().unwrap();
        assert_eq!(
            (&trailers["grpc-status"], &trailers[metadata::LEADER]),
            (&"14".parse().unwrap(), &"b:2".parse().unwrap())
        );
    }
}
