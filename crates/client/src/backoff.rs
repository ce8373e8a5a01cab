//! How long to wait between attempts.

use std::time::Duration;

/// The first wait. An election takes about 100 ms, and a client should be back soon after it.
const FIRST: Duration = Duration::from_millis(10);
/// The longest wait that this client chooses by itself.
const LONGEST: Duration = Duration::from_millis(250);
/// The longest wait that a server may ask for.
const LONGEST_HINT: Duration = Duration::from_secs(5);

/// Each wait is so much longer than the one before. A slow growth, so that a client returns soon after the
/// cluster does: the last wait is about a fifth of all that went before.
const GROWTH: f64 = 1.25;

/// Attempts after which the longest wait is reached, and more.
const ATTEMPTS_MAX: i32 = 32;

/// Growing waits, spread by half in both directions so that many clients do not return together.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    attempts: i32,
}

impl Backoff {
    /// The wait before the next attempt: at least `hint`, if the server gave one.
    pub(crate) fn next_delay(&mut self, hint: Option<Duration>) -> Duration {
        let chosen = FIRST.mul_f64(GROWTH.powi(self.attempts)).min(LONGEST);
        // Past the longest wait, growth means nothing and would overflow.
        self.attempts = (self.attempts + 1).min(ATTEMPTS_MAX);
        let spread = chosen.mul_f64(rand::random_range(0.5..1.5));
        match hint {
            // Spread upwards only: the server asked for no less than this.
            Some(hint) => hint.min(LONGEST_HINT).mul_f64(rand::random_range(1.0..1.25)),
            None => spread,
        }
    }

    /// Something worked: the next failure starts anew.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_from_ten_milliseconds_and_stay_bounded() {
        let mut backoff = Backoff::default();
        assert!(backoff.next_delay(None) <= Duration::from_millis(15));
        for _ in 0..100 {
            assert!(backoff.next_delay(None) <= LONGEST.mul_f64(1.5));
        }
        assert!(backoff.next_delay(None) >= LONGEST.mul_f64(0.5));
        backoff.reset();
        assert!(backoff.next_delay(None) <= Duration::from_millis(15));
    }

    #[test]
    fn a_hint_is_never_undercut_and_never_trusted_beyond_five_seconds() {
        let mut backoff = Backoff::default();
        assert!(backoff.next_delay(Some(Duration::from_millis(80))) >= Duration::from_millis(80));
        assert!(backoff.next_delay(Some(Duration::from_secs(3600))) <= LONGEST_HINT.mul_f64(1.25));
    }
}
