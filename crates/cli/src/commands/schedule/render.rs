//! Schedules, for people and for programs.

use anyhow::bail;
use dwell_client::{DeclaredScheduleDefinition, Firing, Misfire, Recurrence, Schedule, ScheduleReport};
use serde_json::{Value, json};

use crate::arguments::Output;
use crate::output;
use crate::times::{show_duration_ms, show_ms};

pub fn print_list(format: Output, schedules: &[Schedule]) -> anyhow::Result<()> {
    if format == Output::Json {
        return schedules.iter().try_for_each(|schedule| output::line(to_json(schedule)));
    }
    if schedules.is_empty() {
        return output::line("no schedules; `dwell schedule declare --help` says how to make one");
    }
    let mut table = output::table(&["schedule", "due", "to", "next", "fired"]);
    for schedule in schedules {
        let definition = schedule.definition.clone().unwrap_or_default();
        table.add_row([
            schedule.name.clone(),
            recurrence(&definition),
            destination(&definition),
            next(schedule),
            schedule.fired.to_string(),
        ]);
    }
    output::print_table(&table)
}

pub fn print_report(format: Output, report: &ScheduleReport) -> anyhow::Result<()> {
    let schedule = report.schedule.clone().unwrap_or_default();
    if format == Output::Json {
        let mut value = to_json(&schedule);
        value["next_dues_ms"] = json!(report.next_due_ms);
        value["history"] = report.history.iter().map(firing_json).collect();
        return output::line(value);
    }
    output::rows(&rows(&schedule))?;
    for at_ms in &report.next_due_ms {
        output::line(format!("due    {}", show_ms(*at_ms)))?;
    }
    report.history.iter().rev().try_for_each(|firing| output::line(format!("fired  {}", firing_text(firing))))
}

/// Prints what came of a trigger, and fails if its message was not stored.
pub fn print_firing(format: Output, schedule: &str, firing: &Firing) -> anyhow::Result<()> {
    if format == Output::Json {
        output::line(firing_json(firing))?;
    }
    if !firing.problem.is_empty() {
        bail!("schedule {schedule}: nothing was stored: {}", firing.problem);
    }
    if format == Output::Table {
        output::line(format!("schedule {schedule}: {}", firing_text(firing)))?;
    }
    Ok(())
}

fn rows(schedule: &Schedule) -> Vec<(&'static str, String)> {
    let definition = schedule.definition.clone().unwrap_or_default();
    let time = |at_ms: Option<i64>| at_ms.map(show_ms).unwrap_or_default();
    let duration = |ms: i64| if ms == 0 { String::new() } else { show_duration_ms(ms) };
    let mut rows = vec![
        ("schedule", schedule.name.clone()),
        ("due", recurrence(&definition)),
        ("to", destination(&definition)),
        ("next", next(schedule)),
        ("fired", format!("{} times", schedule.fired)),
        ("start", time(definition.start_at_ms)),
        ("end", time(definition.end_at_ms)),
        ("jitter", duration(definition.jitter_ms)),
        ("missed ones", misfire(&definition)),
        ("declared at", show_ms(schedule.created_at_ms)),
    ];
    rows.retain(|(_, value)| !value.is_empty());
    rows
}

fn next(schedule: &Schedule) -> String {
    match schedule.next_due_ms {
        _ if schedule.paused => "paused".into(),
        0 => "never again".into(),
        at_ms => show_ms(at_ms),
    }
}

fn recurrence(definition: &DeclaredScheduleDefinition) -> String {
    match &definition.recurrence {
        Some(Recurrence::Cron(cron)) if cron.time_zone.is_empty() => format!("{} (UTC)", cron.expression),
        Some(Recurrence::Cron(cron)) => format!("{} ({})", cron.expression, cron.time_zone),
        Some(Recurrence::Interval(interval)) => format!("every {}", show_duration_ms(interval.every_ms)),
        Some(Recurrence::Dates(dates)) => match &dates.at_ms[..] {
            [at_ms] => format!("at {}", show_ms(*at_ms)),
            dates => format!("at {} times", dates.len()),
        },
        None => "unknown".into(),
    }
}

fn destination(definition: &DeclaredScheduleDefinition) -> String {
    match &definition.message {
        None => "-".into(),
        Some(message) if message.exchange.is_empty() => format!("queue {}", message.routing_key),
        Some(message) if message.routing_key.is_empty() => format!("exchange {}", message.exchange),
        Some(message) => format!("exchange {}, key {}", message.exchange, message.routing_key),
    }
}

fn misfire(definition: &DeclaredScheduleDefinition) -> String {
    match definition.misfire() {
        Misfire::Skip => "are skipped".into(),
        Misfire::Once | Misfire::Unspecified => "fire once".into(),
        Misfire::All => format!("fire, at most {}", definition.misfires_max),
    }
}

fn misfire_name(misfire: Misfire) -> &'static str {
    match misfire {
        Misfire::Skip => "skip",
        Misfire::Once | Misfire::Unspecified => "once",
        Misfire::All => "all",
    }
}

fn firing_text(firing: &Firing) -> String {
    let due = match firing.due_ms {
        0 => "triggered".to_owned(),
        at_ms => format!("due {}", show_ms(at_ms)),
    };
    let sequences = firing.sequences.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    let outcome = match (firing.skipped, firing.problem.as_str()) {
        (true, _) => "missed, and skipped".to_owned(),
        (false, "") => format!("stored as {sequences}"),
        (false, problem) => format!("nothing was stored: {problem}"),
    };
    format!("{}, {due}: {outcome}", show_ms(firing.fired_ms))
}

fn firing_json(firing: &Firing) -> Value {
    json!({
        "due_ms": firing.due_ms,
        "fired_ms": firing.fired_ms,
        "sequences": firing.sequences,
        "problem": firing.problem,
        "skipped": firing.skipped,
    })
}

fn to_json(schedule: &Schedule) -> Value {
    let definition = schedule.definition.clone().unwrap_or_default();
    let recurrence = match &definition.recurrence {
        Some(Recurrence::Cron(cron)) => json!({ "cron": cron.expression, "time_zone": cron.time_zone }),
        Some(Recurrence::Interval(interval)) => {
            json!({ "every_ms": interval.every_ms, "anchor_ms": interval.anchor_ms })
        }
        Some(Recurrence::Dates(dates)) => json!({ "dates_ms": dates.at_ms }),
        None => Value::Null,
    };
    let message = definition.message.clone().unwrap_or_default();
    let content = message.message.unwrap_or_default();
    json!({
        "schedule": schedule.name,
        "recurrence": recurrence,
        "start_at_ms": definition.start_at_ms,
        "end_at_ms": definition.end_at_ms,
        "jitter_ms": definition.jitter_ms,
        "misfire": misfire_name(definition.misfire()),
        "misfires_max": definition.misfires_max,
        "misfire_after_ms": definition.misfire_after_ms,
        "exchange": message.exchange,
        "routing_key": message.routing_key,
        "headers": content.headers,
        "priority": content.priority,
        "body": output::body_json(&content.body),
        "paused": schedule.paused,
        "next_due_ms": schedule.next_due_ms,
        "fired": schedule.fired,
        "created_at_ms": schedule.created_at_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_firing_says_what_came_of_it() {
        let firing = Firing { due_ms: 1000, fired_ms: 1500, sequences: vec![3, 4], ..Default::default() };
        assert_eq!(firing_text(&firing), "1970-01-01T00:00:01.500Z, due 1970-01-01T00:00:01.000Z: stored as 3, 4");
        let firing = Firing { due_ms: 0, problem: "queue `q` is full".into(), sequences: vec![], ..firing };
        assert!(firing_text(&firing).ends_with("triggered: nothing was stored: queue `q` is full"));
        assert!(print_firing(Output::Json, "s", &firing).is_err());
    }

    #[test]
    fn a_schedule_that_is_not_due_again_says_so() {
        let schedule = Schedule { name: "s".into(), ..Default::default() };
        assert_eq!(next(&schedule), "never again");
        assert_eq!(next(&Schedule { paused: true, ..schedule.clone() }), "paused");
        assert_eq!(to_json(&schedule)["recurrence"], Value::Null);
    }
}
