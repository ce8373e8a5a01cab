//! KEDA's questions to real processes: the metric rises before work is due, and is told without a leader.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::{Duration, Instant};

use dwell_proto::externalscaler::external_scaler_client::ExternalScalerClient;
use dwell_proto::externalscaler::{GetMetricsRequest, IsActiveResponse, ScaledObjectRef};
use dwell_proto::v1::{AckRequest, QueueSettings, ReceiveRequest};
use dwell_tests::environment::{READY_TIMEOUT, TestCluster, hold_in_time, now_ms};
use dwell_tests::raw::{RawClient, lease_of, message};
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

const QUEUE: &str = "renderings";
const METRIC: &str = "dwell-messages";
/// Far more than a follower is behind, or a stream takes to look again.
const TIMEOUT: Duration = Duration::from_secs(20);

/// What a scaled object says of the queue, with a lead time.
fn object(lead_time: &str) -> ScaledObjectRef {
    let metadata = [("queue", QUEUE), ("messagesPerReplica", "5"), ("leadTime", lead_time)];
    let scaler_metadata = metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    ScaledObjectRef { name: "renderers".into(), namespace: "default".into(), scaler_metadata }
}

#[derive(Clone)]
struct Scaler(ExternalScalerClient<Channel>);

impl Scaler {
    /// Of one node, and no other.
    fn of(address: &str) -> Scaler {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        Scaler(ExternalScalerClient::new(endpoint.connect_lazy()))
    }

    async fn messages(&mut self, lead_time: &str) -> Result<f64, Status> {
        let scaled_object_ref = Some(object(lead_time));
        let request = GetMetricsRequest { scaled_object_ref, metric_name: METRIC.into() };
        Ok(self.0.get_metrics(request).await?.into_inner().metric_values[0].metric_value_float)
    }

    async fn is_active(&mut self, lead_time: &str) -> bool {
        self.0.is_active(object(lead_time)).await.unwrap().into_inner().result
    }

    /// Asks until so many are told, and says when that was.
    async fn until_messages(&mut self, lead_time: &str, expected: f64) -> u64 {
        let started = Instant::now();
        loop {
            let found = self.messages(lead_time).await;
            if found.as_ref().is_ok_and(|found| *found == expected) {
                return now_ms();
            }
            assert!(started.elapsed() < TIMEOUT, "{found:?} within {lead_time}, not {expected}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn change(stream: &mut Streaming<IsActiveResponse>) -> bool {
    let next = tokio::time::timeout(TIMEOUT, stream.message()).await;
    next.expect("nothing was told").unwrap().expect("the stream ended").result
}

/// The leader's number, and a follower's.
async fn leader_and_follower(cluster: &TestCluster) -> (u64, u64) {
    let leader = cluster.leader(READY_TIMEOUT).await.unwrap();
    (leader, leader % 3 + 1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_tells_of_work_before_it_is_due() {
    hold_in_time(watch_work_come).await;
}

async fn watch_work_come() -> Result<(), String> {
    const DELAY_MS: i64 = 8_000;
    let cluster = TestCluster::start(&[]).await.unwrap();
    let (leader, follower) = leader_and_follower(&cluster).await;
    let mut client = RawClient::connect(&cluster.node(leader).unwrap().client_address()).await.unwrap();
    let mut scaler = Scaler::of(&cluster.node(follower).unwrap().client_address());
    client.declare(QUEUE, QueueSettings::default()).await.unwrap();
    scaler.until_messages("4s", 0.0).await;
    let mut stream = scaler.0.stream_is_active(object("4s")).await.unwrap().into_inner();
    assert!(!change(&mut stream).await);

    let before_ms = now_ms();
    let messages = (0..20).map(|number| message(QUEUE, number.to_string(), Some(DELAY_MS))).collect();
    client.publish(messages).await.unwrap();
    let due_ms = before_ms + DELAY_MS.unsigned_abs();
    // The follower knows of them, and that they are not due for long.
    scaler.until_messages("1h", 20.0).await;
    let early = (scaler.messages("4s").await.unwrap(), scaler.is_active("4s").await);
    if now_ms() > due_ms - 5_000 {
        return Err("publishing took too long to see the queue idle".to_owned());
    }
    assert_eq!(early, (0.0, false), "four seconds before they are due, not earlier");

    // Clocks of one machine: what is within the lead time cannot be earlier than this.
    assert!(change(&mut stream).await);
    let rose_ms = scaler.until_messages("4s", 20.0).await;
    assert!(rose_ms >= due_ms - 4_000, "{} ms before they were due", due_ms - rose_ms);
    let ready_meanwhile = client.counts(QUEUE).await.unwrap().ready;
    if rose_ms >= due_ms || ready_meanwhile > 0 {
        return Err("the metric was not seen to rise before the messages were due".to_owned());
    }

    // A worker takes them. It is not to be scaled away while it has them.
    let receive = ReceiveRequest { queue: QUEUE.into(), messages_max: 20, wait_ms: 30_000, ..Default::default() };
    let mut held = Vec::new();
    while held.len() < 20 {
        held.extend(client.messages.receive(receive.clone()).await.unwrap().into_inner().deliveries);
    }
    assert_eq!(scaler.messages("4s").await.unwrap(), 20.0);
    assert!(scaler.is_active("4s").await);
    let leases = held.iter().map(lease_of).collect();
    client.messages.ack(AckRequest { queue: QUEUE.into(), leases, ..Default::default() }).await.unwrap();
    assert!(!change(&mut stream).await);
    scaler.until_messages("4s", 0.0).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_goes_on_telling_when_the_leader_is_killed_and_when_there_is_none_any_more() {
    let cluster = TestCluster::start(&[]).await.unwrap();
    let (leader, follower) = leader_and_follower(&cluster).await;
    let other = 6 - leader - follower;
    let mut client = RawClient::connect(&cluster.node(leader).unwrap().client_address()).await.unwrap();
    let mut scaler = Scaler::of(&cluster.node(follower).unwrap().client_address());
    client.declare(QUEUE, QueueSettings::default()).await.unwrap();
    let mut messages = vec![message(QUEUE, "ready", None); 3];
    messages.push(message(QUEUE, "soon", Some(6_000)));
    messages.push(message(QUEUE, "late", Some(3_600_000)));
    client.publish(messages).await.unwrap();
    scaler.until_messages("2h", 5.0).await;
    let mut stream = scaler.0.stream_is_active(object("2h")).await.unwrap().into_inner();
    assert!(change(&mut stream).await);

    // Both of the others: the one that is left elects nobody.
    let (first, second) = tokio::join!(cluster.node(leader).unwrap().kill(), cluster.node(other).unwrap().kill());
    first.and(second).unwrap();
    assert_eq!(scaler.messages("2h").await.unwrap(), 5.0);
    assert!(scaler.is_active("2h").await);
    // Time goes on, although nobody releases what is due.
    scaler.until_messages("0s", 4.0).await;
    let silent = tokio::time::timeout(Duration::from_secs(2), stream.message()).await;
    assert!(silent.is_err(), "the stream goes on and has nothing new to tell, not {silent:?}");

    // With a majority there is a leader again, and the numbers follow.
    cluster.node(leader).unwrap().start().unwrap();
    let address = cluster.node(follower).unwrap().client_address();
    let mut client = RawClient::connect(&address).await.unwrap();
    let started = Instant::now();
    while let Err(status) = client.publish(vec![message(QUEUE, "more", None)]).await {
        assert!(started.elapsed() < READY_TIMEOUT, "{status}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // It may have been stored more than once: publishing was repeated without a sequence.
    let started = Instant::now();
    while scaler.messages("2h").await.unwrap() < 6.0 {
        assert!(started.elapsed() < TIMEOUT, "{:?}", scaler.messages("2h").await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_stops_does_not_wait_for_who_watches_it() {
    // Far below what it waits for calls under way.
    const PROMPT: Duration = Duration::from_secs(5);
    let cluster = TestCluster::start_nodes(1, &[]).await.unwrap();
    let node = cluster.node(1).unwrap();
    let mut client = RawClient::connect(&node.client_address()).await.unwrap();
    client.declare(QUEUE, QueueSettings::default()).await.unwrap();
    let mut scaler = Scaler::of(&node.client_address());
    let mut stream = scaler.0.stream_is_active(object("4s")).await.unwrap().into_inner();
    assert!(!change(&mut stream).await);
    let begun = Instant::now();
    node.stop().await.unwrap();
    assert!(begun.elapsed() < PROMPT, "it took {:?}", begun.elapsed());
    assert!(stream.message().await.unwrap().is_none(), "it ends without an error");
}
