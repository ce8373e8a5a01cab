//! A job every night, at half past two by the clock on the wall, whatever becomes of summer time and of the nodes.

use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, ensure};
use dwell_client::{Client, Firing, PublishMessage, QueueSettings, ScheduleDefinition};

const SCHEDULE: &str = "nightly-report";
const QUEUE: &str = "jobs";
const HOUR_MS: i64 = 3_600_000;

/// Previews and declares the schedule, and triggers it, so that the job need not wait for the night. Answers the schedule's
/// history.
pub async fn run(server: &str) -> anyhow::Result<Vec<Firing>> {
    let client = Client::connect([server])?;
    // What an earlier run left.
    let _ = client.delete_schedule(SCHEDULE).await;
    let _ = client.delete_queue(QUEUE, false, false).await;
    client.declare_queue(QUEUE, QueueSettings::default()).await?;

    let nightly = ScheduleDefinition::cron("30 2 * * *")
        .time_zone("Europe/Vienna")
        // If all nodes were down at that time, the job is done once when they are back.
        .fire_missed_once()
        .message(PublishMessage::new(QUEUE, "make the report"));
    let due = client.preview_schedule(nightly.clone(), 400).await?;
    for at_ms in &due[..3] {
        println!("will be due at {}", show(*at_ms));
    }
    let days: Vec<i64> = due.windows(2).map(|pair| (pair[1] - pair[0]) / HOUR_MS).collect();
    ensure!(days.iter().all(|hours| (23..=25).contains(hours)), "a night is a day after the last one: {days:?}");
    // In summer half past two is at half past midnight UTC. In the night in which the clock jumps over it, it is due at
    // three.
    ensure!(days.contains(&25), "on one of the nights of a year the clock goes back");

    ensure!(client.declare_schedule(SCHEDULE, nightly.clone()).await?, "it is new");
    ensure!(!client.declare_schedule(SCHEDULE, nightly).await?, "to declare it again changes nothing");
    let report = client.describe_schedule(SCHEDULE, 1).await?;
    ensure!(report.next_due_ms == due[..1], "it is due as in the preview");

    let firing = client.trigger_schedule(SCHEDULE).await?;
    println!("triggered now: stored as {:?}", firing.sequences);
    let jobs = client.receive(QUEUE, 10, Duration::from_secs(10)).await?;
    let job = jobs.first().context("the job came")?;
    println!("job: {}", String::from_utf8_lossy(&job.message.body));
    ensure!(job.message.headers["dwell-schedule"] == SCHEDULE, "it says which schedule it comes from");
    ensure!(firing.sequences == [job.handle.sequence], "the firing says which message it made");
    job.ack().await?;

    let history = client.describe_schedule(SCHEDULE, 0).await?.history;
    for firing in &history {
        println!("history: fired at {}, stored as {:?}", show(firing.fired_ms), firing.sequences);
    }
    ensure!(history == [firing], "the history remembers it");
    client.delete_schedule(SCHEDULE).await?;
    client.delete_queue(QUEUE, true, false).await?;
    Ok(history)
}

fn show(at_ms: i64) -> humantime::Rfc3339Timestamp {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_millis(at_ms.unsigned_abs()))
}
