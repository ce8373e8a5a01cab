//! Settings of queues.

use dwell_machine as machine;
use dwell_machine::limits::{
    AGING_MS_MIN, DEDUPE_WINDOW_MS_DEFAULT, DEDUPE_WINDOW_MS_MAX, DELIVERY_LIMIT_MAX, HORIZON_MS,
    LEASE_TIMEOUT_MS_DEFAULT,
};
use dwell_proto::v1;

use super::{Checked, count, invalid, name, namespace, optional_name, priority, text, timeout, under, within};

/// How many settings a queue has.
const SETTINGS: usize = 15;

/// A queue's settings with the defaults filled in.
pub fn queue_settings(settings: Option<v1::QueueSettings>) -> Checked<machine::QueueSettings> {
    under("settings", all(settings.unwrap_or_default()))
}

/// An update command. Only the settings that it names are looked at.
pub fn update_queue(request: v1::UpdateQueueRequest) -> Checked<machine::UpdateQueue> {
    namespace(&request.namespace)?;
    name("queue", &request.queue)?;
    count("fields", request.fields.len(), 1, SETTINGS)?;
    let given = request.settings.unwrap_or_default();
    let mut named = v1::QueueSettings::default();
    for (position, field) in request.fields.iter().enumerate() {
        if !copy(field, &given, &mut named) {
            return invalid(&format!("fields[{position}]"), format!("must name a setting of a queue, not `{field}`"));
        }
    }
    Ok(machine::UpdateQueue { queue: request.queue, settings: queue_settings(Some(named))?, fields: request.fields })
}

/// Copies one setting. False: there is none of this name.
fn copy(field: &str, from: &v1::QueueSettings, to: &mut v1::QueueSettings) -> bool {
    match field {
        "lease_timeout_ms" => to.lease_timeout_ms = from.lease_timeout_ms,
        "delivery_limit" => to.delivery_limit = from.delivery_limit,
        "default_delay_ms" => to.default_delay_ms = from.default_delay_ms,
        "message_ttl_ms" => to.message_ttl_ms = from.message_ttl_ms,
        "idle_ttl_ms" => to.idle_ttl_ms = from.idle_ttl_ms,
        "messages_max" => to.messages_max = from.messages_max,
        "bytes_max" => to.bytes_max = from.bytes_max,
        "overflow" => to.overflow = from.overflow,
        "dead_letter" => to.dead_letter = from.dead_letter.clone(),
        "priority_max" => to.priority_max = from.priority_max,
        "dedupe_window_ms" => to.dedupe_window_ms = from.dedupe_window_ms,
        "single_active_consumer" => to.single_active_consumer = from.single_active_consumer,
        "paused" => to.paused = from.paused,
        "backoff" => to.backoff = from.backoff,
        "aging_ms" => to.aging_ms = from.aging_ms,
        _ => return false,
    }
    true
}

fn all(settings: v1::QueueSettings) -> Checked<machine::QueueSettings> {
    Ok(machine::QueueSettings {
        lease_timeout_ms: timeout("lease_timeout_ms", settings.lease_timeout_ms, LEASE_TIMEOUT_MS_DEFAULT)?,
        delivery_limit: delivery_limit(settings.delivery_limit)?,
        default_delay_ms: within("default_delay_ms", settings.default_delay_ms, 0, HORIZON_MS)?,
        message_ttl_ms: within("message_ttl_ms", settings.message_ttl_ms, 0, HORIZON_MS)?,
        idle_ttl_ms: within("idle_ttl_ms", settings.idle_ttl_ms, 0, HORIZON_MS)?,
        messages_max: settings.messages_max,
        bytes_max: settings.bytes_max,
        overflow: overflow(settings.overflow)?.into(),
        dead_letter: settings.dead_letter.map(|to| under("dead_letter", dead_letter(to))).transpose()?,
        priority_max: priority_max(settings.priority_max)?,
        dedupe_window_ms: dedupe_window(settings.dedupe_window_ms)?,
        single_active_consumer: settings.single_active_consumer,
        paused: settings.paused,
        backoff: settings.backoff.map(|policy| under("backoff", backoff(policy))).transpose()?,
        aging_ms: match settings.aging_ms {
            0 => 0,
            aging_ms => within("aging_ms", aging_ms, AGING_MS_MIN, HORIZON_MS)?,
        },
    })
}

fn delivery_limit(limit: u32) -> Checked<u32> {
    if limit > DELIVERY_LIMIT_MAX {
        return invalid("delivery_limit", format!("must be 0 to {DELIVERY_LIMIT_MAX}, not {limit}"));
    }
    Ok(limit)
}

fn overflow(overflow: i32) -> Checked<machine::Overflow> {
    match v1::Overflow::try_from(overflow) {
        Ok(v1::Overflow::Unspecified | v1::Overflow::Reject) => Ok(machine::Overflow::Reject),
        Ok(v1::Overflow::DropHead) => Ok(machine::Overflow::DropHead),
        Ok(v1::Overflow::DeadLetterHead) => Ok(machine::Overflow::DeadLetterHead),
        Err(_) => invalid("overflow", format!("must be one of the policies, 0 to 3, not {overflow}")),
    }
}

fn dead_letter(to: v1::DeadLetter) -> Checked<machine::DeadLetter> {
    optional_name("exchange", &to.exchange)?;
    match &to.routing_key {
        Some(queue) if to.exchange.is_empty() => name("routing_key", queue)?,
        Some(key) => text("routing_key", key)?,
        None => {}
    }
    Ok(machine::DeadLetter { exchange: to.exchange, routing_key: to.routing_key })
}

/// The highest priority of all is the same as none said, and kept as such: a queue that was declared without one, or
/// by a version that knew of none, can be declared again with it.
fn priority_max(max: Option<u32>) -> Checked<Option<u32>> {
    let max = max.map(|max| priority("priority_max", max)).transpose()?;
    Ok(max.filter(|max| *max != u32::from(u8::MAX)))
}

/// The default is kept as 0, for the same reason; the machine reads it so.
fn dedupe_window(window_ms: i64) -> Checked<u64> {
    let window_ms = within("dedupe_window_ms", window_ms, 0, DEDUPE_WINDOW_MS_MAX)?;
    Ok(if window_ms == DEDUPE_WINDOW_MS_DEFAULT { 0 } else { window_ms })
}

fn backoff(policy: v1::Backoff) -> Checked<machine::Backoff> {
    let kind = match v1::BackoffKind::try_from(policy.kind) {
        Ok(v1::BackoffKind::Unspecified | v1::BackoffKind::Fixed) => machine::BackoffKind::Fixed,
        Ok(v1::BackoffKind::Linear) => machine::BackoffKind::Linear,
        Ok(v1::BackoffKind::Exponential) => machine::BackoffKind::Exponential,
        Err(_) => return invalid("kind", format!("must be one of the kinds, 0 to 3, not {}", policy.kind)),
    };
    let jitter_percent = policy.jitter_percent;
    if jitter_percent > 100 {
        return invalid("jitter_percent", format!("must be 0 to 100, not {jitter_percent}"));
    }
    Ok(machine::Backoff {
        kind: kind.into(),
        base_ms: within("base_ms", policy.base_ms, 1, HORIZON_MS)?,
        cap_ms: match policy.cap_ms {
            0 => HORIZON_MS,
            cap_ms => within("cap_ms", cap_ms, 1, HORIZON_MS)?,
        },
        jitter_percent,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(settings: v1::QueueSettings) -> Result<machine::QueueSettings, String> {
        queue_settings(Some(settings)).map_err(|error| error.to_string())
    }

    fn problem(settings: v1::QueueSettings) -> String {
        declared(settings).unwrap_err()
    }

    fn updated(settings: v1::QueueSettings, fields: &[&str]) -> Result<machine::UpdateQueue, String> {
        let fields = fields.iter().map(|field| (*field).to_owned()).collect();
        let request =
            v1::UpdateQueueRequest { queue: "q".into(), settings: Some(settings), fields, ..Default::default() };
        update_queue(request).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_not_said_is_off_or_the_default() {
        let settings = queue_settings(None).unwrap();
        let expected = machine::QueueSettings { lease_timeout_ms: 30_000, ..Default::default() };
        assert_eq!(settings, expected);
    }

    #[test]
    fn the_highest_priority_max_and_none_are_the_same() {
        let with = |priority_max| declared(v1::QueueSettings { priority_max, ..Default::default() });
        assert_eq!(with(Some(255)), with(None));
        assert_eq!(with(Some(9)).unwrap().priority_max, Some(9));
        assert_eq!(with(Some(256)).unwrap_err(), "`settings.priority_max` must be 0 to 255, not 256");
    }

    #[test]
    fn a_queue_of_an_older_version_can_be_declared_again() {
        let older = machine::QueueSettings { lease_timeout_ms: 30_000, delivery_limit: 3, ..Default::default() };
        let with = |dedupe_window_ms| {
            declared(v1::QueueSettings { delivery_limit: 3, dedupe_window_ms, ..Default::default() }).unwrap()
        };
        assert_eq!(with(0), older);
        assert_eq!(with(300_000), older);
        assert_eq!(with(1).dedupe_window_ms, 1);
    }

    #[test]
    fn settings_out_of_their_limits_are_refused_by_name() {
        let none = v1::QueueSettings::default;
        for (settings, expected) in [
            (
                v1::QueueSettings { lease_timeout_ms: 99, ..none() },
                "`settings.lease_timeout_ms` must be 100 to 86400000, not 99",
            ),
            (
                v1::QueueSettings { delivery_limit: 1_000_001, ..none() },
                "`settings.delivery_limit` must be 0 to 1000000, not 1000001",
            ),
            (
                v1::QueueSettings { default_delay_ms: -1, ..none() },
                "`settings.default_delay_ms` must be 0 to 315360000000, not -1",
            ),
            (
                v1::QueueSettings { message_ttl_ms: -1, ..none() },
                "`settings.message_ttl_ms` must be 0 to 315360000000, not -1",
            ),
            (
                v1::QueueSettings { idle_ttl_ms: -1, ..none() },
                "`settings.idle_ttl_ms` must be 0 to 315360000000, not -1",
            ),
            (
                v1::QueueSettings { overflow: 4, ..none() },
                "`settings.overflow` must be one of the policies, 0 to 3, not 4",
            ),
            (
                v1::QueueSettings { dedupe_window_ms: 604_800_001, ..none() },
                "`settings.dedupe_window_ms` must be 0 to 604800000, not 604800001",
            ),
            (v1::QueueSettings { aging_ms: 99, ..none() }, "`settings.aging_ms` must be 100 to 315360000000, not 99"),
        ] {
            assert_eq!(problem(settings), expected);
        }
    }

    #[test]
    fn dead_letters_go_to_a_queue_by_its_name_or_to_an_exchange_by_any_key() {
        let with = |exchange: &str, routing_key: Option<&str>| {
            let to = v1::DeadLetter { exchange: exchange.into(), routing_key: routing_key.map(Into::into) };
            declared(v1::QueueSettings { dead_letter: Some(to), ..Default::default() })
        };
        assert_eq!(
            with("", Some("")).unwrap_err(),
            "`settings.dead_letter.routing_key` must have 1 to 255 bytes, not 0"
        );
        assert!(with("graveyard", Some("")).is_ok());
        assert!(with("", None).is_ok());
        assert_eq!(
            with("a\nb", None).unwrap_err(),
            "`settings.dead_letter.exchange` must not contain control characters"
        );
    }

    #[test]
    fn a_backoff_has_a_base_and_a_cap_of_ten_years_unless_told() {
        let with = |backoff| declared(v1::QueueSettings { backoff: Some(backoff), ..Default::default() });
        let policy = with(v1::Backoff { base_ms: 5, ..Default::default() }).unwrap().backoff.unwrap();
        assert_eq!((policy.base_ms, policy.cap_ms, policy.kind()), (5, HORIZON_MS, machine::BackoffKind::Fixed));
        assert_eq!(
            with(v1::Backoff::default()).unwrap_err(),
            "`settings.backoff.base_ms` must be 1 to 315360000000, not 0"
        );
        assert_eq!(
            with(v1::Backoff { base_ms: 5, jitter_percent: 101, ..Default::default() }).unwrap_err(),
            "`settings.backoff.jitter_percent` must be 0 to 100, not 101"
        );
        assert_eq!(
            with(v1::Backoff { kind: 4, base_ms: 5, ..Default::default() }).unwrap_err(),
            "`settings.backoff.kind` must be one of the kinds, 0 to 3, not 4"
        );
    }

    #[test]
    fn an_update_looks_at_the_settings_that_it_names_only() {
        let given = v1::QueueSettings { paused: true, aging_ms: 1, ..Default::default() };
        let update = updated(given.clone(), &["paused"]).unwrap();
        assert_eq!((update.settings.paused, update.settings.aging_ms), (true, 0));
        assert_eq!(update.fields, ["paused"]);
        assert_eq!(
            updated(given, &["paused", "aging_ms"]).unwrap_err(),
            "`settings.aging_ms` must be 100 to 315360000000, not 1"
        );
    }

    #[test]
    fn an_update_names_at_least_one_setting_and_none_that_there_is_not() {
        let none = v1::QueueSettings::default;
        assert_eq!(updated(none(), &[]).unwrap_err(), "`fields` must be 1 to 15, not 0");
        assert_eq!(
            updated(none(), &["paused", "color"]).unwrap_err(),
            "`fields[1]` must name a setting of a queue, not `color`"
        );
    }
}
