//! One number of several workloads: a point for each system's median, and a line from its smallest to its largest.

use std::collections::BTreeMap;

use plotters::prelude::*;

use super::latest::{Latest, Systems, values};
use super::metrics::{GAPS, QUANTILES};
use super::plots::{Area, CAPTION, Drawn, FONT, number};
use super::statistics::Summary;

/// For the names of workloads.
const LABEL_WIDTH: u32 = 400;
const ROW_HEIGHT_MIN: u32 = 24;
/// For each system's point within a row.
const POINT_HEIGHT: u32 = 12;
/// Of a line of the legend, which is above the first row.
const LEGEND_HEIGHT: u32 = 24;
/// Captions, axes and margins.
const AROUND: u32 = 110;
/// What is shorter is drawn as this many milliseconds: the axis is logarithmic.
const SMALLEST: f64 = 0.1;
/// Latencies that the client sees, of which a workload has one.
const LATENCIES: [&str; 2] = ["end_to_end", "lateness"];

/// One row: a name, and a summary for each system.
#[derive(Debug, PartialEq)]
pub struct Row<'a> {
    label: String,
    systems: BTreeMap<&'a str, Summary>,
}

/// Title, file and rows.
pub fn overviews<'a>(latest: &Latest<'a>) -> [(&'static str, &'static str, Vec<Row<'a>>); 3] {
    let (mut rates, mut latencies, mut gaps) = (Vec::new(), Vec::new(), Vec::new());
    for (workload, systems) in &latest.outcomes {
        match workload.chars().next() {
            Some('a') => rates.extend(row((*workload).to_owned(), systems, "messages_per_second")),
            Some('b' | 'd') => {
                LATENCIES.iter().for_each(|name| latencies.extend(group(workload, systems, name, &QUANTILES)))
            }
            Some('e') => gaps.extend(group(workload, systems, "confirm_gap", &GAPS)),
            _ => {}
        }
    }
    [
        ("Throughput (messages/s)", "throughput.svg", rates),
        ("From the publish or the due time to the receipt (ms)", "latencies.svg", latencies),
        ("Longest time without a confirm (ms)", "failover.svg", gaps),
    ]
}

fn row<'a>(label: String, systems: &Systems<'a>, metric: &str) -> Option<Row<'a>> {
    let summary = |rounds| Summary::of(values(rounds, metric).into_values());
    let systems: BTreeMap<_, _> =
        systems.iter().filter_map(|(system, rounds)| Some((*system, summary(rounds)?))).collect();
    (!systems.is_empty()).then_some(Row { label, systems })
}

/// A row for each of several numbers of one kind; only the first names the workload.
fn group<'a>(workload: &str, systems: &Systems<'a>, name: &str, parts: &[&str]) -> Vec<Row<'a>> {
    let rows = parts.iter().enumerate().map(|(position, part)| {
        let label = if position == 0 { format!("{workload}: {part}") } else { (*part).to_owned() };
        row(label, systems, &format!("{name}_{part}_ms"))
    });
    rows.flatten().collect()
}

/// Those whose numbers are in the rows, with their places among all systems, which decide their colors.
fn shown<'a>(rows: &[Row<'_>], systems: &[&'a str]) -> Vec<(usize, &'a str)> {
    let has = |system: &str| rows.iter().any(|row| row.systems.contains_key(system));
    systems.iter().copied().enumerate().filter(|(_, system)| has(system)).collect()
}

/// So that rows and legend have room.
pub fn height(rows: &[Row<'_>], systems: &[&str]) -> u32 {
    let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX / LABEL_WIDTH);
    let systems = shown(rows, systems).len();
    AROUND + row_height(systems) * count(rows.len()) + LEGEND_HEIGHT * count(systems)
}

fn row_height(systems: usize) -> u32 {
    ROW_HEIGHT_MIN.max(POINT_HEIGHT * u32::try_from(systems).unwrap_or(1))
}

/// Draws them, the first at the top.
pub fn draw(area: &Area<'_>, title: &str, rows: &[Row<'_>], systems: &[&str]) -> Drawn {
    let systems = shown(rows, systems);
    let above = systems.len() as f64 * f64::from(LEGEND_HEIGHT) / f64::from(row_height(systems.len()));
    let last = rows.len() as f64 - 1.0;
    let bounds = bounds(rows);
    let mut chart = ChartBuilder::on(area)
        .margin(14)
        .margin_right(30)
        .caption(title, CAPTION)
        .x_label_area_size(36)
        .y_label_area_size(LABEL_WIDTH)
        .build_cartesian_2d(bounds.clone().log_scale(), -0.5..last + 0.5 + above)?;
    // With spaces that stay, to keep it off the axis.
    let label = |at: &f64| {
        let position = last - at;
        let row = (position.fract().abs() < 1e-6 && position >= 0.0).then(|| rows.get(position as usize)).flatten();
        row.map_or_else(String::new, |row| format!("{}\u{a0}\u{a0}", row.label))
    };
    let mut mesh = chart.configure_mesh();
    mesh.light_line_style(WHITE).label_style(FONT).disable_y_mesh().set_tick_mark_size(LabelAreaPosition::Left, 0);
    // More labels than there are rows, so that each whole number is among them.
    mesh.y_labels(2 * (rows.len() + above as usize) + 2);
    mesh.x_label_formatter(&|value| number(*value)).y_label_formatter(&label).draw()?;
    let guide = |row: usize| PathElement::new([(bounds.start, row as f64), (bounds.end, row as f64)], BLACK.mix(0.1));
    chart.draw_series((0..rows.len()).map(guide))?;
    for (place, (color, system)) in systems.iter().enumerate() {
        let style = Palette99::pick(*color).stroke_width(2);
        // Beside each other within the row, the first on top.
        let beside = (place as f64 + 0.5) / systems.len() as f64 - 0.5;
        let found = rows.iter().enumerate().filter_map(|(row, of)| Some((row, of.systems.get(system)?)));
        let found: Vec<(f64, Summary)> =
            found.map(|(row, summary)| (last - row as f64 - 0.7 * beside, *summary)).collect();
        chart.draw_series(found.iter().map(|(y, of)| {
            PathElement::new([(of.smallest.max(SMALLEST), *y), (of.largest.max(SMALLEST), *y)], style)
        }))?;
        let medians = found.iter().map(|(y, of)| Circle::new((of.median.max(SMALLEST), *y), 4, style.filled()));
        let series = chart.draw_series(medians)?;
        series.label(*system).legend(move |(x, y)| Circle::new((x + 10, y), 4, style.filled()));
    }
    chart.configure_series_labels().position(SeriesLabelPosition::UpperRight).label_font(FONT).draw()?;
    Ok(())
}

/// From one power of ten to another.
fn bounds(rows: &[Row<'_>]) -> std::ops::Range<f64> {
    let summaries = || rows.iter().flat_map(|row| row.systems.values());
    let smallest = summaries().map(|of| of.smallest.max(SMALLEST)).fold(f64::INFINITY, f64::min);
    let largest = summaries().map(|of| of.largest).fold(smallest, f64::max);
    let from = smallest.log10().floor();
    10f64.powf(from)..10f64.powf(largest.log10().ceil().max(from + 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{Line, Outcome};

    #[test]
    fn each_group_has_its_overview_and_only_the_first_of_its_rows_names_the_workload() {
        let mut outcome = Outcome::default();
        for (name, value) in [("messages_per_second", 5.0), ("lateness_p50_ms", 0.0), ("lateness_max_ms", 20.0)] {
            outcome.set(name, value);
        }
        let line = |workload: &str| Line::Result {
            workload: workload.into(),
            system: "s".into(),
            round: 0,
            outcome: outcome.clone(),
        };
        let lines = [line("a: x"), line("d: y")];
        let latest = Latest::of(&lines);
        let labels = overviews(&latest).map(|(_, _, rows)| rows.into_iter().map(|row| row.label).collect::<Vec<_>>());
        assert_eq!(labels, [vec!["a: x"], vec!["d: y: p50", "max"], vec![]]);
        let [_, (_, _, rows), _] = overviews(&latest);
        assert_eq!(bounds(&rows), 0.1..100.0);
    }
}
