//! Schedules.

use dwell_machine as machine;
use dwell_machine::limits::{
    DATES_MAX, HORIZON_MS, INTERVAL_MS_MIN, MISFIRE_AFTER_MS_DEFAULT, MISFIRES_MAX, SCHEDULE_JITTER_MS_MAX,
    SCHEDULE_MESSAGE_BYTES_MAX,
};
use dwell_proto::v1;
use dwell_proto::v1::schedule_definition::Recurrence;

use super::publish::publish_message;
use super::{Checked, Limits, count, invalid, name, namespace, optional_time, text, time, under, within};
use crate::status::Invalid;

/// Used where a cron schedule names no time zone.
const TIME_ZONE_DEFAULT: &str = "UTC";
/// Longest time after which a due time counts as missed.
const MISFIRE_AFTER_MS_MAX: u64 = 24 * 60 * 60 * 1000;
/// Most due times that a preview or description shows.
const NEXT_MAX: u64 = 1000;

/// A declaration of a schedule. `anchor_ms` is what an interval without start and anchor counts from.
pub fn declare_schedule(
    request: v1::DeclareScheduleRequest,
    limits: &Limits,
    now_ms: u64,
    anchor_ms: u64,
) -> Checked<machine::DeclareSchedule> {
    namespace(&request.namespace)?;
    name("schedule", &request.schedule)?;
    let mut given = request.definition.unwrap_or_default();
    let Some(message) = given.message.take() else { return invalid("definition.message", "must be set") };
    let message = under("definition.message", publish_message(message, limits, now_ms).and_then(recurring))?;
    let definition = machine::ScheduleDefinition { message, ..under("definition", timing(given, now_ms, anchor_ms))? };
    Ok(machine::DeclareSchedule { schedule: request.schedule, definition, replace: request.replace })
}

/// Refuses what does not suit a message that is published again and again.
fn recurring(message: machine::PublishMessage) -> Checked<machine::PublishMessage> {
    for (field, at_ms) in
        [("timing.deliver_at_ms", message.deliver_at_ms), ("timing.expire_at_ms", message.expire_at_ms)]
    {
        if at_ms != 0 {
            return invalid(
                field,
                "must not be set in a schedule: give `delay_ms` or `ttl_ms`, counted from each firing",
            );
        }
    }
    let headers = &message.content.headers;
    let headers_bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    let bytes = message.content.body.len() + headers_bytes;
    if bytes > SCHEDULE_MESSAGE_BYTES_MAX {
        let problem = format!("must have at most {SCHEDULE_MESSAGE_BYTES_MAX} bytes with its headers, not {bytes}");
        return invalid("message.body", problem);
    }
    Ok(message)
}

/// How many due times to show, at least `min`.
pub fn next_max(next_max: u32, min: u64) -> Checked<usize> {
    within("next_max", next_max.into(), min, NEXT_MAX).map(|next_max| next_max as usize)
}

/// What a preview is of, and how many due times it shows. The definition need not have a message.
pub fn preview(request: v1::PreviewScheduleRequest, now_ms: u64) -> Checked<(machine::ScheduleDefinition, usize)> {
    let next_max = next_max(request.next_max, 1)?;
    let definition = under("definition", timing(request.definition.unwrap_or_default(), now_ms, now_ms))?;
    Ok((definition, next_max))
}

/// All of a definition but for its message.
fn timing(given: v1::ScheduleDefinition, now_ms: u64, anchor_ms: u64) -> Checked<machine::ScheduleDefinition> {
    let start_at_ms = optional_time("start_at_ms", given.start_at_ms, now_ms)?;
    let end_at_ms = optional_time("end_at_ms", given.end_at_ms, now_ms)?;
    if end_at_ms != 0 && end_at_ms <= start_at_ms {
        return invalid("end_at_ms", format!("must be after `start_at_ms`, {start_at_ms}, and is {end_at_ms}"));
    }
    let anchor_ms = if start_at_ms == 0 { anchor_ms } else { start_at_ms };
    let (field, pattern) = match given.recurrence {
        Some(Recurrence::Cron(given)) => ("cron", machine::Pattern::Cron(under("cron", cron(given))?)),
        Some(Recurrence::Interval(given)) => {
            ("interval", machine::Pattern::Interval(under("interval", interval(given, now_ms, anchor_ms))?))
        }
        Some(Recurrence::Dates(given)) => ("dates", machine::Pattern::Dates(under("dates", dates(&given, now_ms))?)),
        None => return invalid("recurrence", "must be set: `cron`, `interval` or `dates`"),
    };
    let definition = machine::ScheduleDefinition {
        recurrence: machine::Recurrence { pattern: Some(pattern) },
        start_at_ms,
        end_at_ms,
        jitter_ms: within("jitter_ms", given.jitter_ms, 0, SCHEDULE_JITTER_MS_MAX)?,
        misfire_after_ms: match given.misfire_after_ms {
            0 => MISFIRE_AFTER_MS_DEFAULT,
            after_ms => within("misfire_after_ms", after_ms, 1, MISFIRE_AFTER_MS_MAX)?,
        },
        misfires_max: misfires_max(given.misfire, given.misfires_max)?,
        message: machine::PublishMessage::default(),
    };
    understood(field, &definition, now_ms)?;
    Ok(definition)
}

/// Refuses an expression or a time zone that the machine does not understand, before anything is proposed.
fn understood(field: &str, definition: &machine::ScheduleDefinition, now_ms: u64) -> Checked<()> {
    match machine::preview(definition, now_ms, 1) {
        Ok(_) => Ok(()),
        Err(refusal) => Err(Invalid { field: field.to_owned(), problem: format!("is not understood: {refusal}") }),
    }
}

fn cron(given: v1::Cron) -> Checked<machine::Cron> {
    // The expression is for the machine to understand: [`understood`].
    text("time_zone", &given.time_zone)?;
    let time_zone = if given.time_zone.is_empty() { TIME_ZONE_DEFAULT.to_owned() } else { given.time_zone };
    Ok(machine::Cron { expression: given.expression, time_zone })
}

fn interval(given: v1::Interval, now_ms: u64, anchor_ms: u64) -> Checked<machine::Interval> {
    let every_ms = within("every_ms", given.every_ms, INTERVAL_MS_MIN, HORIZON_MS)?;
    let anchor_ms = given.anchor_ms.map_or(Ok(anchor_ms), |anchor_ms| time("anchor_ms", anchor_ms, now_ms))?;
    Ok(machine::Interval { every_ms, anchor_ms })
}

fn dates(given: &v1::Dates, now_ms: u64) -> Checked<machine::Dates> {
    count("at_ms", given.at_ms.len(), 1, DATES_MAX)?;
    let mut at_ms = Vec::with_capacity(given.at_ms.len());
    for (position, date) in given.at_ms.iter().enumerate() {
        let field = format!("at_ms[{position}]");
        let date = time(&field, *date, now_ms)?;
        if at_ms.last().is_some_and(|last| *last >= date) {
            return invalid(&field, "must be after the one before it");
        }
        at_ms.push(date);
    }
    Ok(machine::Dates { at_ms })
}

fn misfires_max(misfire: i32, max: u32) -> Checked<u32> {
    match v1::Misfire::try_from(misfire) {
        Ok(v1::Misfire::Skip) => Ok(0),
        Ok(v1::Misfire::Unspecified | v1::Misfire::Once) => Ok(1),
        Ok(v1::Misfire::All) if (1..=MISFIRES_MAX).contains(&max) => Ok(max),
        Ok(v1::Misfire::All) => {
            invalid("misfires_max", format!("must be 1 to {MISFIRES_MAX} with MISFIRE_ALL, not {max}"))
        }
        Err(_) => invalid("misfire", format!("must be one of the policies, 0 to 3, not {misfire}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;
    const ANCHOR_MS: u64 = NOW_MS - 5;

    fn every(every_ms: i64) -> v1::ScheduleDefinition {
        let recurrence = Some(Recurrence::Interval(v1::Interval { every_ms, anchor_ms: None }));
        let message = Some(v1::PublishMessage { routing_key: "q".into(), ..Default::default() });
        v1::ScheduleDefinition { recurrence, message, ..Default::default() }
    }

    fn declared(definition: v1::ScheduleDefinition) -> Result<machine::ScheduleDefinition, String> {
        let request =
            v1::DeclareScheduleRequest { schedule: "s".into(), definition: Some(definition), ..Default::default() };
        let limits = Limits { body_bytes_max: 8 };
        declare_schedule(request, &limits, NOW_MS, ANCHOR_MS)
            .map(|declare| declare.definition)
            .map_err(|error| error.to_string())
    }

    fn anchor_of(definition: &machine::ScheduleDefinition) -> Option<u64> {
        match &definition.recurrence.pattern {
            Some(machine::Pattern::Interval(interval)) => Some(interval.anchor_ms),
            _ => None,
        }
    }

    #[test]
    fn what_is_not_said_is_filled_in() {
        let definition = declared(every(1000)).unwrap();
        assert_eq!((definition.misfires_max, definition.misfire_after_ms), (1, 60_000));
        assert_eq!(anchor_of(&definition), Some(ANCHOR_MS));
        let start = v1::ScheduleDefinition { start_at_ms: Some(NOW_MS as i64 + 7), ..every(1000) };
        assert_eq!(anchor_of(&declared(start).unwrap()), Some(NOW_MS + 7));
        let recurrence = Some(Recurrence::Cron(v1::Cron { expression: "0 9 * * *".into(), ..Default::default() }));
        let definition = declared(v1::ScheduleDefinition { recurrence, ..every(1000) }).unwrap();
        let expected = machine::Cron { expression: "0 9 * * *".into(), time_zone: "UTC".into() };
        assert_eq!(definition.recurrence.pattern, Some(machine::Pattern::Cron(expected)));
    }

    #[test]
    fn misfires_are_skipped_fire_once_or_up_to_a_number() {
        let with = |misfire: v1::Misfire, misfires_max| {
            let definition = v1::ScheduleDefinition { misfire: misfire.into(), misfires_max, ..every(1000) };
            declared(definition).map(|definition| definition.misfires_max)
        };
        assert_eq!(with(v1::Misfire::Skip, 0), Ok(0));
        assert_eq!(with(v1::Misfire::Once, 0), Ok(1));
        assert_eq!(with(v1::Misfire::All, 1000), Ok(1000));
        for max in [0, 1001] {
            let expected = format!("`definition.misfires_max` must be 1 to 1000 with MISFIRE_ALL, not {max}");
            assert_eq!(with(v1::Misfire::All, max).unwrap_err(), expected);
        }
    }

    #[test]
    fn values_out_of_their_limits_are_refused_by_their_path() {
        let now = NOW_MS as i64;
        let dates = |at_ms: Vec<i64>| Some(Recurrence::Dates(v1::Dates { at_ms }));
        let cron = |expression: String, time_zone: &str| {
            Some(Recurrence::Cron(v1::Cron { expression, time_zone: time_zone.into() }))
        };
        let with = |recurrence| v1::ScheduleDefinition { recurrence, ..every(1000) };
        for (definition, field) in [
            (every(99), "definition.interval.every_ms"),
            (with(None), "definition.recurrence"),
            (with(dates(vec![])), "definition.dates.at_ms"),
            (with(dates(vec![now; 1001])), "definition.dates.at_ms"),
            (with(dates(vec![now, now])), "definition.dates.at_ms[1]"),
            (with(dates(vec![now / 1000])), "definition.dates.at_ms[0]"),
            (with(cron(String::new(), "")), "definition.cron"),
            (with(cron("0 9 * * *".into(), &"x".repeat(256))), "definition.cron.time_zone"),
            (with(cron("61 * * * *".into(), "")), "definition.cron"),
            (with(cron("0 9 * * *".into(), "Europe/Nowhere")), "definition.cron"),
            (v1::ScheduleDefinition { jitter_ms: -1, ..every(1000) }, "definition.jitter_ms"),
            (v1::ScheduleDefinition { misfire_after_ms: 86_400_001, ..every(1000) }, "definition.misfire_after_ms"),
            (v1::ScheduleDefinition { misfire: 9, ..every(1000) }, "definition.misfire"),
            (v1::ScheduleDefinition { message: None, ..every(1000) }, "definition.message"),
            (
                v1::ScheduleDefinition { message: Some(Default::default()), ..every(1000) },
                "definition.message.routing_key",
            ),
            (
                v1::ScheduleDefinition { start_at_ms: Some(now), end_at_ms: Some(now), ..every(1000) },
                "definition.end_at_ms",
            ),
        ] {
            let problem = declared(definition).unwrap_err();
            assert!(problem.starts_with(&format!("`{field}` ")), "{field}: {problem}");
        }
    }

    #[test]
    fn a_preview_needs_no_message_and_shows_1_to_1000_due_times() {
        let with = |next_max| {
            let definition = Some(v1::ScheduleDefinition { message: None, ..every(1000) });
            preview(v1::PreviewScheduleRequest { definition, next_max }, NOW_MS).map_err(|error| error.to_string())
        };
        assert_eq!(with(3).unwrap().1, 3);
        assert_eq!(with(0).unwrap_err(), "`next_max` must be 1 to 1000, not 0");
        assert_eq!(with(1001).unwrap_err(), "`next_max` must be 1 to 1000, not 1001");
    }
}
