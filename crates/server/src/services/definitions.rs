//! From the machine's schedules to the API's.

use dwell_machine::{FiringRecord, Pattern, PublishMessage, ScheduleDefinition, ScheduleView};
use dwell_proto::v1;
use dwell_proto::v1::schedule_definition::Recurrence;
use dwell_proto::v1::timing::Visible;

use super::signed;

pub(super) fn schedule_of(view: ScheduleView) -> v1::Schedule {
    v1::Schedule {
        name: view.name,
        definition: Some(definition_of(view.definition)),
        paused: view.paused,
        next_due_ms: signed(view.next_due_ms),
        fired: view.fired,
        created_at_ms: signed(view.created_at_ms),
    }
}

pub(super) fn firing_of(firing: FiringRecord) -> v1::Firing {
    v1::Firing {
        due_ms: signed(firing.due_ms),
        fired_ms: signed(firing.fired_ms),
        sequences: firing.sequences,
        problem: firing.problem,
        skipped: firing.skipped,
    }
}

fn definition_of(definition: ScheduleDefinition) -> v1::ScheduleDefinition {
    let misfire = match definition.misfires_max {
        0 => v1::Misfire::Skip,
        1 => v1::Misfire::Once,
        _ => v1::Misfire::All,
    };
    v1::ScheduleDefinition {
        recurrence: definition.recurrence.pattern.map(recurrence_of),
        start_at_ms: optional(definition.start_at_ms),
        end_at_ms: optional(definition.end_at_ms),
        jitter_ms: signed(definition.jitter_ms),
        misfire: misfire.into(),
        misfire_after_ms: signed(definition.misfire_after_ms),
        misfires_max: if misfire == v1::Misfire::All { definition.misfires_max } else { 0 },
        message: Some(message_of(definition.message)),
    }
}

fn recurrence_of(pattern: Pattern) -> Recurrence {
    match pattern {
        Pattern::Cron(cron) => Recurrence::Cron(v1::Cron { expression: cron.expression, time_zone: cron.time_zone }),
        Pattern::Interval(interval) => Recurrence::Interval(v1::Interval {
            every_ms: signed(interval.every_ms),
            anchor_ms: Some(signed(interval.anchor_ms)),
        }),
        Pattern::Dates(dates) => Recurrence::Dates(v1::Dates { at_ms: dates.at_ms.into_iter().map(signed).collect() }),
    }
}

fn message_of(message: PublishMessage) -> v1::PublishMessage {
    let timing = timing_of(&message);
    let content = message.content;
    v1::PublishMessage {
        routing_key: message.routing_key,
        message: Some(v1::Message {
            body: content.body,
            headers: content.headers,
            content_type: content.content_type,
            correlation_id: content.correlation_id,
            reply_to: content.reply_to,
            message_id: content.message_id,
            priority: message.priority,
        }),
        timing: (timing != v1::Timing::default()).then_some(timing),
        exchange: message.exchange,
        mandatory: message.mandatory,
        dedupe_id: message.dedupe_id,
        group: message.group,
    }
}

fn timing_of(message: &PublishMessage) -> v1::Timing {
    let visible = match (message.deliver_at_ms, message.delay_ms) {
        (0, 0) => message.immediate.then_some(Visible::DelayMs(0)),
        (0, delay_ms) => Some(Visible::DelayMs(signed(delay_ms))),
        (deliver_at_ms, _) => Some(Visible::DeliverAtMs(signed(deliver_at_ms))),
    };
    v1::Timing { visible, ttl_ms: optional(message.ttl_ms), expire_at_ms: optional(message.expire_at_ms) }
}

/// What the machine keeps as 0 is left out in the API.
fn optional(value: u64) -> Option<i64> {
    (value != 0).then(|| signed(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::{Limits, declare_schedule};

    const NOW_MS: u64 = 1_800_000_000_000;

    /// As it is shown after it was declared.
    fn shown(definition: v1::ScheduleDefinition) -> v1::ScheduleDefinition {
        let request =
            v1::DeclareScheduleRequest { schedule: "s".into(), definition: Some(definition), ..Default::default() };
        let limits = Limits { body_bytes_max: 100 };
        definition_of(declare_schedule(request, &limits, NOW_MS, NOW_MS).unwrap().definition)
    }

    fn full(recurrence: Recurrence, visible: Visible) -> v1::ScheduleDefinition {
        v1::ScheduleDefinition {
            recurrence: Some(recurrence),
            start_at_ms: Some(NOW_MS as i64),
            end_at_ms: Some(NOW_MS as i64 + 1_000_000),
            jitter_ms: 5,
            misfire: v1::Misfire::All.into(),
            misfire_after_ms: 6,
            misfires_max: 7,
            message: Some(v1::PublishMessage {
                routing_key: "k".into(),
                message: Some(v1::Message {
                    body: "body".into(),
                    headers: [("color".to_owned(), "red".to_owned())].into(),
                    content_type: "text/plain".into(),
                    correlation_id: "c".into(),
                    reply_to: "r".into(),
                    message_id: "m".into(),
                    priority: 8,
                }),
                timing: Some(v1::Timing { visible: Some(visible), ttl_ms: Some(9), expire_at_ms: None }),
                exchange: "e".into(),
                mandatory: true,
                dedupe_id: "d".into(),
                group: "g".into(),
            }),
        }
    }

    #[test]
    fn a_schedule_is_shown_as_it_was_declared() {
        let at = NOW_MS as i64 + 60_000;
        let cron = v1::Cron { expression: "0 9 * * 1".into(), time_zone: "Europe/Vienna".into() };
        for (recurrence, visible) in [
            (Recurrence::Cron(cron), Visible::DelayMs(0)),
            (Recurrence::Interval(v1::Interval { every_ms: 1000, anchor_ms: Some(at) }), Visible::DelayMs(3)),
            (Recurrence::Dates(v1::Dates { at_ms: vec![at, at + 1] }), Visible::DelayMs(60_000)),
        ] {
            let definition = full(recurrence, visible);
            assert_eq!(shown(definition.clone()), definition);
        }
    }

    #[test]
    fn what_was_filled_in_is_shown() {
        let recurrence = Some(Recurrence::Interval(v1::Interval { every_ms: 1000, anchor_ms: None }));
        let message = Some(v1::PublishMessage { routing_key: "q".into(), ..Default::default() });
        let shown = shown(v1::ScheduleDefinition { recurrence, message, ..Default::default() });
        assert_eq!((shown.misfire(), shown.misfires_max, shown.misfire_after_ms), (v1::Misfire::Once, 0, 60_000));
        assert_eq!((shown.start_at_ms, shown.message.unwrap().timing), (None, None));
        let anchored = v1::Interval { every_ms: 1000, anchor_ms: Some(NOW_MS as i64) };
        assert_eq!(shown.recurrence, Some(Recurrence::Interval(anchored)));
    }
}
