//! Figures, limits and refusals, as metrics.

use prometheus::{IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::figures::Figures;
use super::{Exhausted, WatermarkLimits};

/// The values of the label `watermark`.
const NAMES: [&str; 4] = ["memory", "disk", "member", "in_flight"];

pub(super) struct WatermarkMetrics {
    reached: IntGaugeVec,
    refused: IntCounterVec,
    disk_free_bytes: IntGauge,
    in_flight: IntGauge,
    in_flight_bytes: IntGauge,
}

impl WatermarkMetrics {
    pub(super) fn register(
        limits: &WatermarkLimits,
        registry: &Registry,
    ) -> Result<WatermarkMetrics, prometheus::Error> {
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<IntGauge, prometheus::Error>(gauge)
        };
        let limit = |name: &str, help: &str, value: u64| {
            gauge(name, help).map(|gauge| gauge.set(i64::try_from(value).unwrap_or(i64::MAX)))
        };
        limit(
            "dwell_memory_watermark_bytes",
            "Resident bytes at which publishes are refused; 0: never.",
            limits.memory_bytes,
        )?;
        limit(
            "dwell_disk_free_watermark_bytes",
            "Free bytes of the data's disk below which publishes are refused; 0: never.",
            limits.disk_free_bytes,
        )?;
        limit(
            "dwell_publishes_in_flight_max",
            "Publish calls that may wait to be committed; 0: any.",
            limits.in_flight,
        )?;
        limit(
            "dwell_publish_bytes_in_flight_max",
            "Bytes of bodies that may wait to be committed; 0: any.",
            limits.in_flight_bytes,
        )?;
        let reached = IntGaugeVec::new(
            Opts::new(
                "dwell_watermark_reached",
                "1 while this node refuses publishes, or would if it led, for this reason.",
            ),
            &["watermark"],
        )?;
        let refused = IntCounterVec::new(
            Opts::new(
                "dwell_publishes_refused_total",
                "Publish calls that were refused because a watermark was reached.",
            ),
            &["watermark"],
        )?;
        registry.register(Box::new(reached.clone()))?;
        registry.register(Box::new(refused.clone()))?;
        for name in NAMES {
            reached.with_label_values(&[name]);
            refused.with_label_values(&[name]);
        }
        Ok(WatermarkMetrics {
            reached,
            refused,
            disk_free_bytes: gauge("dwell_disk_free_bytes", "Free bytes of the disk where the data is.")?,
            in_flight: gauge("dwell_publishes_in_flight", "Publish calls that wait to be committed.")?,
            in_flight_bytes: gauge("dwell_publish_bytes_in_flight", "Bytes of bodies that wait to be committed.")?,
        })
    }

    pub(super) fn set(&self, figures: &Figures) {
        if let Some(free) = figures.disk_free_bytes {
            self.disk_free_bytes.set(i64::try_from(free).unwrap_or(i64::MAX));
        }
    }

    pub(super) fn set_in_flight(&self, count: u64, bytes: u64) {
        self.in_flight.set(i64::try_from(count).unwrap_or(i64::MAX));
        self.in_flight_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    pub(super) fn set_reached(&self, reached: Option<&Exhausted>) {
        for name in NAMES {
            let is_it = reached.is_some_and(|reached| name_of(reached) == name);
            self.reached.with_label_values(&[name]).set(i64::from(is_it));
        }
    }

    pub(super) fn refused(&self, reached: &Exhausted) {
        self.refused.with_label_values(&[name_of(reached)]).inc();
    }
}

fn name_of(reached: &Exhausted) -> &'static str {
    match reached {
        Exhausted::Memory { .. } => "memory",
        Exhausted::Disk { .. } => "disk",
        Exhausted::Member { .. } => "member",
        Exhausted::BytesInFlight { .. } | Exhausted::InFlight { .. } => "in_flight",
    }
}
