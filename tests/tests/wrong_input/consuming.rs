//! Consuming streams and receive calls.

use dwell_proto::v1::consume_request::Request;
use dwell_proto::v1::consume_response::Response;
use dwell_proto::v1::{
    Attach, CloseConsumer, DetachConsumer, Lease, QueueSettings, ReceiveRequest, SetCredit, SettleAck, SettleExtend,
    SettleNack,
};
use dwell_tests::raw::{RawClient, RawConsumer, lease_of, message};
use tonic::Code;

use crate::checks::{Checks, wrong_names};
use crate::{UNKNOWN, UNTOUCHED};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
const TEN_YEARS_MS: i64 = 10 * 365 * 24 * 60 * 60 * 1000;
const QUEUE: &str = "consumed";

pub async fn check(checks: &mut Checks, client: &mut RawClient) {
    client.declare(QUEUE, QueueSettings::default()).await.unwrap();
    attaching(checks, client).await;
    first_requests(checks, client).await;
    identities(checks, client).await;
    credit(checks, client).await;
    settlements(checks, client).await;
    receiving(checks, client).await;
}

/// A short session, so that the consumers of one check are gone by the next.
fn attach(consumer_id: &str) -> Attach {
    Attach {
        queue: QUEUE.to_owned(),
        consumer_id: consumer_id.to_owned(),
        credit: 10,
        session_timeout_ms: 100,
        ..Default::default()
    }
}

async fn attaching(checks: &mut Checks, client: &mut RawClient) {
    let mut wrong = Vec::new();
    for (what, queue) in wrong_names() {
        wrong.push((format!("queue name: {what}"), Attach { queue, ..attach("") }, "queue"));
    }
    for credit in [0, 10_001, 1_000_000_000, u32::MAX] {
        // On a queue with messages, which must all stay where they are.
        let attach = Attach { queue: UNTOUCHED.to_owned(), credit, ..attach("") };
        wrong.push((format!("credit of {credit}"), attach, "credit"));
    }
    for session_timeout_ms in [-1, 99, DAY_MS + 1, i64::MIN, i64::MAX] {
        let attach = Attach { session_timeout_ms, ..attach("") };
        wrong.push((format!("session timeout of {session_timeout_ms} ms"), attach, "session_timeout_ms"));
    }
    wrong.push(("consumer id of 300 characters".to_owned(), attach(&"c".repeat(300)), "consumer_id"));
    for (what, attach, names) in wrong {
        let result = client.attach(attach).await;
        checks.refused(&format!("attach, {what}"), result, Code::InvalidArgument, names);
    }
    let unknown = client.attach(Attach { queue: UNKNOWN.to_owned(), ..attach("") }).await;
    checks.refused("attach, unknown queue", unknown, Code::NotFound, UNKNOWN);
}

async fn first_requests(checks: &mut Checks, client: &mut RawClient) {
    let nothing = RawConsumer::open(&mut client.messages, None).await;
    checks.refused("consume, first request is nothing", nothing, Code::InvalidArgument, "request");
    for (what, request) in [
        ("credit", Request::Credit(SetCredit { credit: 1 })),
        ("close", Request::Close(CloseConsumer {})),
        ("detach", Request::Detach(DetachConsumer {})),
    ] {
        let result = RawConsumer::open(&mut client.messages, Some(request)).await;
        checks.refused(&format!("consume, first request is {what}"), result, Code::InvalidArgument, "attach");
    }
    let mut consumer = client.attach(attach("")).await.unwrap();
    consumer.send(Request::Attach(attach(""))).await.unwrap();
    checks.refused("consume, attached twice", consumer.next().await, Code::InvalidArgument, "attach");
    strangers(checks, client).await;
}

/// What is said of a consumer that the stream does not have disturbs none that it has.
async fn strangers(checks: &mut Checks, client: &mut RawClient) {
    let mut consumer = client.attach(attach("")).await.unwrap();
    let ack = Request::Ack(SettleAck { request_id: 5, leases: vec![Lease::default()] });
    consumer.send_as(8, ack).await.unwrap();
    match consumer.next().await.unwrap() {
        Response::Settled(settled) => {
            checks.refused_within("ack of a stranger", settled.refused, Code::InvalidArgument, "consumer");
        }
        other => panic!("{other:?}"),
    }
    consumer.send_as(8, Request::Attach(Attach { credit: 0, ..attach("") })).await.unwrap();
    checks.refused("a second consumer without credit", consumer.next().await, Code::InvalidArgument, "credit");
    // Ten have used the stream's credit up.
    for number in 10..19 {
        consumer.send_as(number, Request::Attach(Attach { credit: 10_000, ..attach("") })).await.unwrap();
        assert!(matches!(consumer.next().await.unwrap(), Response::Attached(_)));
    }
    consumer.send_as(19, Request::Attach(Attach { credit: 10_000, ..attach("") })).await.unwrap();
    checks.refused("credit of a stream", consumer.next().await, Code::InvalidArgument, "100000");
    checks.equal("the first goes on", consumer.ack(vec![Lease::default()]).await.unwrap().lost.len(), 1);
    consumer.close().await.unwrap();
}

async fn identities(checks: &mut Checks, client: &mut RawClient) {
    let mut first = client.attach(attach("twin")).await.unwrap();
    let other_queue = Attach { queue: UNTOUCHED.to_owned(), ..attach("twin") };
    let result = client.attach(other_queue).await;
    checks.refused("attach, consumer of another queue", result, Code::FailedPrecondition, "twin");
    let second = client.attach(attach("twin")).await.unwrap();
    checks.equal("attach, the same consumer again", second.attached.resumed, true);
    checks.refused("the stream that was displaced", first.next().await, Code::Aborted, "");
    second.close().await.unwrap();
}

async fn credit(checks: &mut Checks, client: &mut RawClient) {
    for credit in [0, 10_001, 1_000_000_000] {
        let mut consumer = client.attach(attach("")).await.unwrap();
        consumer.send(Request::Credit(SetCredit { credit })).await.unwrap();
        let what = format!("consume, credit set to {credit}");
        checks.refused(&what, consumer.next().await, Code::InvalidArgument, "credit");
    }
}

/// Wrong settlements are refused each for itself, and the stream with its lease goes on.
async fn settlements(checks: &mut Checks, client: &mut RawClient) {
    client.publish(vec![message(QUEUE, "kept", None)]).await.unwrap();
    let mut consumer = client.attach(Attach { session_timeout_ms: 30_000, ..attach("") }).await.unwrap();
    let lease = lease_of(&consumer.take(1).await.unwrap()[0]);
    let (one, none, many) = (vec![lease], vec![], vec![lease; 10_001]);
    let ack = |leases| Request::Ack(SettleAck { request_id: 5, leases });
    let nack =
        |leases, delay_ms| Request::Nack(SettleNack { request_id: 5, leases, delay_ms: Some(delay_ms), reject: false });
    let extend = |leases, lease_timeout_ms| Request::Extend(SettleExtend { request_id: 5, leases, lease_timeout_ms });
    let wrong = [
        ("ack of nothing", ack(none.clone()), "leases"),
        ("ack of 10001", ack(many.clone()), "leases"),
        ("nack of nothing", nack(none.clone(), 0), "leases"),
        ("nack of 10001", nack(many.clone(), 0), "leases"),
        ("nack with negative delay", nack(one.clone(), -1), "delay_ms"),
        ("nack beyond ten years", nack(one.clone(), TEN_YEARS_MS + 1), "delay_ms"),
        ("extend of nothing", extend(none, 0), "leases"),
        ("extend of 10001", extend(many, 0), "leases"),
        ("extend by a negative time", extend(one.clone(), -1), "lease_timeout_ms"),
        ("extend beyond a day", extend(one.clone(), DAY_MS + 1), "lease_timeout_ms"),
    ];
    for (what, request, names) in wrong {
        let settled = consumer.settle(request).await.unwrap();
        checks.equal(&format!("consume, {what}: its number"), settled.request_id, 5);
        checks.refused_within(&format!("consume, {what}"), settled.refused, Code::InvalidArgument, names);
    }
    let stale = Lease { token: lease.token + 1, ..lease };
    let unknown = Lease { sequence: u64::MAX, token: 1 };
    for (what, request) in [
        ("ack", ack(vec![stale, unknown])),
        ("nack", nack(vec![stale, unknown], 0)),
        ("extend", extend(vec![stale, unknown], 0)),
    ] {
        let settled = consumer.settle(request).await.unwrap();
        checks.equal(&format!("consume, {what} with stale tokens"), settled.lost, vec![stale, unknown]);
    }
    let counts = client.counts(QUEUE).await.unwrap();
    checks.equal("the lease is still held", (counts.leased, counts.ready), (1, 0));
    checks.equal("and can be settled", consumer.ack(one).await.unwrap().lost, vec![]);
    consumer.close().await.unwrap();
}

async fn receiving(checks: &mut Checks, client: &mut RawClient) {
    let good = || ReceiveRequest { queue: UNTOUCHED.to_owned(), messages_max: 10, ..Default::default() };
    let mut wrong = Vec::new();
    for (what, queue) in wrong_names() {
        wrong.push((format!("queue name: {what}"), ReceiveRequest { queue, ..good() }, "queue"));
    }
    for messages_max in [0, 1001, 1_000_000_000] {
        wrong.push((format!("{messages_max} messages"), ReceiveRequest { messages_max, ..good() }, "messages_max"));
    }
    for wait_ms in [-1, 60_001, i64::MAX] {
        wrong.push((format!("wait of {wait_ms} ms"), ReceiveRequest { wait_ms, ..good() }, "wait_ms"));
    }
    for lease_timeout_ms in [-1, DAY_MS + 1, i64::MIN] {
        let request = ReceiveRequest { lease_timeout_ms, ..good() };
        wrong.push((format!("lease timeout of {lease_timeout_ms} ms"), request, "lease_timeout_ms"));
    }
    for (what, request, names) in wrong {
        let result = client.messages.receive(request).await;
        checks.refused(&format!("receive, {what}"), result, Code::InvalidArgument, names);
    }
    let unknown = client.messages.receive(ReceiveRequest { queue: UNKNOWN.to_owned(), ..good() }).await;
    checks.refused("receive, unknown queue", unknown, Code::NotFound, UNKNOWN);
}
