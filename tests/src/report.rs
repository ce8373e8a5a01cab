//! Numbers for people: percentiles and durations.

use std::fmt;

/// A set of measurements in microseconds, sorted.
#[derive(Debug, Clone, Default)]
pub struct Distribution {
    sorted_us: Vec<u64>,
}

impl Distribution {
    /// Takes measurements in any order.
    pub fn new(mut measurements_us: Vec<u64>) -> Self {
        measurements_us.sort_unstable();
        Self { sorted_us: measurements_us }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.sorted_us.len()
    }

    /// The smallest measurement that at least `per_mille` of 1000 are not above; 0 if there are none.
    pub fn per_mille_us(&self, per_mille: usize) -> u64 {
        let rank = (self.sorted_us.len() * per_mille).div_ceil(1000).max(1);
        self.sorted_us.get(rank - 1).copied().unwrap_or(0)
    }

    /// The largest; 0 if there are none.
    pub fn max_us(&self) -> u64 {
        self.sorted_us.last().copied().unwrap_or(0)
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "p50 {}  p99 {}  p99.9 {}  max {}  (of {})",
            milliseconds(self.per_mille_us(500)),
            milliseconds(self.per_mille_us(990)),
            milliseconds(self.per_mille_us(999)),
            milliseconds(self.max_us()),
            self.count()
        )
    }
}

/// `1234` microseconds as `1.23 ms`.
pub fn milliseconds(us: u64) -> String {
    format!("{}.{:02} ms", us / 1000, us % 1000 / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let distribution = Distribution::new((1..=1000).rev().collect());
        assert_eq!(distribution.per_mille_us(500), 500);
        assert_eq!(distribution.per_mille_us(990), 990);
        assert_eq!(distribution.per_mille_us(999), 999);
        assert_eq!(distribution.max_us(), 1000);
    }

    #[test]
    fn one_outlier_of_a_few_is_the_99th_percentile() {
        assert_eq!(Distribution::new(vec![1, 2, 3, 900]).per_mille_us(990), 900);
        assert_eq!(Distribution::default().per_mille_us(990), 0);
    }

    #[test]
    fn microseconds_are_written_as_milliseconds() {
        assert_eq!(milliseconds(1_234), "1.23 ms");
        assert_eq!(milliseconds(50), "0.05 ms");
    }
}
