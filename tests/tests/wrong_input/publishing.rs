//! Publishing, by single calls and over the stream.

use dwell_proto::v1::publish_stream_response::Outcome;
use dwell_proto::v1::timing::Visible;
use dwell_proto::v1::{
    Message, ProducerSequence, PublishMessage, PublishRequest, PublishStreamRequest, QueueSettings, Timing,
};
use dwell_tests::environment::now_ms;
use dwell_tests::raw::{RawClient, message};
use tonic::Code;

use crate::checks::{Checks, wrong_names};
use crate::{UNKNOWN, UNTOUCHED};

const MIB: usize = 1024 * 1024;
const TEN_YEARS_MS: i64 = 10 * 365 * 24 * 60 * 60 * 1000;
const HOUR_MS: i64 = 60 * 60 * 1000;

/// A request, what is wrong with it, and how it must be refused.
struct Wrong {
    what: String,
    request: PublishRequest,
    code: Code,
    names: &'static str,
}

pub async fn check(checks: &mut Checks, client: &mut RawClient) {
    let mut wrong: Vec<Wrong> = Vec::new();
    wrong.extend(wrong_batches());
    wrong.extend(wrong_messages());
    wrong.extend(wrong_times());
    wrong.extend(wrong_producers());
    for wrong in &wrong {
        let result = client.messages.publish(wrong.request.clone()).await;
        checks.refused(&format!("publish, {}", wrong.what), result, wrong.code, wrong.names);
    }
    over_the_stream(checks, client, &wrong).await;
    too_large(checks, client).await;
    sequences(checks, client).await;
}

fn one(message: PublishMessage) -> PublishRequest {
    PublishRequest { messages: vec![message], ..Default::default() }
}

fn invalid(what: impl Into<String>, request: PublishRequest, names: &'static str) -> Wrong {
    Wrong { what: what.into(), request, code: Code::InvalidArgument, names }
}

fn good() -> PublishMessage {
    message(UNTOUCHED, "x", None)
}

fn wrong_batches() -> Vec<Wrong> {
    let mut wrong: Vec<Wrong> = wrong_names()
        .into_iter()
        .map(|(what, queue)| (what, PublishMessage { routing_key: queue, ..good() }))
        .map(|(what, message)| invalid(format!("queue name: {what}"), one(message), "routing_key"))
        .collect();
    wrong.push(invalid("no messages", PublishRequest::default(), "messages"));
    wrong.push(invalid(
        "1001 messages",
        PublishRequest { messages: vec![good(); 1001], ..Default::default() },
        "messages",
    ));
    let namespace = PublishRequest { namespace: "another".to_owned(), ..one(good()) };
    wrong.push(invalid("another namespace", namespace, "namespace"));
    let unknown = |messages| PublishRequest { messages, ..Default::default() };
    let not_found = |what: &str, request| Wrong { what: what.into(), request, code: Code::NotFound, names: UNKNOWN };
    wrong.push(not_found("unknown queue", unknown(vec![message(UNKNOWN, "x", None)])));
    wrong.push(not_found("one unknown queue of two", unknown(vec![good(), message(UNKNOWN, "x", None)])));
    let one_bad = vec![good(), message(UNTOUCHED, "x", Some(-1)), good()];
    wrong.push(invalid("one wrong message of three", unknown(one_bad), "delay_ms"));
    wrong
}

fn wrong_messages() -> Vec<Wrong> {
    let with = |message: Message| one(PublishMessage { message: Some(message), ..good() });
    let long = "x".repeat(256);
    let headers =
        |headers: Vec<(String, String)>| with(Message { headers: headers.into_iter().collect(), ..Default::default() });
    let many = (0..257).map(|number| (number.to_string(), String::new())).collect();
    vec![
        invalid("priority 256", with(Message { priority: 256, ..Default::default() }), "priority"),
        invalid("priority of 32 bits", with(Message { priority: u32::MAX, ..Default::default() }), "priority"),
        invalid(
            "long content type",
            with(Message { content_type: long.clone(), ..Default::default() }),
            "content_type",
        ),
        invalid(
            "long correlation id",
            with(Message { correlation_id: long.clone(), ..Default::default() }),
            "correlation_id",
        ),
        invalid("long reply-to", with(Message { reply_to: long.clone(), ..Default::default() }), "reply_to"),
        invalid("long message id", with(Message { message_id: long.clone(), ..Default::default() }), "message_id"),
        invalid("257 headers", headers(many), "headers"),
        invalid("empty header key", headers(vec![(String::new(), "x".to_owned())]), "headers"),
        invalid("long header key", headers(vec![(long, "x".to_owned())]), "headers"),
        invalid("65 KiB of headers", headers(vec![("k".to_owned(), "x".repeat(65 * 1024))]), "headers"),
    ]
}

fn wrong_times() -> Vec<Wrong> {
    let now = i64::try_from(now_ms()).unwrap();
    let timed = |timing| one(PublishMessage { timing: Some(timing), ..good() });
    let mut wrong = Vec::new();
    for delay in [-1, -HOUR_MS, TEN_YEARS_MS + 1, i64::MIN, i64::MAX] {
        let timing = Timing { visible: Some(Visible::DelayMs(delay)), ..Default::default() };
        wrong.push(invalid(format!("delay of {delay} ms"), timed(timing), "delay_ms"));
    }
    // Seconds instead of milliseconds are the usual mistake.
    let far = [now / 1000, 1, now - TEN_YEARS_MS - HOUR_MS, now + TEN_YEARS_MS + HOUR_MS, -1, i64::MIN, i64::MAX];
    for at in far {
        let timing = Timing { visible: Some(Visible::DeliverAtMs(at)), ..Default::default() };
        wrong.push(invalid(format!("due at {at}"), timed(timing), "deliver_at_ms"));
        let timing = Timing { expire_at_ms: Some(at), ..Default::default() };
        wrong.push(invalid(format!("expires at {at}"), timed(timing), "expire_at_ms"));
    }
    for ttl in [0, -1, TEN_YEARS_MS + 1, i64::MIN, i64::MAX] {
        let timing = Timing { ttl_ms: Some(ttl), ..Default::default() };
        wrong.push(invalid(format!("time to live of {ttl} ms"), timed(timing), "ttl_ms"));
    }
    wrong
}

fn wrong_producers() -> Vec<Wrong> {
    let by = |producer_id: &str, sequence| PublishRequest {
        producer: Some(ProducerSequence { producer_id: producer_id.to_owned(), sequence }),
        ..one(good())
    };
    vec![
        invalid("empty producer id", by("", 1), "producer_id"),
        invalid("producer id of 300 characters", by(&"p".repeat(300), 1), "producer_id"),
        invalid("sequence 0", by("p", 0), "sequence"),
        Wrong {
            what: "a gap before the first sequence".to_owned(),
            request: by("gap", 5),
            code: Code::FailedPrecondition,
            names: "gap",
        },
    ]
}

/// Each wrong request is refused in its confirm, in order, and the stream goes on to confirm a good one.
async fn over_the_stream(checks: &mut Checks, client: &mut RawClient, wrong: &[Wrong]) {
    client.declare("streamed", QueueSettings::default()).await.unwrap();
    let mut requests: Vec<PublishRequest> = wrong.iter().map(|wrong| wrong.request.clone()).collect();
    requests.push(one(message("streamed", "good", None)));
    let numbered =
        (0..).zip(requests).map(|(request_id, publish)| PublishStreamRequest { request_id, publish: Some(publish) });
    let numbered: Vec<_> = numbered.collect();
    let mut confirms = client.messages.publish_stream(tokio_stream::iter(numbered)).await.unwrap().into_inner();
    for (request_id, wrong) in (0..).zip(wrong) {
        let what = format!("publish stream, {}", wrong.what);
        let confirm = confirms.message().await.unwrap().expect("a confirm for each request");
        checks.equal(&what, confirm.request_id, request_id);
        let failure = match confirm.outcome {
            Some(Outcome::Refused(failure)) => Some(failure),
            _ => None,
        };
        checks.refused_within(&what, failure, wrong.code, wrong.names);
    }
    let last = confirms.message().await.unwrap().expect("the stream goes on");
    checks.equal("the good request after them", matches!(last.outcome, Some(Outcome::Confirmed(_))), true);
}

/// Bodies and requests over their limits; such a request may be answered before it is read completely.
async fn too_large(checks: &mut Checks, client: &mut RawClient) {
    let body = |bytes: usize| message(UNTOUCHED, vec![0; bytes], None);
    let result = client.publish(vec![body(16 * MIB + 1)]).await;
    checks.refused("publish, body of 16 MiB and a byte", result, Code::InvalidArgument, "body");
    let result = client.publish(vec![body(12 * MIB), body(12 * MIB), body(12 * MIB)]).await;
    checks.refused("publish, request of 36 MiB", result, Code::OutOfRange, "");
    client.declare("large", QueueSettings::default()).await.unwrap();
    let largest = client.publish(vec![message("large", vec![0; 16 * MIB], None)]).await;
    checks.equal("publish, body of 16 MiB", largest.map(|results| results.len()).ok(), Some(1));
}

async fn sequences(checks: &mut Checks, client: &mut RawClient) {
    let queue = "sequenced";
    client.declare(queue, QueueSettings::default()).await.unwrap();
    let producer_id = format!("producer of {}", checks.target);
    let numbered = |sequence| PublishRequest {
        messages: vec![message(queue, "x", None)],
        producer: Some(ProducerSequence { producer_id: producer_id.clone(), sequence }),
        ..Default::default()
    };
    let mut last = Vec::new();
    for sequence in 1..=300 {
        last = client.messages.publish(numbered(sequence)).await.unwrap().into_inner().results;
    }
    let before = client.counts(queue).await.unwrap();
    let again = client.messages.publish(numbered(300)).await.unwrap().into_inner().results;
    checks.equal("a repeated sequence is a duplicate", (last[0].duplicate, again[0].duplicate), (false, true));
    checks.equal("with the first handle", again[0].handle.clone(), last[0].handle.clone());
    let result = client.messages.publish(numbered(302)).await;
    checks.refused("publish, a gap in the sequence", result, Code::FailedPrecondition, &producer_id);
    let result = client.messages.publish(numbered(1)).await;
    checks.refused("publish, a forgotten sequence", result, Code::FailedPrecondition, &producer_id);
    checks.equal("none of these stored anything", client.counts(queue).await.unwrap(), before);
}
