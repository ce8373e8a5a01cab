//! `dwell schedule`: recurring publications.

mod definition;
mod render;

use clap::{Args, Subcommand};
use serde_json::json;

use self::definition::DefinitionArguments;
use super::message::{BodyArguments, MessageArguments};
use crate::arguments::{GlobalArguments, Output, ReadArguments};
use crate::output;
use crate::times::show_ms;

#[derive(Debug, Args)]
pub struct ScheduleArguments {
    #[command(subcommand)]
    command: ScheduleCommand,
}

#[derive(Debug, Subcommand)]
enum ScheduleCommand {
    /// Make a schedule. Again with the same definition is fine
    Declare(Box<DeclareArguments>),
    /// List schedules
    List {
        /// Only names that begin so
        #[arg(default_value = "")]
        prefix: String,
        #[command(flatten)]
        read: ReadArguments,
    },
    /// Show one schedule, its last firings and its next due times
    Describe {
        /// Its name
        schedule: String,
        /// How many next due times: at most 1000
        #[arg(long, value_name = "TIMES", default_value_t = 5)]
        next: u32,
        #[command(flatten)]
        read: ReadArguments,
    },
    /// Show the due times of a definition without declaring it
    Preview {
        #[command(flatten)]
        definition: Box<DefinitionArguments>,
        /// How many: 1 to 1000
        #[arg(long, value_name = "TIMES", default_value_t = 10)]
        next: u32,
    },
    /// Publish its message now, besides its due times, paused or not
    Trigger {
        /// Its name
        schedule: String,
    },
    /// Stop it from firing until it is resumed
    Pause {
        /// Its name
        schedule: String,
    },
    /// Let it fire again, from the next due time on
    Resume {
        /// Its name
        schedule: String,
    },
    /// Delete a schedule
    Delete {
        /// Its name
        schedule: String,
    },
}

#[derive(Debug, Args)]
struct DeclareArguments {
    /// Its name: 1 to 255 bytes
    schedule: String,
    #[command(flatten)]
    definition: DefinitionArguments,
    /// The queue to publish to
    #[arg(long, required_unless_present = "exchange", conflicts_with_all = ["exchange", "key"])]
    queue: Option<String>,
    #[command(flatten)]
    body: BodyArguments,
    #[command(flatten)]
    message: MessageArguments,
    /// If it exists with another definition: change it
    #[arg(long)]
    replace: bool,
}

pub async fn run(global: &GlobalArguments, arguments: ScheduleArguments) -> anyhow::Result<()> {
    match arguments.command {
        ScheduleCommand::Declare(arguments) => declare(global, *arguments).await,
        ScheduleCommand::List { prefix, read } => {
            let schedules = read.client(global)?.list_schedules(prefix).await?;
            render::print_list(global.output, &schedules)
        }
        ScheduleCommand::Describe { schedule, next, read } => {
            let report = read.client(global)?.describe_schedule(schedule, next).await?;
            render::print_report(global.output, &report)
        }
        ScheduleCommand::Preview { definition, next } => {
            let due = global.client()?.preview_schedule(definition.definition(), next).await?;
            match global.output {
                Output::Json => output::line(json!({ "next_due_ms": due })),
                Output::Table if due.is_empty() => output::line("it is never due"),
                Output::Table => due.into_iter().try_for_each(|at_ms| output::line(show_ms(at_ms))),
            }
        }
        ScheduleCommand::Trigger { schedule } => {
            let firing = global.client()?.trigger_schedule(&schedule).await?;
            render::print_firing(global.output, &schedule, &firing)
        }
        ScheduleCommand::Pause { schedule } => {
            global.client()?.pause_schedule(&schedule).await?;
            done(global, &schedule, "paused")
        }
        ScheduleCommand::Resume { schedule } => {
            global.client()?.resume_schedule(&schedule).await?;
            done(global, &schedule, "resumed")
        }
        ScheduleCommand::Delete { schedule } => {
            global.client()?.delete_schedule(&schedule).await?;
            done(global, &schedule, "deleted")
        }
    }
}

async fn declare(global: &GlobalArguments, arguments: DeclareArguments) -> anyhow::Result<()> {
    let client = global.client()?;
    let body = arguments.body.read()?.unwrap_or_default();
    let message = arguments.message.message(arguments.queue.as_deref(), body);
    let definition = arguments.definition.definition().message(message);
    let schedule = &arguments.schedule;
    let created = match arguments.replace {
        true => client.replace_schedule(schedule, definition).await?,
        false => client.declare_schedule(schedule, definition).await?,
    };
    let state = match (created, arguments.replace) {
        (true, _) => "made",
        (false, true) => "there already; it has this definition now",
        (false, false) => "there already, with this definition",
    };
    let value = json!({ "schedule": schedule, "created": created });
    output::say(global.output, format!("schedule {schedule}: {state}"), value)
}

fn done(global: &GlobalArguments, schedule: &str, what: &str) -> anyhow::Result<()> {
    let value = json!({ "schedule": schedule, what: true });
    output::say(global.output, format!("schedule {schedule}: {what}"), value)
}
