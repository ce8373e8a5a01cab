//! What is counted of backups.

use std::time::Duration;

use prometheus::{Gauge, GaugeVec, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// Backups that this node sends.
#[derive(Clone)]
pub(super) struct BackupMetrics {
    /// Of the files.
    pub bytes: IntCounter,
    outcomes: IntCounterVec,
    last_timestamp: GaugeVec,
    last_duration: Gauge,
    last_bytes: IntGauge,
}

const COMPLETED: &str = "completed";
const FAILED: &str = "failed";

impl BackupMetrics {
    pub fn register(registry: &Registry) -> Result<BackupMetrics, prometheus::Error> {
        let bytes = IntCounter::new("dwell_backup_bytes_total", "Bytes of backups that this node has sent.")?;
        let outcomes = IntCounterVec::new(
            Opts::new("dwell_backups_total", "Backups that were asked of this node, by outcome."),
            &["outcome"],
        )?;
        let last_timestamp = GaugeVec::new(
            Opts::new(
                "dwell_backup_last_timestamp_seconds",
                "When this node sent the last backup, by outcome; 0: none since its start.",
            ),
            &["outcome"],
        )?;
        let last_duration = Gauge::new(
            "dwell_backup_last_duration_seconds",
            "How long the last completed backup took, the snapshot included.",
        )?;
        let last_bytes = IntGauge::new("dwell_backup_last_bytes", "Bytes of the last completed backup.")?;
        registry.register(Box::new(bytes.clone()))?;
        registry.register(Box::new(outcomes.clone()))?;
        registry.register(Box::new(last_timestamp.clone()))?;
        registry.register(Box::new(last_duration.clone()))?;
        registry.register(Box::new(last_bytes.clone()))?;
        for outcome in [COMPLETED, FAILED] {
            outcomes.with_label_values(&[outcome]);
            last_timestamp.with_label_values(&[outcome]);
        }
        Ok(BackupMetrics { bytes, outcomes, last_timestamp, last_duration, last_bytes })
    }

    /// Notes a backup that was sent whole.
    pub fn completed(&self, now_ms: u64, duration: Duration, bytes: u64) {
        self.note(COMPLETED, now_ms);
        self.last_duration.set(duration.as_secs_f64());
        self.last_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Notes one that was not.
    pub fn failed(&self, now_ms: u64) {
        self.note(FAILED, now_ms);
    }

    fn note(&self, outcome: &str, now_ms: u64) {
        self.outcomes.with_label_values(&[outcome]).inc();
        self.last_timestamp.with_label_values(&[outcome]).set(now_ms as f64 / 1000.0);
    }
}
