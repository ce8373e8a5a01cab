//! From a queue's settings in the machine to the API's, with the defaults filled in.

use dwell_machine::limits::{DEDUPE_WINDOW_MS_DEFAULT, HORIZON_MS};
use dwell_machine::{Backoff, BackoffKind, DeadLetter, Overflow, QueueSettings};
use dwell_proto::v1;

use super::signed;

pub(super) fn settings_of(settings: QueueSettings) -> v1::QueueSettings {
    let overflow = overflow_of(settings.overflow()).into();
    v1::QueueSettings {
        lease_timeout_ms: signed(settings.lease_timeout_ms),
        delivery_limit: settings.delivery_limit,
        default_delay_ms: signed(settings.default_delay_ms),
        message_ttl_ms: signed(settings.message_ttl_ms),
        idle_ttl_ms: signed(settings.idle_ttl_ms),
        messages_max: settings.messages_max,
        bytes_max: settings.bytes_max,
        overflow,
        dead_letter: settings.dead_letter.map(dead_letter_of),
        priority_max: Some(settings.priority_max.unwrap_or(u8::MAX.into())),
        dedupe_window_ms: signed(or_default(settings.dedupe_window_ms, DEDUPE_WINDOW_MS_DEFAULT)),
        single_active_consumer: settings.single_active_consumer,
        paused: settings.paused,
        backoff: settings.backoff.map(|backoff| backoff_of(&backoff)),
        aging_ms: signed(settings.aging_ms),
    }
}

/// What was left to the default is kept as 0.
fn or_default(value: u64, default: u64) -> u64 {
    if value == 0 { default } else { value }
}

fn overflow_of(overflow: Overflow) -> v1::Overflow {
    match overflow {
        Overflow::Reject => v1::Overflow::Reject,
        Overflow::DropHead => v1::Overflow::DropHead,
        Overflow::DeadLetterHead => v1::Overflow::DeadLetterHead,
    }
}

fn dead_letter_of(to: DeadLetter) -> v1::DeadLetter {
    v1::DeadLetter { exchange: to.exchange, routing_key: to.routing_key }
}

fn backoff_of(backoff: &Backoff) -> v1::Backoff {
    let kind = match backoff.kind() {
        BackoffKind::Fixed => v1::BackoffKind::Fixed,
        BackoffKind::Linear => v1::BackoffKind::Linear,
        BackoffKind::Exponential => v1::BackoffKind::Exponential,
    };
    v1::Backoff {
        kind: kind.into(),
        base_ms: signed(backoff.base_ms),
        cap_ms: signed(or_default(backoff.cap_ms, HORIZON_MS)),
        jitter_percent: backoff.jitter_percent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::validate::queue_settings;

    /// What is shown can be declared again, and means the same.
    fn shown_as_declared(settings: v1::QueueSettings) -> v1::QueueSettings {
        let declared = queue_settings(Some(settings)).unwrap();
        let shown = settings_of(declared.clone());
        assert_eq!(queue_settings(Some(shown.clone())).unwrap(), declared);
        shown
    }

    #[test]
    fn the_defaults_are_shown() {
        let shown = shown_as_declared(v1::QueueSettings::default());
        assert_eq!((shown.lease_timeout_ms, shown.dedupe_window_ms), (30_000, 300_000));
        assert_eq!((shown.priority_max, shown.overflow()), (Some(255), v1::Overflow::Reject));
        assert_eq!((shown.dead_letter, shown.backoff), (None, None));
    }

    #[test]
    fn all_settings_are_shown_as_they_were_declared() {
        let settings = v1::QueueSettings {
            lease_timeout_ms: 1000,
            delivery_limit: 2,
            default_delay_ms: 3,
            message_ttl_ms: 4,
            idle_ttl_ms: 5,
            messages_max: 6,
            bytes_max: 7,
            overflow: v1::Overflow::DeadLetterHead.into(),
            dead_letter: Some(v1::DeadLetter { exchange: "e".into(), routing_key: Some("k".into()) }),
            priority_max: Some(8),
            dedupe_window_ms: 9,
            single_active_consumer: true,
            paused: true,
            backoff: Some(v1::Backoff {
                kind: v1::BackoffKind::Exponential.into(),
                base_ms: 10,
                cap_ms: 11,
                jitter_percent: 12,
            }),
            aging_ms: 1300,
        };
        assert_eq!(shown_as_declared(settings.clone()), settings);
    }
}
