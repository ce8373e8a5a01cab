//! What is measured, line by line.

use super::HotPath;
use super::figures::Comparison;

/// Above the rows.
pub const HEADINGS: &str = "instructions a message    expected    measured   deviation   tolerance";

/// A path's row.
pub fn row(path: HotPath, comparison: &Comparison) -> String {
    let cell = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let expected = cell(comparison.expected.map(|figure| figure.instructions.to_string()));
    let deviation = cell(comparison.deviation_percent().map(|percent| format!("{percent:+.2} %")));
    let tolerance = cell(comparison.expected.map(|figure| format!("{} %", figure.tolerance_percent)));
    format!("{:<22}{expected:>12}{:>12}{deviation:>12}{tolerance:>12}", path.name(), comparison.measured)
}
