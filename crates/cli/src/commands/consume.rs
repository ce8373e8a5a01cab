//! `dwell consume`: prints messages as they come.

use std::time::Duration;

use clap::Args;
use dwell_client::{ConsumeOptions, Consumer, Delivery, Error};
use serde_json::json;
use tokio::task::JoinSet;

use super::settle::SettleArguments;
use crate::arguments::{GlobalArguments, Output};
use crate::output;
use crate::render::{add_message, deaths_json, deaths_text};
use crate::times::{parse_duration, show_ms, since_epoch_ms};

#[derive(Debug, Args)]
pub struct ConsumeArguments {
    /// The queue to consume
    queue: String,
    /// How many messages to hold unacknowledged: 1 to 10000
    #[arg(long, default_value_t = 100)]
    credit: u32,
    /// End after so many messages
    #[arg(long)]
    count: Option<u64>,
    #[command(flatten)]
    settle: SettleArguments,
    /// The consumer's id, to resume it by
    #[arg(long)]
    consumer_id: Option<String>,
    /// How long what it holds stays leased when it breaks off: 100ms to 24h [server's default: 30s]
    #[arg(long, value_parser = parse_duration, default_value = "0", hide_default_value = true)]
    session_timeout: Duration,
}

pub async fn run(global: &GlobalArguments, arguments: ConsumeArguments) -> anyhow::Result<()> {
    let mut options = ConsumeOptions::default().credit(arguments.credit).session_timeout(arguments.session_timeout);
    options.consumer_id = arguments.consumer_id.clone();
    let mut consumer = global.streaming_client()?.consume(&arguments.queue, options).await?;
    let result = print_all(global, &arguments, &mut consumer).await;
    let closed = consumer.close().await;
    // A displaced or deleted consumer need not be closed; its error is the first one.
    result?;
    Ok(closed?)
}

async fn print_all(
    global: &GlobalArguments,
    arguments: &ConsumeArguments,
    consumer: &mut Consumer,
) -> anyhow::Result<()> {
    let mut acknowledging: JoinSet<Result<(), Error>> = JoinSet::new();
    // Held until the end, so that they are not delivered again after a reconnection.
    let mut unacknowledged = Vec::new();
    let mut left = arguments.count.unwrap_or(u64::MAX);
    while left > 0 {
        let delivery = tokio::select! {
            delivery = consumer.next() => delivery,
            Some(acknowledged) = acknowledging.join_next() => {
                report(acknowledged?);
                continue;
            }
            result = tokio::signal::ctrl_c() => {
                result?;
                break;
            }
        };
        let Some(delivery) = delivery else { break };
        let delivery = delivery?;
        print(global.output, &delivery)?;
        left -= 1;
        if arguments.settle.no_ack {
            unacknowledged.push(delivery);
        } else {
            let settle = arguments.settle.clone();
            acknowledging.spawn(async move { settle.settle(&delivery).await });
        }
    }
    while let Some(acknowledged) = acknowledging.join_next().await {
        report(acknowledged?);
    }
    Ok(())
}

fn report(acknowledged: Result<(), Error>) {
    if let Err(error) = acknowledged {
        eprintln!("warning: a message was not settled and may come again: {error}");
    }
}

/// Prints a delivery.
pub fn print(format: Output, delivery: &Delivery) -> anyhow::Result<()> {
    let handle = &delivery.handle;
    let message = &delivery.message;
    let received_at_ms = since_epoch_ms(delivery.received_at);
    if format == Output::Table {
        let again = match delivery.delivery_count {
            0 => String::new(),
            count => format!(" (came back {count} times)"),
        };
        let dead = match deaths_text(&delivery.deaths) {
            deaths if deaths.is_empty() => deaths,
            deaths => format!(" (dead letter: {deaths})"),
        };
        let text = output::body_text(&message.body);
        return output::line(format!("{}  {:>8}  {text}{again}{dead}", show_ms(received_at_ms), handle.sequence));
    }
    let mut value = json!({
        "namespace": handle.namespace,
        "queue": handle.queue,
        "sequence": handle.sequence,
        "delivery_count": delivery.delivery_count,
        "published_at_ms": delivery.published_at_ms,
        "ready_at_ms": delivery.ready_at_ms,
        "received_at_ms": received_at_ms,
        "lease_deadline_ms": delivery.lease_deadline_ms,
        "exchange": delivery.exchange,
        "routing_key": delivery.routing_key,
        "group": delivery.group,
        "deaths": deaths_json(&delivery.deaths),
        "body": output::body_json(&message.body),
    });
    add_message(&mut value, message);
    output::line(value)
}
