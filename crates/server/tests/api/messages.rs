//! Transactions, dead letters, duplicates.

use dwell_proto::v1;
use tonic::Code;

use crate::cluster::{bodies_of, client_of_a_follower, lease_of, message};

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_acknowledges_and_publishes_or_does_neither() {
    let (_cluster, mut client) = client_of_a_follower().await;
    for queue in ["in", "out"] {
        client.declare(queue, v1::QueueSettings::default()).await;
    }
    client.publish(vec![message("in", "work")]).await.unwrap();
    let lease = lease_of(&client.receive("in", 1).await[0]);
    let transact = v1::TransactRequest {
        acks: vec![v1::QueueLeases { queue: "in".into(), leases: vec![lease] }],
        messages: vec![message("out", "result")],
        ..Default::default()
    };
    let results = client.messages.transact(transact.clone()).await.unwrap().into_inner().results;
    assert_eq!(results[0].handle.as_ref().unwrap().queue, "out");
    let lost = client.messages.transact(transact).await.unwrap_err();
    assert_eq!(lost.code(), Code::FailedPrecondition);
    assert_eq!(bodies_of(&client.receive("out", 10).await), [b"result"]);
    assert_eq!(client.describe("in").await.counts.unwrap(), v1::QueueCounts::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_message_arrives_as_a_dead_letter_with_its_history() {
    let (_cluster, mut client) = client_of_a_follower().await;
    let to = v1::DeadLetter { exchange: String::new(), routing_key: Some("dead".into()) };
    client.declare("dead", v1::QueueSettings::default()).await;
    client.declare("q", v1::QueueSettings { dead_letter: Some(to), ..Default::default() }).await;
    client.publish(vec![message("q", "poison")]).await.unwrap();
    let leases = vec![lease_of(&client.receive("q", 1).await[0])];
    let nack = v1::NackRequest { queue: "q".into(), leases, reject: true, ..Default::default() };
    assert_eq!(client.messages.nack(nack.clone()).await.unwrap().into_inner().lost, []);
    let contradiction = v1::NackRequest { delay_ms: Some(1), ..nack };
    let refused = client.messages.nack(contradiction).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, "`delay_ms` must be unset with `reject`"));

    let letters = client.receive("dead", 1).await;
    assert_eq!(bodies_of(&letters), [b"poison"]);
    let death = &letters[0].deaths[0];
    assert_eq!((&*death.queue, death.reason(), death.count), ("q", v1::DeathReason::Rejected, 1));
    assert_eq!(client.describe("q").await.totals.unwrap().dead_lettered, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_known_dedupe_id_is_answered_with_the_first_handle() {
    let (_cluster, mut client) = client_of_a_follower().await;
    client.declare("q", v1::QueueSettings::default()).await;
    let once = v1::PublishMessage { dedupe_id: "order-1".into(), ..message("q", "once") };
    let first = client.publish(vec![once.clone()]).await.unwrap();
    let again = client.publish(vec![once]).await.unwrap();
    assert_eq!((first[0].duplicate, again[0].duplicate), (false, true));
    assert_eq!(first[0].handle, again[0].handle);
    assert_eq!(again[0].outcome(), v1::PublishOutcome::Stored);
    assert_eq!(client.describe("q").await.counts.unwrap().ready, 1);
}
