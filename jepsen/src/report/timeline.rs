//! One page on which every call stands in its process's column, time going down.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::bands;
use crate::checkers::Report;
use crate::facts::Facts;
use crate::history::{History, Kind, Process};

/// Pixels for a second.
const SECOND_PIXELS: f64 = 120.0;
const COLUMN_PIXELS: usize = 110;
const MARGIN_PIXELS: usize = 70;
/// The page shows so many calls, from the first one; a browser bears no more.
const CALLS_MAX: usize = 20_000;
/// What one call says at most.
const TEXT_MAX: usize = 400;

const STYLE: &str = "body{font:12px sans-serif;margin:0}h1{font-size:16px;margin:8px}\
    #time{position:relative;margin-top:30px}\
    .c{position:absolute;border-radius:2px;overflow:hidden;white-space:nowrap;opacity:.85;font-size:9px;min-height:2px}\
    .c:hover{opacity:1;outline:1px solid #000;z-index:9}\
    .ok{background:#6db6fe}.info{background:#ffaa26}.fail{background:#feb5da}.bad{outline:2px solid #d00}\
    .f{position:absolute;left:0;right:0;background:#d0021b22;border-top:1px solid #d0021b;font-size:10px;color:#900}\
    .s{position:absolute;left:0;right:0;border-top:1px dotted #ccc;color:#888;font-size:10px}\
    .h{position:sticky;top:0;background:#fff;height:20px;z-index:10}.h b{position:absolute}";

/// Writes the page.
pub(super) fn write(history: &History, report: &Report, out: &mut impl Write) -> io::Result<()> {
    let facts = Facts::of(history);
    let end_ns = history.events.last().map_or(0, |event| event.time_ns);
    let calls = &facts.calls[..facts.calls.len().min(CALLS_MAX)];
    let mut columns: BTreeMap<Process, usize> = calls.iter().map(|call| (call.process, 0)).collect();
    columns.values_mut().enumerate().for_each(|(column, value)| *value = column);
    let bad: std::collections::BTreeSet<u64> =
        report.violations.iter().flat_map(|violation| &violation.events).copied().collect();
    writeln!(
        out,
        "<!DOCTYPE html><html><head><meta charset=\"utf-8\"><title>Timeline</title><style>{STYLE}</style></head>"
    )?;
    writeln!(
        out,
        "<body><h1>{} violations, {} of {} calls shown</h1>",
        report.violations.len(),
        calls.len(),
        facts.calls.len()
    )?;
    write!(out, "<div class=h>")?;
    for (process, column) in &columns {
        if let Process::Client(number) = process {
            write!(out, "<b style=\"left:{}px\">{number}</b>", MARGIN_PIXELS + column * COLUMN_PIXELS)?;
        }
    }
    writeln!(out, "</div><div id=time style=\"height:{:.0}px\">", pixels(end_ns))?;
    for second in 0..=end_ns / 1_000_000_000 {
        writeln!(out, "<div class=s style=\"top:{:.0}px\">{second} s</div>", pixels(second * 1_000_000_000))?;
    }
    for band in bands(history) {
        let (top, height) = (pixels(band.from_ns), pixels(band.to_ns - band.from_ns));
        let text = escape(&format!("{}: {}", band.fault, band.description));
        writeln!(out, "<div class=f style=\"top:{top:.1}px;height:{height:.1}px\">{text}</div>")?;
    }
    for call in calls {
        let class = match call.kind {
            Kind::Ok => "ok",
            Kind::Fail => "fail",
            Kind::Info | Kind::Invoke => "info",
        };
        let marked = if bad.contains(&call.index) { " bad" } else { "" };
        let left = MARGIN_PIXELS + columns.get(&call.process).copied().unwrap_or(0) * COLUMN_PIXELS;
        let height = pixels(call.ended_ns.min(end_ns).saturating_sub(call.invoked_ns)).max(2.0);
        // What waits for messages goes behind what is done meanwhile.
        let width = if height > SECOND_PIXELS / 4.0 { COLUMN_PIXELS - 6 } else { COLUMN_PIXELS - 26 };
        let text: String = format!("{:?} => {:?}", call.call, call.answer).chars().take(TEXT_MAX).collect();
        writeln!(
            out,
            "<div class=\"c {class}{marked}\" style=\"left:{left}px;top:{:.1}px;height:{height:.1}px;width:{width}px\" \
             title=\"#{} {}\">{}</div>",
            pixels(call.invoked_ns),
            call.index,
            escape(&text),
            call.call.function().name()
        )?;
    }
    writeln!(out, "</div></body></html>")
}

fn pixels(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e9 * SECOND_PIXELS
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
