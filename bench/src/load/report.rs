//! What came of a load.

use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::measurements::{Latencies, Percentiles};
use super::run::Run;
use super::timeline::Moment;

/// Numbers of a load. Rates are messages a second.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LoadReport {
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
    pub publish_seconds: f64,
    /// From the start to the last receipt.
    pub total_seconds: f64,
    /// Used by the process that made the load.
    pub client_cpu_seconds: f64,
    /// The longest time between one confirm and the next.
    pub confirm_gap_ms_max: f64,
    /// From the publish, or when it should have been, to the confirm.
    pub confirm_latency: Option<Percentiles>,
    /// From the publish, or the due time of delayed messages, to the receipt.
    pub receipt_latency: Option<Percentiles>,
    pub timeline: Vec<Moment>,
}

impl LoadReport {
    /// `times`: of publishing, and in all. `latencies`: of confirms, and of receipts.
    pub fn new(
        run: &Run,
        times: (Duration, Duration),
        latencies: (&Latencies, &Latencies),
        client_cpu_seconds: f64,
        timeline: Vec<Moment>,
    ) -> LoadReport {
        let ledger = &run.ledger;
        LoadReport {
            confirmed: ledger.confirmed(),
            failed: ledger.failed(),
            received: ledger.received(),
            lost: if run.spec.consume.is_some() { ledger.lost() } else { 0 },
            early: run.early.load(Ordering::Relaxed),
            duplicates: ledger.duplicates(),
            foreign: run.foreign.load(Ordering::Relaxed),
            acknowledgements_failed: run.unacknowledged.load(Ordering::Relaxed),
            publish_seconds: times.0.as_secs_f64(),
            total_seconds: times.1.as_secs_f64(),
            client_cpu_seconds,
            confirm_gap_ms_max: run.silence.longest().as_secs_f64() * 1000.0,
            confirm_latency: latencies.0.percentiles(),
            receipt_latency: latencies.1.percentiles(),
            timeline,
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
