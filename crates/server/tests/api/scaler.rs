//! KEDA's questions, answered by a node that does not lead.

use std::time::{Duration, Instant};

use dwell_proto::externalscaler::external_scaler_client::ExternalScalerClient;
use dwell_proto::externalscaler::{GetMetricsRequest, IsActiveResponse, ScaledObjectRef};
use dwell_proto::v1;
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::cluster::{client_of_a_follower, delayed, lease_of, message};

const HOUR_MS: i64 = 60 * 60 * 1000;
const METRIC: &str = "dwell-messages";
const SERVICE: &str = "externalscaler.ExternalScaler";
/// A follower is a moment behind, and a stream looks every second.
const FOLLOW_TIMEOUT: Duration = Duration::from_secs(20);

fn object(metadata: &[(&str, &str)]) -> ScaledObjectRef {
    let given = [("messagesPerReplica", "5")].iter().chain(metadata);
    let scaler_metadata = given.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    ScaledObjectRef { name: "workers".into(), namespace: "default".into(), scaler_metadata }
}

async fn messages(scaler: &mut ExternalScalerClient<Channel>, metadata: &[(&str, &str)]) -> Result<i64, Status> {
    let scaled_object_ref = Some(object(metadata));
    let request = GetMetricsRequest { scaled_object_ref, metric_name: METRIC.into() };
    let values = scaler.get_metrics(request).await?.into_inner().metric_values;
    assert_eq!(values.len(), 1);
    assert_eq!((&*values[0].metric_name, values[0].metric_value_float), (METRIC, values[0].metric_value as f64));
    Ok(values[0].metric_value)
}

async fn is_active(scaler: &mut ExternalScalerClient<Channel>, metadata: &[(&str, &str)]) -> bool {
    scaler.is_active(object(metadata)).await.unwrap().into_inner().result
}

/// Asks until the follower has applied what the leader has confirmed.
async fn until_messages(scaler: &mut ExternalScalerClient<Channel>, metadata: &[(&str, &str)], expected: i64) {
    let started = Instant::now();
    loop {
        let found = messages(scaler, metadata).await;
        if found.as_ref().is_ok_and(|found| *found == expected) {
            return;
        }
        assert!(started.elapsed() < FOLLOW_TIMEOUT, "{metadata:?}: {found:?}, not {expected}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn change(stream: &mut Streaming<IsActiveResponse>) -> bool {
    let next = tokio::time::timeout(FOLLOW_TIMEOUT, stream.message()).await;
    next.expect("nothing was told").unwrap().expect("the stream ended").result
}

#[tokio::test(flavor = "multi_thread")]
async fn the_metric_is_what_is_ready_and_leased_and_due_within_the_lead_time_over_all_queues() {
    let (_cluster, mut client) = client_of_a_follower().await;
    let mut scaler = ExternalScalerClient::new(client.channel.clone());
    client.declare("q", v1::QueueSettings::default()).await;
    client.declare("r", v1::QueueSettings::default()).await;
    let plan = vec![message("q", "1"), message("q", "2"), message("q", "3"), delayed("q", HOUR_MS), message("r", "4")];
    client.publish(plan).await.unwrap();
    assert_eq!(client.receive("q", 1).await.len(), 1);

    // The lease is the last that was applied.
    until_messages(&mut scaler, &[("queue", "q"), ("countLeased", "false")], 2).await;
    for (metadata, expected) in [
        (vec![("queue", "q")], 3),
        (vec![("queue", "q"), ("leadTime", "30m")], 3),
        (vec![("queue", "q"), ("leadTime", "2h")], 4),
        (vec![("queue", "q, r"), ("leadTime", "2h")], 5),
        (vec![("queue", "r"), ("leadTime", "2h"), ("scalerAddress", "dwell:7600")], 1),
    ] {
        assert_eq!(messages(&mut scaler, &metadata).await.unwrap(), expected, "{metadata:?}");
    }

    let specs = scaler.get_metric_spec(object(&[("queue", "q")])).await.unwrap().into_inner().metric_specs;
    assert_eq!(specs.len(), 1);
    assert_eq!((&*specs[0].metric_name, specs[0].target_size, specs[0].target_size_float), (METRIC, 5, 5.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_needed_for_more_than_the_activation_and_for_what_is_leased() {
    let (_cluster, mut client) = client_of_a_follower().await;
    let mut scaler = ExternalScalerClient::new(client.channel.clone());
    client.declare("q", v1::QueueSettings::default()).await;
    client.publish(vec![message("q", "1"), message("q", "2"), delayed("q", HOUR_MS)]).await.unwrap();
    until_messages(&mut scaler, &[("queue", "q")], 2).await;
    assert!(is_active(&mut scaler, &[("queue", "q")]).await);
    assert!(is_active(&mut scaler, &[("queue", "q"), ("activationMessages", "1")]).await);
    let two = ("activationMessages", "2");
    assert!(!is_active(&mut scaler, &[("queue", "q"), two]).await);
    assert!(is_active(&mut scaler, &[("queue", "q"), two, ("leadTime", "2h")]).await);

    assert_eq!(client.receive("q", 2).await.len(), 2);
    until_messages(&mut scaler, &[("queue", "q"), ("countLeased", "false")], 0).await;
    assert!(is_active(&mut scaler, &[("queue", "q"), two]).await, "who has a message is not taken away");
    assert!(!is_active(&mut scaler, &[("queue", "q"), ("countLeased", "false")]).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_tells_at_once_and_then_each_change() {
    let (_cluster, mut client) = client_of_a_follower().await;
    let mut scaler = ExternalScalerClient::new(client.channel.clone());
    client.declare("q", v1::QueueSettings::default()).await;
    until_messages(&mut scaler, &[("queue", "q")], 0).await;
    let mut stream = scaler.stream_is_active(object(&[("queue", "q")])).await.unwrap().into_inner();
    assert!(!change(&mut stream).await);
    client.publish(vec![message("q", "1")]).await.unwrap();
    assert!(change(&mut stream).await);
    let held = client.receive("q", 1).await;
    let ack = v1::AckRequest { queue: "q".into(), leases: held.iter().map(lease_of).collect(), ..Default::default() };
    client.messages.ack(ack).await.unwrap();
    assert!(!change(&mut stream).await);
    let delete = v1::DeleteQueueRequest { queue: "q".into(), ..Default::default() };
    client.queues.delete_queue(delete).await.unwrap();
    let ended = tokio::time::timeout(FOLLOW_TIMEOUT, stream.message()).await.unwrap().unwrap_err();
    assert_eq!(ended.code(), Code::NotFound, "{ended}");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_watch_100_queues_of_a_node_and_leave_room_when_they_end() {
    let (_cluster, mut client) = client_of_a_follower().await;
    let mut scaler = ExternalScalerClient::new(client.channel.clone());
    let queues: Vec<String> = (0..10).map(|number| format!("q{number}")).collect();
    for queue in &queues {
        client.declare(queue, v1::QueueSettings::default()).await;
    }
    let queues = queues.join(",");
    let watched = object(&[("queue", &queues)]);
    until_messages(&mut scaler, &[("queue", &queues)], 0).await;
    let mut streams = Vec::new();
    for _ in 0..10 {
        let mut stream = scaler.stream_is_active(watched.clone()).await.unwrap().into_inner();
        assert!(!change(&mut stream).await);
        streams.push(stream);
    }
    let refused = scaler.stream_is_active(object(&[("queue", "q0")])).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
    assert!(!is_active(&mut scaler, &[("queue", "q0")]).await, "who asks is answered all the same");

    streams.pop();
    let started = Instant::now();
    while let Err(refused) = scaler.stream_is_active(watched.clone()).await {
        assert!(started.elapsed() < FOLLOW_TIMEOUT, "{refused}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_answered_is_refused_by_its_name() {
    let (_cluster, client) = client_of_a_follower().await;
    let mut scaler = ExternalScalerClient::new(client.channel.clone());
    for (metadata, field) in [
        (vec![], "`scalerMetadata.queue` must be set"),
        (vec![("queue", "q"), ("leadTime", "soon")], "`scalerMetadata.leadTime` must be a duration"),
        (vec![("queue", "q"), ("messagesPerReplica", "0")], "`scalerMetadata.messagesPerReplica` must be"),
        (vec![("queue", "q"), ("leadtime", "5m")], "`scalerMetadata.leadtime` is none of the keys"),
    ] {
        let refusals = [
            scaler.is_active(object(&metadata)).await.unwrap_err(),
            scaler.stream_is_active(object(&metadata)).await.unwrap_err(),
            scaler.get_metric_spec(object(&metadata)).await.unwrap_err(),
            messages(&mut scaler, &metadata).await.unwrap_err(),
        ];
        for refused in refusals {
            assert_eq!(refused.code(), Code::InvalidArgument, "{metadata:?}: {refused}");
            assert!(refused.message().starts_with(field), "{metadata:?}: {refused}");
        }
    }
    let other = GetMetricsRequest { scaled_object_ref: Some(object(&[("queue", "q")])), metric_name: "cpu".into() };
    let refused = scaler.get_metrics(other).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, "`metricName` must be `dwell-messages`"));

    let nowhere = [("queue", "nowhere")];
    for missing in
        [scaler.is_active(object(&nowhere)).await.unwrap_err(), messages(&mut scaler, &nowhere).await.unwrap_err()]
    {
        assert_eq!(missing.code(), Code::NotFound, "{missing}");
        assert!(missing.message().contains("nowhere"), "{missing}");
    }
    let mut stream = scaler.stream_is_active(object(&nowhere)).await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn health_and_reflection_know_the_scaler() {
    let (_cluster, client) = client_of_a_follower().await;
    let check = HealthCheckRequest { service: SERVICE.into() };
    let health = HealthClient::new(client.channel.clone()).check(check).await.unwrap().into_inner();
    assert_eq!(health.status(), ServingStatus::Serving);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::FileContainingSymbol(SERVICE.into())),
    };
    let mut reflection = ServerReflectionClient::new(client.channel);
    let answers = reflection.server_reflection_info(tokio_stream::iter([request])).await.unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap().message_response;
    assert!(matches!(answer, Some(MessageResponse::FileDescriptorResponse(_))), "{answer:?}");
}
