//! What came of a load.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::measurements::{Latencies, Percentiles};
use crate::run::Run;

/// Numbers of a load. Rates are messages a second.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LoadReport {
    /// Publishes that were confirmed.
    pub confirmed: u64,
    /// Publishes that were refused, or whose outcome is unknown.
    pub failed: u64,
    /// Each counted once.
    pub received: u64,
    /// Confirmed and never received. Always 0 without consumers.
    pub lost: u64,
    /// Received before the due time, by this machine's clock.
    pub early: u64,
    /// Received again.
    pub duplicates: u64,
    /// Received, and of another run.
    pub foreign: u64,
    /// The acknowledgement was refused, or came too late.
    pub acknowledgements_failed: u64,
    /// The acknowledgement may have been accepted: its answer was lost.
    pub acknowledgements_in_doubt: u64,
    /// From the start to the last confirm.
    pub publish_seconds: f64,
    /// Confirmed, by `publish_seconds`.
    pub publish_rate: f64,
    /// From the start to the last receipt.
    pub total_seconds: f64,
    /// Received, by `total_seconds`.
    pub receive_rate: f64,
    /// The longest time between one confirm and the next.
    pub confirm_gap_ms_max: f64,
    /// From the publish, or when it should have been, to the confirm.
    pub confirm_latency: Option<Percentiles>,
    /// From the publish, or when it should have been, to the receipt, of messages without a delay.
    pub end_to_end_latency: Option<Percentiles>,
    /// From the due time to the receipt, of delayed messages; the network's part included.
    pub release_lateness: Option<Percentiles>,
}

impl LoadReport {
    pub(crate) fn new(
        run: &Run,
        publishing: Duration,
        total: Duration,
        confirms: &Latencies,
        receipts: &Latencies,
    ) -> LoadReport {
        let (ledger, count) = (&run.ledger, |counter: &AtomicU64| counter.load(Ordering::Relaxed));
        let (publish_seconds, total_seconds) = (publishing.as_secs_f64(), total.as_secs_f64());
        let delayed = run.spec.produce.as_ref().is_some_and(|produce| produce.due.is_some());
        LoadReport {
            confirmed: ledger.confirmed(),
            failed: ledger.failed(),
            received: ledger.received(),
            lost: if run.spec.consume.is_some() { ledger.lost() } else { 0 },
            early: count(&run.early),
            duplicates: ledger.duplicates(),
            foreign: count(&run.foreign),
            acknowledgements_failed: count(&run.unacknowledged),
            acknowledgements_in_doubt: count(&run.acknowledged_perhaps),
            publish_seconds,
            publish_rate: rate(ledger.confirmed(), publish_seconds),
            total_seconds,
            receive_rate: rate(ledger.received(), total_seconds),
            confirm_gap_ms_max: run.silence.longest().as_secs_f64() * 1000.0,
            confirm_latency: confirms.percentiles(),
            end_to_end_latency: receipts.percentiles().filter(|_| !delayed),
            release_lateness: receipts.percentiles().filter(|_| delayed),
        }
    }

    /// Refuses figures of a load whose messages were lost or came too early: they would say nothing.
    pub fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.lost == 0 && self.early == 0,
            "{} confirmed messages were lost, {} came early; {} confirmed, {} received, {} failed",
            self.lost,
            self.early,
            self.confirmed,
            self.received,
            self.failed
        );
        Ok(())
    }
}

fn rate(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}
