//! How long after their due times messages come.

use std::path::Path;

use dwell_load::{Due, Produce, Until};

use super::super::measure::{Measurement, latency, measure};
use super::super::{Contestant, bytes, consume, load, short};
use super::{BODY_BYTES, Pending, has_delays, produce};
use crate::results::Outcome;
use crate::systems::Kind;

/// Messages that are published before they fall due are published at this rate at least, or nothing is measured.
const PUBLISHED_PER_SECOND_MIN: u64 = 10_000;
/// Between the last publish and the first due time, at least.
const CALM_MS: u64 = 2000;

/// When messages are published, and fall due.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Timing {
    /// Published before, and due evenly over a stretch of time.
    Rate {
        /// Messages due each second.
        per_second: u64,
        /// How long the stretch is.
        seconds: f64,
    },
    /// Published before, and due within one second.
    Burst {
        /// How many.
        messages: u64,
    },
    /// Published at a rate, each due after a delay by lot: both at the same time.
    Delays {
        /// Messages published each second.
        per_second: u64,
        /// For so long.
        seconds: f64,
        /// The shortest delay.
        seconds_min: u64,
        /// The longest.
        seconds_max: u64,
    },
}

/// How late messages come, beside others that are pending.
#[derive(Debug, Clone, PartialEq)]
pub struct Lateness {
    /// When messages are published, and fall due.
    pub timing: Timing,
    /// Of the same queue.
    pub pending: Pending,
}

impl Lateness {
    /// As the results name it.
    pub fn name(&self) -> String {
        let timing = match self.timing {
            Timing::Rate { per_second, .. } => format!("{} due/s", short(per_second)),
            Timing::Burst { messages } => format!("{} due in one second", short(messages)),
            Timing::Delays { per_second, seconds_min, seconds_max, .. } => {
                let longest = if seconds_min == seconds_max { String::new() } else { format!("-{seconds_max}") };
                format!("{seconds_min}{longest} s delays at {per_second}/s")
            }
        };
        let pending = if self.pending.messages == 0 { String::new() } else { format!(", {}", self.pending.name()) };
        format!("d: {timing}{pending}, {}", bytes(BODY_BYTES))
    }

    /// Whether it can be measured of a system.
    pub fn takes_part(&self, kind: Kind) -> bool {
        kind == Kind::Dwell || matches!(self.timing, Timing::Delays { .. }) && has_delays(kind)
    }

    /// Measures it.
    pub async fn measure(&self, contestant: &Contestant, directory: &Path) -> anyhow::Result<Outcome> {
        let cluster = contestant.start(directory).await?;
        if self.pending.messages > 0 {
            self.pending.schedule(&cluster).await?;
        }
        let measured = measure(&cluster, &load(&cluster, 1, self.timing.produce(), Some(consume()))).await?;
        let outcome = self.outcome(&measured)?;
        cluster.stop().await?;
        Ok(outcome)
    }

    fn outcome(&self, measured: &Measurement) -> anyhow::Result<Outcome> {
        let report = &measured.report;
        anyhow::ensure!(report.foreign == 0, "{} messages came that are due in hours", report.foreign);
        let mut outcome = Outcome::default();
        if let Some(first_due_ms) = self.timing.first_due_ms() {
            let due_seconds = first_due_ms as f64 / 1000.0;
            anyhow::ensure!(
                report.publish_seconds < due_seconds,
                "messages fell due after {due_seconds:.0} s, and were published after {:.0} s",
                report.publish_seconds
            );
            // After the first was due.
            outcome.set("all_received_after_s", report.total_seconds - due_seconds);
        }
        outcome.set("schedule_messages_per_second", report.publish_rate);
        latency(&mut outcome, "schedule_confirm", report.confirm_latency);
        latency(&mut outcome, "lateness", report.release_lateness);
        measured.costs(&mut outcome, report.received, BODY_BYTES);
        measured.memory(&mut outcome);
        outcome.set("publishes_failed", report.failed as f64);
        outcome.set("received_again", report.duplicates as f64);
        Ok(outcome)
    }
}

impl Timing {
    fn produce(self) -> Produce {
        match self {
            Timing::Rate { per_second, seconds } => before_due((per_second as f64 * seconds).round() as u64, seconds),
            Timing::Burst { messages } => before_due(messages, 1.0),
            Timing::Delays { per_second, seconds, seconds_min, seconds_max } => {
                let due = Due::After { ms_min: seconds_min * 1000, ms_max: seconds_max * 1000 };
                produce(Until::Seconds(seconds), Some(per_second as f64), due)
            }
        }
    }

    /// When the first message is due after the start of the load, if all are to be published before.
    fn first_due_ms(self) -> Option<u64> {
        match self.produce().due {
            Some(Due::Within { from_ms, .. }) => Some(from_ms),
            _ => None,
        }
    }
}

/// So many messages, due within so many seconds, and published before.
fn before_due(messages: u64, seconds: f64) -> Produce {
    let from_ms = messages * 1000 / PUBLISHED_PER_SECOND_MIN + CALM_MS;
    let span_ms = (seconds * 1000.0).round() as u64;
    produce(Until::Messages(messages), None, Due::Within { from_ms, span_ms })
}

#[cfg(test)]
mod tests {
    use super::super::Spread;
    use super::*;

    const DELAYS: Timing = Timing::Delays { per_second: 1000, seconds: 8.0, seconds_min: 5, seconds_max: 15 };

    fn lateness(timing: Timing) -> Lateness {
        Lateness { timing, pending: Pending::NONE }
    }

    #[test]
    fn names_tell_what_is_due_and_what_is_pending() {
        let pending = Pending { messages: 1_000_000, spread: Spread::Uniform };
        let beside = Lateness { timing: Timing::Rate { per_second: 10_000, seconds: 8.0 }, pending };
        assert_eq!(beside.name(), "d: 10k due/s, 1m pending, uniform, 100 B");
        assert_eq!(lateness(Timing::Burst { messages: 1_000_000 }).name(), "d: 1m due in one second, 100 B");
        assert_eq!(lateness(DELAYS).name(), "d: 5-15 s delays at 1000/s, 100 B");
        let equal = Timing::Delays { per_second: 1000, seconds: 8.0, seconds_min: 10, seconds_max: 10 };
        assert_eq!(lateness(equal).name(), "d: 10 s delays at 1000/s, 100 B");
    }

    #[test]
    fn a_system_without_delays_does_not_take_part() {
        let kinds = [Kind::Dwell, Kind::RabbitMq, Kind::Nats];
        assert_eq!(kinds.map(|kind| lateness(DELAYS).takes_part(kind)), [true, true, false]);
        let burst = lateness(Timing::Burst { messages: 1 });
        assert_eq!(kinds.map(|kind| burst.takes_part(kind)), [true, false, false]);
    }

    #[test]
    fn what_falls_due_at_a_rate_is_published_before() {
        let rate = Timing::Rate { per_second: 10_000, seconds: 8.0 };
        assert_eq!((rate.produce().messages(), rate.first_due_ms()), (Some(80_000), Some(10_000)));
        assert_eq!(rate.produce().due, Some(Due::Within { from_ms: 10_000, span_ms: 8000 }));
        assert_eq!(DELAYS.produce().due, Some(Due::After { ms_min: 5000, ms_max: 15_000 }));
        assert_eq!(DELAYS.first_due_ms(), None);
    }
}
