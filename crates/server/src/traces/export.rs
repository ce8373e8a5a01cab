//! Spans on their way to the collector: a bounded queue, and a task that sends what is in it.
//!
//! The SDK's batch processor would do, but that it does not say how much it drops.

use std::sync::Arc;
use std::time::Duration;

use dwell_transport::{Tcp, Tls, TlsError, TlsFiles, Transport};
use http::Uri;
use opentelemetry::KeyValue;
use opentelemetry::trace::SpanContext;
use opentelemetry_otlp::WithTonicConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::{EnvResourceDetector, TelemetryResourceDetector};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Endpoint;

use super::span::Span;

/// Spans that may wait for the collector, of one KiB about. Those that come then are dropped.
const WAITING_MAX: usize = 8192;
/// Spans of one call.
const BATCH_MAX: usize = 512;
/// How long a span waits for company.
const BATCH_WAIT: Duration = Duration::from_secs(1);
/// How long a call may take, with its repetitions.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a node that stops waits for what is on its way.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Where collectors listen for OTLP over gRPC.
const DEFAULT_PORT: u16 = 4317;

/// Why spans cannot be exported at all.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The configured address is none.
    #[error("`otlp_endpoint` {0}")]
    Endpoint(String),
    /// The authorities that the operating system trusts are not to be had.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A variable of OpenTelemetry's own is wrong.
    #[error("{0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// A metric is registered twice.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
}

/// What became of spans.
#[derive(Clone)]
pub(super) struct SpanMetrics {
    exported: IntCounter,
    failed: IntCounter,
    dropped: IntCounter,
}

impl SpanMetrics {
    pub fn register(registry: &Registry) -> Result<SpanMetrics, prometheus::Error> {
        let outcomes = IntCounterVec::new(
            Opts::new("dwell_trace_spans_total", "Spans of traced messages that this node made, by outcome."),
            &["outcome"],
        )?;
        registry.register(Box::new(outcomes.clone()))?;
        let of = |outcome| outcomes.with_label_values(&[outcome]);
        Ok(SpanMetrics { exported: of("exported"), failed: of("failed"), dropped: of("dropped") })
    }
}

/// Takes spans, and never waits.
pub(super) struct Exporter {
    spans: mpsc::Sender<SpanData>,
    metrics: SpanMetrics,
    /// Cancelled when the node stops.
    ending: CancellationToken,
    /// Cancelled when the task has ended.
    ended: CancellationToken,
}

impl Exporter {
    /// None without an endpoint. The collector is called when there is something to tell.
    pub fn start(endpoint: Option<&str>, node_id: u64, registry: &Registry) -> Result<Option<Exporter>, ExportError> {
        let metrics = SpanMetrics::register(registry)?;
        let Some(endpoint) = endpoint else { return Ok(None) };
        let mut exporter = otlp(endpoint)?;
        exporter.set_resource(&resource(node_id));
        tracing::info!(endpoint, "traces of messages are exported");
        Ok(Some(Exporter::over(exporter, metrics)))
    }

    pub fn over(exporter: impl SpanExporter + 'static, metrics: SpanMetrics) -> Exporter {
        let (spans, waiting) = mpsc::channel(WAITING_MAX);
        let (ending, ended) = (CancellationToken::new(), CancellationToken::new());
        let task = Task { exporter, waiting, metrics: metrics.clone(), ending: ending.clone(), failing: false };
        tokio::spawn(task.run(ended.clone().drop_guard()));
        Exporter { spans, metrics, ending, ended }
    }

    /// Hands a span over, and names it. None if there is no room for it: it is dropped, and counted.
    pub fn export(&self, span: Span) -> Option<SpanContext> {
        let Ok(room) = self.spans.try_reserve() else {
            self.metrics.dropped.inc();
            return None;
        };
        let data = span.into_data();
        let context = data.span_context.clone();
        room.send(data);
        Some(context)
    }

    /// Sends what waits, for as long as [`FLUSH_TIMEOUT`] allows. What comes later is dropped.
    pub async fn flush(&self) {
        self.ending.cancel();
        if tokio::time::timeout(FLUSH_TIMEOUT, self.ended.cancelled()).await.is_err() {
            tracing::warn!("the node ends before the collector has taken all traces");
        }
    }
}

/// The task that talks to the collector.
struct Task<E> {
    exporter: E,
    waiting: mpsc::Receiver<SpanData>,
    metrics: SpanMetrics,
    ending: CancellationToken,
    /// The collector did not take the last batch.
    failing: bool,
}

impl<E: SpanExporter> Task<E> {
    async fn run(mut self, _ended: DropGuard) {
        while let Some(batch) = self.next_batch().await {
            self.send(batch).await;
        }
    }

    /// None when there is nothing more to come.
    async fn next_batch(&mut self) -> Option<Vec<SpanData>> {
        let mut batch = Vec::new();
        let ending = self.ending.clone();
        tokio::select! {
            () = ending.cancelled() => {}
            first = self.waiting.recv() => {
                batch.extend(first);
                let company = async {
                    while batch.len() < BATCH_MAX && let Some(span) = self.waiting.recv().await {
                        batch.push(span);
                    }
                };
                tokio::select! {
                    () = ending.cancelled() => {}
                    _ = tokio::time::timeout(BATCH_WAIT, company) => {}
                }
            }
        }
        if ending.is_cancelled() {
            self.waiting.close();
            let room = BATCH_MAX - batch.len();
            self.waiting.recv_many(&mut batch, room).await;
        }
        (!batch.is_empty()).then_some(batch)
    }

    async fn send(&mut self, batch: Vec<SpanData>) {
        let spans = batch.len() as u64;
        let outcome = tokio::time::timeout(EXPORT_TIMEOUT, self.exporter.export(batch)).await;
        let problem = match outcome {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some(format!("no answer within {EXPORT_TIMEOUT:?}")),
        };
        let counter = if problem.is_none() { &self.metrics.exported } else { &self.metrics.failed };
        counter.inc_by(spans);
        match (&problem, self.failing) {
            (Some(problem), false) => {
                tracing::warn!(problem, "the collector takes no traces: they are dropped until it does")
            }
            (None, true) => tracing::info!("the collector takes traces again"),
            _ => {}
        }
        self.failing = problem.is_some();
    }
}

/// An address as it is configured: `http://HOST:PORT`, or `https`. The error says what is wrong with it.
pub fn collector(endpoint: &str) -> Result<Uri, String> {
    let wrong = || format!("is `{endpoint}`: must be http://HOST:PORT or https://HOST:PORT");
    let uri: Uri = endpoint.parse().map_err(|_| wrong())?;
    let has_host = uri.host().is_some_and(|host| !host.is_empty());
    let is_whole = matches!(uri.scheme_str(), Some("http" | "https")) && has_host && matches!(uri.path(), "" | "/");
    if is_whole { Ok(uri) } else { Err(wrong()) }
}

/// Sends by OTLP over gRPC. Who dials and how is the business of [`dwell_transport`], as for all other connections.
fn otlp(endpoint: &str) -> Result<opentelemetry_otlp::SpanExporter, ExportError> {
    let uri = collector(endpoint).map_err(ExportError::Endpoint)?;
    let host = uri.host().unwrap_or_default();
    let authority = format!("{host}:{}", uri.port_u16().unwrap_or(DEFAULT_PORT));
    let transport: Arc<dyn Transport> = match uri.scheme_str() {
        Some("https") => Arc::new(Tls::open(TlsFiles::default())?),
        _ => Arc::new(Tcp),
    };
    let dialled = Endpoint::from_shared(format!("http://{authority}"))
        .map_err(|error| ExportError::Endpoint(format!("is `{endpoint}`: {error}")))?;
    let channel = dwell_transport::connect_lazily(&dialled.origin(uri).connect_timeout(CONNECT_TIMEOUT), &transport);
    Ok(opentelemetry_otlp::SpanExporter::builder().with_tonic().with_channel(channel).build()?)
}

/// Who tells. OpenTelemetry's own variables win, as everywhere.
fn resource(node_id: u64) -> Resource {
    let of_node = [
        KeyValue::new("service.name", "dwell"),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", node_id.to_string()),
    ];
    let resource = Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_attributes(of_node)
        .with_detector(Box::new(EnvResourceDetector::new()));
    match std::env::var("OTEL_SERVICE_NAME") {
        Ok(name) if !name.is_empty() => resource.with_service_name(name).build(),
        _ => resource.build(),
    }
}
