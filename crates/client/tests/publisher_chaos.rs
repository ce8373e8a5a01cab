//! The publisher against a node that keeps the producer's contract and breaks everything else: streams end
//! before and after a request is stored, requests are refused in every way, and all at random.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod fake;

use std::collections::HashMap;

use dwell_client::{Client, Error, PublishMessage, PublisherOptions};
use dwell_proto::v1;
use dwell_proto::v1::publish_stream_response::Outcome;
use fake::{FakeNode, stored};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tonic::{Code, Status};

/// What a server keeps of a producer, and of its messages.
#[derive(Default)]
struct Stored {
    bodies: Vec<String>,
    /// The next number of each producer, and its outcomes so far: None for an unknown queue.
    producers: HashMap<String, Vec<Option<Vec<u64>>>>,
}

impl Stored {
    /// As the server does: limits first, then the sequence, then the queue.
    fn apply(&mut self, request: &v1::PublishRequest) -> Outcome {
        let refuse = |code: Code| Outcome::Refused(v1::Failure { code: code.into(), message: code.to_string() });
        if request.messages.iter().any(|message| body(message).starts_with("invalid")) {
            return refuse(Code::InvalidArgument);
        }
        let producer = request.producer.as_ref().unwrap();
        let outcomes = self.producers.entry(producer.producer_id.clone()).or_default();
        let position = producer.sequence as usize - 1;
        if position > outcomes.len() {
            return refuse(Code::FailedPrecondition);
        }
        let duplicate = position < outcomes.len();
        if !duplicate {
            let known = request.messages.iter().all(|message| message.routing_key == "q");
            let sequences = request.messages.iter().enumerate().map(|(index, _)| (self.bodies.len() + index) as u64);
            outcomes.push(known.then(|| sequences.collect()));
            if known {
                self.bodies.extend(request.messages.iter().map(body));
            }
        }
        let Some(sequences) = &outcomes[position] else { return refuse(Code::NotFound) };
        let results = sequences.iter().map(|sequence| stored(*sequence, duplicate)).collect();
        Outcome::Confirmed(v1::PublishResponse { results })
    }
}

fn body(message: &v1::PublishMessage) -> String {
    String::from_utf8(message.message.as_ref().unwrap().body.to_vec()).unwrap()
}

/// Serves streams until aborted.
async fn serve(mut node: FakeNode, stored: std::sync::Arc<parking_lot::Mutex<Stored>>, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    loop {
        let mut session = node.publish_session().await;
        while let Ok(Some(request)) = session.requests.message().await {
            let fate = random.random_range(0..100);
            if fate == 0 {
                session.fail(Status::unavailable("before it was stored")).await;
                break;
            }
            if fate == 1 {
                let code = Code::ResourceExhausted.into();
                let outcome = Some(Outcome::Refused(v1::Failure { code, message: "too much in flight".into() }));
                session.try_respond(v1::PublishStreamResponse { request_id: request.request_id, outcome }).await;
                // Nothing behind it may be stored, as the sequence forbids it.
                continue;
            }
            let outcome = stored.lock().apply(request.publish.as_ref().unwrap());
            if fate == 2 {
                session.fail(Status::unavailable("after it was stored")).await;
                break;
            }
            let response = v1::PublishStreamResponse { request_id: request.request_id, outcome: Some(outcome) };
            if !session.try_respond(response).await {
                break;
            }
        }
    }
}

async fn run(seed: u64) {
    let node = FakeNode::start().await;
    let client = Client::connect([&node.address]).unwrap();
    let stored = std::sync::Arc::new(parking_lot::Mutex::new(Stored::default()));
    let server = tokio::spawn(serve(node, stored.clone(), seed));
    let publisher = client.publisher(PublisherOptions::default());
    let mut random = StdRng::seed_from_u64(seed ^ 1);
    let mut expected = Vec::new();
    for number in 0..1500 {
        let (queue, kind) = match random.random_range(0..60) {
            0 => ("q", "invalid"),
            1 => ("unknown", "lost"),
            _ => ("q", "good"),
        };
        let message = PublishMessage::new(queue, format!("{kind} {number}"));
        let confirm = match random.random_range(0..3) {
            0 => publisher.publish(vec![message]).await.unwrap(),
            _ => publisher.submit_one(message).await.unwrap(),
        };
        expected.push((kind, format!("{kind} {number}"), confirm));
    }
    let mut good = Vec::new();
    for (kind, body, confirm) in expected {
        match (kind, confirm.await) {
            ("good", Ok(results)) => {
                let position = results[0].handle.sequence as usize;
                assert_eq!(stored.lock().bodies[position], body, "seed {seed}: the handle names the message");
                good.push(body);
            }
            ("invalid", Err(Error::InvalidArgument(_))) | ("lost", Err(Error::NotFound(_))) => {}
            (_, other) => panic!("seed {seed}: {body}: {other:?}"),
        }
    }
    assert_eq!(stored.lock().bodies, good, "seed {seed}: each stored once, in the order of submission");
    server.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_breaks_every_message_is_stored_once_and_in_order() {
    for seed in 0..6 {
        run(seed).await;
    }
}
