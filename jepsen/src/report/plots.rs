//! Latencies and rates over time, faults shaded.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::ops::Range;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::{Band, ReportError, bands};
use crate::facts::{CallFacts, Facts};
use crate::history::{Function, History, Kind};

const SIZE: (u32, u32) = (1200, 500);
/// Points of one kind past which only every second, third and so on is drawn.
const POINTS_MAX: usize = 4000;
/// What takes no time is drawn at this many milliseconds: the axis is logarithmic.
const LATENCY_MS_MIN: f64 = 0.1;
/// Beyond the end there is room for the legend.
const WITH_LEGEND: f64 = 1.25;
const FONT: (&str, u32) = ("sans-serif", 14);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// From invocation to answer of each call, by its kind: circles are ok, triangles unknown, crosses failed.
pub(super) fn latency(history: &History) -> Result<String, ReportError> {
    draw(history, |area, facts, seconds, bands| {
        let latencies = facts.calls.iter().filter(|call| call.ended_ns != u64::MAX && measured(call));
        let mut points: BTreeMap<(&str, u8), Vec<(f64, f64)>> = BTreeMap::new();
        let mut longest_ms: f64 = 10.0;
        for call in latencies {
            let took_ms = (call.ended_ns - call.invoked_ns) as f64 / 1e6;
            longest_ms = longest_ms.max(took_ms);
            let mark = match call.kind {
                Kind::Ok => 0,
                Kind::Info | Kind::Invoke => 1,
                Kind::Fail => 2,
            };
            let point = (call.invoked_ns as f64 / 1e9, took_ms.max(LATENCY_MS_MIN));
            points.entry((call.call.function().name(), mark)).or_default().push(point);
        }
        let vertical = (LATENCY_MS_MIN..longest_ms * 1.5).log_scale();
        let mut chart = ChartBuilder::on(area)
            .margin(10)
            .x_label_area_size(30)
            .y_label_area_size(60)
            .build_cartesian_2d(seconds.start..seconds.end * WITH_LEGEND, vertical)?;
        chart.configure_mesh().light_line_style(WHITE).x_desc("s").y_desc("ms").label_style(FONT).draw()?;
        chart.draw_series(bands.iter().map(|band| {
            let corners = [(band.from_ns as f64 / 1e9, LATENCY_MS_MIN), (band.to_ns as f64 / 1e9, longest_ms * 1.5)];
            Rectangle::new(corners, RED.mix(0.1).filled())
        }))?;
        let names: BTreeSet<&str> = points.keys().map(|(name, _)| *name).collect();
        for ((name, mark), points) in points {
            let color = names.iter().position(|known| *known == name).unwrap_or_default();
            let style = Palette99::pick(color).filled();
            let every = points.len().div_ceil(POINTS_MAX).max(1);
            let points = points.into_iter().step_by(every);
            let series = match mark {
                0 => chart.draw_series(points.map(|point| Circle::new(point, 2, style).into_dyn()))?,
                1 => chart.draw_series(points.map(|point| TriangleMarker::new(point, 4, style).into_dyn()))?,
                _ => chart.draw_series(points.map(|point| Cross::new(point, 3, style).into_dyn()))?,
            };
            let label = format!("{name} {}", ["ok", "unknown", "failed"][usize::from(mark)]);
            series.label(label).legend(move |(x, y)| match mark {
                0 => Circle::new((x + 10, y), 4, style).into_dyn(),
                1 => TriangleMarker::new((x + 10, y), 4, style).into_dyn(),
                _ => Cross::new((x + 10, y), 4, style).into_dyn(),
            });
        }
        chart.configure_series_labels().background_style(WHITE.mix(0.8)).label_font(FONT).draw()?;
        Ok(())
    })
}

/// Calls that ended in each second, by name: those that are ok; and all that are unknown.
pub(super) fn rate(history: &History) -> Result<String, ReportError> {
    draw(history, |area, facts, seconds, bands| {
        let mut rates: BTreeMap<&str, BTreeMap<u64, f64>> = BTreeMap::new();
        for call in facts.calls.iter().filter(|call| call.ended_ns != u64::MAX) {
            let name = match call.kind {
                Kind::Ok => call.call.function().name(),
                Kind::Info => "unknown",
                Kind::Fail | Kind::Invoke => continue,
            };
            *rates.entry(name).or_default().entry(call.ended_ns / 1_000_000_000).or_default() += 1.0;
        }
        let highest = rates.values().flat_map(BTreeMap::values).copied().fold(1.0, f64::max) * 1.1;
        let mut chart = ChartBuilder::on(area)
            .margin(10)
            .x_label_area_size(30)
            .y_label_area_size(60)
            .build_cartesian_2d(seconds.start..seconds.end * WITH_LEGEND, 0.0..highest)?;
        chart.configure_mesh().light_line_style(WHITE).x_desc("s").y_desc("calls/s").label_style(FONT).draw()?;
        chart.draw_series(bands.iter().map(|band| {
            let corners = [(band.from_ns as f64 / 1e9, 0.0), (band.to_ns as f64 / 1e9, highest)];
            Rectangle::new(corners, RED.mix(0.1).filled())
        }))?;
        for (color, (name, rate)) in rates.into_iter().enumerate() {
            let style = Palette99::pick(color).stroke_width(2);
            let last = seconds.end as u64;
            let points = (0..=last).map(|second| (second as f64, rate.get(&second).copied().unwrap_or(0.0)));
            let series = chart.draw_series(LineSeries::new(points, style))?;
            series.label(name).legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
        }
        chart.configure_series_labels().background_style(WHITE.mix(0.8)).label_font(FONT).draw()?;
        Ok(())
    })
}

/// True of calls that do not wait for messages.
fn measured(call: &CallFacts<'_>) -> bool {
    call.call.function() != Function::Receive
}

fn draw(
    history: &History,
    plot: impl FnOnce(&Area<'_>, &Facts<'_>, &Range<f64>, &[Band]) -> Result<(), Box<dyn Error>>,
) -> Result<String, ReportError> {
    let facts = Facts::of(history);
    let end_ns = history.events.last().map_or(0, |event| event.time_ns);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let seconds = 0.0..(end_ns as f64 / 1e9).max(1.0);
        let drawn = area.fill(&WHITE).map_err(Box::<dyn Error>::from);
        let drawn = drawn.and_then(|()| plot(&area, &facts, &seconds, &bands(history)));
        let drawn = drawn.and_then(|()| area.present().map_err(Box::<dyn Error>::from));
        drawn.map_err(|error| ReportError::Plot(error.to_string()))?;
    }
    Ok(svg)
}
