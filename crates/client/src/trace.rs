//! W3C trace context in the headers of messages: it goes with a message from publisher to consumer, through delay, retry,
//! dead-lettering and exchanges, because headers do.

use std::collections::BTreeMap;

use dwell_proto::trace_context::{TRACEPARENT, TRACESTATE, TraceParent};
use dwell_proto::v1;
use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId};

/// The server's limits on headers. A message that would break them for its trace goes without one.
const HEADERS_MAX: usize = 256;
const HEADERS_BYTES_MAX: usize = 64 * 1024;

/// The trace context of the code that publishes, as headers.
#[derive(Debug)]
pub(crate) struct Headers {
    traceparent: String,
    /// May be empty.
    tracestate: String,
}

impl Headers {
    /// Of the current OpenTelemetry context. None without a span in it: so it is in a program that sets no tracer up.
    pub(crate) fn current() -> Option<Headers> {
        Context::map_current(|context| context.has_active_span().then(|| Headers::of(context.span().span_context())))?
    }

    fn of(span: &SpanContext) -> Option<Headers> {
        let parent = TraceParent {
            trace_id: u128::from_be_bytes(span.trace_id().to_bytes()),
            span_id: u64::from_be_bytes(span.span_id().to_bytes()),
            flags: span.trace_flags().to_u8(),
        };
        span.is_valid().then(|| Headers { traceparent: parent.to_string(), tracestate: span.trace_state().header() })
    }

    /// Puts them on a message, unless the application has put a trace context there itself.
    pub(crate) fn put_on(&self, message: &mut v1::PublishMessage) {
        let Some(message) = &mut message.message else { return };
        let headers = &mut message.headers;
        if headers.contains_key(TRACEPARENT) || !self.fits(headers) {
            return;
        }
        headers.insert(TRACEPARENT.to_owned(), self.traceparent.clone());
        // One without a `traceparent` meant nothing.
        headers.remove(TRACESTATE);
        if !self.tracestate.is_empty() {
            headers.insert(TRACESTATE.to_owned(), self.tracestate.clone());
        }
    }

    fn fits(&self, headers: &BTreeMap<String, String>) -> bool {
        let own = [TRACEPARENT, &self.traceparent, TRACESTATE, &self.tracestate].into_iter().map(|text| text.len());
        let there = headers.iter().map(|(key, value)| key.len() + value.len());
        headers.len() + 2 <= HEADERS_MAX && own.chain(there).sum::<usize>() <= HEADERS_BYTES_MAX
    }
}

/// The trace context in a message's headers. None if there is none, or a malformed one.
pub(crate) fn span_context(headers: &BTreeMap<String, String>) -> Option<SpanContext> {
    let parent = TraceParent::parse(headers.get(TRACEPARENT)?)?;
    let state = headers.get(TRACESTATE).and_then(|state| state.parse().ok()).unwrap_or_default();
    let flags = TraceFlags::new(parent.flags) & TraceFlags::SAMPLED;
    Some(SpanContext::new(TraceId::from(parent.trace_id), SpanId::from(parent.span_id), flags, true, state))
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use opentelemetry::trace::TraceState;

    use super::*;
    use crate::message::PublishMessage;

    fn within<T>(flags: TraceFlags, state: &str, run: impl FnOnce() -> T) -> T {
        let state = TraceState::from_str(state).unwrap();
        let span = SpanContext::new(TraceId::from(7), SpanId::from(9), flags, false, state);
        let _guard = Context::new().with_remote_span_context(span).attach();
        run()
    }

    fn put(message: PublishMessage) -> BTreeMap<String, String> {
        let mut message = message.into_proto();
        if let Some(headers) = Headers::current() {
            headers.put_on(&mut message);
        }
        message.message.unwrap().headers
    }

    fn message() -> PublishMessage {
        PublishMessage::new("q", "body")
    }

    #[test]
    fn the_context_of_who_publishes_is_what_the_consumer_gets() {
        let headers = within(TraceFlags::SAMPLED, "vendor=1", || put(message()));
        assert_eq!(headers[TRACEPARENT], "00-00000000000000000000000000000007-0000000000000009-01");
        assert_eq!(headers[TRACESTATE], "vendor=1");
        let span = span_context(&headers).unwrap();
        assert_eq!((span.trace_id(), span.span_id()), (TraceId::from(7), SpanId::from(9)));
        assert!(span.is_sampled() && span.is_remote());
        assert_eq!(span.trace_state().get("vendor"), Some("1"));
        let unsampled = within(TraceFlags::default(), "", || put(message()));
        assert!(!span_context(&unsampled).unwrap().is_sampled(), "the consumer is to know that nobody records it");
        assert!(!unsampled.contains_key(TRACESTATE));
    }

    #[test]
    fn without_a_context_messages_are_as_they_were() {
        assert_eq!(put(message().header("a", "b")).len(), 1);
        assert!(span_context(&put(message())).is_none());
    }

    #[test]
    fn what_the_application_has_put_there_itself_stays_even_if_it_is_malformed() {
        for own in ["00-00000000000000000000000000000001-0000000000000002-00", "nonsense"] {
            let headers = within(TraceFlags::SAMPLED, "vendor=1", || put(message().header(TRACEPARENT, own)));
            assert_eq!(headers, BTreeMap::from([(TRACEPARENT.to_owned(), own.to_owned())]));
            assert_eq!(span_context(&headers).is_none(), own == "nonsense");
        }
    }

    #[test]
    fn a_message_whose_headers_are_full_goes_without() {
        let full = (0..HEADERS_MAX - 1).fold(message(), |message, number| message.header(number.to_string(), ""));
        assert!(!within(TraceFlags::SAMPLED, "", || put(full)).contains_key(TRACEPARENT));
        let large = message().header("large", "x".repeat(HEADERS_BYTES_MAX - 50));
        assert!(!within(TraceFlags::SAMPLED, "", || put(large)).contains_key(TRACEPARENT));
    }
}
