//! Finding and following the leader.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod fake;

use std::time::{Duration, Instant};

use dwell_client::{Client, ClientOptions, Consistency, Error, PublishMessage, PublisherOptions, QueueSettings};
use fake::{FakeNode, cluster_status, dead_address};

async fn declare(client: &Client, queue: &str) -> Result<bool, Error> {
    client.declare_queue(queue, QueueSettings::default()).await
}

#[tokio::test]
async fn calls_go_to_the_leader_that_a_response_names() {
    let (follower, leader) = (FakeNode::start().await, FakeNode::start().await);
    follower.script.lock().leader = Some(leader.address.clone());
    let client = Client::connect([&follower.address]).unwrap();
    declare(&client, "first").await.unwrap();
    declare(&client, "second").await.unwrap();
    assert_eq!(follower.script.lock().declared, ["first"]);
    assert_eq!(leader.script.lock().declared, ["second"]);
}

#[tokio::test]
async fn a_client_that_does_not_follow_stays_where_it_is() {
    let (follower, leader) = (FakeNode::start().await, FakeNode::start().await);
    follower.script.lock().leader = Some(leader.address.clone());
    let options = ClientOptions::default().follow_leader(false);
    let client = Client::connect_with([&follower.address], options).unwrap();
    declare(&client, "first").await.unwrap();
    declare(&client, "second").await.unwrap();
    assert_eq!(follower.script.lock().declared, ["first", "second"]);
}

#[tokio::test]
async fn a_stream_goes_to_the_leader_that_the_cluster_names() {
    let (follower, mut leader) = (FakeNode::start().await, FakeNode::start().await);
    follower.script.lock().status = Some(cluster_status(2, &[(1, &follower.address), (2, &leader.address)]));
    let client = Client::connect([&follower.address]).unwrap();
    let publisher = client.publisher(PublisherOptions::default());
    let _confirm = publisher.publish(vec![PublishMessage::new("q", "body")]).await.unwrap();
    let mut session = leader.publish_session().await;
    assert_eq!(session.request().await.publish.unwrap().messages.len(), 1);
    assert!(client.addresses().contains(&leader.address));
}

#[tokio::test]
async fn a_stream_moves_when_its_response_names_another_leader() {
    let (mut follower, mut leader) = (FakeNode::start().await, FakeNode::start().await);
    follower.script.lock().leader = Some(leader.address.clone());
    let client = Client::connect([&follower.address]).unwrap();
    let publisher = client.publisher(PublisherOptions::default());
    let _confirm = publisher.publish(vec![PublishMessage::new("q", "body")]).await.unwrap();
    let _first = follower.publish_session().await;
    let mut second = leader.publish_session().await;
    assert_eq!(second.request().await.publish.unwrap().producer.unwrap().sequence, 1);
}

#[tokio::test]
async fn a_node_without_a_leader_is_asked_again_after_the_time_it_names() {
    let node = FakeNode::start().await;
    node.script.lock().unavailable = 2;
    node.script.lock().retry_after_ms = Some(80);
    let client = Client::connect([&node.address]).unwrap();
    let began = Instant::now();
    declare(&client, "q").await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(160), "{:?}", began.elapsed());
}

#[tokio::test]
async fn when_the_leader_dies_another_node_is_asked() {
    let (mut leader, other) = (FakeNode::start().await, FakeNode::start().await);
    leader.script.lock().leader = Some(leader.address.clone());
    other.script.lock().leader = Some(leader.address.clone());
    let client = Client::connect([&leader.address, &other.address]).unwrap();
    // Twice: whichever node the first call goes to, the second goes to the leader.
    declare(&client, "before").await.unwrap();
    declare(&client, "before").await.unwrap();
    assert!(!leader.script.lock().declared.is_empty());
    leader.kill();
    declare(&client, "after").await.unwrap();
    assert!(other.script.lock().declared.contains(&"after".to_owned()));
}

#[tokio::test]
async fn after_the_deadline_the_error_says_whether_anything_was_sent() {
    let options = ClientOptions::default().retry_deadline(Duration::from_millis(200));
    let client = Client::connect_with([dead_address()], options.clone()).unwrap();
    assert!(matches!(declare(&client, "q").await, Err(Error::Unavailable { .. })));

    let node = FakeNode::start().await;
    node.script.lock().unavailable = usize::MAX;
    let client = Client::connect_with([&node.address], options).unwrap();
    assert!(matches!(declare(&client, "q").await, Err(Error::Timeout { .. })));
}

#[tokio::test]
async fn a_queue_that_is_gone_after_a_lost_answer_is_not_called_unknown_to_the_cluster() {
    let node = FakeNode::start().await;
    let client = Client::connect([&node.address]).unwrap();
    assert!(matches!(client.delete_queue("q", false, false).await, Err(Error::NotFound(_))));
    node.script.lock().unavailable = 1;
    assert!(matches!(client.delete_queue("q", false, false).await, Err(Error::Unknown(_))));
}

#[tokio::test]
async fn stale_reads_say_so_and_lists_are_read_to_their_end() {
    let node = FakeNode::start().await;
    let client = Client::connect([&node.address]).unwrap();
    client.queue_counts("q").await.unwrap();
    let stale = client.with_consistency(Consistency::Stale);
    let names: Vec<_> = stale.list_queues("").await.unwrap().into_iter().map(|queue| queue.name).collect();
    assert_eq!(names, ["a", "b"]);
    let stale = Some("stale".to_owned());
    assert_eq!(node.script.lock().consistencies, [None, stale.clone(), stale]);
}

#[tokio::test]
async fn an_acknowledgement_that_finds_its_lease_gone_tells_loss_from_doubt() {
    let node = FakeNode::start().await;
    let client = Client::connect([&node.address]).unwrap();
    let received = client.receive("q", 1, Duration::ZERO).await.unwrap();
    let lease = dwell_proto::v1::Lease { sequence: 1, token: 1 };
    received[0].ack().await.unwrap();
    node.script.lock().ack_answers.push_back(Ok(vec![lease]));
    assert!(matches!(received[0].ack().await, Err(Error::LeaseLost)));
    let lost_answer = Err(tonic::Status::unavailable("the leader is gone"));
    node.script.lock().ack_answers.extend([lost_answer, Ok(vec![lease])]);
    assert!(matches!(received[0].ack().await, Err(Error::Unknown(_))));
    assert_eq!(node.script.lock().acknowledged.len(), 4);
}
