//! When messages are due.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::spec::{Due, Produce};

/// Microseconds since the Unix epoch, by the clock that the servers read as well.
pub fn now_us() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX)
}

/// When message `number` of `producer` is due, in whole milliseconds since the Unix epoch, as the systems keep it.
pub fn due_ms(produce: &Produce, producer: u32, number: u64, began_us: u64) -> Option<u64> {
    let lot = |span_ms: u64| rand::random_range(0..=span_ms);
    Some(match produce.due? {
        Due::After { ms_min, ms_max } => now_us() / 1000 + ms_min + lot(ms_max.saturating_sub(ms_min)),
        Due::Within { from_ms, span_ms } => {
            let position = number * u64::from(produce.producers) + u64::from(producer);
            // Not by lot, so that no stretch has more than its share.
            let offset = produce.messages().map_or_else(|| lot(span_ms), |messages| share(span_ms, position, messages));
            began_us / 1000 + from_ms + offset
        }
    })
}

fn share(span_ms: u64, position: u64, messages: u64) -> u64 {
    (u128::from(span_ms) * u128::from(position) / u128::from(messages.max(1))) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Until;

    fn produce(due: Option<Due>) -> Produce {
        Produce { producers: 2, in_flight: 1, body_bytes: 100, until: Until::Messages(10), rate: None, due }
    }

    #[test]
    fn due_times_within_a_stretch_are_spread_evenly_over_it() {
        let produce = produce(Some(Due::Within { from_ms: 1000, span_ms: 100 }));
        let mut due: Vec<u64> = (0..5)
            .flat_map(|number| [0, 1].map(|producer| due_ms(&produce, producer, number, 5_000_000).unwrap()))
            .collect();
        due.sort_unstable();
        assert_eq!(due, (0..10).map(|position| 6000 + 10 * position).collect::<Vec<_>>());
    }

    #[test]
    fn delays_are_within_their_bounds() {
        let produce = produce(Some(Due::After { ms_min: 50, ms_max: 60 }));
        let before = now_us() / 1000;
        for number in 0..100 {
            let due = due_ms(&produce, 0, number, 0).unwrap();
            assert!(due >= before + 50 && due <= now_us() / 1000 + 60);
        }
    }

    #[test]
    fn a_message_without_a_delay_has_no_due_time() {
        assert_eq!(due_ms(&produce(None), 0, 0, 0), None);
    }
}
