//! How wrong the nodes' clocks were made, and what that can do to a delay.

use std::collections::BTreeMap;

/// A clock that is set takes a moment, up to a second where processes look that often, and so does what was stamped with it before.
const SETTING_NS: u64 = 1_500_000_000;
const NANOSECONDS: u64 = 1_000_000;

/// When which clock was wrong, and by how much.
#[derive(Debug, Default)]
pub struct ClockErrors {
    spans: Vec<Span>,
    open: BTreeMap<String, (u64, i64)>,
}

#[derive(Debug)]
struct Span {
    from_ns: u64,
    to_ns: u64,
    error_ms: i64,
}

impl ClockErrors {
    /// A node's clock is wrong by so much from now on.
    pub fn set(&mut self, node: &str, at_ns: u64, error_ms: i64) {
        if let Some((from_ns, error_ms)) = self.open.insert(node.to_owned(), (at_ns, error_ms)) {
            self.push(from_ns, at_ns.saturating_add(SETTING_NS), error_ms);
        }
    }

    /// The history is over.
    pub fn close(&mut self) {
        for (from_ns, error_ms) in std::mem::take(&mut self.open).into_values() {
            self.push(from_ns, u64::MAX, error_ms);
        }
    }

    fn push(&mut self, from_ns: u64, to_ns: u64, error_ms: i64) {
        if error_ms != 0 {
            self.spans.push(Span { from_ns, to_ns, error_ms });
        }
    }

    /// By how much machine time can be ahead of the true time, in milliseconds: it never goes back, but waits until it
    /// is right again.
    pub fn ahead_ms(&self, at_ns: u64) -> u64 {
        let ahead = self.spans.iter().filter(|span| span.from_ns <= at_ns && span.error_ms > 0).map(|span| {
            let since_ms = at_ns.saturating_sub(span.to_ns) / NANOSECONDS;
            span.error_ms.unsigned_abs().saturating_sub(since_ms)
        });
        ahead.max().unwrap_or(0)
    }

    /// By how much machine time can be behind the true time at some moment of a span, in milliseconds.
    pub fn behind_ms(&self, from_ns: u64, to_ns: u64) -> u64 {
        let overlapping =
            self.spans.iter().filter(|span| span.from_ns <= to_ns && span.to_ns >= from_ns && span.error_ms < 0);
        overlapping.map(|span| span.error_ms.unsigned_abs()).max().unwrap_or(0)
    }

    /// By how much a delay that began in a span and ended at `at_ns` can seem shorter than it is, in milliseconds.
    pub fn shortening_ms(&self, from_ns: u64, to_ns: u64, at_ns: u64) -> u64 {
        self.ahead_ms(at_ns) + self.behind_ms(from_ns, to_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_time_that_ran_ahead_waits_until_it_is_right() {
        let mut clocks = ClockErrors::default();
        clocks.set("n1", 0, 5000);
        clocks.set("n1", 1_000_000_000, 0);
        clocks.close();
        assert_eq!(clocks.ahead_ms(500_000_000), 5000);
        assert_eq!(clocks.ahead_ms(4_000_000_000), 3500);
        assert_eq!(clocks.ahead_ms(9_000_000_000), 0);
        assert_eq!(clocks.behind_ms(0, u64::MAX), 0);
    }

    #[test]
    fn a_clock_that_was_behind_when_a_delay_began_shortens_it() {
        let mut clocks = ClockErrors::default();
        clocks.set("n1", 1_000_000_000, -700);
        clocks.close();
        assert_eq!(clocks.shortening_ms(0, 500_000_000, 3_000_000_000), 0);
        assert_eq!(clocks.shortening_ms(0, 1_500_000_000, 3_000_000_000), 700);
    }
}
