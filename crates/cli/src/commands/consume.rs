//! `dwell consume`: prints messages as they come.

use std::time::Duration;

use clap::Args;
use dwell_client::{ConsumeOptions, Consumer, Delivery, Error};
use serde_json::json;
use tokio::task::JoinSet;

use crate::arguments::{GlobalArguments, Output};
use crate::output;
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
    /// Acknowledge nothing: all messages return to the queue at the end. No more come than the credit
    #[arg(long)]
    no_ack: bool,
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
        if arguments.no_ack {
            unacknowledged.push(delivery);
        } else {
            acknowledging.spawn(async move { delivery.ack().await });
        }
    }
    while let Some(acknowledged) = acknowledging.join_next().await {
        report(acknowledged?);
    }
    Ok(())
}

fn report(acknowledged: Result<(), Error>) {
    if let Err(error) = acknowledged {
        eprintln!("warning: a message was not acknowledged and may come again: {error}");
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
        let text = output::body_text(&message.body);
        return output::line(format!("{}  {:>8}  {text}{again}", show_ms(received_at_ms), handle.sequence));
    }
    output::line(json!({
        "namespace": handle.namespace,
        "queue": handle.queue,
        "sequence": handle.sequence,
        "delivery_count": delivery.delivery_count,
        "published_at_ms": delivery.published_at_ms,
        "ready_at_ms": delivery.ready_at_ms,
        "received_at_ms": received_at_ms,
        "lease_deadline_ms": delivery.lease_deadline_ms,
        "priority": message.priority,
        "headers": message.headers,
        "content_type": message.content_type,
        "correlation_id": message.correlation_id,
        "reply_to": message.reply_to,
        "message_id": message.message_id,
        "body": output::body_json(&message.body),
    }))
}
