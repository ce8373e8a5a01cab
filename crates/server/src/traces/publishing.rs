//! Spans of publications: one for each sampled message, from the arrival of its request to its confirm.

use std::sync::Arc;
use std::time::SystemTime;

use dwell_machine::limits::PUBLISH_MESSAGES_MAX;
use dwell_proto::v1;
use dwell_proto::v1::timing::Visible;
use opentelemetry::KeyValue;
use opentelemetry::trace::SpanContext;
use tonic::Status;

use super::span::{Operation, Span, integer, message_id, outcome_unknown, own, refusal, sampled, short};
use super::{Tracer, Traces};

/// The sampled messages of a request. Dropped without an answer, they are told of as of unknown outcome.
pub struct Publishing {
    tracer: Arc<Tracer>,
    started: SystemTime,
    messages: Vec<Sampled>,
}

struct Sampled {
    /// In the request.
    position: usize,
    parent: SpanContext,
    destination: String,
    attributes: Vec<KeyValue>,
}

/// What went wrong, if something did.
type Problem = Option<(&'static str, String)>;

impl Traces {
    /// Looks which messages of a request are sampled. None if none is.
    pub fn publishing(&self, messages: &[v1::PublishMessage]) -> Option<Box<Publishing>> {
        let tracer = self.0.as_ref()?;
        // It is not checked yet, and a request with more is refused.
        let messages = messages.iter().take(PUBLISH_MESSAGES_MAX).enumerate();
        let sampled = messages.filter_map(|(position, message)| Sampled::of(position, message));
        let messages: Vec<Sampled> = sampled.collect();
        if messages.is_empty() {
            return None;
        }
        Some(Box::new(Publishing { tracer: tracer.clone(), started: SystemTime::now(), messages }))
    }
}

impl Publishing {
    /// The request is answered: by a result for each of its messages, or refused as a whole.
    pub fn answered(mut self, answer: Result<&[v1::PublishResult], &Status>) {
        self.tell(|message| match answer {
            Ok(results) => results.get(message.position).map_or((Vec::new(), Some(outcome_unknown())), outcome),
            Err(status) => (Vec::new(), Some(refusal(status))),
        });
    }

    fn tell(&mut self, outcome: impl Fn(&Sampled) -> (Vec<KeyValue>, Problem)) {
        let ended = SystemTime::now();
        for message in std::mem::take(&mut self.messages) {
            let (more, error) = outcome(&message);
            let Sampled { parent, destination, mut attributes, .. } = message;
            attributes.extend(more);
            self.tracer.exporter.export(Span {
                parent,
                operation: Operation::Publish,
                destination,
                started: self.started,
                ended,
                attributes,
                links: Vec::new(),
                error,
            });
        }
    }
}

impl Drop for Publishing {
    fn drop(&mut self) {
        self.tell(|_| (Vec::new(), Some(outcome_unknown())));
    }
}

impl Sampled {
    fn of(position: usize, message: &v1::PublishMessage) -> Option<Sampled> {
        let content = message.message.as_ref()?;
        let parent = sampled(&content.headers)?;
        let mut attributes = vec![KeyValue::new("messaging.message.body.size", integer(content.body.len()))];
        if !content.correlation_id.is_empty() {
            attributes.push(KeyValue::new("messaging.message.conversation_id", short(&content.correlation_id)));
        }
        let destination = if message.exchange.is_empty() {
            short(&message.routing_key)
        } else {
            attributes.push(own("destination.routing_key", short(&message.routing_key)));
            short(&message.exchange)
        };
        match message.timing.as_ref().and_then(|timing| timing.visible) {
            Some(Visible::DelayMs(delay)) => attributes.push(own("delay_ms", delay)),
            Some(Visible::DeliverAtMs(at)) => attributes.push(own("deliver_at_ms", at)),
            None => {}
        }
        Some(Sampled { position, parent, destination, attributes })
    }
}

/// What became of a message, as attributes; an error if it is not stored.
fn outcome(result: &v1::PublishResult) -> (Vec<KeyValue>, Problem) {
    let (word, error) = match result.outcome() {
        v1::PublishOutcome::Unroutable => ("unroutable", Some("no queue wanted it".to_owned())),
        v1::PublishOutcome::Rejected => ("rejected", Some(format!("the queue `{}` is full", result.rejected_by))),
        v1::PublishOutcome::Stored | v1::PublishOutcome::Unspecified if result.duplicate => ("duplicate", None),
        v1::PublishOutcome::Stored | v1::PublishOutcome::Unspecified => ("stored", None),
    };
    let mut attributes = vec![own("outcome", word)];
    attributes.extend(result.handle.as_ref().map(message_id));
    if !result.further.is_empty() {
        attributes.push(own("copies", integer(1 + result.further.len())));
    }
    (attributes, error.map(|error| (word, error)))
}
