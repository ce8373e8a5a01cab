//! The one place where every request is judged, and where acts of administration are written down.

use std::any::Any;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use dwell_proto::metadata;
use dwell_proto::request::checked;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response};
use parking_lot::Mutex;
use serde_json::json;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::{Code, Extensions, Status};
use tower::Service;

use super::needs::{Need, needs_of};
use super::{Access, Guard};
use crate::forward::is_stream;

/// A service that answers only what the caller may ask.
#[derive(Clone)]
pub struct Gated<S> {
    inner: S,
    access: Access,
}

impl<S> Gated<S> {
    /// Puts the gate before a service.
    pub fn new(inner: S, access: &Access) -> Gated<S> {
        Gated { inner, access: access.clone() }
    }
}

impl<S: NamedService> NamedService for Gated<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Gated<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let caller = match Caller::named_in(request.headers_mut(), &self.access) {
            Ok(Some(caller)) => caller,
            Ok(None) => return Box::pin(self.inner.call(request)),
            Err(status) => return Box::pin(std::future::ready(Ok(status.into_http()))),
        };
        let method = request.uri().path().to_owned();
        if is_stream(&method) {
            // One request that is refused is not to end the others' stream: its service judges and answers each.
            request.extensions_mut().insert(caller);
            return Box::pin(self.inner.call(request));
        }
        let act = Act::default();
        let (judge, noted) = (caller.clone(), act.clone());
        let judge = move |request: &dyn Any| judge.judge(request, &noted);
        let call = checked(Box::new(judge), self.inner.call(request));
        Box::pin(async move {
            let response = call.await;
            if let (Some(on), Ok(response)) = (act.lock().take(), &response) {
                write_down(&caller, &method, &on, response);
            }
            response
        })
    }
}

/// Whose a call is.
#[derive(Clone)]
pub struct Caller {
    user: Arc<str>,
    /// Where the call came in from, for people.
    address: Arc<str>,
    /// `None`: nobody is told apart, and everybody may do everything.
    guard: Option<Arc<Guard>>,
}

impl Caller {
    /// Of a call that is a stream, by what the gate has noted. Its service asks [`Caller::may`] for each request.
    pub fn of(extensions: &Extensions, access: &Access) -> Result<Caller, Status> {
        match (extensions.get::<Caller>(), &access.0) {
            (Some(caller), _) => Ok(caller.clone()),
            (None, None) => Ok(Caller { user: "".into(), address: "".into(), guard: None }),
            (None, Some(_)) => Err(Status::unauthenticated("the call came past the gate")),
        }
    }

    /// Takes from the metadata what the node that was called has put there. `None`: nobody is told apart.
    fn named_in(headers: &mut HeaderMap, access: &Access) -> Result<Option<Caller>, Status> {
        let user = headers.remove(metadata::CALLER);
        let address = headers.remove(metadata::CALLER_ADDRESS);
        let Some(guard) = access.0.clone() else { return Ok(None) };
        let user = user.as_ref().and_then(|user| user.to_str().ok());
        let user = user.ok_or_else(|| Status::unauthenticated("the call came without its user"))?;
        let address = address.as_ref().and_then(|address| address.to_str().ok()).unwrap_or_default();
        Ok(Some(Caller { user: user.into(), address: address.into(), guard: Some(guard) }))
    }

    /// Whether the user may make this request: as things are now, and not as they were when the call began.
    /// Errors: UNAUTHENTICATED if there is no such user any more; PERMISSION_DENIED says what is lacking.
    pub fn may(&self, request: &dyn Any) -> Result<(), Status> {
        self.judge(request, &Act::default())
    }

    fn judge(&self, request: &dyn Any, act: &Act) -> Result<(), Status> {
        let Some(guard) = &self.guard else { return Ok(()) };
        let needs = needs_of(request).ok_or_else(|| Status::permission_denied("nobody may make this request"))?;
        if let Some(on) = administered(&needs) {
            *act.lock() = Some(on);
        }
        let name = &*self.user;
        let user = guard.directory.find(name);
        let user = user.ok_or_else(|| Status::unauthenticated(format!("there is no user `{name}`")))?;
        match needs.iter().find(|need| !user.may(need)) {
            None => Ok(()),
            Some(lacking) => {
                guard.metrics.denied.inc();
                Err(Status::permission_denied(format!("user `{name}` lacks {lacking}")))
            }
        }
    }
}

/// What an act of administration is about.
type Act = Arc<Mutex<Option<Vec<String>>>>;

/// The names that are administered or configured; `None` if it is no such act.
fn administered(needs: &[Need<'_>]) -> Option<Vec<String>> {
    let name = |need: &Need<'_>| match need {
        Need::Administrator(name) | Need::Configure(name) => Some((*name).to_owned()),
        Need::User | Need::Write(_) | Need::Read(_) => None,
    };
    let names: Vec<String> = needs.iter().filter_map(name).collect();
    (!names.is_empty()).then_some(names)
}

/// One line of JSON, whatever the log's own format is.
fn write_down(caller: &Caller, method: &str, on: &[String], response: &Response<Body>) {
    // A call that fails is answered with headers alone.
    let outcome = Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code());
    let outcome = format!("{outcome:?}");
    let line = json!({ "user": *caller.user, "from": *caller.address, "method": method, "on": on, "outcome": outcome });
    tracing::info!(target: "dwell::audit", "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_administered_or_configured_is_written_down_with_its_name() {
        let needs = [Need::Configure("q"), Need::Write("x"), Need::Administrator("ada")];
        assert_eq!(administered(&needs), Some(vec!["q".to_owned(), "ada".to_owned()]));
        assert_eq!(administered(&[Need::Administrator("")]), Some(vec![String::new()]));
        assert_eq!(administered(&[Need::Write("x"), Need::Read("y"), Need::User]), None);
    }
}
