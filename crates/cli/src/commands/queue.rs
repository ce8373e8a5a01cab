//! `dwell queue`: declares, lists, describes and deletes queues.

use std::time::Duration;

use clap::{Args, Subcommand};
use dwell_client::{Client, Consistency, Queue, QueueSettings};
use serde_json::{Value, json};

use crate::arguments::{GlobalArguments, Output};
use crate::output;
use crate::times::{parse_duration, show_duration_ms, show_ms};

#[derive(Debug, Args)]
pub struct QueueArguments {
    #[command(subcommand)]
    command: QueueCommand,
}

#[derive(Debug, Subcommand)]
enum QueueCommand {
    /// Make a queue. Again with the same settings is fine
    Declare {
        /// Its name: 1 to 255 bytes
        queue: String,
        /// How long a message may go unacknowledged before it returns: 100ms to 24h [server's default: 30s]
        #[arg(long, value_parser = parse_duration, default_value = "0", hide_default_value = true)]
        lease_timeout: Duration,
        /// How often a message may come back before it is dropped [default: without limit]
        #[arg(long, default_value_t = 0, hide_default_value = true)]
        delivery_limit: u32,
    },
    /// List queues with their counts
    List {
        /// Only names that begin so
        #[arg(default_value = "")]
        prefix: String,
        /// Ask a node for what it knows, without making sure that it is the latest; works without a leader
        #[arg(long)]
        stale: bool,
    },
    /// Show one queue
    Describe {
        /// Its name
        queue: String,
        /// Ask a node for what it knows, without making sure that it is the latest; works without a leader
        #[arg(long)]
        stale: bool,
    },
    /// Delete a queue with all its messages
    Delete {
        /// Its name
        queue: String,
        /// Only if it holds no message
        #[arg(long)]
        if_empty: bool,
        /// Only if it has no consumer
        #[arg(long)]
        if_unused: bool,
    },
}

pub async fn run(global: &GlobalArguments, arguments: QueueArguments) -> anyhow::Result<()> {
    let client = global.client()?;
    match arguments.command {
        QueueCommand::Declare { queue, lease_timeout, delivery_limit } => {
            let lease_timeout_ms = i64::try_from(lease_timeout.as_millis()).unwrap_or(i64::MAX);
            let settings = QueueSettings { lease_timeout_ms, delivery_limit };
            let created = client.declare_queue(&queue, settings).await?;
            let state = if created { "made" } else { "there already, with these settings" };
            say(global, format!("queue {queue}: {state}"), json!({ "queue": queue, "created": created }))
        }
        QueueCommand::List { prefix, stale } => {
            let queues = reader(client, stale).list_queues(prefix).await?;
            print_list(global, &queues)
        }
        QueueCommand::Describe { queue, stale } => {
            let queue = reader(client, stale).describe_queue(queue).await?;
            print_one(global, &queue)
        }
        QueueCommand::Delete { queue, if_empty, if_unused } => {
            let messages = client.delete_queue(&queue, if_empty, if_unused).await?;
            let text = format!("queue {queue}: deleted with {messages} messages");
            say(global, text, json!({ "queue": queue, "messages": messages }))
        }
    }
}

fn reader(client: Client, stale: bool) -> Client {
    client.with_consistency(if stale { Consistency::Stale } else { Consistency::Linearizable })
}

fn say(global: &GlobalArguments, text: String, value: Value) -> anyhow::Result<()> {
    match global.output {
        Output::Table => output::line(text),
        Output::Json => output::line(value),
    }
}

fn print_list(global: &GlobalArguments, queues: &[Queue]) -> anyhow::Result<()> {
    if global.output == Output::Json {
        return queues.iter().try_for_each(|queue| output::line(to_json(queue)));
    }
    if queues.is_empty() {
        return output::line("no queues; `dwell queue declare QUEUE` makes one");
    }
    let mut table = output::table(&["queue", "scheduled", "ready", "leased", "bytes", "consumers"]);
    for queue in queues {
        let counts = queue.counts.unwrap_or_default();
        table.add_row([
            queue.name.clone(),
            counts.scheduled.to_string(),
            counts.ready.to_string(),
            counts.leased.to_string(),
            counts.bytes.to_string(),
            queue.consumers.to_string(),
        ]);
    }
    output::print_table(&table)
}

fn print_one(global: &GlobalArguments, queue: &Queue) -> anyhow::Result<()> {
    if global.output == Output::Json {
        return output::line(to_json(queue));
    }
    let counts = queue.counts.unwrap_or_default();
    let settings = queue.settings.unwrap_or_default();
    let limit = match settings.delivery_limit {
        0 => "none".to_owned(),
        limit => limit.to_string(),
    };
    let rows = [
        ("queue", queue.name.clone()),
        ("scheduled", counts.scheduled.to_string()),
        ("ready", counts.ready.to_string()),
        ("leased", counts.leased.to_string()),
        ("bytes", counts.bytes.to_string()),
        ("consumers", queue.consumers.to_string()),
        ("lease timeout", show_duration_ms(settings.lease_timeout_ms)),
        ("delivery limit", limit),
        ("declared at", show_ms(queue.created_at_ms)),
    ];
    rows.iter().try_for_each(|(name, value)| output::line(format!("{name:<15} {value}")))
}

fn to_json(queue: &Queue) -> Value {
    let counts = queue.counts.unwrap_or_default();
    let settings = queue.settings.unwrap_or_default();
    json!({
        "queue": queue.name,
        "scheduled": counts.scheduled,
        "ready": counts.ready,
        "leased": counts.leased,
        "bytes": counts.bytes,
        "consumers": queue.consumers,
        "lease_timeout_ms": settings.lease_timeout_ms,
        "delivery_limit": settings.delivery_limit,
        "created_at_ms": queue.created_at_ms,
    })
}
