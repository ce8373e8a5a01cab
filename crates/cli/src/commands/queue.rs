//! `dwell queue`: declares, changes, lists, describes and deletes queues.

mod render;
mod settings;

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::json;

use self::settings::SettingsArguments;
use crate::arguments::{GlobalArguments, ReadArguments};
use crate::output;

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
        #[command(flatten)]
        settings: Box<SettingsArguments>,
    },
    /// Change settings of a queue: those that are given
    Update {
        /// Its name
        queue: String,
        #[command(flatten)]
        settings: Box<SettingsArguments>,
    },
    /// List queues with their counts
    List {
        /// Only names that begin so
        #[arg(default_value = "")]
        prefix: String,
        #[command(flatten)]
        read: ReadArguments,
    },
    /// Show one queue with its settings, and what happened in it
    Describe {
        /// Its name
        queue: String,
        #[command(flatten)]
        read: ReadArguments,
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
        QueueCommand::Declare { queue, settings } => {
            let created = client.declare_queue(&queue, settings.settings()).await?;
            let state = if created { "made" } else { "there already, with these settings" };
            let value = json!({ "queue": queue, "created": created });
            output::say(global.output, format!("queue {queue}: {state}"), value)
        }
        QueueCommand::Update { queue, settings } => {
            let settings = settings.settings();
            if settings.is_empty() {
                bail!("no setting is given; `dwell queue update --help` lists them");
            }
            client.update_queue(&queue, settings).await?;
            let value = json!({ "queue": queue, "updated": true });
            output::say(global.output, format!("queue {queue}: updated"), value)
        }
        QueueCommand::List { prefix, read } => {
            let queues = read.client(global)?.list_queues(prefix).await?;
            render::print_list(global.output, &queues)
        }
        QueueCommand::Describe { queue, read } => {
            let queue = read.client(global)?.describe_queue(queue).await?;
            render::print_one(global.output, &queue)
        }
        QueueCommand::Delete { queue, if_empty, if_unused } => {
            let messages = client.delete_queue(&queue, if_empty, if_unused).await?;
            let text = format!("queue {queue}: deleted with {messages} messages");
            output::say(global.output, text, json!({ "queue": queue, "messages": messages }))
        }
    }
}
