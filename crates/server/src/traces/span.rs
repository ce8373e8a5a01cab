//! Spans, by OpenTelemetry's conventions for messaging:
//! <https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/>.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dwell_proto::trace_context::{TRACEPARENT, TRACESTATE, TraceParent};
use dwell_proto::v1;
use opentelemetry::trace::{Link, SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId};
use opentelemetry::{InstrumentationScope, KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

/// Longest text of an attribute, as names are: what is told of may be a request that nobody has checked yet.
const TEXT_CHARACTERS_MAX: usize = 255;
/// Longest `tracestate` that goes into spans, as long as all who pass it on must take it.
const TRACESTATE_BYTES_MAX: usize = 512;

/// What is done to a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Publish,
    Delay,
    Deliver,
    Ack,
    Nack,
    Reject,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Operation::Publish => "publish",
            Operation::Delay => "delay",
            Operation::Deliver => "deliver",
            Operation::Ack => "ack",
            Operation::Nack => "nack",
            Operation::Reject => "reject",
        }
    }

    /// In the conventions' words, which have none for a delay.
    fn kind(self) -> Option<&'static str> {
        match self {
            Operation::Publish => Some("send"),
            Operation::Delay => None,
            Operation::Deliver => Some("receive"),
            Operation::Ack | Operation::Nack | Operation::Reject => Some("settle"),
        }
    }

    fn span_kind(self) -> SpanKind {
        // The others are at a client's wish.
        if self == Operation::Delay { SpanKind::Internal } else { SpanKind::Server }
    }
}

/// A span that is over.
#[derive(Debug)]
pub(super) struct Span {
    /// Which the message was published in.
    pub parent: SpanContext,
    pub operation: Operation,
    /// The queue, or the exchange that a message is published to.
    pub destination: String,
    pub started: SystemTime,
    pub ended: SystemTime,
    pub attributes: Vec<KeyValue>,
    pub links: Vec<SpanContext>,
    /// Its kind, and what there is to say of it.
    pub error: Option<(&'static str, String)>,
}

impl Span {
    /// With an id of its own.
    pub fn into_data(self) -> SpanData {
        let Span { parent, operation, destination, started, ended, mut attributes, links, error } = self;
        let name = format!("{} {destination}", operation.name());
        attributes.push(KeyValue::new("messaging.system", "dwell"));
        attributes.push(KeyValue::new("messaging.operation.name", operation.name()));
        attributes.extend(operation.kind().map(|kind| KeyValue::new("messaging.operation.type", kind)));
        attributes.push(KeyValue::new("messaging.destination.name", destination));
        attributes.extend(error.iter().map(|(kind, _)| KeyValue::new("error.type", *kind)));
        let status = error.map_or(Status::Unset, |(_, description)| Status::error(description));
        let id = SpanId::from(rand::random_range(1..=u64::MAX));
        let state = parent.trace_state().clone();
        let mut span_links = SpanLinks::default();
        span_links.links = links.into_iter().map(Link::with_context).collect();
        SpanData {
            span_context: SpanContext::new(parent.trace_id(), id, TraceFlags::SAMPLED, false, state),
            parent_span_id: parent.span_id(),
            parent_span_is_remote: true,
            span_kind: operation.span_kind(),
            name: name.into(),
            start_time: started,
            end_time: ended.max(started),
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: span_links,
            status,
            instrumentation_scope: InstrumentationScope::builder("dwell-server")
                .with_version(env!("CARGO_PKG_VERSION"))
                .build(),
        }
    }
}

/// The context in a message's headers, if it is that of a sampled trace. A malformed one counts for nothing.
pub(super) fn sampled(headers: &BTreeMap<String, String>) -> Option<SpanContext> {
    let parent = TraceParent::parse(headers.get(TRACEPARENT)?)?;
    if !parent.is_sampled() {
        return None;
    }
    let state = headers.get(TRACESTATE).filter(|state| state.len() <= TRACESTATE_BYTES_MAX);
    let state = state.and_then(|state| state.parse().ok()).unwrap_or_default();
    let (trace_id, span_id) = (TraceId::from(parent.trace_id), SpanId::from(parent.span_id));
    Some(SpanContext::new(trace_id, span_id, TraceFlags::SAMPLED, true, state))
}

/// Its beginning, if it is too long.
pub(super) fn short(text: &str) -> String {
    text.chars().take(TEXT_CHARACTERS_MAX).collect()
}

/// An attribute that only Dwell has.
pub(super) fn own(key: &'static str, value: impl Into<Value>) -> KeyValue {
    KeyValue::new(format!("messaging.dwell.{key}"), value)
}

/// The id of a message: its handle, as `dwell` prints it.
pub(super) fn message_id(handle: &v1::Handle) -> KeyValue {
    KeyValue::new("messaging.message.id", format!("{}/{}/{}", handle.namespace, handle.queue, handle.sequence))
}

/// A size or number, as attributes have them.
pub(super) fn integer(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}

/// A time of the API.
pub(super) fn time(ms: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

/// What a call was refused with.
pub(super) fn refusal(status: &tonic::Status) -> (&'static str, String) {
    (code_name(status.code()), short(status.message()))
}

/// The usual name of a code.
fn code_name(code: tonic::Code) -> &'static str {
    match code {
        tonic::Code::Ok => "OK",
        tonic::Code::Cancelled => "CANCELLED",
        tonic::Code::Unknown => "UNKNOWN",
        tonic::Code::InvalidArgument => "INVALID_ARGUMENT",
        tonic::Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        tonic::Code::NotFound => "NOT_FOUND",
        tonic::Code::AlreadyExists => "ALREADY_EXISTS",
        tonic::Code::PermissionDenied => "PERMISSION_DENIED",
        tonic::Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        tonic::Code::FailedPrecondition => "FAILED_PRECONDITION",
        tonic::Code::Aborted => "ABORTED",
        tonic::Code::OutOfRange => "OUT_OF_RANGE",
        tonic::Code::Unimplemented => "UNIMPLEMENTED",
        tonic::Code::Internal => "INTERNAL",
        tonic::Code::Unavailable => "UNAVAILABLE",
        tonic::Code::DataLoss => "DATA_LOSS",
        tonic::Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// A call ended before its answer was known.
pub(super) fn outcome_unknown() -> (&'static str, String) {
    ("unknown", "the call ended before its outcome was known".to_owned())
}
