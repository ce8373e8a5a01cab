//! Queues, for people and for programs.

use dwell_client::{BackoffKind, DeclaredQueueSettings, Overflow, Queue};
use serde_json::{Value, json};

use crate::arguments::Output;
use crate::output;
use crate::render::add_counts;
use crate::times::{show_duration_ms, show_ms};

/// The longest wait of a backoff, ten years: that is without a cap.
const CAP_MS_MAX: i64 = 10 * 365 * 24 * 60 * 60 * 1000;

pub fn print_list(format: Output, queues: &[Queue]) -> anyhow::Result<()> {
    if format == Output::Json {
        return queues.iter().try_for_each(|queue| output::line(to_json(queue)));
    }
    if queues.is_empty() {
        return output::line("no queues; `dwell queue declare QUEUE` makes one");
    }
    let mut table = output::table(&["queue", "scheduled", "ready", "leased", "bytes", "consumers", ""]);
    for queue in queues {
        let counts = queue.counts.unwrap_or_default();
        let paused = queue.settings.as_ref().is_some_and(|settings| settings.paused);
        table.add_row([
            queue.name.clone(),
            counts.scheduled.to_string(),
            counts.ready.to_string(),
            counts.leased.to_string(),
            counts.bytes.to_string(),
            queue.consumers.to_string(),
            if paused { "paused" } else { "" }.to_owned(),
        ]);
    }
    output::print_table(&table)
}

pub fn print_one(format: Output, queue: &Queue) -> anyhow::Result<()> {
    match format {
        Output::Json => output::line(to_json(queue)),
        Output::Table => output::rows(&rows(queue)),
    }
}

fn rows(queue: &Queue) -> Vec<(&'static str, String)> {
    let counts = queue.counts.unwrap_or_default();
    let mut rows = vec![
        ("queue", queue.name.clone()),
        ("scheduled", counts.scheduled.to_string()),
        ("ready", counts.ready.to_string()),
        ("leased", counts.leased.to_string()),
        ("bytes", counts.bytes.to_string()),
        ("consumers", queue.consumers.to_string()),
        ("declared at", show_ms(queue.created_at_ms)),
    ];
    rows.extend(settings_rows(&queue.settings.clone().unwrap_or_default()));
    let totals = queue.totals.unwrap_or_default();
    let totals = [
        ("published", totals.published),
        ("delivered", totals.delivered),
        ("acknowledged", totals.acknowledged),
        ("returned", totals.returned),
        ("expired", totals.expired),
        ("exhausted", totals.exhausted),
        ("rejected", totals.rejected),
        ("overflowed", totals.overflowed),
        ("recalled", totals.recalled),
        ("dead-lettered", totals.dead_lettered),
        ("refused", totals.refused),
        ("deduplicated", totals.deduplicated),
    ];
    rows.extend(totals.into_iter().filter(|(_, count)| *count > 0).map(|(name, count)| (name, count.to_string())));
    rows
}

/// Those that are set.
fn settings_rows(settings: &DeclaredQueueSettings) -> Vec<(&'static str, String)> {
    let duration = |milliseconds: i64| (milliseconds != 0).then(|| show_duration_ms(milliseconds));
    let number = |number: u64| (number != 0).then(|| number.to_string());
    let flag = |set: bool| set.then(|| "yes".to_owned());
    let limited = settings.messages_max > 0 || settings.bytes_max > 0;
    let dead_letter = settings.dead_letter.as_ref().map(|dead_letter| {
        match (dead_letter.exchange.as_str(), dead_letter.routing_key.as_deref()) {
            ("", Some(queue)) => format!("queue {queue}"),
            ("", None) => "the queue that they were published to".to_owned(),
            (exchange, Some(key)) => format!("exchange {exchange}, key {key}"),
            (exchange, None) => format!("exchange {exchange}"),
        }
    });
    let backoff = settings.backoff.map(|backoff| {
        let cap = duration(backoff.cap_ms)
            .filter(|_| backoff.cap_ms < CAP_MS_MAX)
            .map(|cap| format!(", at most {cap}"))
            .unwrap_or_default();
        let jitter = number(backoff.jitter_percent.into()).map(|jitter| format!(", less up to {jitter} %"));
        let base = show_duration_ms(backoff.base_ms);
        format!("{} from {base}{cap}{}", backoff_name(backoff.kind()), jitter.unwrap_or_default())
    });
    let rows = [
        ("lease timeout", duration(settings.lease_timeout_ms)),
        ("delivery limit", Some(number(settings.delivery_limit.into()).unwrap_or_else(|| "none".into()))),
        ("backoff", backoff),
        ("dead letters to", dead_letter),
        ("default delay", duration(settings.default_delay_ms)),
        ("message TTL", duration(settings.message_ttl_ms)),
        ("idle TTL", duration(settings.idle_ttl_ms)),
        ("messages max", number(settings.messages_max)),
        ("bytes max", number(settings.bytes_max)),
        ("overflow", limited.then(|| overflow_name(settings.overflow()).to_owned())),
        ("priority max", settings.priority_max.filter(|max| *max < 255).map(|max| max.to_string())),
        ("dedupe window", duration(settings.dedupe_window_ms)),
        ("aging", duration(settings.aging_ms)),
        ("single consumer", flag(settings.single_active_consumer)),
        ("paused", flag(settings.paused)),
    ];
    rows.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

fn backoff_name(kind: BackoffKind) -> &'static str {
    match kind {
        BackoffKind::Fixed | BackoffKind::Unspecified => "fixed",
        BackoffKind::Linear => "linear",
        BackoffKind::Exponential => "exponential",
    }
}

fn overflow_name(overflow: Overflow) -> &'static str {
    match overflow {
        Overflow::Reject | Overflow::Unspecified => "reject",
        Overflow::DropHead => "drop-head",
        Overflow::DeadLetterHead => "dead-letter-head",
    }
}

fn to_json(queue: &Queue) -> Value {
    let mut value = json!({
        "queue": queue.name,
        "consumers": queue.consumers,
        "created_at_ms": queue.created_at_ms,
    });
    add_counts(&mut value, &queue.counts.unwrap_or_default());
    add_settings(&mut value, &queue.settings.clone().unwrap_or_default());
    let totals = queue.totals.unwrap_or_default();
    value["totals"] = json!({
        "published": totals.published,
        "delivered": totals.delivered,
        "acknowledged": totals.acknowledged,
        "returned": totals.returned,
        "expired": totals.expired,
        "exhausted": totals.exhausted,
        "rejected": totals.rejected,
        "overflowed": totals.overflowed,
        "recalled": totals.recalled,
        "dead_lettered": totals.dead_lettered,
        "refused": totals.refused,
        "deduplicated": totals.deduplicated,
    });
    value
}

fn add_settings(value: &mut Value, settings: &DeclaredQueueSettings) {
    value["lease_timeout_ms"] = json!(settings.lease_timeout_ms);
    value["delivery_limit"] = json!(settings.delivery_limit);
    value["default_delay_ms"] = json!(settings.default_delay_ms);
    value["message_ttl_ms"] = json!(settings.message_ttl_ms);
    value["idle_ttl_ms"] = json!(settings.idle_ttl_ms);
    value["messages_max"] = json!(settings.messages_max);
    value["bytes_max"] = json!(settings.bytes_max);
    value["overflow"] = json!(overflow_name(settings.overflow()));
    value["dead_letter"] = settings.dead_letter.as_ref().map_or(
        Value::Null,
        |dead_letter| json!({ "exchange": dead_letter.exchange, "routing_key": dead_letter.routing_key }),
    );
    value["priority_max"] = json!(settings.priority_max.unwrap_or(255));
    value["dedupe_window_ms"] = json!(settings.dedupe_window_ms);
    value["single_active_consumer"] = json!(settings.single_active_consumer);
    value["paused"] = json!(settings.paused);
    value["backoff"] = settings.backoff.as_ref().map_or(Value::Null, |backoff| {
        json!({
            "kind": backoff_name(backoff.kind()),
            "base_ms": backoff.base_ms,
            "cap_ms": backoff.cap_ms,
            "jitter_percent": backoff.jitter_percent,
        })
    });
    value["aging_ms"] = json!(settings.aging_ms);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_shows_the_settings_that_matter() {
        let settings = DeclaredQueueSettings {
            lease_timeout_ms: 30_000,
            delivery_limit: 3,
            priority_max: Some(255),
            paused: true,
            ..Default::default()
        };
        let queue = Queue { name: "q".into(), settings: Some(settings), ..Default::default() };
        let rows = rows(&queue);
        assert!(rows.contains(&("lease timeout", "30s".to_owned())));
        assert!(rows.contains(&("delivery limit", "3".to_owned())));
        assert!(rows.contains(&("paused", "yes".to_owned())));
        assert!(rows.iter().all(|(name, _)| !["overflow", "priority max", "backoff", "published"].contains(name)));
        let value = to_json(&queue);
        assert_eq!((&value["paused"], &value["backoff"]), (&json!(true), &Value::Null));
        assert_eq!(value["overflow"], "reject");
    }
}
