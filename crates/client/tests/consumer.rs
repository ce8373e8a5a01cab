//! The consumer against a scripted node.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod fake;

use std::time::Duration;

use dwell_client::{Client, ConsumeOptions, Consumer, Delivery, Error};
use dwell_proto::v1;
use dwell_proto::v1::consume_request::Request;
use dwell_proto::v1::consume_response::Response;
use fake::{ConsumeSession, FakeNode, delivery};
use futures::FutureExt;
use futures::future::join_all;
use tonic::{Code, Status};

async fn respond(session: &ConsumeSession, response: Response) {
    respond_to(session, 1, response).await;
}

async fn respond_to(session: &ConsumeSession, consumer: u32, response: Response) {
    session.respond(v1::ConsumeResponse { response: Some(response), consumer }).await;
}

/// The end of a consumer, with its reason or as it wished.
async fn ended(session: &ConsumeSession, failure: Option<(Code, &str)>) {
    let failure = failure.map(|(code, message)| v1::Failure { code: code.into(), message: message.into() });
    respond(session, Response::Ended(v1::ConsumerEnded { failure })).await;
}

async fn attached(session: &ConsumeSession, lost: Vec<v1::Lease>) {
    let attached = v1::Attached { consumer_id: "c".into(), resumed: true, lost };
    respond(session, Response::Attached(attached)).await;
}

async fn deliver(session: &ConsumeSession, deliveries: Vec<v1::Delivery>) {
    respond(session, Response::Deliveries(v1::Deliveries { deliveries })).await;
}

async fn settled(session: &ConsumeSession, request_id: u64, lost: Vec<v1::Lease>) {
    respond(session, Response::Settled(v1::Settled { request_id, lost, refused: None })).await;
}

fn lease(sequence: u64, token: u64) -> v1::Lease {
    v1::Lease { sequence, token }
}

fn ack(request: v1::ConsumeRequest) -> v1::SettleAck {
    match request.request {
        Some(Request::Ack(ack)) => ack,
        other => panic!("not an ack: {other:?}"),
    }
}

/// A consumer attached to the node, and its stream.
async fn start(node: &mut FakeNode) -> (Consumer, ConsumeSession) {
    let client = Client::connect([&node.address]).unwrap();
    let options = ConsumeOptions::default().consumer_id("c").credit(10).session_timeout(Duration::from_secs(9));
    let consuming = client.consume("q", options);
    let accepting = async {
        let (session, attach) = node.consume_session().await;
        assert_eq!((attach.queue.as_str(), attach.consumer_id.as_str(), attach.credit), ("q", "c", 10));
        assert_eq!((attach.session_timeout_ms, attach.holding), (9000, vec![]));
        attached(&session, vec![]).await;
        session
    };
    let (consumer, session) = tokio::join!(consuming, accepting);
    (consumer.unwrap(), session)
}

async fn next(consumer: &mut Consumer) -> Delivery {
    consumer.next().await.unwrap().unwrap()
}

#[tokio::test]
async fn after_a_broken_stream_it_attaches_with_what_it_holds_and_delivers_nothing_twice() {
    let mut node = FakeNode::start().await;
    let (mut consumer, session) = start(&mut node).await;
    deliver(&session, (1..=4).map(|sequence| delivery(sequence, sequence)).collect()).await;
    let taken = next(&mut consumer).await;
    assert_eq!((taken.handle.sequence, &taken.message.body[..]), (1, &b"1"[..]));
    drop(next(&mut consumer).await);
    session.fail(Status::unavailable("the leader is gone")).await;

    let (mut session, attach) = node.consume_session().await;
    assert_eq!(attach.consumer_id, "c");
    assert_eq!(attach.holding, [lease(1, 1), lease(3, 3), lease(4, 4)], "the dropped one may be sent again");
    attached(&session, vec![lease(4, 4)]).await;
    // 3 is sent again though it is held; 2 is sent again; 1 timed out and comes anew.
    deliver(&session, vec![delivery(3, 3), delivery(2, 2), delivery(1, 9)]).await;
    // Once this is answered, all before it has arrived.
    let answering = async {
        match session.request().await.request {
            Some(Request::Extend(extend)) => settled(&session, extend.request_id, extend.leases).await,
            other => panic!("{other:?}"),
        }
    };
    let (extended, ()) = tokio::join!(taken.extend(Duration::ZERO), answering);
    assert!(matches!(extended, Err(Error::LeaseLost)));
    let mut deliveries = Vec::new();
    for _ in 0..3 {
        deliveries.push(next(&mut consumer).await);
    }
    let leases: Vec<_> = deliveries.iter().map(|delivery| (delivery.handle.sequence, delivery.token)).collect();
    assert_eq!(leases, [(3, 3), (2, 2), (1, 9)]);
    assert!(consumer.next().now_or_never().is_none(), "4 is lost, and nothing else is there");
}

#[tokio::test]
async fn acknowledgements_that_wait_travel_together() {
    let mut node = FakeNode::start().await;
    let (mut consumer, mut session) = start(&mut node).await;
    deliver(&session, (1..=10).map(|sequence| delivery(sequence, 7)).collect()).await;
    let mut deliveries = Vec::new();
    for _ in 0..10 {
        deliveries.push(next(&mut consumer).await);
    }
    let acking = join_all(deliveries.iter().map(Delivery::ack));
    let answering = async {
        let mut count = 0;
        let mut requests = 0;
        while count < 10 {
            let ack = ack(session.request().await);
            count += ack.leases.len();
            requests += 1;
            let lost = ack.leases.iter().filter(|lease| lease.sequence == 5).copied().collect();
            settled(&session, ack.request_id, lost).await;
        }
        requests
    };
    let (results, requests) = tokio::join!(acking, answering);
    assert!(requests <= 2, "{requests} requests");
    for (index, result) in results.into_iter().enumerate() {
        assert_eq!(matches!(result, Err(Error::LeaseLost)), index == 4);
        assert_eq!(result.is_ok(), index != 4);
    }
}

#[tokio::test]
async fn returns_and_extensions_carry_their_times() {
    let mut node = FakeNode::start().await;
    let (mut consumer, mut session) = start(&mut node).await;
    deliver(&session, vec![delivery(1, 1), delivery(2, 2)]).await;
    let (first, second) = (next(&mut consumer).await, next(&mut consumer).await);
    let answering = async {
        match session.request().await.request {
            Some(Request::Extend(extend)) => {
                assert_eq!((extend.lease_timeout_ms, extend.leases), (2000, vec![lease(1, 1)]));
                settled(&session, extend.request_id, vec![]).await;
            }
            other => panic!("{other:?}"),
        }
        match session.request().await.request {
            Some(Request::Nack(nack)) => {
                assert_eq!((nack.delay_ms, nack.leases), (Some(1500), vec![lease(2, 2)]));
                settled(&session, nack.request_id, vec![]).await;
            }
            other => panic!("{other:?}"),
        }
        session
    };
    let settling = async {
        first.extend(Duration::from_secs(2)).await.unwrap();
        second.nack(Some(Duration::from_millis(1500))).await.unwrap();
    };
    let (_, session) = tokio::join!(settling, answering);
    session.fail(Status::unavailable("broken")).await;
    let (_session, attach) = node.consume_session().await;
    assert_eq!(attach.holding, [lease(1, 1)], "an extended lease is held, a returned one is not");
}

#[tokio::test]
async fn an_acknowledgement_under_way_when_the_stream_broke_is_sent_again() {
    let mut node = FakeNode::start().await;
    let (mut consumer, mut session) = start(&mut node).await;
    deliver(&session, vec![delivery(1, 1)]).await;
    let taken = next(&mut consumer).await;
    let answering = async {
        assert_eq!(ack(session.request().await).leases, [lease(1, 1)]);
        session.fail(Status::unavailable("broken")).await;
        let (mut session, attach) = node.consume_session().await;
        assert_eq!(attach.holding, [lease(1, 1)]);
        attached(&session, vec![]).await;
        let again = ack(session.request().await);
        assert_eq!(again.leases, [lease(1, 1)]);
        settled(&session, again.request_id, vec![]).await;
        session
    };
    let (result, _session) = tokio::join!(taken.ack(), answering);
    result.unwrap();
}

#[tokio::test]
async fn a_lease_that_is_gone_after_its_acknowledgement_was_lost_is_in_doubt() {
    let mut node = FakeNode::start().await;
    let (mut consumer, mut session) = start(&mut node).await;
    deliver(&session, vec![delivery(1, 1), delivery(2, 2)]).await;
    let (sent, unsent) = (next(&mut consumer).await, next(&mut consumer).await);
    let answering = async {
        ack(session.request().await);
        session.fail(Status::unavailable("broken")).await;
        let (session, attach) = node.consume_session().await;
        attached(&session, attach.holding).await;
        session
    };
    let (result, mut session) = tokio::join!(sent.ack(), answering);
    assert!(matches!(result, Err(Error::Unknown(_))));
    let answering = async {
        let ack = ack(session.request().await);
        settled(&session, ack.request_id, ack.leases).await;
    };
    let (result, ()) = tokio::join!(unsent.ack(), answering);
    assert!(matches!(result, Err(Error::LeaseLost)));
}

#[tokio::test]
async fn a_displaced_consumer_says_so_and_ends() {
    let mut node = FakeNode::start().await;
    let (mut consumer, session) = start(&mut node).await;
    deliver(&session, vec![delivery(1, 1)]).await;
    ended(&session, Some((Code::Aborted, "another stream attached"))).await;
    assert_eq!(next(&mut consumer).await.handle.sequence, 1);
    assert!(matches!(consumer.next().await, Some(Err(Error::Displaced))));
    assert!(consumer.next().await.is_none());
}

#[tokio::test]
async fn an_unknown_queue_is_told_when_the_consumer_is_opened() {
    let mut node = FakeNode::start().await;
    let client = Client::connect([&node.address]).unwrap();
    let refusing = async {
        let (session, _) = node.consume_session().await;
        ended(&session, Some((Code::NotFound, "queue `q` does not exist"))).await;
        session
    };
    let (result, _session) = tokio::join!(client.consume("q", ConsumeOptions::default()), refusing);
    assert!(matches!(result, Err(Error::NotFound(_))));
}

#[tokio::test]
async fn closing_finishes_acknowledgements_first_and_waits_for_the_server() {
    let mut node = FakeNode::start().await;
    let (mut consumer, mut session) = start(&mut node).await;
    deliver(&session, vec![delivery(1, 1), delivery(2, 2)]).await;
    let taken = next(&mut consumer).await;
    let mut acking = Box::pin(taken.ack());
    assert!((&mut acking).now_or_never().is_none());
    let mut closing = Box::pin(consumer.close());
    assert!((&mut closing).now_or_never().is_none());
    let ack = ack(session.request().await);
    settled(&session, ack.request_id, vec![]).await;
    acking.await.unwrap();
    assert_eq!(session.request().await.request, Some(Request::Close(v1::CloseConsumer {})));
    assert!((&mut closing).now_or_never().is_none(), "not before the server says so");
    ended(&session, None).await;
    closing.await.unwrap();
}

#[tokio::test]
async fn a_delivery_can_be_acknowledged_after_its_consumer_is_dropped() {
    let mut node = FakeNode::start().await;
    let (mut consumer, session) = start(&mut node).await;
    deliver(&session, vec![delivery(1, 1)]).await;
    let taken = next(&mut consumer).await;
    drop(consumer);
    taken.ack().await.unwrap();
    assert_eq!(node.script.lock().acknowledged, [vec![lease(1, 1)]]);
}

#[tokio::test]
async fn dropping_the_last_consumer_breaks_the_stream_without_closing_it() {
    let mut node = FakeNode::start().await;
    let (consumer, mut session) = start(&mut node).await;
    drop(consumer);
    while let Ok(Some(request)) = session.requests.message().await {
        assert!(!matches!(request.request, Some(Request::Close(_))));
    }
}

/// Two consumers of one client, and the stream that they share.
async fn start_two(node: &mut FakeNode) -> (Consumer, Consumer, ConsumeSession) {
    let client = Client::connect([&node.address]).unwrap();
    let mut consumers = Vec::new();
    let (first, mut session) = {
        let accepting = async {
            let (session, _) = node.consume_session().await;
            attached(&session, vec![]).await;
            session
        };
        tokio::join!(client.consume("q", ConsumeOptions::default()), accepting)
    };
    consumers.push(first.unwrap());
    let accepting = async {
        let (number, attach) = session.attach().await;
        assert_eq!((number, attach.queue.as_str()), (2, "r"));
        let attached = v1::Attached { consumer_id: attach.consumer_id, ..Default::default() };
        respond_to(&session, 2, Response::Attached(attached)).await;
    };
    let (second, ()) = tokio::join!(client.consume("r", ConsumeOptions::default()), accepting);
    (consumers.remove(0), second.unwrap(), session)
}

#[tokio::test]
async fn consumers_of_one_client_share_a_stream_and_each_gets_its_own() {
    let mut node = FakeNode::start().await;
    let (mut first, mut second, mut session) = start_two(&mut node).await;
    let deliveries = v1::Deliveries { deliveries: vec![delivery(7, 1)] };
    respond_to(&session, 2, Response::Deliveries(deliveries)).await;
    deliver(&session, vec![delivery(8, 1)]).await;
    assert_eq!(next(&mut second).await.handle.sequence, 7);
    let taken = next(&mut first).await;
    assert_eq!(taken.handle.sequence, 8);
    let answering = async {
        let request = session.request().await;
        assert_eq!(request.consumer, 1);
        settled(&session, ack(request).request_id, vec![]).await;
    };
    let (acked, ()) = tokio::join!(taken.ack(), answering);
    acked.unwrap();
}

#[tokio::test]
async fn the_end_of_one_consumer_leaves_the_others_on_the_stream() {
    let mut node = FakeNode::start().await;
    let (mut first, mut second, mut session) = start_two(&mut node).await;
    ended(&session, Some((Code::NotFound, "queue `q` was deleted"))).await;
    assert!(matches!(first.next().await, Some(Err(Error::NotFound(_)))));
    let deliveries = v1::Deliveries { deliveries: vec![delivery(7, 1)] };
    respond_to(&session, 2, Response::Deliveries(deliveries)).await;
    let taken = next(&mut second).await;
    drop(taken);
    drop(second);
    // The server need not wait for the stream's end to hear of it, should others remain.
    while let Ok(Some(request)) = session.requests.message().await {
        assert_eq!(request.consumer, 2, "the first is gone");
    }
}

#[tokio::test]
async fn after_a_broken_stream_all_its_consumers_attach_to_another_one() {
    let mut node = FakeNode::start().await;
    let (mut first, mut second, session) = start_two(&mut node).await;
    session.fail(Status::unavailable("the leader is gone")).await;
    let (mut session, one) = node.consume_session().await;
    let (_, other) = session.attach().await;
    let mut queues = [one.queue, other.queue];
    for (number, queue) in (1..).zip(&queues) {
        let sequence = if queue == "q" { 1 } else { 2 };
        respond_to(&session, number, Response::Attached(v1::Attached::default())).await;
        let deliveries = v1::Deliveries { deliveries: vec![delivery(sequence, 1)] };
        respond_to(&session, number, Response::Deliveries(deliveries)).await;
    }
    queues.sort();
    assert_eq!(queues, ["q", "r"]);
    assert_eq!(next(&mut first).await.handle.sequence, 1);
    assert_eq!(next(&mut second).await.handle.sequence, 2);
}
