//! Schedules.

use dwell_proto::v1;
use dwell_proto::v1::schedule_definition::Recurrence;
use tonic::Code;

use crate::cluster::{Client, bodies_of, client_of_a_follower, message};

fn every(every_ms: i64) -> v1::ScheduleDefinition {
    let recurrence = Some(Recurrence::Interval(v1::Interval { every_ms, anchor_ms: None }));
    v1::ScheduleDefinition { recurrence, message: Some(message("q", "tick")), ..Default::default() }
}

fn cron(expression: &str, time_zone: &str) -> v1::ScheduleDefinition {
    let cron = v1::Cron { expression: expression.into(), time_zone: time_zone.into() };
    v1::ScheduleDefinition { recurrence: Some(Recurrence::Cron(cron)), ..every(1000) }
}

fn declare(definition: v1::ScheduleDefinition, replace: bool) -> v1::DeclareScheduleRequest {
    let definition = Some(definition);
    v1::DeclareScheduleRequest { schedule: "s".into(), definition, replace, ..Default::default() }
}

async fn describe(client: &mut Client, next_max: u32) -> v1::DescribeScheduleResponse {
    let request = v1::DescribeScheduleRequest { schedule: "s".into(), next_max, ..Default::default() };
    client.schedules.describe_schedule(request).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_fires_and_remembers_it() {
    let (_cluster, mut client) = client_of_a_follower().await;
    client.declare("q", v1::QueueSettings::default()).await;
    assert!(client.schedules.declare_schedule(declare(every(200), false)).await.unwrap().into_inner().created);
    for _ in 0..2 {
        let deliveries = client.receive("q", 1).await;
        assert_eq!(bodies_of(&deliveries), [b"tick"]);
        assert_eq!(deliveries[0].message.as_ref().unwrap().headers["dwell-schedule"], "s");
    }
    let described = describe(&mut client, 3).await;
    let schedule = described.schedule.unwrap();
    assert!(schedule.fired >= 2 && described.history.len() >= 2);
    assert_eq!(described.next_due_ms.len(), 3);
    assert_eq!(described.next_due_ms[0], schedule.next_due_ms);
    assert_eq!(described.next_due_ms[1] - described.next_due_ms[0], 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_is_declared_again_paused_triggered_resumed_and_deleted() {
    let (_cluster, mut client) = client_of_a_follower().await;
    client.declare("q", v1::QueueSettings::default()).await;
    client.schedules.declare_schedule(declare(every(3_600_000), false)).await.unwrap();
    // Its anchor was made by the server: declared again, it is the same all the same.
    let again = client.schedules.declare_schedule(declare(every(3_600_000), false)).await.unwrap();
    assert!(!again.into_inner().created);
    let differs = client.schedules.declare_schedule(declare(every(60_000), false)).await.unwrap_err();
    assert_eq!(differs.code(), Code::AlreadyExists);
    client.schedules.declare_schedule(declare(cron("0 9 * * *", ""), true)).await.unwrap();

    let pause = v1::PauseScheduleRequest { schedule: "s".into(), ..Default::default() };
    client.schedules.pause_schedule(pause).await.unwrap();
    let described = describe(&mut client, 3).await;
    let schedule = described.schedule.unwrap();
    assert_eq!((schedule.paused, schedule.next_due_ms, described.next_due_ms), (true, 0, vec![]));
    let utc = v1::Cron { expression: "0 9 * * *".into(), time_zone: "UTC".into() };
    assert_eq!(schedule.definition.unwrap().recurrence, Some(Recurrence::Cron(utc)));

    let trigger = v1::TriggerScheduleRequest { schedule: "s".into(), ..Default::default() };
    let firing = client.schedules.trigger_schedule(trigger).await.unwrap().into_inner().firing.unwrap();
    assert_eq!((firing.due_ms, firing.sequences.len(), &*firing.problem), (0, 1, ""));
    let resume = v1::ResumeScheduleRequest { schedule: "s".into(), ..Default::default() };
    client.schedules.resume_schedule(resume.clone()).await.unwrap();
    assert_eq!(describe(&mut client, 3).await.next_due_ms.len(), 3);

    let list = client.schedules.list_schedules(v1::ListSchedulesRequest::default()).await.unwrap().into_inner();
    assert_eq!((list.schedules.len(), &*list.schedules[0].name, list.next_page_token), (1, "s", String::new()));
    let delete = v1::DeleteScheduleRequest { schedule: "s".into(), ..Default::default() };
    client.schedules.delete_schedule(delete).await.unwrap();
    assert_eq!(client.schedules.resume_schedule(resume).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_shows_due_times_or_says_what_is_wrong() {
    let (_cluster, mut client) = client_of_a_follower().await;
    let preview = |definition, next_max| v1::PreviewScheduleRequest { definition: Some(definition), next_max };
    let due = client.schedules.preview_schedule(preview(cron("0 9 * * *", "Europe/Vienna"), 3)).await.unwrap();
    assert_eq!(due.into_inner().next_due_ms.len(), 3);
    for (wrong, field) in [
        (cron("61 * * * *", ""), "`definition.cron`"),
        (cron("0 9 * * *", "Europe/Nowhere"), "`definition.cron`"),
        (every(99), "`definition.interval.every_ms`"),
    ] {
        let refused = client.schedules.preview_schedule(preview(wrong, 3)).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        assert!(refused.message().starts_with(field), "{}", refused.message());
    }
}
