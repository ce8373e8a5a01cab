//! (a) and (b): publish, confirm, consume, acknowledge; as fast as it goes, or at a fixed rate.

use std::path::Path;

use dwell_load::{Consume, Produce, Until};

use super::measure::{latency, measure};
use super::{BODIES, BODY, CONSUMERS, CREDIT, Contestant, WINDOW, WINDOWS, bytes, consume, load};
use crate::results::Outcome;

/// Publishes and consumes at the same time.
#[derive(Debug, Clone, PartialEq)]
pub struct Throughput {
    /// Producers, and unconfirmed messages of each.
    pub window: (u32, usize),
    /// Bytes of each body.
    pub body_bytes: usize,
    /// Over which the messages are spread.
    pub queues: u32,
    /// For so long.
    pub seconds: f64,
    /// Messages a second; none: as fast as they are confirmed.
    pub rate: Option<f64>,
}

impl Throughput {
    /// (a): every combination, or those in which one thing differs from the usual.
    pub fn matrix(seconds: f64, full: bool) -> Vec<Throughput> {
        let usual = Throughput { window: WINDOW, body_bytes: BODY, queues: 1, seconds, rate: None };
        let mut all = Vec::new();
        for queues in [1, 10, 1000] {
            for body_bytes in BODIES {
                for window in WINDOWS {
                    let workload = Throughput { window, body_bytes, queues, ..usual.clone() };
                    let differences = [queues != usual.queues, body_bytes != usual.body_bytes, window != usual.window];
                    if full || differences.into_iter().filter(|differs| *differs).count() <= 1 {
                        all.push(workload);
                    }
                }
            }
        }
        all
    }

    /// (b).
    pub fn at_rate(rate: f64, seconds: f64) -> Throughput {
        Throughput { window: WINDOW, body_bytes: BODY, queues: 1, seconds, rate: Some(rate) }
    }

    /// As the results name it.
    pub fn name(&self) -> String {
        let (producers, in_flight) = self.window;
        let queues = if self.queues == 1 { "1 queue".to_owned() } else { format!("{} queues", self.queues) };
        let load = format!("{}, {producers}x{in_flight}, {queues}", bytes(self.body_bytes));
        match self.rate {
            None => format!("a: {load}"),
            Some(rate) => format!("b: {rate}/s, {load}"),
        }
    }

    /// Measures it.
    pub async fn measure(&self, contestant: &Contestant, directory: &Path) -> anyhow::Result<Outcome> {
        let cluster = contestant.start(directory).await?;
        let (producers, in_flight) = self.window;
        let consumers = CONSUMERS.max(self.queues);
        let until = Until::Seconds(self.seconds);
        let produce = Produce { producers, in_flight, body_bytes: self.body_bytes, until, rate: self.rate, due: None };
        // All consumers together may hold as much, however many there are.
        let credit = (CREDIT * CONSUMERS / consumers).clamp(10, CREDIT);
        let consume = Consume { consumers, credit, ..consume() };
        let measured = measure(&cluster, &load(&cluster, self.queues, produce, Some(consume))).await?;
        let report = &measured.report;
        let mut outcome = Outcome::default();
        outcome.set("messages_per_second", report.receive_rate);
        latency(&mut outcome, "confirm", report.confirm_latency);
        latency(&mut outcome, "end_to_end", report.end_to_end_latency);
        measured.costs(&mut outcome, report.received, self.body_bytes);
        measured.memory(&mut outcome);
        outcome.set("publishes_failed", report.failed as f64);
        outcome.set("received_again", report.duplicates as f64);
        cluster.stop().await?;
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matrix_changes_one_thing_at_a_time_unless_all_is_asked_for() {
        assert_eq!(Throughput::matrix(1.0, true).len(), 27);
        let names: Vec<String> = Throughput::matrix(1.0, false).iter().map(Throughput::name).collect();
        assert_eq!(names.len(), 7);
        assert!(names.contains(&"a: 1 KiB, 4x256, 1 queue".to_owned()), "{names:?}");
        assert!(names.contains(&"a: 1 KiB, 4x256, 1000 queues".to_owned()));
    }
}
