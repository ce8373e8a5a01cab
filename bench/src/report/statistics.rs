//! The median of some measurements, and how far they lie apart.

use std::fmt;

/// Of one or more numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    /// The middle one; between the two in the middle if there are two.
    pub median: f64,
    /// The smallest.
    pub smallest: f64,
    /// The largest.
    pub largest: f64,
}

impl Summary {
    /// None of none.
    pub fn of(values: impl Iterator<Item = f64>) -> Option<Summary> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (smallest, largest) = (*values.first()?, *values.last()?);
        let (below, above) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
        Some(Summary { median: f64::midpoint(below, above), smallest, largest })
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Summary { median, smallest, largest } = self;
        // Three digits are as many as a shared machine means.
        let digits = match median.abs() {
            size if size >= 100.0 => 0,
            size if size >= 10.0 => 1,
            size if size >= 1.0 => 2,
            _ => 4,
        };
        write!(formatter, "{median:.digits$} ({smallest:.digits$} to {largest:.digits$})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_and_the_spread_is_whole() {
        let summary = |values: &[f64]| Summary::of(values.iter().copied());
        assert_eq!(summary(&[]), None);
        assert_eq!(summary(&[3.0, 1.0, 2.0]), Some(Summary { median: 2.0, smallest: 1.0, largest: 3.0 }));
        assert_eq!(summary(&[4.0, 1.0]), Some(Summary { median: 2.5, smallest: 1.0, largest: 4.0 }));
    }
}
