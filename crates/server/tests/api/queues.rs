//! Settings of queues.

use dwell_proto::v1;
use tonic::Code;

use crate::cluster::{bodies_of, client_of_a_follower, delayed, message};

fn update(settings: v1::QueueSettings, fields: &[&str]) -> v1::UpdateQueueRequest {
    let fields = fields.iter().map(|field| (*field).to_owned()).collect();
    v1::UpdateQueueRequest { queue: "q".into(), settings: Some(settings), fields, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_changes_the_settings_that_it_names() {
    let (_cluster, mut client) = client_of_a_follower().await;
    let none = v1::QueueSettings::default;
    client.declare("q", v1::QueueSettings { delivery_limit: 3, ..none() }).await;
    let settings = v1::QueueSettings { paused: true, delivery_limit: 9, ..none() };
    client.queues.update_queue(update(settings, &["paused"])).await.unwrap();
    let shown = client.describe("q").await.settings.unwrap();
    assert_eq!((shown.paused, shown.delivery_limit), (true, 3));
    assert_eq!((shown.priority_max, shown.dedupe_window_ms), (Some(255), 300_000));

    let fixed = client.queues.update_queue(update(none(), &["priority_max"])).await.unwrap_err();
    assert_eq!(fixed.code(), Code::FailedPrecondition);
    let unknown = client.queues.update_queue(update(none(), &["color"])).await.unwrap_err();
    assert_eq!(unknown.code(), Code::InvalidArgument);
    let nowhere = v1::UpdateQueueRequest { queue: "nowhere".into(), ..update(none(), &["paused"]) };
    assert_eq!(client.queues.update_queue(nowhere).await.unwrap_err().code(), Code::NotFound);

    // What is shown is what it was declared with, so it can be declared again.
    let redeclare = v1::DeclareQueueRequest { queue: "q".into(), settings: Some(shown), ..Default::default() };
    assert!(!client.queues.declare_queue(redeclare).await.unwrap().into_inner().created);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_rejects_and_counts_what_it_refused() {
    let (_cluster, mut client) = client_of_a_follower().await;
    client.declare("q", v1::QueueSettings { messages_max: 1, ..Default::default() }).await;
    let results = client.publish(vec![message("q", "in"), message("q", "out")]).await.unwrap();
    assert_eq!(results[0].outcome(), v1::PublishOutcome::Stored);
    assert_eq!((results[1].outcome(), &*results[1].rejected_by), (v1::PublishOutcome::Rejected, "q"));
    let totals = client.describe("q").await.totals.unwrap();
    assert_eq!((totals.published, totals.refused), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delay_of_0_overrules_the_queues_default_delay() {
    let (_cluster, mut client) = client_of_a_follower().await;
    client.declare("q", v1::QueueSettings { default_delay_ms: 3_600_000, ..Default::default() }).await;
    client.publish(vec![message("q", "later"), delayed("q", 0)]).await.unwrap();
    assert_eq!(bodies_of(&client.receive("q", 10).await), [b"delayed"]);
    assert_eq!(client.describe("q").await.counts.unwrap().scheduled, 1);
}
