//! `dwell permission`: what users may do.

use clap::{Args, Subcommand};
use dwell_client::Permission;
use serde_json::json;

use crate::arguments::GlobalArguments;
use crate::commands::user::print_list;
use crate::output;

#[derive(Debug, Args)]
pub struct PermissionArguments {
    #[command(subcommand)]
    command: PermissionCommand,
}

#[derive(Debug, Subcommand)]
enum PermissionCommand {
    /// Say what a user may do, instead of what it might before
    Set {
        /// The user's name
        name: String,
        #[command(flatten)]
        patterns: PatternArguments,
    },
    /// List users, with what they may do
    List,
    /// Take away all that a user may do with queues, exchanges and schedules
    Clear {
        /// The user's name
        name: String,
    },
}

/// Regular expressions, each to match the whole name of a queue, exchange or schedule.
#[derive(Debug, Args)]
pub struct PatternArguments {
    /// What it may declare, change and delete [default: nothing]
    #[arg(long, value_name = "PATTERN", default_value = "", hide_default_value = true)]
    configure: String,
    /// Where it may publish, and withdraw or move messages [default: nowhere]
    #[arg(long, value_name = "PATTERN", default_value = "", hide_default_value = true)]
    write: String,
    /// Where it may consume, and look at messages [default: nowhere]
    #[arg(long, value_name = "PATTERN", default_value = "", hide_default_value = true)]
    read: String,
}

impl PatternArguments {
    /// What they say.
    pub fn permission(self) -> Permission {
        Permission { configure: self.configure, write: self.write, read: self.read }
    }
}

pub async fn run(global: &GlobalArguments, arguments: PermissionArguments) -> anyhow::Result<()> {
    let client = global.client()?;
    let (name, permission) = match arguments.command {
        PermissionCommand::List => return print_list(global.output, &client.list_users().await?),
        PermissionCommand::Set { name, patterns } => (name, patterns.permission()),
        PermissionCommand::Clear { name } => (name, Permission::default()),
    };
    client.set_permission(&name, permission).await?;
    let value = json!({ "user": name, "permission_set": true });
    output::say(global.output, format!("user {name}: may do that from now on"), value)
}
