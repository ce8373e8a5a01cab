//! Clients that are connected to nothing but followers.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::time::Duration;

use dwell_client::{Client, ClientOptions};
use dwell_proto::metadata;
use dwell_proto::v1::publish_stream_response::Outcome;
use dwell_proto::v1::{
    AckRequest, Attach, DeleteQueueRequest, DescribeQueueRequest, ExtendRequest, ListQueuesRequest, NackRequest,
    PublishRequest, PublishStreamRequest, QueueSettings, ReceiveRequest,
};
use dwell_tests::environment::{READY_TIMEOUT, TestCluster, hold_in_time};
use dwell_tests::history::Recorder;
use dwell_tests::raw::{RawClient, lease_of, message};
use dwell_tests::workload::{Consumption, Production, wait_until_drained};

/// The leader's client address, and the followers'.
async fn leader_and_followers(cluster: &TestCluster) -> (String, Vec<String>) {
    let leader = cluster.leader(READY_TIMEOUT).await.unwrap();
    let leader = cluster.node(leader).unwrap().client_address();
    let followers = cluster.client_addresses().into_iter().filter(|address| *address != leader).collect();
    (leader, followers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_works_on_a_follower_and_names_the_leader() {
    let cluster = TestCluster::start(&[]).await.unwrap();
    let (leader, followers) = leader_and_followers(&cluster).await;
    let mut client = RawClient::connect(&followers[0]).await.unwrap();
    let queue = "forwarded".to_owned();
    assert!(client.declare(&queue, QueueSettings::default()).await.unwrap());

    let publish = PublishRequest { messages: vec![message(&queue, "one", None)], ..Default::default() };
    let published = client.messages.publish(publish).await.unwrap();
    let named = published.metadata().get(metadata::LEADER).expect("the response names the leader");
    assert_eq!(named.to_str().unwrap(), leader);
    assert_eq!(client.counts(&queue).await.unwrap().ready, 1);

    let receive = ReceiveRequest { queue: queue.clone(), messages_max: 10, wait_ms: 5_000, ..Default::default() };
    let received = client.messages.receive(receive.clone()).await.unwrap().into_inner().deliveries;
    let leases = vec![lease_of(&received[0])];
    let extend = ExtendRequest { queue: queue.clone(), leases: leases.clone(), ..Default::default() };
    assert_eq!(client.messages.extend(extend).await.unwrap().into_inner().lost, []);
    let nack = NackRequest { queue: queue.clone(), leases, ..Default::default() };
    assert_eq!(client.messages.nack(nack).await.unwrap().into_inner().lost, []);
    let again = client.messages.receive(receive).await.unwrap().into_inner().deliveries;
    assert_eq!(again[0].delivery_count, 1);
    let ack = AckRequest { queue: queue.clone(), leases: vec![lease_of(&again[0])], ..Default::default() };
    assert_eq!(client.messages.ack(ack).await.unwrap().into_inner().lost, []);

    let describe = DescribeQueueRequest { queue: queue.clone(), ..Default::default() };
    let described = client.queues.describe_queue(describe).await.unwrap().into_inner().queue.unwrap();
    assert_eq!(described.name, queue);
    let listed = client.queues.list_queues(ListQueuesRequest::default()).await.unwrap().into_inner().queues;
    assert_eq!(listed.iter().map(|found| found.name.as_str()).collect::<Vec<_>>(), [queue.as_str()]);
    let delete = DeleteQueueRequest { queue, if_empty: true, if_unused: true, ..Default::default() };
    assert_eq!(client.queues.delete_queue(delete).await.unwrap().into_inner().messages, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_work_on_followers() {
    let cluster = TestCluster::start(&[]).await.unwrap();
    let (_, followers) = leader_and_followers(&cluster).await;
    let mut producer = RawClient::connect(&followers[0]).await.unwrap();
    let mut consumer = RawClient::connect(&followers[1]).await.unwrap();
    let queue = "streamed";
    producer.declare(queue, QueueSettings::default()).await.unwrap();
    let attach = Attach { queue: queue.to_owned(), credit: 100, ..Default::default() };
    let mut stream = consumer.attach(attach).await.unwrap();

    let requests = (1..=50_u64).map(move |request_id| {
        let messages = vec![message(queue, request_id.to_string(), Some(200))];
        PublishStreamRequest { request_id, publish: Some(PublishRequest { messages, ..Default::default() }) }
    });
    let mut confirms = producer.messages.publish_stream(tokio_stream::iter(requests)).await.unwrap().into_inner();
    for request_id in 1..=50 {
        let confirm = confirms.message().await.unwrap().expect("every request is confirmed");
        assert_eq!(confirm.request_id, request_id, "in the order of the requests");
        assert!(matches!(confirm.outcome, Some(Outcome::Confirmed(_))), "{confirm:?}");
    }
    let deliveries = stream.take(50).await.unwrap();
    let bodies: BTreeSet<_> = deliveries.iter().map(|delivery| delivery.message.clone().unwrap().body).collect();
    assert_eq!(bodies.len(), 50);
    assert_eq!(stream.ack(deliveries.iter().map(lease_of).collect()).await.unwrap().lost, []);
    stream.close().await.unwrap();
    assert_eq!(producer.counts(queue).await.unwrap(), Default::default());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_through_followers_only_keeps_every_promise() {
    hold_in_time(load_followers).await;
}

async fn load_followers() -> Result<(), String> {
    let cluster = TestCluster::start(&[]).await.unwrap();
    let (_, followers) = leader_and_followers(&cluster).await;
    // Each knows one follower, and does not go to the leader although it is told where that is.
    let only = |address: &String| {
        Client::connect_with([address.clone()], ClientOptions::default().follow_leader(false)).unwrap()
    };
    let (first, second) = (only(&followers[0]), only(&followers[1]));
    first.declare_queue("load", dwell_client::QueueSettings::default()).await.unwrap();
    let recorder = Recorder::default();
    let mut consumers = Vec::new();
    for (number, client) in [&first, &second].into_iter().enumerate() {
        let consumption = Consumption { queue: "load".to_owned(), number, credit: 50 };
        consumers.push(consumption.start(client, recorder.clone()).await.unwrap());
    }
    let production = |first_id| Production {
        queue: "load".to_owned(),
        first_id,
        messages: 1_500,
        interval: Duration::from_millis(2),
        delay_ms_max: 3_000,
        body_bytes: 256,
    };
    tokio::try_join!(
        production(0).run(first.clone(), recorder.clone()),
        production(1_500).run(second.clone(), recorder.clone()),
    )
    .unwrap();
    wait_until_drained(&first, "load", Duration::from_secs(40)).await.unwrap();
    let verdict = recorder.history().check(&[]);
    println!("{verdict}");
    assert_eq!(verdict.violations, []);
    assert_eq!((verdict.confirmed, verdict.allowed_duplicates), (3_000, 0));
    for consumer in consumers {
        consumer.stop().await.unwrap();
    }
    if verdict.lateness.per_mille_us(990) > 50_000 {
        return Err(format!("release lateness: {}", verdict.lateness));
    }
    Ok(())
}
