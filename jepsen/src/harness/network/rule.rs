//! What happens to the packets from one place to another.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// What happens to the packets from one place to another. By default they pass.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LinkRule {
    /// Nothing passes.
    pub cut: bool,
    /// Every packet is late by this much,
    pub latency: Duration,
    /// and by up to this much more.
    pub jitter: Duration,
    /// The part of the packets that is lost, 0 to 1.
    pub loss: f64,
}

/// What is to be done with one packet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Verdict {
    Pass,
    Drop,
    Delay(Duration),
}

/// Decides the fate of packets; the same for the same seed and the same packets.
#[derive(Debug)]
pub(super) struct Judge {
    pub(super) rule: LinkRule,
    random: StdRng,
}

impl Judge {
    pub(super) fn new(seed: u64) -> Judge {
        Judge { rule: LinkRule::default(), random: StdRng::seed_from_u64(seed) }
    }

    pub(super) fn judge(&mut self) -> Verdict {
        let rule = self.rule;
        if rule.cut || (rule.loss > 0.0 && self.random.random::<f64>() < rule.loss) {
            return Verdict::Drop;
        }
        if rule.latency.is_zero() && rule.jitter.is_zero() {
            return Verdict::Pass;
        }
        Verdict::Delay(rule.latency + rule.jitter.mul_f64(self.random.random::<f64>()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(seed: u64, rule: LinkRule) -> Vec<Verdict> {
        let mut judge = Judge::new(seed);
        judge.rule = rule;
        (0..1000).map(|_| judge.judge()).collect()
    }

    #[test]
    fn the_seed_decides_what_is_lost() {
        let rule = LinkRule { loss: 0.2, ..LinkRule::default() };
        assert_eq!(verdicts(1, rule), verdicts(1, rule));
        assert_ne!(verdicts(1, rule), verdicts(2, rule));
        let lost = verdicts(1, rule).iter().filter(|verdict| **verdict == Verdict::Drop).count();
        assert!((150..250).contains(&lost), "{lost}");
    }

    #[test]
    fn a_cut_drops_everything_and_a_delay_stays_within_its_bounds() {
        let cut = LinkRule { cut: true, latency: Duration::from_millis(5), ..LinkRule::default() };
        assert!(verdicts(1, cut).iter().all(|verdict| *verdict == Verdict::Drop));
        let (latency, jitter) = (Duration::from_millis(50), Duration::from_millis(20));
        for verdict in verdicts(1, LinkRule { latency, jitter, ..LinkRule::default() }) {
            let Verdict::Delay(delay) = verdict else { panic!("{verdict:?}") };
            assert!((latency..=latency + jitter).contains(&delay), "{delay:?}");
        }
        assert!(verdicts(1, LinkRule::default()).iter().all(|verdict| *verdict == Verdict::Pass));
    }
}
