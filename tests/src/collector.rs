//! An OpenTelemetry collector that keeps what it is told, by OTLP over gRPC.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// A span, and the node that told of it.
#[derive(Debug, Clone)]
pub struct CollectedSpan {
    /// `service.instance.id`.
    pub node: String,
    /// As it was told.
    pub span: Span,
}

impl CollectedSpan {
    /// The value of an attribute, as text; empty without it.
    pub fn attribute(&self, key: &str) -> String {
        attribute(&self.span.attributes, key)
    }
}

#[derive(Debug, Default)]
struct Collected {
    spans: Mutex<Vec<CollectedSpan>>,
    changed: Notify,
}

/// Takes spans until it is dropped.
#[derive(Debug)]
pub struct Collector {
    address: SocketAddr,
    collected: Arc<Collected>,
    server: JoinHandle<()>,
}

impl Collector {
    /// Listens on a free port of this machine.
    pub async fn start() -> anyhow::Result<Collector> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let collected = Arc::new(Collected::default());
        let service = TraceServiceServer::new(Service(collected.clone()));
        let serving = Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener));
        let server = tokio::spawn(async move {
            let _ = serving.await;
        });
        Ok(Collector { address, collected, server })
    }

    /// For a node's `otlp_endpoint`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What came so far.
    pub fn spans(&self) -> Vec<CollectedSpan> {
        self.collected.spans.lock().clone()
    }

    /// Waits for a span of this name, and returns the first one.
    pub async fn span(&self, name: &str, timeout: Duration) -> anyhow::Result<CollectedSpan> {
        let awaited = async {
            loop {
                let changed = self.collected.changed.notified();
                let found = self.spans().into_iter().find(|collected| collected.span.name == name);
                match found {
                    Some(found) => break found,
                    None => changed.await,
                }
            }
        };
        tokio::time::timeout(timeout, awaited).await.with_context(|| {
            let names: Vec<String> = self.spans().into_iter().map(|collected| collected.span.name).collect();
            format!("no span `{name}` came within {timeout:?}, but {names:?}")
        })
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

struct Service(Arc<Collected>);

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for of_node in request.into_inner().resource_spans {
            let attributes = of_node.resource.unwrap_or_default().attributes;
            let node = attribute(&attributes, "service.instance.id");
            let spans = of_node.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans);
            self.0.spans.lock().extend(spans.map(|span| CollectedSpan { node: node.clone(), span }));
        }
        self.0.changed.notify_waiters();
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

fn attribute(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.as_ref()) {
        Some(AnyValue { value: Some(Value::StringValue(text)) }) => text.clone(),
        Some(AnyValue { value: Some(Value::IntValue(number)) }) => number.to_string(),
        _ => String::new(),
    }
}
