//! Spans of delays and deliveries, made when a sampled message is handed out.

use std::collections::BTreeMap;
use std::time::SystemTime;

use dwell_machine::Lease;
use dwell_proto::v1;
use opentelemetry::KeyValue;
use opentelemetry::trace::SpanContext;

use super::span::{Operation, Span, integer, message_id, own, sampled, time};
use super::{Tracer, Traces};

/// Leases of traced messages that are remembered, some 300 bytes each, or 1500 with the longest `tracestate`. Beyond it the oldest are settled without a span.
const LEASES_MAX: usize = 16_384;

/// Leases of traced messages, by their tokens: these grow with each delivery of the namespace.
#[derive(Default)]
pub(super) struct Leases(BTreeMap<u64, Leased>);

/// A traced message that a consumer has.
#[derive(Debug, Clone)]
pub(super) struct Leased {
    /// The span that it was published in.
    pub message: SpanContext,
    /// The span of its delivery.
    pub delivery: SpanContext,
    pub handle: v1::Handle,
    pub attempt: i64,
}

impl Leases {
    pub fn insert(&mut self, token: u64, leased: Leased) {
        self.0.insert(token, leased);
        if self.0.len() > LEASES_MAX {
            self.0.pop_first();
        }
    }

    /// Takes out the traced one of this lease.
    pub fn take(&mut self, lease: &Lease) -> Option<Leased> {
        let leased = self.0.get(&lease.token)?;
        (leased.handle.sequence == lease.sequence).then(|| self.0.remove(&lease.token))?
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Traces {
    /// A message is handed to a consumer's stream, or to a receive call.
    pub fn delivered(&self, delivery: &v1::Delivery) {
        let Some(tracer) = &self.0 else { return };
        if let Some(message) = &delivery.message
            && let Some(parent) = sampled(&message.headers)
        {
            tracer.delivered(parent, delivery);
        }
    }
}

impl Tracer {
    fn delivered(&self, parent: SpanContext, delivery: &v1::Delivery) {
        let now = SystemTime::now();
        let handle = delivery.handle.clone().unwrap_or_default();
        let ready = time(delivery.ready_at_ms);
        // A consumer that attaches again is sent once more what it does not say it has.
        let is_repeated = self.leases.lock().0.contains_key(&delivery.token);
        let is_first = delivery.delivery_count == 0 && !is_repeated;
        let attempt = i64::from(delivery.delivery_count) + 1;
        // A dead letter has had another life in between.
        let was_delayed = delivery.ready_at_ms > delivery.published_at_ms && delivery.deaths.is_empty();
        if is_first && was_delayed {
            self.exporter.export(Span {
                parent: parent.clone(),
                operation: Operation::Delay,
                destination: handle.queue.clone(),
                started: time(delivery.published_at_ms),
                ended: ready,
                attributes: vec![message_id(&handle)],
                links: Vec::new(),
                error: None,
            });
        }
        let mut attributes = vec![message_id(&handle), own("attempt", attempt)];
        if let Some(message) = &delivery.message {
            attributes.push(KeyValue::new("messaging.message.body.size", integer(message.body.len())));
        }
        if is_first {
            let late = now.duration_since(ready).unwrap_or_default();
            attributes.push(own("lateness_ms", integer(late.as_millis())));
        }
        if !delivery.deaths.is_empty() {
            attributes.push(own("deaths", integer(delivery.deaths.len())));
        }
        let span = self.exporter.export(Span {
            parent: parent.clone(),
            operation: Operation::Deliver,
            destination: handle.queue.clone(),
            // Of what comes back it is not known for how long it has waited again.
            started: if is_first { ready.min(now) } else { now },
            ended: now,
            attributes,
            links: vec![parent.clone()],
            error: None,
        });
        if let Some(span) = span {
            let leased = Leased { message: parent, delivery: span, handle, attempt };
            self.leases.lock().insert(delivery.token, leased);
        }
    }
}
