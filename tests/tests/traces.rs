//! W3C trace context goes with a message through delay and failover, and a collector is told what the nodes did with it.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::{Duration, Instant};

use dwell_client::opentelemetry::Context;
use dwell_client::opentelemetry::trace::{
    FutureExt, SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState,
};
use dwell_client::{
    Binding, Client, ConsumeOptions, Delivery as Delivered, ExchangeSettings, PublishMessage, Transaction,
};
use dwell_proto::v1::{
    AckRequest, Delivery, NackRequest, PublishMessage as RawMessage, PublishRequest, QueueSettings, ReceiveRequest,
};
use dwell_tests::collector::{CollectedSpan, Collector};
use dwell_tests::environment::{READY_TIMEOUT, TestCluster, now_ms};
use dwell_tests::raw::{RawClient, lease_of, message};

const QUEUE: &str = "reminders";
const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";
const SPAN_ID: &str = "b7ad6b7169203331";
/// Nothing here takes as long, unless it hangs.
const TIMEOUT: Duration = Duration::from_secs(30);

fn traceparent(flags: &str) -> String {
    format!("00-{TRACE_ID}-{SPAN_ID}-{flags}")
}

fn with_header(mut message: RawMessage, key: &str, value: &str) -> RawMessage {
    message.message.as_mut().unwrap().headers.insert(key.to_owned(), value.to_owned());
    message
}

async fn publish(client: &mut RawClient, message: RawMessage) {
    let request = PublishRequest { messages: vec![message], ..Default::default() };
    client.messages.publish(request).await.unwrap();
}

async fn receive(client: &mut RawClient) -> Delivery {
    let request = ReceiveRequest { queue: QUEUE.into(), messages_max: 1, wait_ms: 20_000, ..Default::default() };
    client.messages.receive(request).await.unwrap().into_inner().deliveries.remove(0)
}

async fn ack(client: &mut RawClient, delivery: &Delivery) {
    let leases = vec![lease_of(delivery)];
    client.messages.ack(AckRequest { queue: QUEUE.into(), leases, ..Default::default() }).await.unwrap();
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// It is a child of the publisher's span, of which nobody has told this cluster but the message.
fn assert_in_trace(collected: &CollectedSpan) {
    let span = &collected.span;
    assert_eq!(hexadecimal(&span.trace_id), TRACE_ID, "{span:?}");
    assert_eq!(hexadecimal(&span.parent_span_id), SPAN_ID, "{span:?}");
    assert_eq!(span.trace_state, "vendor=1");
    assert_eq!(collected.attribute("messaging.system"), "dwell");
    assert_eq!(collected.attribute("messaging.destination.name"), QUEUE);
}

fn linked(collected: &CollectedSpan) -> Vec<String> {
    collected.span.links.iter().map(|link| hexadecimal(&link.span_id)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_goes_on_after_the_delay_although_the_leader_was_killed_in_between() {
    const DELAY_MS: u64 = 6_000;
    let collector = Collector::start().await.unwrap();
    let cluster = TestCluster::start(&[("DWELL_OTLP_ENDPOINT", &collector.endpoint())]).await.unwrap();
    let old_leader = cluster.leader(READY_TIMEOUT).await.unwrap();
    let follower = cluster.nodes().iter().find(|node| node.id() != old_leader).unwrap();
    let mut client = RawClient::connect(&follower.client_address()).await.unwrap();
    client.declare(QUEUE, QueueSettings::default()).await.unwrap();

    let delayed = message(QUEUE, "water the plants", Some(DELAY_MS as i64));
    let delayed = with_header(delayed, "traceparent", &traceparent("01"));
    let delayed = with_header(delayed, "tracestate", "vendor=1");
    let published = with_header(delayed, "application", "stays");
    let published_at_ms = now_ms();
    publish(&mut client, published.clone()).await;
    // What a node has not told yet when it is killed, nobody knows.
    let publication = collector.span("publish reminders", TIMEOUT).await.unwrap();
    assert!(now_ms() < published_at_ms + DELAY_MS, "the machine is too slow for this test");
    cluster.node(old_leader).unwrap().kill().await.unwrap();
    let leader = cluster.leader(READY_TIMEOUT).await.unwrap();

    let delivery = receive(&mut client).await;
    assert!(now_ms() >= published_at_ms + DELAY_MS, "it was early");
    let headers = &delivery.message.as_ref().unwrap().headers;
    assert_eq!(headers, &published.message.as_ref().unwrap().headers, "headers are the application's");
    ack(&mut client, &delivery).await;

    let acknowledgement = collector.span("ack reminders", TIMEOUT).await.unwrap();
    let delay = collector.span("delay reminders", TIMEOUT).await.unwrap();
    let deliver = collector.span("deliver reminders", TIMEOUT).await.unwrap();
    assert_eq!(collector.spans().len(), 4);
    let of_old_leader = [&publication];
    let of_new_leader = [&delay, &deliver, &acknowledgement];
    assert!(of_old_leader.iter().all(|span| span.node == old_leader.to_string()));
    assert!(of_new_leader.iter().all(|span| span.node == leader.to_string()));
    of_old_leader.into_iter().chain(of_new_leader).for_each(assert_in_trace);

    let handle = delivery.handle.unwrap();
    let id = format!("{}/{}/{}", handle.namespace, handle.queue, handle.sequence);
    for span in [&publication, &delay, &deliver, &acknowledgement] {
        assert_eq!(span.attribute("messaging.message.id"), id);
    }
    assert_eq!(publication.attribute("messaging.dwell.outcome"), "stored");
    assert_eq!(publication.attribute("messaging.dwell.delay_ms"), DELAY_MS.to_string());
    let ns = |ms: i64| u64::try_from(ms).unwrap() * 1_000_000;
    assert_eq!(delay.span.start_time_unix_nano, ns(delivery.published_at_ms));
    assert_eq!(delay.span.end_time_unix_nano, ns(delivery.ready_at_ms));
    assert_eq!(deliver.span.start_time_unix_nano, ns(delivery.ready_at_ms));
    assert_eq!(linked(&deliver), [SPAN_ID]);
    assert_eq!(deliver.attribute("messaging.dwell.attempt"), "1");
    let lateness_ms: u64 = deliver.attribute("messaging.dwell.lateness_ms").parse().unwrap();
    let lasted_ms = (deliver.span.end_time_unix_nano - deliver.span.start_time_unix_nano) / 1_000_000;
    assert_eq!(lateness_ms, lasted_ms);
    assert_eq!(linked(&acknowledgement), [SPAN_ID.to_owned(), hexadecimal(&deliver.span.span_id)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_nobody_traces_make_no_spans_and_a_node_that_stops_tells_what_it_has() {
    let collector = Collector::start().await.unwrap();
    let cluster = TestCluster::start_nodes(1, &[("DWELL_OTLP_ENDPOINT", &collector.endpoint())]).await.unwrap();
    let node = &cluster.nodes()[0];
    let mut client = RawClient::connect(&node.client_address()).await.unwrap();
    client.declare(QUEUE, QueueSettings::default()).await.unwrap();

    let plain = || message(QUEUE, "body", None);
    let malformed = traceparent("01").to_uppercase();
    let headers = [None, Some(traceparent("00")), Some(malformed), Some("nonsense".to_owned())];
    for header in headers {
        let message = match &header {
            Some(value) => with_header(plain(), "traceparent", value),
            None => plain(),
        };
        publish(&mut client, message).await;
        let delivery = receive(&mut client).await;
        assert_eq!(delivery.message.as_ref().unwrap().headers.get("traceparent"), header.as_ref());
        ack(&mut client, &delivery).await;
    }
    let sampled = with_header(plain(), "traceparent", &traceparent("01"));
    publish(&mut client, sampled).await;
    let delivery = receive(&mut client).await;
    let leases = vec![lease_of(&delivery)];
    let nack = NackRequest { queue: QUEUE.into(), leases, delay_ms: Some(0), ..Default::default() };
    client.messages.nack(nack).await.unwrap();
    let again = receive(&mut client).await;
    ack(&mut client, &again).await;
    // A second would pass otherwise until the spans go.
    node.stop().await.unwrap();

    let spans = collector.spans();
    let names: Vec<&str> = spans.iter().map(|collected| collected.span.name.as_str()).collect();
    let wanted = ["publish reminders", "deliver reminders", "nack reminders", "deliver reminders", "ack reminders"];
    assert_eq!(names, wanted);
    assert!(spans.iter().all(|collected| hexadecimal(&collected.span.trace_id) == TRACE_ID));
    assert_eq!(spans[3].attribute("messaging.dwell.attempt"), "2");
    assert_eq!(linked(&spans[4])[1], hexadecimal(&spans[3].span.span_id));
}

/// Of a program in whose current span something is published.
fn publisher() -> Context {
    let (trace_id, span_id) = (TraceId::from_hex(TRACE_ID).unwrap(), SpanId::from_hex(SPAN_ID).unwrap());
    let state: TraceState = "vendor=1".parse().unwrap();
    let span = SpanContext::new(trace_id, span_id, TraceFlags::SAMPLED, false, state);
    Context::new().with_remote_span_context(span)
}

fn assert_from_publisher(delivery: &Delivered) {
    let origin = delivery.span_context().unwrap();
    assert_eq!((origin.trace_id().to_string(), origin.span_id().to_string()), (TRACE_ID.into(), SPAN_ID.into()));
    assert!(origin.is_sampled() && origin.is_remote());
    assert_eq!(origin.trace_state().get("vendor"), Some("1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rust_client_carries_a_trace_through_exchanges_and_dead_letters() {
    let collector = Collector::start().await.unwrap();
    let cluster = TestCluster::start_nodes(1, &[("DWELL_OTLP_ENDPOINT", &collector.endpoint())]).await.unwrap();
    let client = Client::connect(cluster.client_addresses()).unwrap();
    client.declare_queue("dead", Default::default()).await.unwrap();
    client.declare_queue("copies", Default::default()).await.unwrap();
    let settings = dwell_client::QueueSettings::default().dead_letter_queue("dead");
    client.declare_queue(QUEUE, settings).await.unwrap();
    client.declare_exchange("events", ExchangeSettings::fanout()).await.unwrap();
    for queue in [QUEUE, "copies"] {
        client.bind(Binding::to_queue("events", queue)).await.unwrap();
    }

    let event = PublishMessage::new("key", "body").exchange("events");
    client.publish_one(event).with_context(publisher()).await.unwrap();
    let mut consumer = client.consume(QUEUE, ConsumeOptions::default()).await.unwrap();
    let delivery = consumer.next().await.unwrap().unwrap();
    assert_from_publisher(&delivery);
    delivery.reject().await.unwrap();
    let mut undertaker = client.consume("dead", ConsumeOptions::default()).await.unwrap();
    let letter = undertaker.next().await.unwrap().unwrap();
    assert_from_publisher(&letter);
    let transaction = {
        let _current = publisher().attach();
        Transaction::new().ack(&letter).publish(PublishMessage::new("copies", "again"))
    };
    client.transact(transaction).await.unwrap();
    let untraced = client.publish_one(PublishMessage::new("copies", "untraced")).await.unwrap();
    assert_eq!(untraced.handle.queue, "copies");
    let copies = client.receive("copies", 10, Duration::ZERO).await.unwrap();
    let [copy, again, untraced] = &copies[..] else { panic!("{copies:?}") };
    assert_from_publisher(copy);
    assert_from_publisher(again);
    assert!(untraced.span_context().is_none());
    cluster.nodes()[0].stop().await.unwrap();

    let spans = collector.spans();
    let mut names: Vec<&str> = spans.iter().map(|collected| collected.span.name.as_str()).collect();
    names.sort_unstable();
    let wanted = [
        "ack dead",
        "deliver copies",
        "deliver copies",
        "deliver dead",
        "deliver reminders",
        "publish copies",
        "publish events",
        "reject reminders",
    ];
    assert_eq!(names, wanted);
    let span = |name: &str| spans.iter().find(|collected| collected.span.name == name).unwrap();
    assert!(spans.iter().all(|collected| hexadecimal(&collected.span.trace_id) == TRACE_ID));
    assert!(spans.iter().all(|collected| hexadecimal(&collected.span.parent_span_id) == SPAN_ID));
    assert_eq!(span("publish events").attribute("messaging.dwell.copies"), "2");
    assert_eq!(span("publish events").attribute("messaging.dwell.destination.routing_key"), "key");
    assert_eq!(span("deliver dead").attribute("messaging.dwell.deaths"), "1");
    assert_eq!(linked(span("ack dead"))[1], hexadecimal(&span("deliver dead").span.span_id));
}

async fn spans_by_outcome(cluster: &TestCluster, outcome: &str) -> f64 {
    let (_, metrics) = cluster.nodes()[0].http_get("/metrics").await.unwrap();
    let series = format!("dwell_trace_spans_total{{outcome=\"{outcome}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&series)).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_down_costs_nothing_but_its_spans_and_one_warning() {
    let endpoint = format!("http://127.0.0.1:{}", dwell_local_cluster::free_ports(1).unwrap()[0]);
    let cluster = TestCluster::start_nodes(1, &[("DWELL_OTLP_ENDPOINT", &endpoint)]).await.unwrap();
    let client = Client::connect(cluster.client_addresses()).unwrap();
    client.declare_queue(QUEUE, Default::default()).await.unwrap();
    let traced = || PublishMessage::new(QUEUE, "body").header("traceparent", traceparent("01"));
    let started = Instant::now();
    let mut lost = 0.0;
    // Several batches are refused, one after the other.
    while lost < 1500.0 {
        client.publish((0..500).map(|_| traced()).collect()).await.unwrap();
        let before = lost;
        while lost == before {
            lost = spans_by_outcome(&cluster, "failed").await;
            assert!(started.elapsed() < 2 * TIMEOUT, "{lost} spans are told to be lost");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    assert_eq!(spans_by_outcome(&cluster, "exported").await, 0.0);
    assert_eq!(client.queue_counts(QUEUE).await.unwrap().ready as f64 % 500.0, 0.0);
    let log = std::fs::read_to_string(cluster.nodes()[0].log_path()).unwrap();
    assert_eq!(log.matches("the collector takes no traces").count(), 1, "{log}");
}
