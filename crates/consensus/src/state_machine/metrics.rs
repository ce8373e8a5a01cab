//! What is measured of applying and of snapshots.

use prometheus::{Histogram, HistogramOpts, IntGauge, Registry};

/// Metrics of one state machine.
#[derive(Clone)]
pub(super) struct StateMachineMetrics {
    pub apply_seconds: Histogram,
    pub apply_entries: Histogram,
    pub snapshot_seconds: Histogram,
    pub snapshot_bytes: IntGauge,
    pub unwritten_bytes: IntGauge,
}

impl StateMachineMetrics {
    pub fn register(registry: &Registry) -> Result<StateMachineMetrics, prometheus::Error> {
        let metrics = StateMachineMetrics {
            apply_seconds: Histogram::with_opts(
                HistogramOpts::new("dwell_apply_seconds", "Time to apply and write a chunk of committed log entries")
                    .buckets(prometheus::exponential_buckets(0.000_05, 2.0, 16)?),
            )?,
            apply_entries: Histogram::with_opts(
                HistogramOpts::new("dwell_apply_entries", "Log entries applied in one chunk")
                    .buckets(prometheus::exponential_buckets(1.0, 2.0, 11)?),
            )?,
            snapshot_seconds: Histogram::with_opts(
                HistogramOpts::new("dwell_snapshot_seconds", "Time to make or install a snapshot")
                    .buckets(prometheus::exponential_buckets(0.005, 2.0, 16)?),
            )?,
            snapshot_bytes: IntGauge::new("dwell_snapshot_bytes", "Bytes of the newest snapshot's files")?,
            unwritten_bytes: IntGauge::new(
                "dwell_state_unwritten_bytes",
                "Bytes of committed rows in memory that are not yet written to the state's database",
            )?,
        };
        registry.register(Box::new(metrics.apply_seconds.clone()))?;
        registry.register(Box::new(metrics.apply_entries.clone()))?;
        registry.register(Box::new(metrics.snapshot_seconds.clone()))?;
        registry.register(Box::new(metrics.snapshot_bytes.clone()))?;
        registry.register(Box::new(metrics.unwritten_bytes.clone()))?;
        Ok(metrics)
    }

    pub fn set_snapshot_bytes(&self, bytes: u64) {
        self.snapshot_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}
