//! Curves of single workloads, and what several have in common, as SVG beside the tables.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::path::Path;

use anyhow::Context as _;
use plotters::coord::Shift;
use plotters::prelude::*;

use super::latest::{Latest, Systems};
use super::points;
use crate::results::Curve;

pub const WIDTH: u32 = 1200;
pub const FONT: (&str, u32) = ("sans-serif", 14);
pub const CAPTION: (&str, u32) = ("sans-serif", 16);
/// Of one curve.
const PANEL_HEIGHT: u32 = 360;
const COLUMNS: usize = 2;
/// Of the highest value, for each line of the legend: there is room for it above all curves.
const LEGEND_SHARE: f64 = 0.08;

/// An area to draw in.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
/// What drawing comes to.
pub type Drawn = Result<(), Box<dyn Error>>;

/// Files that were written, to be linked from the tables.
#[derive(Debug, Default)]
pub struct Plots {
    /// Of several workloads: title and file.
    pub overviews: Vec<(String, String)>,
    /// By workload.
    pub curves: BTreeMap<String, String>,
}

/// Writes all of them.
pub fn write(directory: &Path, latest: &Latest<'_>) -> anyhow::Result<Plots> {
    let systems: BTreeSet<&str> = latest.outcomes.values().flat_map(BTreeMap::keys).copied().collect();
    let systems: Vec<&str> = systems.into_iter().collect();
    let mut plots = Plots::default();
    for (title, file, rows) in points::overviews(latest) {
        if !rows.is_empty() {
            save(directory, file, points::height(&rows, &systems), |area| points::draw(area, title, &rows, &systems))?;
            plots.overviews.push((title.to_owned(), file.to_owned()));
        }
    }
    for (workload, outcomes) in &latest.outcomes {
        let names = curve_names(outcomes);
        if !names.is_empty() {
            let file = file_name(workload);
            let panels = names.len().div_ceil(COLUMNS);
            let height = PANEL_HEIGHT * u32::try_from(panels)?;
            save(directory, &file, height, |area| curves(area, outcomes, &names, &systems))?;
            plots.curves.insert((*workload).to_owned(), file);
        }
    }
    Ok(plots)
}

fn save(directory: &Path, file: &str, height: u32, draw: impl FnOnce(&Area<'_>) -> Drawn) -> anyhow::Result<()> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        let drawn = area.fill(&WHITE).map_err(Box::<dyn Error>::from);
        let drawn = drawn.and_then(|()| draw(&area));
        let drawn = drawn.and_then(|()| area.present().map_err(Box::<dyn Error>::from));
        drawn.map_err(|error| anyhow::anyhow!("cannot draw {file}: {error}"))?;
    }
    let path = directory.join(file);
    std::fs::write(&path, svg).with_context(|| format!("cannot write {}", path.display()))
}

/// A workload's name without what file names had better not have.
fn file_name(workload: &str) -> String {
    let words: Vec<String> = workload
        .split(|letter: char| !letter.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    format!("{}.svg", words.join("-"))
}

fn curve_names<'a>(systems: &Systems<'a>) -> Vec<&'a str> {
    let outcomes = systems.values().flat_map(|rounds| rounds.values());
    let names: BTreeSet<&str> = outcomes.flat_map(|outcome| outcome.curves.keys().map(String::as_str)).collect();
    names.into_iter().collect()
}

/// A panel for each curve of a workload.
fn curves(area: &Area<'_>, outcomes: &Systems<'_>, names: &[&str], systems: &[&str]) -> Drawn {
    let panels = area.split_evenly((names.len().div_ceil(COLUMNS), COLUMNS));
    for (name, panel) in names.iter().zip(&panels) {
        curve(panel, name, outcomes, systems)?;
    }
    Ok(())
}

/// A line for each system and round.
fn curve(area: &Area<'_>, name: &str, outcomes: &Systems<'_>, systems: &[&str]) -> Drawn {
    let of = |system: &str| -> Vec<&Curve> {
        outcomes
            .get(system)
            .into_iter()
            .flat_map(|rounds| rounds.values())
            .filter_map(|of| of.curves.get(name))
            .collect()
    };
    let points = systems.iter().flat_map(|system| of(system)).flatten();
    let (right, top) = points.fold((1.0, 1.0), |(x, y): (f64, f64), point| (x.max(point.0), y.max(point.1)));
    let top = top * (1.05 + LEGEND_SHARE * outcomes.len() as f64);
    let horizontal = name.split_once(" by ").map_or("", |(_, by)| by.split(',').next().unwrap_or(by));
    let mut chart = ChartBuilder::on(area)
        .margin(14)
        .margin_right(30)
        .caption(name, CAPTION)
        .x_label_area_size(40)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..right, 0.0..top)?;
    let mut mesh = chart.configure_mesh();
    mesh.light_line_style(WHITE).x_desc(horizontal).label_style(FONT).x_labels(6).y_labels(8);
    mesh.x_label_formatter(&|value| number(*value)).y_label_formatter(&|value| number(*value)).draw()?;
    for (color, system) in systems.iter().enumerate() {
        let style = Palette99::pick(color).stroke_width(1);
        for (round, curve) in of(system).into_iter().enumerate() {
            let series = chart.draw_series(LineSeries::new(curve.iter().copied(), style))?;
            if round == 0 {
                series.label(*system).legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
            }
            // A curve may have one point only.
            chart.draw_series(curve.iter().map(|point| Circle::new(*point, 2, style.filled())))?;
        }
    }
    chart.configure_series_labels().position(SeriesLabelPosition::UpperRight).label_font(FONT).draw()?;
    Ok(())
}

/// A number on an axis, as short as it can be told.
pub fn number(value: f64) -> String {
    let (scaled, unit) = match value.abs() {
        size if size >= 1e6 => (value / 1e6, "m"),
        size if size >= 1e3 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let text = format!("{scaled:.2}");
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{Line, Outcome};

    #[test]
    fn numbers_on_axes_are_short() {
        let shown = [0.0, 0.1, 25.0, 100.0, 2500.0, 1e6].map(number);
        assert_eq!(shown, ["0", "0.1", "25", "100", "2.5k", "1m"]);
    }

    #[test]
    fn files_are_named_for_their_workloads() {
        assert_eq!(file_name("c: backlog of 1m, 1 KiB, 4x256"), "c-backlog-of-1m-1-kib-4x256.svg");
    }

    #[test]
    fn a_plot_is_written_for_curves_and_for_throughput() {
        let directory = tempfile::tempdir().unwrap();
        let mut outcome = Outcome::default();
        outcome.set("messages_per_second", 1500.0);
        outcome.curves.insert("rate by depth".into(), vec![(0.0, 1.0), (9.0, 3.0)]);
        let lines = [Line::Result { workload: "a: x".into(), system: "dwell".into(), round: 0, outcome }];
        let plots = write(directory.path(), &Latest::of(&lines)).unwrap();
        assert_eq!(plots.curves["a: x"], "a-x.svg");
        assert_eq!(plots.overviews.len(), 1);
        for file in ["a-x.svg", &plots.overviews[0].1] {
            let text = std::fs::read_to_string(directory.path().join(file)).unwrap();
            assert!(text.starts_with("<svg") && text.contains("dwell"), "{text}");
        }
    }
}
