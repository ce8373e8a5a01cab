//! The queues, exchanges and schedules that the workload uses.

use std::time::Duration;

use dwell_client::{
    Backoff, Binding, Client, Error, ExchangeSettings, PublishMessage, QueueSettings, ScheduleDefinition,
};

use super::Workload;
use super::actor::body;
use crate::history::{Answer, Call, ExchangeFacts, QueueFacts, Recorder, ScheduleFacts, Topology};

/// Everything of all kinds.
pub(super) const WORK: &str = "work";
/// With a delivery limit and a backoff.
pub(super) const RETRY: &str = "retry";
/// For ordering groups.
pub(super) const GROUPS: &str = "groups";
/// Whose messages expire.
pub(super) const EXPIRING: &str = "expiring";
/// From where messages are passed on in transactions.
pub(super) const INCOMING: &str = "incoming";
/// Where they are passed on to.
pub(super) const OUTGOING: &str = "outgoing";
/// Where schedules publish to.
pub(super) const FIRED: &str = "fired";
/// Empty until priorities are tried at the end.
pub(super) const PRIORITIES: &str = "priorities";
/// Where dead letters are kept.
pub(super) const GRAVE: &str = "grave";
/// Copies each message to three queues.
pub(super) const FAN: &str = "fan";
/// These.
pub(super) const FAN_QUEUES: [&str; 3] = ["fan-a", "fan-b", "fan-c"];
/// Those that consumers take from, the busier ones more than once.
pub(super) const CONSUMED: [&str; 12] =
    [WORK, WORK, WORK, RETRY, GROUPS, GROUPS, EXPIRING, INCOMING, OUTGOING, FIRED, FAN_QUEUES[0], FAN_QUEUES[1]];

/// Messages of schedules have numbers from here on, which no process reaches.
const SCHEDULE_MESSAGES: u64 = 1 << 56;

/// The queues.
pub(super) fn queues() -> Vec<QueueFacts> {
    let queue = |name: &str, lease_timeout_ms| QueueFacts {
        name: name.into(),
        lease_timeout_ms,
        dead_letters: Some(GRAVE.into()),
        ..QueueFacts::default()
    };
    let mut queues = vec![
        queue(WORK, 2000),
        QueueFacts { delivery_limit: 3, backoff_ms: 400, ..queue(RETRY, 1000) },
        queue(GROUPS, 1500),
        QueueFacts { message_ttl_ms: 4000, ..queue(EXPIRING, 1000) },
        queue(INCOMING, 1500),
        queue(OUTGOING, 2000),
        queue(FIRED, 2000),
        queue(PRIORITIES, 5000),
        QueueFacts { dead_letters: None, kept: true, ..queue(GRAVE, 30_000) },
    ];
    queues.extend(FAN_QUEUES.iter().map(|name| queue(name, 2000)));
    queues
}

fn settings(queue: &QueueFacts) -> QueueSettings {
    let mut settings = QueueSettings::default()
        .lease_timeout(Duration::from_millis(queue.lease_timeout_ms))
        .delivery_limit(queue.delivery_limit)
        .message_ttl(Duration::from_millis(queue.message_ttl_ms));
    if queue.backoff_ms > 0 {
        let cap = Duration::from_millis(queue.backoff_ms);
        settings = settings.backoff(Backoff::exponential(cap / 4).cap(cap).jitter_percent(20));
    }
    match &queue.dead_letters {
        Some(dead_letters) => settings.dead_letter_queue(dead_letters),
        None => settings,
    }
}

/// The schedules: every other one skips what it missed.
pub(super) fn schedules(count: u32) -> Vec<ScheduleFacts> {
    let schedule = |number: u32| ScheduleFacts {
        schedule: format!("schedule-{number}"),
        queue: FIRED.into(),
        message: SCHEDULE_MESSAGES + u64::from(number),
        every_ms: 200 + 800 * u64::from(number) / u64::from(count.max(2) - 1),
        misfire_after_ms: 1000,
        misfires_max: if number.is_multiple_of(2) { 0 } else { 1000 },
    };
    (0..count).map(schedule).collect()
}

/// Declares everything.
pub(super) async fn declare(workload: &Workload, client: &Client, recorder: &Recorder) -> Result<(), Error> {
    let queues = queues();
    // Dead letters need their queue first.
    for queue in queues.iter().rev() {
        client.declare_queue(&queue.name, settings(queue)).await?;
    }
    client.declare_exchange(FAN, ExchangeSettings::fanout()).await?;
    for queue in FAN_QUEUES {
        client.bind(Binding::to_queue(FAN, queue)).await?;
    }
    let fan = ExchangeFacts { name: FAN.into(), queues: FAN_QUEUES.map(String::from).to_vec() };
    recorder.topology(Topology { queues, exchanges: vec![fan] });
    for schedule in schedules(workload.schedules) {
        let message =
            PublishMessage::new(&schedule.queue, body(schedule.message, 8)).message_id(schedule.message.to_string());
        let definition = ScheduleDefinition::every(Duration::from_millis(schedule.every_ms))
            .misfire_after(Duration::from_millis(schedule.misfire_after_ms))
            .message(message);
        let definition = match schedule.misfires_max {
            0 => definition.skip_missed(),
            most => definition.fire_all_missed(most),
        };
        let name = schedule.schedule.clone();
        let invocation = recorder.invoke(0, Call::DeclareSchedule(schedule));
        match client.declare_schedule(name, definition).await {
            Ok(_) => recorder.ok(invocation, Answer::Done),
            Err(error) => {
                recorder.info(invocation, &error);
                return Err(error);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_run_every_200_to_1000_ms_with_both_policies() {
        let schedules = schedules(4);
        assert_eq!((schedules[0].every_ms, schedules[3].every_ms), (200, 1000));
        assert_eq!((schedules[0].misfires_max, schedules[1].misfires_max), (0, 1000));
    }

    #[test]
    fn every_queue_that_is_consumed_or_dead_lettered_to_exists() {
        let queues = queues();
        let names: Vec<&str> = queues.iter().map(|queue| queue.name.as_str()).collect();
        assert!(CONSUMED.iter().all(|queue| names.contains(queue)));
        assert!(queues.iter().filter_map(|queue| queue.dead_letters.as_deref()).all(|queue| names.contains(&queue)));
    }
}
