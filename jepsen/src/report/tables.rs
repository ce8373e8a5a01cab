//! The report as text.

use std::fmt::Write;

use crate::checkers::{Distribution, Invariant, Report};

/// Most violations of one invariant that are written out.
const WRITTEN_MAX: usize = 20;

/// Everything, for a terminal or a file.
pub fn text(report: &Report) -> String {
    let mut text = String::new();
    // Writing into a string does not fail.
    let _ = write_text(report, &mut text);
    text
}

fn write_text(report: &Report, out: &mut String) -> std::fmt::Result {
    let summary = &report.summary;
    writeln!(
        out,
        "{:<20}{:>9}{:>9}{:>9}{:>11}{:>11}{:>11}",
        "call", "ok", "failed", "unknown", "p50 ms", "p99 ms", "max ms"
    )?;
    for (name, [ok, failed, unknown]) in &summary.calls {
        let Distribution { p50, p99, max, .. } = summary.latency_ms.get(name).copied().unwrap_or_default();
        writeln!(out, "{name:<20}{ok:>9}{failed:>9}{unknown:>9}{p50:>11.1}{p99:>11.1}{max:>11.1}")?;
    }
    let [acknowledged, recalled, dead, present] = summary.endings;
    writeln!(out)?;
    writeln!(out, "copies seen          {}, of which {} confirmed", summary.copies, summary.confirmed)?;
    writeln!(out, "leases given         {}, of which {} again", summary.delivered, summary.redelivered)?;
    writeln!(
        out,
        "ended                {acknowledged} acknowledged, {recalled} recalled, {dead} dead, {present} still there"
    )?;
    writeln!(out, "schedules fired      {}", summary.fired)?;
    let Distribution { count, p50, p90, p99, max } = summary.lateness_ms;
    writeln!(out, "due to leased, ms    p50 {p50}, p90 {p90}, p99 {p99}, max {max} of {count}")?;
    writeln!(out, "published again      {} found stored already", summary.duplicates)?;
    writeln!(out, "longest write gap    {:.0} ms", summary.longest_gap_ms)?;
    for outage in &summary.outages {
        let (from, to) = (outage.from_ns as f64 / 1e9, outage.to_ns as f64 / 1e9);
        let faults = if outage.faults.is_empty() { "no fault".to_owned() } else { outage.faults.join(", ") };
        writeln!(out, "no write confirmed   {from:.1} s to {to:.1} s, {:.1} s: {faults}", to - from)?;
    }
    for recovery in &summary.recoveries {
        let took = recovery.took_ms.map_or("never".to_owned(), |took_ms| format!("after {took_ms:.0} ms"));
        let healed = recovery.healed_ns as f64 / 1e9;
        writeln!(out, "{:<20} healed at {healed:.1} s, a write confirmed {took}", recovery.fault)?;
    }
    writeln!(out)?;
    for invariant in Invariant::ALL {
        let violations: Vec<_> =
            report.violations.iter().filter(|violation| violation.invariant == invariant).collect();
        let verdict =
            if violations.is_empty() { "holds".to_owned() } else { format!("{} VIOLATIONS", violations.len()) };
        writeln!(out, "{:>2}  {:<60}{verdict}", invariant.number(), invariant.promise())?;
        for violation in violations.iter().take(WRITTEN_MAX) {
            writeln!(out, "      {violation}")?;
        }
    }
    for reason in &report.unchecked {
        writeln!(out, "not judged: {reason}")?;
    }
    Ok(())
}
