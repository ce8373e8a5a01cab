//! Messages and what happened to them, for people and for programs.

use dwell_client::{Death, DeathReason, Handle, Message, MessageState, QueueCounts, StoredMessage};
use serde_json::{Value, json};

use crate::output;
use crate::times::show_ms;

/// A handle as people copy it.
pub fn handle_text(handle: &Handle) -> String {
    format!("{}/{}/{}", handle.namespace, handle.queue, handle.sequence)
}

/// A state in one word.
pub fn state_name(state: MessageState) -> &'static str {
    match state {
        MessageState::Scheduled => "scheduled",
        MessageState::Ready => "ready",
        MessageState::Leased => "leased",
        MessageState::Unspecified => "unknown",
    }
}

/// Why a message died, in the word that its headers use.
pub fn reason_name(reason: DeathReason) -> &'static str {
    match reason {
        DeathReason::Expired => "expired",
        DeathReason::Rejected => "rejected",
        DeathReason::DeliveryLimit => "delivery-limit",
        DeathReason::Overflow => "overflow",
        DeathReason::Unspecified => "unknown",
    }
}

/// How a message came to be a dead letter, in one line; empty if it is none.
pub fn deaths_text(deaths: &[Death]) -> String {
    let death = |death: &Death| {
        let times = if death.count > 1 { format!(", {} times", death.count) } else { String::new() };
        format!("{} in {}{times}", reason_name(death.reason()), death.queue)
    };
    deaths.iter().map(death).collect::<Vec<_>>().join("; ")
}

/// A history as JSON.
pub fn deaths_json(deaths: &[Death]) -> Value {
    deaths
        .iter()
        .map(|death| {
            json!({
                "queue": death.queue,
                "reason": reason_name(death.reason()),
                "exchange": death.exchange,
                "routing_key": death.routing_key,
                "count": death.count,
                "first_at_ms": death.first_at_ms,
                "last_at_ms": death.last_at_ms,
            })
        })
        .collect()
}

/// Adds what the application put into a message, but for its body, to a JSON object.
pub fn add_message(value: &mut Value, message: &Message) {
    value["priority"] = json!(message.priority);
    value["headers"] = json!(message.headers);
    value["content_type"] = json!(message.content_type);
    value["correlation_id"] = json!(message.correlation_id);
    value["reply_to"] = json!(message.reply_to);
    value["message_id"] = json!(message.message_id);
}

/// A message where it stands, as JSON.
pub fn stored_json(stored: &StoredMessage, with_body: bool) -> Value {
    let handle = stored.handle.clone().unwrap_or_default();
    let mut value = json!({
        "namespace": handle.namespace,
        "queue": handle.queue,
        "sequence": handle.sequence,
        "state": state_name(stored.state()),
        "body_bytes": stored.body_bytes,
        "delivery_count": stored.delivery_count,
        "published_at_ms": stored.published_at_ms,
        "ready_at_ms": stored.ready_at_ms,
        "expires_at_ms": stored.expires_at_ms,
        "lease_deadline_ms": stored.lease_deadline_ms,
        "consumer_id": stored.consumer_id,
        "exchange": stored.exchange,
        "routing_key": stored.routing_key,
        "group": stored.group,
        "deaths": deaths_json(&stored.deaths),
    });
    let message = stored.message.clone().unwrap_or_default();
    add_message(&mut value, &message);
    if with_body {
        value["body"] = output::body_json(&message.body);
    }
    value
}

/// A message where it stands, as names and values; those that are empty are left out.
pub fn stored_rows(stored: &StoredMessage) -> Vec<(&'static str, String)> {
    let message = stored.message.clone().unwrap_or_default();
    let headers = message.headers.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(", ");
    let time = |at_ms| if at_ms == 0 { String::new() } else { show_ms(at_ms) };
    let mut rows = vec![
        ("handle", handle_text(&stored.handle.clone().unwrap_or_default())),
        ("state", state_name(stored.state()).to_owned()),
        ("published at", time(stored.published_at_ms)),
        ("ready at", time(stored.ready_at_ms)),
        ("expires at", time(stored.expires_at_ms)),
        ("leased until", time(stored.lease_deadline_ms)),
        ("consumer", stored.consumer_id.clone()),
        ("came back", format!("{} times", stored.delivery_count)),
        ("priority", message.priority.to_string()),
        ("exchange", stored.exchange.clone()),
        ("key", stored.routing_key.clone()),
        ("group", stored.group.clone()),
        ("message id", message.message_id.clone()),
        ("correlation id", message.correlation_id.clone()),
        ("reply to", message.reply_to.clone()),
        ("content type", message.content_type.clone()),
        ("headers", headers),
        ("deaths", deaths_text(&stored.deaths)),
        ("body bytes", stored.body_bytes.to_string()),
        ("body", output::body_text(&message.body)),
    ];
    rows.retain(|(_, value)| !value.is_empty());
    rows
}

/// Adds counts to a JSON object.
pub fn add_counts(value: &mut Value, counts: &QueueCounts) {
    value["scheduled"] = json!(counts.scheduled);
    value["ready"] = json!(counts.ready);
    value["leased"] = json!(counts.leased);
    value["bytes"] = json!(counts.bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn death(reason: DeathReason, queue: &str, count: u64) -> Death {
        Death { queue: queue.into(), reason: reason.into(), count, ..Default::default() }
    }

    #[test]
    fn a_history_is_one_line() {
        let deaths = [death(DeathReason::DeliveryLimit, "orders", 2), death(DeathReason::Expired, "incoming", 1)];
        assert_eq!(deaths_text(&deaths), "delivery-limit in orders, 2 times; expired in incoming");
        assert_eq!(deaths_text(&[]), "");
        assert_eq!(deaths_json(&deaths)[0]["reason"], "delivery-limit");
    }

    #[test]
    fn a_stored_message_shows_what_it_has_and_nothing_else() {
        let stored = StoredMessage {
            handle: Some(Handle { namespace: "default".into(), queue: "q".into(), sequence: 7 }),
            state: MessageState::Scheduled.into(),
            message: Some(Message { body: "hello".into(), ..Default::default() }),
            ready_at_ms: 1500,
            ..Default::default()
        };
        let rows = stored_rows(&stored);
        assert_eq!(rows[0], ("handle", "default/q/7".to_owned()));
        assert!(rows.contains(&("ready at", "1970-01-01T00:00:01.500Z".to_owned())));
        assert!(rows.iter().all(|(name, _)| *name != "leased until" && *name != "deaths"));
        let value = stored_json(&stored, false);
        assert_eq!((&value["state"], value.get("body")), (&json!("scheduled"), None));
        assert_eq!(stored_json(&stored, true)["body"], json!({ "text": "hello" }));
    }
}
