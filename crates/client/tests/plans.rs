//! Settings, transactions, revisions and schedules against a scripted node.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod fake;

use std::time::Duration;

use dwell_client::{
    BrowseOptions, Client, Consistency, Error, MessageState, PublishMessage, QueueSettings, RevisionOutcome, Selection,
    Target, Transaction,
};
use dwell_proto::v1;
use fake::FakeNode;
use futures::{StreamExt, TryStreamExt};
use tonic::Status;

async fn start() -> (FakeNode, Client) {
    let node = FakeNode::start().await;
    let client = Client::connect([&node.address]).unwrap();
    (node, client)
}

#[tokio::test]
async fn an_update_names_the_settings_that_it_changes() {
    let (node, client) = start().await;
    client.update_queue("q", QueueSettings::default().paused(true).without_backoff()).await.unwrap();
    let update = node.script.lock().updates.remove(0);
    assert_eq!((update.queue.as_str(), update.settings.unwrap().paused), ("q", true));
    assert_eq!(update.fields, ["paused", "backoff"]);
}

#[tokio::test]
async fn a_return_without_a_delay_is_told_from_one_at_once_and_from_a_rejection() {
    let (node, client) = start().await;
    let received = client.receive("q", 1, Duration::ZERO).await.unwrap();
    received[0].nack(None).await.unwrap();
    received[0].nack(Some(Duration::ZERO)).await.unwrap();
    received[0].nack(Some(Duration::from_secs(1))).await.unwrap();
    received[0].reject().await.unwrap();
    let returned: Vec<_> =
        node.script.lock().returned.iter().map(|request| (request.delay_ms, request.reject)).collect();
    assert_eq!(returned, [(None, false), (Some(0), false), (Some(1000), false), (None, true)]);
}

#[tokio::test]
async fn a_transaction_is_repeated_under_its_number_and_the_next_one_has_the_next() {
    let (node, client) = start().await;
    let received = client.receive("q", 1, Duration::ZERO).await.unwrap();
    node.script.lock().transact_answers.push_back(Status::unavailable("the leader is gone"));
    let transaction = || Transaction::new().ack(&received[0]).publish(PublishMessage::new("next", "body"));
    assert_eq!(client.transact(transaction()).await.unwrap().len(), 1);
    client.transact(transaction()).await.unwrap();
    node.script.lock().transact_answers.push_back(Status::failed_precondition("the lease is lost"));
    assert!(matches!(client.transact(transaction()).await, Err(Error::FailedPrecondition(_))));
    client.transact(transaction()).await.unwrap();

    let transactions = node.script.lock().transactions.clone();
    let leases = vec![v1::Lease { sequence: 1, token: 1 }];
    assert_eq!(transactions[0].acks, [v1::QueueLeases { queue: "q".into(), leases }]);
    assert_eq!(transactions[0], transactions[1]);
    let producers: Vec<_> = transactions.into_iter().map(|transaction| transaction.producer.unwrap()).collect();
    assert_eq!(producers.iter().map(|producer| producer.sequence).collect::<Vec<_>>(), [1, 1, 2, 3, 1]);
    assert_eq!(producers[3].producer_id, producers[0].producer_id);
    assert_ne!(producers[4].producer_id, producers[0].producer_id, "whether 3 is used is not known");
}

#[tokio::test]
async fn a_recall_that_had_to_be_repeated_says_what_it_cannot_know() {
    let (node, client) = start().await;
    let revised = |outcome: v1::RevisionOutcome| v1::Revised { handle: None, outcome: outcome.into() };
    let gone = vec![revised(v1::RevisionOutcome::Gone)];
    let lost_answer = Err(Status::unavailable("the leader is gone"));
    node.script.lock().recall_answers.extend([Ok(gone.clone()), lost_answer, Ok(gone)]);
    for expected in [RevisionOutcome::Gone, RevisionOutcome::DoneOrGone] {
        let revision = client.recall(Target::sequences("q", [7]).revoke()).await.unwrap();
        assert_eq!(revision.revised[0].outcome, expected);
    }
    let target = node.script.lock().recalls[0].target.clone().unwrap();
    assert!(target.revoke && target.queue == "q");
}

#[tokio::test]
async fn a_revision_by_filter_yields_its_steps_and_ends_after_the_last() {
    let (node, client) = start().await;
    let step = |examined, done| v1::ReviseProgress { examined, revised: examined / 2, leased: 0, done };
    node.script.lock().steps = vec![Ok(step(2000, false)), Ok(step(3000, true))];
    let mut revising = client.recall_matching(Selection::all("q")).await.unwrap();
    assert_eq!(revising.next().await.unwrap().unwrap().examined, 2000);
    assert_eq!(revising.finish().await.unwrap(), step(3000, true));

    node.script.lock().steps = vec![Ok(step(2000, false)), Err(Status::unavailable("the leader is gone"))];
    let revising = client.recall_matching(Selection::all("q")).await.unwrap();
    assert!(matches!(revising.finish().await, Err(Error::Unknown(_))));
    // Without a step that says so, it is not done.
    node.script.lock().steps = vec![Ok(step(2000, false))];
    let revising = client.recall_matching(Selection::all("q")).await.unwrap();
    assert!(matches!(revising.finish().await, Err(Error::Unknown(_))));
}

#[tokio::test]
async fn a_browse_goes_through_all_pages() {
    let (node, client) = start().await;
    let client = client.with_consistency(Consistency::Stale);
    let messages = client.browse("q", MessageState::Ready, BrowseOptions::default());
    let sequences: Vec<_> = messages.map_ok(|message| message.handle.unwrap().sequence).try_collect().await.unwrap();
    assert_eq!(sequences, [1, 2, 3]);
    assert_eq!(node.script.lock().consistencies, vec![Some("stale".to_owned()); 2]);
}

#[tokio::test]
async fn a_trigger_is_not_repeated_by_itself() {
    let (node, client) = start().await;
    node.script.lock().unavailable = 1;
    assert!(matches!(client.trigger_schedule("s").await, Err(Error::Unknown(_))));
    assert_eq!(node.script.lock().triggered, 1);
    client.trigger_schedule("s").await.unwrap();
}
