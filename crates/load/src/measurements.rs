//! Latencies, and the longest silence of the confirms.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Longest latency that is told apart from longer ones: an hour, in microseconds.
const LATENCY_US_MAX: u64 = 3_600_000_000;

/// Latencies of one kind.
#[derive(Debug, Clone)]
pub struct Latencies {
    microseconds: Histogram<u64>,
}

impl Latencies {
    /// None so far.
    pub fn new() -> anyhow::Result<Latencies> {
        Ok(Latencies { microseconds: Histogram::new_with_max(LATENCY_US_MAX, 3)? })
    }

    /// Takes a latency in; a negative one, which only unequal clocks make, as zero.
    pub fn record_us(&mut self, microseconds: i64) {
        self.microseconds.saturating_record(microseconds.max(0).unsigned_abs());
    }

    /// Takes the other's in.
    pub fn add(&mut self, other: &Latencies) -> anyhow::Result<()> {
        Ok(self.microseconds.add(&other.microseconds)?)
    }

    /// None if nothing was measured.
    pub fn percentiles(&self) -> Option<Percentiles> {
        if self.microseconds.is_empty() {
            return None;
        }
        let milliseconds = |microseconds: u64| microseconds as f64 / 1000.0;
        let at = |quantile| milliseconds(self.microseconds.value_at_quantile(quantile));
        Some(Percentiles {
            count: self.microseconds.len(),
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: milliseconds(self.microseconds.max()),
        })
    }
}

/// The distribution of a latency, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// How many were measured.
    pub count: u64,
    /// The median.
    pub p50_ms: f64,
    /// 99 of 100 are not longer.
    pub p99_ms: f64,
    /// 999 of 1000 are not longer.
    pub p999_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

/// The longest time between one confirm and the next, over all producers.
#[derive(Debug)]
pub struct Silence {
    began: Instant,
    /// Microseconds after `began`, plus one; 0 before the first confirm.
    last: AtomicU64,
    longest_us: AtomicU64,
}

impl Silence {
    pub fn new() -> Silence {
        Silence { began: Instant::now(), last: AtomicU64::new(0), longest_us: AtomicU64::new(0) }
    }

    /// A confirm came.
    pub fn end(&self) {
        self.end_at(self.began.elapsed());
    }

    fn end_at(&self, at: Duration) {
        let now = u64::try_from(at.as_micros()).unwrap_or(u64::MAX - 1) + 1;
        // The largest of concurrent callers stays: the others' are within its silence.
        let last = self.last.fetch_max(now, Ordering::Relaxed);
        if last != 0 && now > last {
            self.longest_us.fetch_max(now - last, Ordering::Relaxed);
        }
    }

    pub fn longest(&self) -> Duration {
        Duration::from_micros(self.longest_us.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_in_milliseconds() {
        let mut latencies = Latencies::new().unwrap();
        assert_eq!(latencies.percentiles(), None);
        (1..=1000).for_each(|number| latencies.record_us(number * 1000));
        latencies.record_us(-5);
        let percentiles = latencies.percentiles().unwrap();
        assert!((percentiles.p50_ms - 500.0).abs() < 2.0, "{percentiles:?}");
        assert!((percentiles.max_ms - 1000.0).abs() < 2.0, "{percentiles:?}");
    }

    #[test]
    fn the_longest_silence_is_between_confirms_and_not_before_the_first() {
        let silence = Silence::new();
        for milliseconds in [500, 510, 700, 705] {
            silence.end_at(Duration::from_millis(milliseconds));
        }
        assert_eq!(silence.longest(), Duration::from_millis(190));
    }
}
