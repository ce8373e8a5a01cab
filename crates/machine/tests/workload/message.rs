//! Commands' contents, made of what was generated and the clock.

use std::collections::BTreeMap;

use bytes::Bytes;
use dwell_machine::{
    Content, Dates, ExpireNow, Filter, Interval, Pattern, PublishMessage, Recall, Recurrence, Reschedule, Revision,
    ScheduleDefinition,
};

use super::{NewFilter, NewMessage, NewRevision, NewSchedule, QUEUES};

fn absolute(offset_ms: Option<i64>, clock_ms: u64) -> u64 {
    offset_ms.map_or(0, |offset_ms| clock_ms.saturating_add_signed(offset_ms))
}

pub fn flood_message(queue: usize, number: u64, spread_ms: u64, ttl_ms: u64) -> PublishMessage {
    PublishMessage {
        routing_key: QUEUES[queue].into(),
        content: Content { body: Bytes::from_static(b"flood"), ..Content::default() },
        priority: if number.is_multiple_of(5) { 1 } else { 0 },
        // The primes only stir.
        delay_ms: if spread_ms == 0 { 0 } else { number * 7919 % spread_ms },
        ttl_ms: if number.is_multiple_of(3) { ttl_ms } else { 0 },
        group: if number.is_multiple_of(4) { format!("line {}", number % 3) } else { String::new() },
        ..PublishMessage::default()
    }
}

pub fn publish_message(message: &NewMessage, clock_ms: u64) -> PublishMessage {
    let mut headers = BTreeMap::from([("size".to_owned(), message.bytes.to_string())]);
    if message.kind > 0 {
        headers.insert("kind".into(), message.kind.to_string());
    }
    PublishMessage {
        exchange: message.exchange.into(),
        routing_key: message.routing_key.into(),
        mandatory: message.mandatory,
        content: Content {
            body: Bytes::from(vec![b'x'; message.bytes]),
            headers,
            content_type: "text/plain".into(),
            message_id: message.message_id.into(),
            ..Content::default()
        },
        priority: message.priority,
        delay_ms: message.delay_ms,
        immediate: message.immediate,
        deliver_at_ms: absolute(message.deliver_in_ms, clock_ms),
        ttl_ms: message.ttl_ms,
        expire_at_ms: absolute(message.expire_in_ms, clock_ms),
        dedupe_id: message.dedupe_id.into(),
        group: message.group.into(),
    }
}

pub fn revision(revision: NewRevision, clock_ms: u64) -> Option<Revision> {
    Some(match revision {
        NewRevision::Nothing => return None,
        NewRevision::Recall => Revision::Recall(Recall {}),
        NewRevision::ExpireNow => Revision::ExpireNow(ExpireNow {}),
        NewRevision::Delay(delay_ms) => Revision::Reschedule(Reschedule { delay_ms, deliver_at_ms: 0 }),
        NewRevision::DeliverIn(offset_ms) => {
            Revision::Reschedule(Reschedule { delay_ms: 0, deliver_at_ms: absolute(Some(offset_ms), clock_ms) })
        }
    })
}

pub fn filter(filter: &NewFilter, clock_ms: u64) -> Filter {
    Filter {
        due_from_ms: absolute(filter.due_from_in_ms, clock_ms),
        due_before_ms: absolute(filter.due_before_in_ms, clock_ms),
        ..filter.filter.clone()
    }
}

pub fn definition(schedule: &NewSchedule, clock_ms: u64) -> ScheduleDefinition {
    let pattern = match schedule.every_ms {
        0 => Pattern::Dates(Dates { at_ms: schedule.dates_in_ms.iter().map(|in_ms| clock_ms + in_ms).collect() }),
        every_ms => Pattern::Interval(Interval { every_ms, anchor_ms: schedule.anchor_ms }),
    };
    ScheduleDefinition {
        recurrence: Recurrence { pattern: Some(pattern) },
        start_at_ms: absolute(schedule.start_in_ms, clock_ms),
        end_at_ms: absolute(schedule.end_in_ms, clock_ms),
        jitter_ms: schedule.jitter_ms,
        misfire_after_ms: schedule.misfire_after_ms,
        misfires_max: schedule.misfires_max,
        message: publish_message(&schedule.message, clock_ms),
    }
}
