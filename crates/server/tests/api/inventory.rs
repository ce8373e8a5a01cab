//! Revising, seeing, forecasting.

use dwell_proto::v1;
use dwell_proto::v1::target::By;
use tonic::Code;

use crate::cluster::{Client, client_of_a_follower, delayed, lease_of, message};

const HOUR_MS: i64 = 60 * 60 * 1000;

fn named(sequences: Vec<u64>) -> Option<v1::Target> {
    let by = Some(By::Sequences(v1::Sequences { sequences }));
    Some(v1::Target { queue: "q".into(), by, revoke: false, after: 0 })
}

fn outcomes(response: &v1::ReviseResponse) -> Vec<v1::RevisionOutcome> {
    response.revised.iter().map(v1::Revised::outcome).collect()
}

fn sequence_of(result: &v1::PublishResult) -> u64 {
    result.handle.as_ref().unwrap().sequence
}

async fn progress_of(stream: tonic::Streaming<v1::ReviseProgress>) -> Vec<v1::ReviseProgress> {
    let mut stream = stream;
    let mut progress = Vec::new();
    while let Some(step) = stream.message().await.unwrap() {
        progress.push(step);
    }
    progress
}

#[tokio::test(flavor = "multi_thread")]
async fn named_messages_are_recalled_rescheduled_and_expired_with_true_answers() {
    let (_cluster, mut client) = client_of_a_follower().await;
    client.declare("q", v1::QueueSettings::default()).await;
    let results = client.publish(vec![message("q", "leased"), delayed("q", HOUR_MS), delayed("q", HOUR_MS)]).await;
    let sequences: Vec<u64> = results.unwrap().iter().map(sequence_of).collect();
    let held = client.receive("q", 1).await;

    let target = named(vec![sequences[0], sequences[1], u64::MAX]);
    let recall = v1::RecallRequest { target, ..Default::default() };
    let answers = client.inventory.recall(recall.clone()).await.unwrap().into_inner();
    use v1::RevisionOutcome::{Done, Gone, Leased, Unknown};
    assert_eq!(outcomes(&answers), [Leased, Done, Unknown]);
    let answers = client.inventory.recall(recall).await.unwrap().into_inner();
    assert_eq!(outcomes(&answers), [Leased, Gone, Unknown]);

    let time = Some(v1::NewTime { visible: Some(v1::new_time::Visible::DelayMs(0)) });
    let reschedule = v1::RescheduleRequest { target: named(vec![sequences[2]]), time, ..Default::default() };
    assert_eq!(outcomes(&client.inventory.reschedule(reschedule).await.unwrap().into_inner()), [Done]);
    assert_eq!(client.receive("q", 1).await[0].handle.as_ref().unwrap().sequence, sequences[2]);

    let revoke = v1::Target { revoke: true, ..named(vec![sequences[0]]).unwrap() };
    let expire = v1::ExpireNowRequest { target: Some(revoke), ..Default::default() };
    assert_eq!(outcomes(&client.inventory.expire_now(expire).await.unwrap().into_inner()), [Done]);
    let leases = vec![lease_of(&held[0])];
    let ack = v1::AckRequest { queue: "q".into(), leases: leases.clone(), ..Default::default() };
    assert_eq!(client.messages.ack(ack).await.unwrap().into_inner().lost, leases);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_revised_by_their_application_id() {
    let (_cluster, mut client) = client_of_a_follower().await;
    client.declare("q", v1::QueueSettings::default()).await;
    let with_id = |id: &str| {
        let content = v1::Message { message_id: id.into(), ..Default::default() };
        v1::PublishMessage { message: Some(content), ..delayed("q", HOUR_MS) }
    };
    client.publish(vec![with_id("a"), with_id("b"), with_id("a")]).await.unwrap();
    let target = v1::Target { queue: "q".into(), by: Some(By::MessageId("a".into())), revoke: false, after: 0 };
    let recall = v1::RecallRequest { target: Some(target), ..Default::default() };
    let answers = client.inventory.recall(recall).await.unwrap().into_inner();
    assert_eq!((outcomes(&answers), answers.has_more), (vec![v1::RevisionOutcome::Done; 2], false));
    assert_eq!(client.describe("q").await.counts.unwrap().scheduled, 1);
}

async fn publish_many(client: &mut Client, count: usize) {
    for _ in 0..count / 1000 {
        client.publish(vec![delayed("q", HOUR_MS); 1000]).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn matching_messages_are_revised_in_steps_with_the_progress_so_far() {
    let (_cluster, mut client) = client_of_a_follower().await;
    client.declare("q", v1::QueueSettings::default()).await;
    publish_many(&mut client, 5000).await;
    let selection = Some(v1::Selection { queue: "q".into(), ..Default::default() });

    let time = Some(v1::NewTime { visible: Some(v1::new_time::Visible::DelayMs(2 * HOUR_MS)) });
    let reschedule = v1::RescheduleMatchingRequest { selection: selection.clone(), time, ..Default::default() };
    let stream = client.inventory.reschedule_matching(reschedule).await.unwrap().into_inner();
    let progress = progress_of(stream).await;
    let last = progress.last().unwrap();
    assert_eq!((last.revised, last.done), (5000, true), "{progress:?}");

    let recall = v1::RecallMatchingRequest { selection, ..Default::default() };
    let stream = client.inventory.recall_matching(recall).await.unwrap().into_inner();
    let progress = progress_of(stream).await;
    assert!(progress.len() >= 3 && progress.is_sorted_by_key(|step| step.revised), "{progress:?}");
    let (last, before) = progress.split_last().unwrap();
    assert!(before.iter().all(|step| !step.done) && last.done);
    assert_eq!((last.revised, last.leased), (5000, 0));
    assert_eq!(client.describe("q").await.counts.unwrap(), v1::QueueCounts::default());

    let selection = Some(v1::Selection { queue: "nowhere".into(), ..Default::default() });
    let expire = v1::ExpireMatchingRequest { selection, ..Default::default() };
    let mut stream = client.inventory.expire_matching(expire).await.unwrap().into_inner();
    assert_eq!(stream.message().await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revision_ends_when_its_client_is_gone() {
    let (_cluster, mut client) = client_of_a_follower().await;
    client.declare("q", v1::QueueSettings::default()).await;
    publish_many(&mut client, 50_000).await;
    let selection = Some(v1::Selection { queue: "q".into(), ..Default::default() });
    let recall = v1::RecallMatchingRequest { selection, ..Default::default() };
    let mut stream = client.inventory.recall_matching(recall).await.unwrap().into_inner();
    stream.message().await.unwrap().unwrap();
    drop(stream);
    let mut before = client.describe("q").await.counts.unwrap().scheduled;
    loop {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        let now = client.describe("q").await.counts.unwrap().scheduled;
        if now == before {
            break;
        }
        before = now;
    }
    assert!(before > 0, "all were recalled, though the client left after the first step");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_seen_without_being_leased() {
    let (_cluster, mut client) = client_of_a_follower().await;
    client.declare("q", v1::QueueSettings::default()).await;
    let results = client.publish(vec![delayed("q", HOUR_MS), delayed("q", 2 * HOUR_MS), message("q", "now")]).await;
    let sequences: Vec<u64> = results.unwrap().iter().map(sequence_of).collect();

    let get = |sequence| v1::GetMessageRequest { queue: "q".into(), sequence, ..Default::default() };
    let found = client.inventory.get_message(get(sequences[0])).await.unwrap().into_inner().message.unwrap();
    assert_eq!((found.state(), found.body_bytes), (v1::MessageState::Scheduled, 7));
    assert_eq!(&found.message.unwrap().body[..], b"delayed");
    assert_eq!(&*found.routing_key, "q");
    let gone = client.inventory.get_message(get(u64::MAX)).await.unwrap_err();
    assert_eq!(gone.code(), Code::NotFound);

    let browse = |page_token| v1::BrowseMessagesRequest {
        queue: "q".into(),
        state: v1::MessageState::Scheduled.into(),
        page_size: 1,
        page_token,
        ..Default::default()
    };
    let page = client.inventory.browse_messages(browse(Default::default())).await.unwrap().into_inner();
    assert_eq!(page.messages[0].handle.as_ref().unwrap().sequence, sequences[0]);
    assert!(page.messages[0].message.as_ref().unwrap().body.is_empty());
    let page = client.inventory.browse_messages(browse(page.next_page_token)).await.unwrap().into_inner();
    assert_eq!(page.messages[0].handle.as_ref().unwrap().sequence, sequences[1]);
    assert!(page.next_page_token.is_empty());
    let strange = client.inventory.browse_messages(browse("strange".into())).await.unwrap_err();
    assert_eq!(strange.code(), Code::InvalidArgument);
    assert_eq!(client.describe("q").await.totals.unwrap().delivered, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forecast_says_what_falls_due_when() {
    let (_cluster, mut client) = client_of_a_follower().await;
    client.declare("q", v1::QueueSettings::default()).await;
    client.publish(vec![delayed("q", HOUR_MS), delayed("q", 3 * HOUR_MS), message("q", "now")]).await.unwrap();
    let horizons_ms = vec![2 * HOUR_MS, 4 * HOUR_MS];
    let request = v1::ForecastRequest { queue: "q".into(), horizons_ms, ..Default::default() };
    let forecast = client.inventory.forecast(request).await.unwrap().into_inner();
    let counts = forecast.counts.unwrap();
    assert_eq!((counts.scheduled, counts.ready), (2, 1));
    let due: Vec<(u64, bool)> = forecast.due.iter().map(|due| (due.messages, due.exact)).collect();
    assert_eq!(due, [(1, true), (2, true)]);
    let request = v1::ForecastRequest { queue: "nowhere".into(), ..Default::default() };
    assert_eq!(client.inventory.forecast(request).await.unwrap_err().code(), Code::NotFound);
}
