use std::sync::Arc;
use std::time::Duration;

use dwell_machine::{Ack, Command, Lease, Nack};
use dwell_proto::trace_context::{TRACEPARENT, TRACESTATE};
use dwell_proto::v1;
use opentelemetry::trace::{SpanKind, Status, TraceId};
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::*;
use crate::traces::export::SpanMetrics;

const TRACE: u128 = 0x0af7651916cd43dd8448eb211c80319c;
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

/// A collector that takes one batch for each permit.
#[derive(Debug, Clone)]
struct Collector {
    taken: Arc<Mutex<Vec<SpanData>>>,
    permits: Arc<Semaphore>,
    refuses: bool,
}

impl Collector {
    fn new(permits: usize) -> Collector {
        Collector { taken: Arc::default(), permits: Arc::new(Semaphore::new(permits)), refuses: false }
    }

    fn traces(&self) -> (Traces, Registry) {
        let registry = Registry::new();
        let exporter = Exporter::over(self.clone(), SpanMetrics::register(&registry).unwrap());
        (Traces(Some(Traces::tracer(exporter))), registry)
    }

    /// All spans of what was done.
    async fn spans(&self, traces: &Traces) -> Vec<SpanData> {
        traces.flush().await;
        self.taken.lock().clone()
    }
}

impl SpanExporter for Collector {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.permits.acquire().await.unwrap().forget();
        if self.refuses {
            return Err(OTelSdkError::InternalFailure("not today".into()));
        }
        self.taken.lock().extend(batch);
        Ok(())
    }
}

fn counted(registry: &Registry) -> [u64; 3] {
    let families = registry.gather();
    let metrics = families[0].get_metric();
    ["exported", "failed", "dropped"].map(|outcome| {
        let metric = metrics.iter().find(|metric| metric.get_label()[0].value() == outcome).unwrap();
        metric.get_counter().get_value() as u64
    })
}

fn content(traceparent: Option<&str>) -> v1::Message {
    let headers = traceparent.map(|parent| (TRACEPARENT.to_owned(), parent.to_owned()));
    v1::Message { headers: headers.into_iter().collect(), body: "body".into(), ..Default::default() }
}

fn message(traceparent: Option<&str>) -> v1::PublishMessage {
    v1::PublishMessage { message: Some(content(traceparent)), routing_key: "orders".into(), ..Default::default() }
}

fn handle(sequence: u64) -> v1::Handle {
    v1::Handle { namespace: "default".into(), queue: "orders".into(), sequence }
}

fn stored(sequence: u64) -> v1::PublishResult {
    let outcome = v1::PublishOutcome::Stored.into();
    v1::PublishResult { handle: Some(handle(sequence)), outcome, ..Default::default() }
}

fn delivery(sequence: u64, token: u64) -> v1::Delivery {
    v1::Delivery {
        handle: Some(handle(sequence)),
        token,
        message: Some(content(Some(PARENT))),
        published_at_ms: 1_000,
        ready_at_ms: 61_000,
        ..Default::default()
    }
}

fn ack(leases: &[(u64, u64)]) -> Command {
    let leases = leases.iter().map(|&(sequence, token)| Lease { sequence, token }).collect();
    Command::Ack(Ack { queue: "orders".into(), leases })
}

fn names(spans: &[SpanData]) -> Vec<&str> {
    spans.iter().map(|span| &*span.name).collect()
}

fn attribute(span: &SpanData, key: &str) -> String {
    let found = span.attributes.iter().find(|attribute| attribute.key.as_str() == key);
    found.map(|attribute| attribute.value.to_string()).unwrap_or_default()
}

#[test]
fn without_a_collector_nothing_is_looked_at() {
    let traces = Traces::default();
    assert!(traces.publishing(&[message(Some(PARENT))]).is_none());
    traces.delivered(&delivery(1, 1));
    assert!(traces.settling(&ack(&[(1, 1)])).is_none());
}

#[tokio::test]
async fn a_message_that_carries_no_sampled_context_has_no_spans() {
    let collector = Collector::new(1);
    let (traces, registry) = collector.traces();
    let parents = [None, Some(UNSAMPLED), Some("nonsense"), Some("")];
    assert!(traces.publishing(&parents.map(message)).is_none());
    for parent in parents {
        traces.delivered(&v1::Delivery { message: Some(content(parent)), ..delivery(1, 1) });
    }
    assert!(traces.settling(&ack(&[(1, 1)])).is_none());
    assert_eq!(collector.spans(&traces).await, []);
    assert_eq!(counted(&registry), [0, 0, 0]);
}

#[tokio::test]
async fn each_sampled_message_of_a_request_has_a_span_that_says_what_became_of_it() {
    let collector = Collector::new(1);
    let (traces, registry) = collector.traces();
    let mut by_exchange = message(Some(PARENT));
    by_exchange.exchange = "events".into();
    by_exchange.message.as_mut().unwrap().headers.insert(TRACESTATE.into(), "vendor=1".into());
    let messages = [message(None), message(Some(PARENT)), by_exchange];
    let unroutable = v1::PublishResult { outcome: v1::PublishOutcome::Unroutable.into(), ..Default::default() };
    traces.publishing(&messages).unwrap().answered(Ok(&[stored(1), stored(2), unroutable]));

    let spans = collector.spans(&traces).await;
    assert_eq!(names(&spans), ["publish orders", "publish events"]);
    for span in &spans {
        assert_eq!(span.span_context.trace_id(), TraceId::from(TRACE));
        assert_eq!(span.parent_span_id.to_string(), "b7ad6b7169203331");
        assert!(span.parent_span_is_remote && span.span_context.is_sampled());
        assert_eq!(span.span_kind, SpanKind::Server);
        assert_eq!(attribute(span, "messaging.system"), "dwell");
        assert_eq!(attribute(span, "messaging.operation.type"), "send");
    }
    assert_ne!(spans[0].span_context.span_id(), spans[1].span_context.span_id());
    assert_eq!(attribute(&spans[0], "messaging.message.id"), "default/orders/2");
    assert_eq!(attribute(&spans[0], "messaging.dwell.outcome"), "stored");
    assert_eq!(spans[0].status, Status::Unset);
    assert_eq!(attribute(&spans[1], "messaging.dwell.destination.routing_key"), "orders");
    assert_eq!(spans[1].status, Status::error("no queue wanted it"));
    assert_eq!(spans[1].span_context.trace_state().get("vendor"), Some("1"));
    assert_eq!(counted(&registry), [2, 0, 0]);
}

#[tokio::test]
async fn a_publish_that_is_refused_or_never_answered_has_a_span_that_says_so() {
    let collector = Collector::new(1);
    let (traces, _) = collector.traces();
    let status = tonic::Status::not_found("queue `orders` does not exist");
    traces.publishing(&[message(Some(PARENT))]).unwrap().answered(Err(&status));
    drop(traces.publishing(&[message(Some(PARENT))]));
    let spans = collector.spans(&traces).await;
    let errors: Vec<String> = spans.iter().map(|span| attribute(span, "error.type")).collect();
    assert_eq!(errors, ["NOT_FOUND", "unknown"]);
    assert_eq!(spans[0].status, Status::error("queue `orders` does not exist"));
}

#[tokio::test]
async fn spans_of_a_request_that_nobody_has_checked_yet_are_small() {
    let collector = Collector::new(usize::MAX >> 4);
    let (traces, _) = collector.traces();
    let mut large = message(Some(PARENT));
    large.routing_key = "\u{e4}".repeat(1_000_000);
    large.exchange = large.routing_key.clone();
    let content = large.message.as_mut().unwrap();
    content.correlation_id = large.exchange.clone();
    content.headers.insert(TRACESTATE.into(), format!("vendor={}", "x".repeat(600)));
    drop(traces.publishing(&vec![large; 1001]));
    let spans = collector.spans(&traces).await;
    assert_eq!(spans.len(), 1000, "a request has no more messages");
    for span in spans {
        let texts = span.attributes.iter().map(|attribute| attribute.value.to_string().len());
        assert!(span.name.len() + texts.sum::<usize>() < 3000);
        assert_eq!(span.span_context.trace_state().header(), "");
    }
}

#[tokio::test]
async fn a_delayed_message_has_spans_of_its_delay_its_delivery_and_its_settlement() {
    let collector = Collector::new(1);
    let (traces, _) = collector.traces();
    traces.delivered(&delivery(7, 40));
    let settling = traces.settling(&ack(&[(7, 40), (8, 41)])).unwrap();
    settling.answered(Ok(&[]));
    assert!(traces.settling(&ack(&[(7, 40)])).is_none(), "it is settled");

    let spans = collector.spans(&traces).await;
    assert_eq!(names(&spans), ["delay orders", "deliver orders", "ack orders"]);
    let [delay, deliver, ack] = &spans[..] else { panic!() };
    assert_eq!((delay.start_time, delay.end_time), (span::time(1_000), span::time(61_000)));
    assert_eq!((deliver.start_time, &delay.span_kind), (span::time(61_000), &SpanKind::Internal));
    assert!(!attribute(deliver, "messaging.dwell.lateness_ms").is_empty());
    assert_eq!(attribute(deliver, "messaging.dwell.attempt"), "1");
    assert_eq!(deliver.links[0].span_context.span_id(), deliver.parent_span_id, "the message's own span");
    assert_eq!(ack.links[1].span_context, deliver.span_context);
    assert_eq!((&ack.status, attribute(ack, "messaging.operation.type").as_str()), (&Status::Unset, "settle"));
}

#[tokio::test]
async fn a_message_that_comes_back_is_delivered_again_in_the_same_trace_and_its_delay_is_told_once() {
    let collector = Collector::new(1);
    let (traces, _) = collector.traces();
    traces.delivered(&delivery(7, 40));
    // To a consumer that has attached again.
    traces.delivered(&delivery(7, 40));
    let nack = |reject| {
        let leases = vec![Lease { sequence: 7, token: if reject { 41 } else { 40 } }];
        Command::Nack(Nack { queue: "orders".into(), leases, reject, ..Default::default() })
    };
    traces.settling(&nack(false)).unwrap().answered(Ok(&[]));
    traces.delivered(&v1::Delivery { delivery_count: 1, ..delivery(7, 41) });
    let lost = v1::Lease { sequence: 7, token: 41 };
    traces.settling(&nack(true)).unwrap().answered(Ok(&[lost]));
    let dead = v1::Delivery { deaths: vec![v1::Death::default()], ..delivery(9, 42) };
    traces.delivered(&dead);

    let spans = collector.spans(&traces).await;
    let wanted = [
        "delay orders",
        "deliver orders",
        "deliver orders",
        "nack orders",
        "deliver orders",
        "reject orders",
        "deliver orders",
    ];
    assert_eq!(names(&spans), wanted);
    assert_eq!(attribute(&spans[4], "messaging.dwell.attempt"), "2");
    assert_eq!(attribute(&spans[5], "error.type"), "lease_lost");
    assert_eq!(attribute(&spans[6], "messaging.dwell.deaths"), "1");
}

#[tokio::test]
async fn leases_that_are_never_settled_are_forgotten_in_time() {
    let mut leases = Leases::default();
    let leased = delivering::Leased {
        message: span::sampled(&content(Some(PARENT)).headers).unwrap(),
        delivery: span::sampled(&content(Some(PARENT)).headers).unwrap(),
        handle: handle(1),
        attempt: 1,
    };
    for token in 0..20_000 {
        leases.insert(token, leased.clone());
    }
    assert!(leases.take(&Lease { sequence: 1, token: 0 }).is_none());
    assert!(leases.take(&Lease { sequence: 2, token: 19_999 }).is_none(), "another message's");
    assert!(leases.take(&Lease { sequence: 1, token: 19_999 }).is_some());
}

#[tokio::test(start_paused = true)]
async fn a_collector_that_hangs_costs_dropped_spans_and_nothing_else() {
    let collector = Collector::new(0);
    let (traces, registry) = collector.traces();
    let messages = vec![message(Some(PARENT)); 1000];
    for _ in 0..20 {
        traces.publishing(&messages).unwrap().answered(Ok(&[]));
    }
    let dropped = counted(&registry)[2];
    assert_eq!(dropped, 20_000 - 8192);
    tokio::time::sleep(Duration::from_secs(15)).await;
    assert_eq!(counted(&registry), [0, 512, dropped], "the first batch is given up");
    // Then it works again.
    collector.permits.add_permits(100);
    let spans = collector.spans(&traces).await;
    assert_eq!(counted(&registry), [spans.len() as u64, 512, dropped]);
    assert_eq!(spans.len(), 8192 - 512);
    traces.publishing(&messages[..1]).unwrap().answered(Ok(&[]));
    assert_eq!(counted(&registry)[2], dropped + 1, "after the end");
}

#[tokio::test(start_paused = true)]
async fn spans_that_a_collector_refuses_are_counted_and_a_node_that_stops_waits_for_no_hanging_one() {
    let collector = Collector { refuses: true, ..Collector::new(1) };
    let (traces, registry) = collector.traces();
    traces.publishing(&[message(Some(PARENT))]).unwrap().answered(Ok(&[stored(1)]));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(counted(&registry), [0, 1, 0]);
    traces.publishing(&[message(Some(PARENT))]).unwrap().answered(Ok(&[stored(2)]));
    let before = tokio::time::Instant::now();
    traces.flush().await;
    assert_eq!(before.elapsed(), Duration::from_secs(2));
}
