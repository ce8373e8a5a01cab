//! What came of a run.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;

use super::measurements::{Latencies, Percentiles};
use super::run::Run;
use crate::output;

/// Numbers of a run. Rates are messages a second.
#[derive(Debug, Serialize)]
pub struct Report {
    pub confirmed: u64,
    /// Publishes that were refused, or whose outcome is unknown.
    pub failed: u64,
    pub received: u64,
    /// Confirmed and never received. Always 0 without consumers.
    pub lost: u64,
    /// Received before the due time, by this machine's clock.
    pub early: u64,
    /// Received again.
    pub duplicates: u64,
    /// Received, and of another run.
    pub foreign: u64,
    /// The lease had ended, or the acknowledgement was refused.
    pub acknowledgements_failed: u64,
    /// The answer was lost with the connection, and the repetition found the lease gone.
    pub acknowledgements_in_doubt: u64,
    pub publish_seconds: f64,
    pub publish_rate: f64,
    /// From the first publish to the last receipt.
    pub total_seconds: f64,
    pub receive_rate: f64,
    /// The longest time between one confirm and the next.
    pub confirm_gap_ms_max: f64,
    pub confirm_latency: Option<Percentiles>,
    /// From the publish to the receipt, of messages without a delay.
    pub end_to_end_latency: Option<Percentiles>,
    /// From the due time to the receipt, of delayed messages; the network's part included.
    pub release_lateness: Option<Percentiles>,
}

impl Report {
    pub fn new(
        run: &Run,
        publishing: Duration,
        total: Duration,
        confirm_latency: &Latencies,
        receipt_latency: &Latencies,
    ) -> Report {
        let ledger = &run.ledger;
        let (publish_seconds, total_seconds) = (publishing.as_secs_f64(), total.as_secs_f64());
        let delayed = run.arguments.is_delayed();
        let receipt = receipt_latency.percentiles();
        let consumed = run.arguments.consumers > 0;
        Report {
            confirmed: ledger.confirmed(),
            failed: ledger.failed(),
            received: ledger.received(),
            lost: if consumed { ledger.lost() } else { 0 },
            early: run.early.load(Ordering::Relaxed),
            duplicates: ledger.duplicates(),
            foreign: run.foreign.load(Ordering::Relaxed),
            acknowledgements_failed: run.unacknowledged.load(Ordering::Relaxed),
            acknowledgements_in_doubt: run.acknowledged_perhaps.load(Ordering::Relaxed),
            publish_seconds,
            publish_rate: rate(ledger.confirmed(), publish_seconds),
            total_seconds,
            receive_rate: rate(ledger.received(), total_seconds),
            confirm_gap_ms_max: run.silence.longest().as_secs_f64() * 1000.0,
            confirm_latency: confirm_latency.percentiles(),
            end_to_end_latency: receipt.filter(|_| !delayed),
            release_lateness: receipt.filter(|_| delayed),
        }
    }

    /// Prints it for people.
    pub fn print(&self) -> anyhow::Result<()> {
        let mut counts = output::table(&["messages", "count"]);
        for (name, count) in [
            ("confirmed", self.confirmed),
            ("not confirmed", self.failed),
            ("received", self.received),
            ("lost", self.lost),
            ("early", self.early),
            ("received again", self.duplicates),
            ("of other runs", self.foreign),
            ("acknowledgements failed", self.acknowledgements_failed),
            ("acknowledgements in doubt", self.acknowledgements_in_doubt),
        ] {
            counts.add_row([name.to_owned(), count.to_string()]);
        }
        output::print_table(&counts)?;
        output::line(format!(
            "\npublished {:.0}/s for {:.1} s; received {:.0}/s over {:.1} s; longest time between confirms {:.1} ms\n",
            self.publish_rate, self.publish_seconds, self.receive_rate, self.total_seconds, self.confirm_gap_ms_max
        ))?;
        let mut latencies = output::table(&["latency in ms", "p50", "p99", "p99.9", "max"]);
        for (name, percentiles) in [
            ("publish to confirm", self.confirm_latency),
            ("publish to receipt", self.end_to_end_latency),
            ("due to receipt (release lateness, network included)", self.release_lateness),
        ] {
            if let Some(percentiles) = percentiles {
                let Percentiles { p50_ms, p99_ms, p999_ms, max_ms, .. } = percentiles;
                let numbers = [p50_ms, p99_ms, p999_ms, max_ms].map(|number| format!("{number:.2}"));
                latencies.add_row([&[name.to_owned()], &numbers[..]].concat());
            }
        }
        output::print_table(&latencies)
    }
}

fn rate(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}
