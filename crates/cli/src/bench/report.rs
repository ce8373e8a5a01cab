//! What came of a run, for people.

use dwell_load::{LoadReport, Percentiles};

use crate::output;

/// Prints it.
pub fn print(report: &LoadReport) -> anyhow::Result<()> {
    let mut counts = output::table(&["messages", "count"]);
    for (name, count) in [
        ("confirmed", report.confirmed),
        ("not confirmed", report.failed),
        ("received", report.received),
        ("lost", report.lost),
        ("early", report.early),
        ("received again", report.duplicates),
        ("of other runs", report.foreign),
        ("acknowledgements failed", report.acknowledgements_failed),
        ("acknowledgements in doubt", report.acknowledgements_in_doubt),
    ] {
        counts.add_row([name.to_owned(), count.to_string()]);
    }
    output::print_table(&counts)?;
    output::line(format!(
        "\npublished {:.0}/s for {:.1} s; received {:.0}/s over {:.1} s; longest time between confirms {:.1} ms\n",
        report.publish_rate,
        report.publish_seconds,
        report.receive_rate,
        report.total_seconds,
        report.confirm_gap_ms_max
    ))?;
    let mut latencies = output::table(&["latency in ms", "p50", "p99", "p99.9", "max"]);
    for (name, percentiles) in [
        ("publish to confirm", report.confirm_latency),
        ("publish to receipt", report.end_to_end_latency),
        ("due to receipt (release lateness, network included)", report.release_lateness),
    ] {
        if let Some(percentiles) = percentiles {
            let Percentiles { p50_ms, p99_ms, p999_ms, max_ms, .. } = percentiles;
            let numbers = [p50_ms, p99_ms, p999_ms, max_ms].map(|number| format!("{number:.2}"));
            latencies.add_row([&[name.to_owned()], &numbers[..]].concat());
        }
    }
    output::print_table(&latencies)
}
