//! What the log tells about itself.

use prometheus::{Histogram, HistogramOpts, IntGauge, Registry, exponential_buckets};

use super::LogError;

/// The log's metrics, one set for a node.
#[derive(Debug, Clone)]
pub(super) struct LogMetrics {
    /// Duration of a write with its fsync.
    pub fsync_seconds: Histogram,
    /// Entries that shared an fsync.
    pub batch_entries: Histogram,
    /// Bytes that shared an fsync.
    pub batch_bytes: Histogram,
    /// Requests waiting for the disk.
    pub write_queue: IntGauge,
}

impl LogMetrics {
    pub fn register(registry: &Registry) -> Result<Self, LogError> {
        let metrics = || -> prometheus::Result<Self> {
            Ok(Self {
                // 50 us to 1.6 s.
                fsync_seconds: histogram(
                    registry,
                    "dwell_log_fsync_seconds",
                    "Duration of a write to the Raft log with its fsync",
                    exponential_buckets(0.000_05, 2.0, 16)?,
                )?,
                // 1 to 65 536.
                batch_entries: histogram(
                    registry,
                    "dwell_log_batch_entries",
                    "Log entries, of all groups, written with one fsync",
                    exponential_buckets(1.0, 2.0, 17)?,
                )?,
                // 256 B to 64 MiB.
                batch_bytes: histogram(
                    registry,
                    "dwell_log_batch_bytes",
                    "Bytes written to the Raft log with one fsync",
                    exponential_buckets(256.0, 4.0, 10)?,
                )?,
                write_queue: {
                    let gauge =
                        IntGauge::new("dwell_log_write_queue", "Requests waiting to be written to the Raft log")?;
                    registry.register(Box::new(gauge.clone()))?;
                    gauge
                },
            })
        };
        metrics().map_err(|error| LogError::Options(format!("metrics cannot be registered: {error}")))
    }
}

fn histogram(registry: &Registry, name: &str, help: &str, buckets: Vec<f64>) -> prometheus::Result<Histogram> {
    let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
    registry.register(Box::new(histogram.clone()))?;
    Ok(histogram)
}
