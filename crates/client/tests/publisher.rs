//! The publisher against a scripted node.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod fake;

use std::time::Duration;

use dwell_client::{
    Client, ClientOptions, Confirm, Error, PublishMessage, PublishOutcome, Publisher, PublisherOptions,
};
use dwell_proto::v1;
use dwell_proto::v1::publish_stream_response::Outcome;
use fake::{FakeNode, PublishSession, dead_address, stored};
use futures::FutureExt;
use futures::future::join_all;
use tonic::{Code, Status};

const WINDOW: usize = 256;

fn publisher(node: &FakeNode) -> Publisher {
    Client::connect([&node.address]).unwrap().publisher(PublisherOptions::default())
}

async fn submit(publisher: &Publisher, body: usize) -> Confirm {
    publisher.publish(vec![PublishMessage::new("q", body.to_string())]).await.unwrap()
}

fn sequence(request: &v1::PublishStreamRequest) -> u64 {
    request.publish.as_ref().unwrap().producer.as_ref().unwrap().sequence
}

fn producer(request: &v1::PublishStreamRequest) -> String {
    request.publish.as_ref().unwrap().producer.clone().unwrap().producer_id
}

fn bodies(request: &v1::PublishStreamRequest) -> Vec<String> {
    let body = |message: &v1::PublishMessage| message.message.as_ref().unwrap().body.clone();
    let messages = &request.publish.as_ref().unwrap().messages;
    messages.iter().map(|message| String::from_utf8(body(message).to_vec()).unwrap()).collect()
}

async fn confirm(session: &PublishSession, request: &v1::PublishStreamRequest) {
    let results = request.publish.as_ref().unwrap().messages.iter().map(|_| stored(1, false)).collect();
    confirm_with(session, request, results).await;
}

async fn confirm_with(session: &PublishSession, request: &v1::PublishStreamRequest, results: Vec<v1::PublishResult>) {
    let outcome = Some(Outcome::Confirmed(v1::PublishResponse { results }));
    session.respond(v1::PublishStreamResponse { request_id: request.request_id, outcome }).await;
}

async fn refuse(session: &PublishSession, request: &v1::PublishStreamRequest, code: Code) {
    refuse_because(session, request, code, "no").await;
}

async fn refuse_because(session: &PublishSession, request: &v1::PublishStreamRequest, code: Code, message: &str) {
    let outcome = Some(Outcome::Refused(v1::Failure { code: code.into(), message: message.into() }));
    session.respond(v1::PublishStreamResponse { request_id: request.request_id, outcome }).await;
}

#[tokio::test]
async fn after_a_broken_stream_everything_unconfirmed_is_sent_again_in_order_before_anything_new() {
    let mut node = FakeNode::start().await;
    let publisher = publisher(&node);
    let mut confirms = Vec::new();
    for body in 0..5 {
        confirms.push(submit(&publisher, body).await);
    }
    let mut session = node.publish_session().await;
    let mut first = Vec::new();
    for _ in 0..5 {
        first.push(session.request().await);
    }
    confirm(&session, &first[0]).await;
    confirms.remove(0).await.unwrap();
    session.fail(Status::unavailable("the leader is gone")).await;
    confirms.push(submit(&publisher, 5).await);

    let mut session = node.publish_session().await;
    let mut second = Vec::new();
    for _ in 0..5 {
        second.push(session.request().await);
    }
    assert_eq!(second[..4], first[1..], "the same requests under the same numbers");
    assert_eq!((sequence(&second[4]), bodies(&second[4])), (6, vec!["5".to_owned()]));
    for request in &second {
        confirm(&session, request).await;
    }
    for confirm in confirms {
        confirm.await.unwrap();
    }
}

#[tokio::test]
async fn a_killed_node_breaks_the_stream_and_another_gets_everything() {
    let (mut first, mut second) = (FakeNode::start().await, FakeNode::start().await);
    let client = Client::connect([&first.address, &second.address]).unwrap();
    let publisher = client.publisher(PublisherOptions::default());
    let answer = submit(&publisher, 0).await;
    // Whichever the client chose is killed.
    let (mut killed, mut other, mut session) = tokio::select! {
        session = first.publish_session() => (first, second, session),
        session = second.publish_session() => (second, first, session),
    };
    let request = session.request().await;
    killed.kill();
    let mut session = other.publish_session().await;
    assert_eq!(session.request().await, request);
    confirm(&session, &request).await;
    answer.await.unwrap();
}

#[tokio::test]
async fn at_most_256_requests_are_unconfirmed() {
    let mut node = FakeNode::start().await;
    let publisher = publisher(&node);
    let mut confirms = Vec::new();
    for body in 0..WINDOW {
        confirms.push(submit(&publisher, body).await);
    }
    let mut next = Box::pin(submit(&publisher, WINDOW));
    assert!((&mut next).now_or_never().is_none(), "there is no room");
    let mut session = node.publish_session().await;
    let first = session.request().await;
    for _ in 1..WINDOW {
        session.request().await;
    }
    assert!((&mut next).now_or_never().is_none(), "sending makes no room");
    confirm(&session, &first).await;
    confirms.remove(0).await.unwrap();
    let _confirm = next.await;
    assert_eq!(sequence(&session.request().await), WINDOW as u64 + 1);
}

/// Submits single messages to `queue` until the node has 16 unconfirmed requests, past which they wait.
async fn occupy(publisher: &Publisher, session: &mut PublishSession) -> Vec<v1::PublishStreamRequest> {
    let mut requests = Vec::new();
    for body in 0..16 {
        drop(submit(publisher, body).await);
        requests.push(session.request().await);
    }
    requests
}

#[tokio::test]
async fn single_messages_that_wait_travel_together_and_an_unknown_queue_hurts_only_its_own() {
    let mut node = FakeNode::start().await;
    let publisher = publisher(&node);
    drop(submit(&publisher, 100).await);
    let mut session = node.publish_session().await;
    let opening = session.request().await;
    confirm(&session, &opening).await;
    let occupied = occupy(&publisher, &mut session).await;

    let submit = |queue: &'static str| publisher.submit_one(PublishMessage::new(queue, queue));
    let mut good = Vec::new();
    let mut bad = Vec::new();
    for _ in 0..100 {
        good.push(submit("good").await.unwrap());
        bad.push(submit("bad").await.unwrap());
    }
    let mut requests = Vec::new();
    for request in &occupied {
        confirm(&session, request).await;
    }
    let mut messages = 0;
    while messages < 200 {
        let request = session.request().await;
        messages += bodies(&request).len();
        let queue = bodies(&request)[0].clone();
        assert!(bodies(&request).iter().all(|body| *body == queue), "one queue in one request");
        if queue == "bad" {
            refuse(&session, &request, Code::NotFound).await;
        } else {
            confirm(&session, &request).await;
        }
        requests.push(request);
    }
    assert!(requests.len() <= 20, "200 messages in {} requests", requests.len());
    for answer in join_all(good).await {
        assert_eq!(answer.unwrap().len(), 1);
    }
    for answer in join_all(bad).await {
        assert!(matches!(answer, Err(Error::NotFound(_))));
    }
}

#[tokio::test]
async fn numbers_that_a_refusal_left_unused_are_given_to_what_was_refused_behind_it() {
    let mut node = FakeNode::start().await;
    let publisher = publisher(&node);
    let mut confirms = Vec::new();
    for body in 0..3 {
        confirms.push(submit(&publisher, body).await);
    }
    let mut session = node.publish_session().await;
    let first = [session.request().await, session.request().await, session.request().await];
    refuse(&session, &first[0], Code::InvalidArgument).await;
    refuse(&session, &first[1], Code::FailedPrecondition).await;
    refuse(&session, &first[2], Code::FailedPrecondition).await;
    let second = [session.request().await, session.request().await];
    assert_eq!(second.each_ref().map(sequence), [1, 2]);
    assert_eq!(second.each_ref().map(producer), [producer(&first[0]), producer(&first[0])]);
    assert_eq!(second.each_ref().map(bodies), [["1"], ["2"]]);
    confirm(&session, &second[0]).await;
    confirm(&session, &second[1]).await;
    let answers = join_all(confirms).await;
    assert!(matches!(answers[0], Err(Error::InvalidArgument(_))));
    assert!(answers[1].is_ok() && answers[2].is_ok());
}

#[tokio::test]
async fn numbers_of_which_copies_may_be_under_way_are_never_given_to_other_messages() {
    let mut node = FakeNode::start().await;
    let publisher = publisher(&node);
    let mut confirms = vec![submit(&publisher, 0).await, submit(&publisher, 1).await];
    let mut session = node.publish_session().await;
    let old = session.request().await;
    session.request().await;
    session.fail(Status::unavailable("broken")).await;
    let mut session = node.publish_session().await;
    let requests = [session.request().await, session.request().await];
    refuse(&session, &requests[0], Code::InvalidArgument).await;
    refuse(&session, &requests[1], Code::FailedPrecondition).await;
    let again = session.request().await;
    assert_eq!((sequence(&again), bodies(&again)), (1, vec!["1".to_owned()]));
    assert_ne!(producer(&again), producer(&old), "a copy of number 2 may still arrive under the old id");
    confirm(&session, &again).await;
    confirms.remove(1).await.unwrap();
}

#[tokio::test]
async fn a_status_that_ends_the_stream_for_one_request_fails_that_request_only() {
    let mut node = FakeNode::start().await;
    let publisher = publisher(&node);
    let mut confirms = Vec::new();
    for body in 0..3 {
        confirms.push(submit(&publisher, body).await);
    }
    let mut session = node.publish_session().await;
    for _ in 0..3 {
        session.request().await;
    }
    session.fail(Status::out_of_range("message too large")).await;
    let mut session = node.publish_session().await;
    let alone = session.request().await;
    confirm(&session, &alone).await;
    let culprit = session.request().await;
    assert_eq!(bodies(&culprit), ["1"]);
    session.fail(Status::out_of_range("message too large")).await;
    let mut session = node.publish_session().await;
    let last = session.request().await;
    refuse(&session, &last, Code::FailedPrecondition).await;
    let last = session.request().await;
    assert_eq!(bodies(&last), ["2"]);
    confirm(&session, &last).await;
    let answers = join_all(confirms).await;
    assert!(answers[0].is_ok() && answers[2].is_ok());
    assert!(matches!(answers[1], Err(Error::Server { code: Code::OutOfRange, .. })));
}

#[tokio::test]
async fn a_message_that_was_never_sent_is_told_from_one_that_was() {
    let options = ClientOptions::default().retry_deadline(Duration::from_millis(300));
    let client = Client::connect_with([dead_address()], options.clone()).unwrap();
    let answer = client.publish_one(PublishMessage::new("q", "body")).await;
    assert!(matches!(answer, Err(Error::Unavailable { .. })), "{answer:?}");

    let mut node = FakeNode::start().await;
    let client = Client::connect_with([&node.address], options).unwrap();
    let publisher = client.publisher(PublisherOptions::default());
    let answer = submit(&publisher, 0).await;
    let mut session = node.publish_session().await;
    let given_up = session.request().await;
    assert!(matches!(answer.await, Err(Error::Timeout { .. })));

    // Whether its number is used nobody knows: the publisher goes on as another producer.
    let answer = submit(&publisher, 1).await;
    let mut session = node.publish_session().await;
    let request = session.request().await;
    assert_eq!((sequence(&request), bodies(&request)), (1, vec!["1".to_owned()]));
    assert_ne!(producer(&request), producer(&given_up));
    confirm(&session, &request).await;
    answer.await.unwrap();
}

#[tokio::test]
async fn what_was_submitted_is_sent_after_the_publisher_is_dropped() {
    let mut node = FakeNode::start().await;
    let publisher = publisher(&node);
    let answer = submit(&publisher, 0).await;
    drop(publisher);
    let mut session = node.publish_session().await;
    let request = session.request().await;
    confirm(&session, &request).await;
    answer.await.unwrap();
    assert!(session.requests.message().await.unwrap().is_none(), "the stream ends in order");
}

fn not_stored(outcome: v1::PublishOutcome, queue: &str) -> v1::PublishResult {
    v1::PublishResult { outcome: outcome.into(), rejected_by: queue.into(), ..Default::default() }
}

#[tokio::test]
async fn a_message_that_is_not_stored_is_an_error_unless_the_outcomes_are_asked_for() {
    let mut node = FakeNode::start().await;
    let publisher = publisher(&node);
    let batch = || vec![PublishMessage::new("q", "0"), PublishMessage::new("full", "1")];
    let single = |queue: &'static str| publisher.publish(vec![PublishMessage::new(queue, queue)]);
    let rejected = single("full").await.unwrap();
    let unroutable = single("nowhere").await.unwrap();
    let partly = publisher.publish(batch()).await.unwrap();
    let mut told = publisher.publish(batch()).await.unwrap();
    let mut session = node.publish_session().await;
    let full = || not_stored(v1::PublishOutcome::Rejected, "full");
    let answers = [
        vec![full()],
        vec![not_stored(v1::PublishOutcome::Unroutable, "")],
        vec![stored(7, true), full()],
        vec![stored(7, true), full()],
    ];
    for results in answers {
        let request = session.request().await;
        confirm_with(&session, &request, results).await;
    }
    assert!(matches!(rejected.await, Err(Error::Rejected { queue }) if queue == "full"));
    assert!(matches!(unroutable.await, Err(Error::Unroutable(_))));
    assert!(matches!(partly.await, Err(Error::NotAllStored { outcomes }) if outcomes[0].is_stored()));
    let outcomes = told.outcomes().await.unwrap();
    let PublishOutcome::Stored(published) = &outcomes[0] else { panic!("{outcomes:?}") };
    assert_eq!((published.handle.sequence, published.duplicate), (7, true));
    assert_eq!(outcomes[1], PublishOutcome::Rejected { queue: "full".into() });
}

#[tokio::test]
async fn a_mandatory_message_that_reaches_no_queue_is_refused_once_and_its_number_is_used() {
    let mut node = FakeNode::start().await;
    let publisher = publisher(&node);
    let mandatory = PublishMessage::new("key", "0").exchange("x").mandatory();
    let refused = publisher.publish(vec![mandatory]).await.unwrap();
    let behind = submit(&publisher, 1).await;
    let mut session = node.publish_session().await;
    let first = session.request().await;
    let reason = "no queue is bound to exchange `x` for the key `key`, and the message is mandatory";
    refuse_because(&session, &first, Code::FailedPrecondition, reason).await;
    let second = session.request().await;
    assert_eq!((sequence(&second), producer(&second)), (2, producer(&first)));
    confirm(&session, &second).await;
    assert!(matches!(refused.await, Err(Error::Unroutable(message)) if message == reason));
    behind.await.unwrap();
    let _next = submit(&publisher, 2).await;
    let third = session.request().await;
    assert_eq!((sequence(&third), producer(&third)), (3, producer(&first)));
}
