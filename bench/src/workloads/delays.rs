//! (d): messages that are due later: how late they come, what can be done with them meanwhile, how long restarts take.

mod calls;
mod inventory;
mod lateness;
mod operations;

use dwell_load::{Due, Produce, Until};

use super::measure::{Measurement, measure};
use super::{BODIES, WINDOW, Workload, load, short};
use crate::systems::{Cluster, Kind};

pub use self::lateness::{Lateness, Timing};
pub use self::operations::Operations;

/// Bytes of every body of (d).
const BODY_BYTES: usize = BODIES[0];
const HOUR_MS: u64 = 3_600_000;
/// The first pending message is due then: long after everything was measured.
const PENDING_FROM_MS: u64 = 6 * HOUR_MS;
/// Uniform due times lie within so much.
const UNIFORM_SPAN_MS: u64 = 24 * HOUR_MS;
/// Bunched ones within so much.
const BUNCHED_SPAN_MS: u64 = 1000;

/// Messages due each second.
const RATES: [u64; 2] = [1000, 10_000];
/// Messages a second that are published with a delay of seconds.
const DELAYED_PER_SECOND: u64 = 1000;
/// The delays' bounds in seconds. RabbitMQ looks at the head of a queue only: it can keep those that are equal.
const DELAYS_SECONDS: [(u64, u64); 2] = [(5, 15), (10, 10)];

/// All of (d): at these depths, with so many due in one second, and falling due at a rate for so long.
pub fn workloads(pending: &[u64], burst: u64, seconds: f64) -> Vec<Workload> {
    let delays = |(seconds_min, seconds_max)| {
        // So long that messages fall due for `seconds` while others are published.
        let seconds = seconds + seconds_max as f64;
        Timing::Delays { per_second: DELAYED_PER_SECOND, seconds, seconds_min, seconds_max }
    };
    let mut timings: Vec<Timing> = DELAYS_SECONDS.map(delays).into();
    timings.push(Timing::Burst { messages: burst });
    let alone = timings.into_iter().map(|timing| Lateness { timing, pending: Pending::NONE });
    let mut workloads: Vec<Workload> = alone.map(Workload::Lateness).collect();
    for messages in pending {
        let pending = |spread| Pending { messages: *messages, spread };
        for per_second in RATES {
            let timing = Timing::Rate { per_second, seconds };
            workloads.push(Workload::Lateness(Lateness { timing, pending: pending(Spread::Uniform) }));
        }
        for spread in [Spread::Uniform, Spread::Bunched] {
            workloads.push(Workload::Operations(Operations { pending: pending(spread) }));
        }
    }
    workloads
}

/// A little of (d): what can be done beside so many pending messages, and how late others come for so long.
pub fn quick(pending: u64, seconds: f64) -> [Workload; 2] {
    let pending = Pending { messages: pending, spread: Spread::Uniform };
    let timing = Timing::Rate { per_second: RATES[1], seconds };
    [Workload::Operations(Operations { pending }), Workload::Lateness(Lateness { timing, pending })]
}

/// How the due times of pending messages lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spread {
    /// By lot within a day.
    Uniform,
    /// All within one second.
    Bunched,
}

/// Messages that are scheduled, and do not fall due while anything is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    /// How many.
    pub messages: u64,
    /// When they are due.
    pub spread: Spread,
}

impl Pending {
    /// Nothing.
    pub const NONE: Pending = Pending { messages: 0, spread: Spread::Uniform };

    fn name(self) -> String {
        let spread = match self.spread {
            Spread::Uniform => "uniform",
            Spread::Bunched => "bunched",
        };
        format!("{} pending, {spread}", short(self.messages))
    }

    fn due(self) -> Due {
        match self.spread {
            // By lot and not in order, so that they come to stand between each other.
            Spread::Uniform => Due::After { ms_min: PENDING_FROM_MS, ms_max: PENDING_FROM_MS + UNIFORM_SPAN_MS },
            Spread::Bunched => Due::Within { from_ms: PENDING_FROM_MS, span_ms: BUNCHED_SPAN_MS },
        }
    }

    /// Schedules them, as fast as they are confirmed.
    async fn schedule(self, cluster: &Cluster) -> anyhow::Result<Measurement> {
        let produce = produce(Until::Messages(self.messages), None, self.due());
        let scheduled = measure(cluster, &load(cluster, 1, produce, None)).await?;
        anyhow::ensure!(scheduled.report.failed == 0, "{} publishes failed", scheduled.report.failed);
        Ok(scheduled)
    }
}

fn produce(until: Until, rate: Option<f64>, due: Due) -> Produce {
    let (producers, in_flight) = WINDOW;
    Produce { producers, in_flight, body_bytes: BODY_BYTES, until, rate, due: Some(due) }
}

/// Whether a system delays single messages.
fn has_delays(kind: Kind) -> bool {
    match kind {
        Kind::Dwell | Kind::RabbitMq => true,
        Kind::Nats => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_workload_has_a_name_of_its_own() {
        let names: std::collections::BTreeSet<String> =
            workloads(&[1_000_000, 10_000_000], 1_000_000, 8.0).iter().map(Workload::name).collect();
        assert_eq!(names.len(), 3 + 2 * 4, "{names:?}");
    }

    #[test]
    fn pending_messages_are_due_hours_later_however_they_lie() {
        for spread in [Spread::Uniform, Spread::Bunched] {
            let earliest = match (Pending { messages: 1, spread }).due() {
                Due::After { ms_min, .. } => ms_min,
                Due::Within { from_ms, .. } => from_ms,
            };
            assert!(earliest >= 6 * HOUR_MS);
        }
        let pending = Pending { messages: 10_000_000, spread: Spread::Bunched };
        assert_eq!(pending.name(), "10m pending, bunched");
    }
}
