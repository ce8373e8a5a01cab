//! Whose call it is: found out where clients come in.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::SystemTime;

use dwell_proto::metadata;
use dwell_proto::v1::users_server::UsersServer;
use dwell_transport::Remote;
use futures::future::BoxFuture;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue, Request, Response};
use prometheus::IntCounter;
use tonic::Status;
use tonic::body::Body;
use tonic::server::NamedService;
use tower::{Layer, Service};

use super::directory::Changed;
use super::{Access, Identified};
use crate::services::Services;
use crate::status::unavailable;

/// Lets in who proves to be a user, and says who it is.
#[derive(Clone)]
pub struct Authenticate<S> {
    inner: S,
    access: Access,
}

/// Puts [`Authenticate`] around the services of the client port.
#[derive(Clone)]
pub struct AuthenticateLayer(Access);

impl Authenticate<()> {
    /// Around the services of the client port.
    pub fn layer(access: &Access) -> AuthenticateLayer {
        AuthenticateLayer(access.clone())
    }
}

impl<S> Layer<S> for AuthenticateLayer {
    type Service = Authenticate<S>;

    fn layer(&self, inner: S) -> Authenticate<S> {
        Authenticate { inner, access: self.0.clone() }
    }
}

impl<S> Service<Request<Body>> for Authenticate<S>
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

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        // Nodes say so to each other; a client does not.
        request.headers_mut().remove(metadata::CALLER);
        request.headers_mut().remove(metadata::CALLER_ADDRESS);
        let guard = match &self.access.0 {
            Some(guard) if !is_for_everybody(&request) => guard.clone(),
            _ => return Box::pin(self.inner.call(request)),
        };
        // The clone that was polled ready is the one to call.
        let ready = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, ready);
        Box::pin(async move {
            let remote = request.extensions().get::<Remote>().cloned().unwrap_or_default();
            let Identified { user, until } = match guard.authenticate(request.headers(), &remote).await {
                Ok(identified) => identified,
                Err(status) => return Ok(status.into_http()),
            };
            if let Err(status) = name_caller(request.headers_mut(), &user.record.name, &remote) {
                return Ok(status.into_http());
            }
            // The one service that changes what is looked at: who changes himself is to get his answer.
            if service_of(&request) == <UsersServer<Services> as NamedService>::NAME {
                return inner.call(request).await;
            }
            let mut changed: BoxFuture<'static, Changed> = Box::pin(end_of(guard.directory.changed(user), until));
            let response = tokio::select! {
                response = inner.call(request) => response?,
                now = &mut changed => {
                    guard.metrics.ended.inc();
                    return Ok(status_of(now).into_http());
                }
            };
            let ended = guard.metrics.ended.clone();
            Ok(response.map(|body| Body::new(RevocableBody { body: Some(body), changed, ended })))
        })
    }
}

/// Says whose call it is, to whoever answers it. No password goes further than this.
fn name_caller(headers: &mut HeaderMap, user: &str, remote: &Remote) -> Result<(), Status> {
    headers.remove(AUTHORIZATION);
    let value = |text: &str| {
        HeaderValue::from_str(text).map_err(|_| Status::unauthenticated("the user's name cannot be passed on"))
    };
    headers.insert(metadata::CALLER, value(user)?);
    if let Some(address) = remote.address {
        headers.insert(metadata::CALLER_ADDRESS, value(&address.to_string())?);
    }
    Ok(())
}

/// Health is asked for by machines that are no users.
fn is_for_everybody(request: &Request<Body>) -> bool {
    type Health = tonic_health::pb::health_server::HealthServer<tonic_health::server::HealthService>;
    service_of(request) == <Health as NamedService>::NAME
}

fn service_of(request: &Request<Body>) -> &str {
    request.uri().path().split('/').nth(1).unwrap_or_default()
}

fn status_of(changed: Changed) -> Status {
    match changed {
        Changed::Login => Status::unauthenticated("the user was removed, or has another password now"),
        // A client that renews its token goes on; another one is told when it calls again.
        Changed::Expired => unavailable("the token has expired: call again with another one"),
        // Whoever repeats the call is told what it lacks now.
        Changed::Permission => unavailable("the user may do other things than before: call again"),
    }
}

/// The first of both.
async fn end_of(changed: impl Future<Output = Changed>, until: Option<SystemTime>) -> Changed {
    let expired = async {
        match until {
            Some(until) => tokio::time::sleep(until.duration_since(SystemTime::now()).unwrap_or_default()).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        changed = changed => changed,
        () = expired => Changed::Expired,
    }
}

/// A response that ends when its user is not what it was.
struct RevocableBody {
    /// `None` once it has ended.
    body: Option<Body>,
    changed: BoxFuture<'static, Changed>,
    /// How many ended so.
    ended: IntCounter,
}

impl http_body::Body for RevocableBody {
    type Data = bytes::Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Self::Data>, Status>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = Pin::new(body).poll_frame(context);
        if let Poll::Ready(None) = frame {
            self.body = None;
            return frame;
        }
        match self.changed.as_mut().poll(context) {
            Poll::Pending => frame,
            Poll::Ready(changed) => {
                self.body = None;
                self.ended.inc();
                let mut trailers = HeaderMap::new();
                status_of(changed).add_header(&mut trailers)?;
                Poll::Ready(Some(Ok(http_body::Frame::trailers(trailers))))
            }
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
    use super::*;

    #[tokio::test]
    async fn a_call_ends_when_its_token_expires() {
        let past = SystemTime::now().checked_sub(std::time::Duration::from_secs(1));
        assert_eq!(end_of(std::future::pending(), past).await, Changed::Expired);
        assert_eq!(end_of(std::future::ready(Changed::Login), None).await, Changed::Login);
    }
}
