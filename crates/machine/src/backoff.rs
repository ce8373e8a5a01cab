//! How long a message waits that came back.

use std::hash::Hasher as _;

use siphasher::sip::SipHasher13;

use crate::command::{Backoff, BackoffKind};
use crate::limits::HORIZON_MS;

impl Backoff {
    /// The wait after so many returns. Its jitter is a hash of the time of the proposal and of what is waiting, so
    /// that all replicas find the same.
    pub(crate) fn wait_ms(&self, now_ms: u64, sequence: u64, returns: u32) -> u64 {
        let nth = u64::from(returns.max(1));
        let factor = match self.kind() {
            BackoffKind::Fixed => 1,
            BackoffKind::Linear => nth,
            BackoffKind::Exponential => 1_u64.checked_shl(returns.saturating_sub(1)).unwrap_or(u64::MAX),
        };
        let cap_ms = if self.cap_ms == 0 { HORIZON_MS } else { self.cap_ms };
        let wait_ms = self.base_ms.saturating_mul(factor).min(cap_ms);
        let most = wait_ms / 100 * u64::from(self.jitter_percent.min(100))
            + wait_ms % 100 * u64::from(self.jitter_percent.min(100)) / 100;
        let mut hasher = SipHasher13::new();
        hasher.write_u64(now_ms);
        hasher.write_u64(sequence);
        hasher.write_u64(nth);
        wait_ms - hasher.finish() % most.saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(kind: BackoffKind, cap_ms: u64) -> Vec<u64> {
        let backoff = Backoff { kind: kind.into(), base_ms: 100, cap_ms, jitter_percent: 0 };
        (1..=5).map(|returns| backoff.wait_ms(7, 7, returns)).collect()
    }

    #[test]
    fn waits_grow_as_their_kind_says_up_to_the_cap() {
        assert_eq!(waits(BackoffKind::Fixed, 0), [100, 100, 100, 100, 100]);
        assert_eq!(waits(BackoffKind::Linear, 350), [100, 200, 300, 350, 350]);
        assert_eq!(waits(BackoffKind::Exponential, 1000), [100, 200, 400, 800, 1000]);
    }

    #[test]
    fn a_wait_never_overflows() {
        let backoff =
            Backoff { kind: BackoffKind::Exponential.into(), base_ms: u64::MAX, cap_ms: 0, jitter_percent: 100 };
        for returns in [0, 1, 63, 64, 65, u32::MAX] {
            assert!(backoff.wait_ms(1, 2, returns) <= HORIZON_MS);
            // Beyond what the front end lets in.
            Backoff { cap_ms: u64::MAX, ..backoff }.wait_ms(1, 2, returns);
        }
    }

    #[test]
    fn jitter_takes_off_its_share_at_most_and_differs_between_messages() {
        let backoff = Backoff { kind: BackoffKind::Fixed.into(), base_ms: 1000, cap_ms: 0, jitter_percent: 20 };
        let waits: std::collections::BTreeSet<u64> = (0..100).map(|sequence| backoff.wait_ms(5, sequence, 1)).collect();
        assert!(waits.iter().all(|wait_ms| (800..=1000).contains(wait_ms)), "{waits:?}");
        assert!(waits.len() > 50, "{waits:?}");
    }
}
