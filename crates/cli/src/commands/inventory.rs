//! `dwell get`, `dwell browse`, `dwell forecast`: see what stands in a queue without taking it.

use std::time::Duration;

use clap::Args;
use dwell_client::{BrowseOptions, Forecast, MessageState, StoredMessage};
use futures::StreamExt;
use serde_json::{Value, json};

use super::revise::StateArgument;
use super::target;
use crate::arguments::{GlobalArguments, Output, ReadArguments};
use crate::output;
use crate::render::{add_counts, deaths_text, state_name, stored_json, stored_rows};
use crate::times::{parse_duration, show_duration_ms, show_ms};

/// The largest page of the API, and the usual one.
const PAGE_MAX: usize = 1000;

#[derive(Debug, Args)]
pub struct GetArguments {
    /// The queue, or a handle as `dwell publish` prints it
    #[arg(value_name = "QUEUE|HANDLE")]
    queue: String,
    /// The message's sequence
    sequence: Option<String>,
    #[command(flatten)]
    read: ReadArguments,
}

pub async fn get(global: &GlobalArguments, arguments: GetArguments) -> anyhow::Result<()> {
    let handle = target::handle(&arguments.queue, arguments.sequence.as_ref())?;
    let stored = arguments.read.client(global)?.get_message(&handle).await?;
    match global.output {
        Output::Json => output::line(stored_json(&stored, true)),
        Output::Table => output::rows(&stored_rows(&stored)),
    }
}

#[derive(Debug, Args)]
pub struct BrowseArguments {
    /// The queue
    queue: String,
    /// Messages in this state; may be given several times [default: all three]
    #[arg(long = "state", value_enum)]
    states: Vec<StateArgument>,
    /// At most so many messages
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// With their bodies
    #[arg(long)]
    bodies: bool,
    #[command(flatten)]
    read: ReadArguments,
}

pub async fn browse(global: &GlobalArguments, arguments: BrowseArguments) -> anyhow::Result<()> {
    let client = arguments.read.client(global)?;
    let states = match &arguments.states[..] {
        [] => &[StateArgument::Leased, StateArgument::Ready, StateArgument::Scheduled],
        states => states,
    };
    let page = u32::try_from(arguments.limit.clamp(1, PAGE_MAX))?;
    let options = BrowseOptions::default().page_size(page).with_bodies(arguments.bodies);
    let browses = states.iter().map(|state| client.browse(&arguments.queue, (*state).into(), options.clone()));
    let mut messages = futures::stream::iter(browses).flatten();
    let mut shown = Vec::new();
    let mut left = arguments.limit;
    while left > 0 {
        let Some(stored) = messages.next().await else { break };
        let stored = stored?;
        left -= 1;
        match global.output {
            Output::Json => output::line(stored_json(&stored, arguments.bodies))?,
            Output::Table => shown.push(stored),
        }
    }
    match global.output {
        Output::Json => Ok(()),
        Output::Table if shown.is_empty() => output::line("nothing stands in the queue so"),
        Output::Table => {
            output::print_table(&browse_table(&shown, arguments.bodies))?;
            if left == 0 { output::line("... there may be more (--limit)") } else { Ok(()) }
        }
    }
}

fn browse_table(messages: &[StoredMessage], bodies: bool) -> comfy_table::Table {
    let mut titles = vec!["sequence", "state", "ready at", "leased until", "priority", "came back", "message id"];
    titles.extend(["deaths", "bytes"]);
    if bodies {
        titles.push("body");
    }
    let mut table = output::table(&titles);
    for stored in messages {
        let message = stored.message.clone().unwrap_or_default();
        let sequence = stored.handle.as_ref().map_or(0, |handle| handle.sequence);
        let leased = stored.state() == MessageState::Leased;
        let mut row = vec![
            sequence.to_string(),
            state_name(stored.state()).to_owned(),
            show_ms(stored.ready_at_ms),
            if leased { show_ms(stored.lease_deadline_ms) } else { "-".into() },
            message.priority.to_string(),
            stored.delivery_count.to_string(),
            message.message_id.clone(),
            deaths_text(&stored.deaths),
            stored.body_bytes.to_string(),
        ];
        if bodies {
            row.push(output::body_text(&message.body));
        }
        table.add_row(row);
    }
    table
}

#[derive(Debug, Args)]
pub struct ForecastArguments {
    /// The queue
    queue: String,
    /// From now: how many scheduled messages are due by then. At most 100
    #[arg(long, value_name = "DURATION,...", value_delimiter = ',', value_parser = parse_duration)]
    #[arg(default_value = "1m,10m,1h,1d")]
    within: Vec<Duration>,
    #[command(flatten)]
    read: ReadArguments,
}

pub async fn forecast(global: &GlobalArguments, arguments: ForecastArguments) -> anyhow::Result<()> {
    let forecast = arguments.read.client(global)?.forecast(&arguments.queue, &arguments.within).await?;
    match global.output {
        Output::Json => output::line(forecast_json(&arguments.queue, &forecast)),
        Output::Table => output::rows(&forecast_rows(&forecast)),
    }
}

fn forecast_rows(forecast: &Forecast) -> Vec<(String, String)> {
    let counts = forecast.counts.unwrap_or_default();
    let mut rows = vec![
        ("leased".to_owned(), counts.leased.to_string()),
        ("ready".to_owned(), counts.ready.to_string()),
        ("scheduled".to_owned(), counts.scheduled.to_string()),
    ];
    rows.extend(forecast.due.iter().map(|due| {
        let about = if due.exact { "" } else { "about " };
        (format!("due within {}", show_duration_ms(due.horizon_ms)), format!("{about}{}", due.messages))
    }));
    rows
}

fn forecast_json(queue: &str, forecast: &Forecast) -> Value {
    let due = forecast
        .due
        .iter()
        .map(|due| json!({ "horizon_ms": due.horizon_ms, "messages": due.messages, "exact": due.exact }));
    let mut value = json!({ "queue": queue, "now_ms": forecast.now_ms, "due": due.collect::<Vec<_>>() });
    add_counts(&mut value, &forecast.counts.unwrap_or_default());
    value
}

#[cfg(test)]
mod tests {
    use dwell_client::{Due, Handle, QueueCounts};

    use super::*;

    #[test]
    fn a_forecast_says_what_is_estimated() {
        let due = vec![
            Due { horizon_ms: 60_000, messages: 5, exact: true },
            Due { horizon_ms: 3_600_000, messages: 100_000, exact: false },
        ];
        let counts = QueueCounts { scheduled: 200_000, ready: 1, leased: 2, bytes: 3 };
        let forecast = Forecast { counts: Some(counts), due, now_ms: 7 };
        let rows = forecast_rows(&forecast);
        assert_eq!(rows[3], ("due within 1m".to_owned(), "5".to_owned()));
        assert_eq!(rows[4], ("due within 1h".to_owned(), "about 100000".to_owned()));
        let value = forecast_json("q", &forecast);
        assert_eq!((&value["due"][1]["exact"], &value["scheduled"]), (&json!(false), &json!(200_000)));
    }

    #[test]
    fn browsed_messages_are_one_row_each() {
        let stored = StoredMessage {
            handle: Some(Handle { sequence: 7, ..Default::default() }),
            state: MessageState::Ready.into(),
            body_bytes: 5,
            ..Default::default()
        };
        let table = browse_table(&[stored.clone(), stored], false);
        assert_eq!(table.lines().count(), 3);
        let header = table.lines().next().unwrap();
        assert!(header.contains("SEQUENCE") && !header.contains("BODY"), "{header}");
    }
}
