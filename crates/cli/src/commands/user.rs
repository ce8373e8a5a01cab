//! `dwell user`: who may call.

use std::io::BufRead as _;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use dwell_client::{Permission, User};
use serde_json::{Value, json};

use crate::arguments::{GlobalArguments, Output, first_line};
use crate::commands::permission::PatternArguments;
use crate::output;
use crate::times::show_ms;

#[derive(Debug, Args)]
pub struct UserArguments {
    #[command(subcommand)]
    command: UserCommand,
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Make a user
    Add {
        /// Its name: letters, digits and . _ @ - : /
        name: String,
        /// May change the cluster and the users, which is no permission on queues
        #[arg(long)]
        administrator: bool,
        #[command(flatten)]
        patterns: PatternArguments,
        #[command(flatten)]
        password: FirstPassword,
    },
    /// List users, with what they may do
    List,
    /// Remove a user, and end its streams. The last administrator stays
    Remove {
        /// Its name
        name: String,
    },
    /// Give a user another password, and end its streams
    SetPassword {
        /// Its name
        name: String,
        #[command(flatten)]
        password: NewPassword,
    },
}

/// Where the new password comes from.
#[derive(Debug, Args)]
pub struct NewPassword {
    /// A file with the new password, 8 to 1024 bytes, in its first line [default: the first line of standard input]
    #[arg(long, value_name = "FILE")]
    new_password_file: Option<PathBuf>,
}

/// The same, for a user that may do without.
#[derive(Debug, Args)]
pub struct FirstPassword {
    #[command(flatten)]
    password: NewPassword,
    /// It proves who it is by the common name of a certificate, or by a token, alone
    #[arg(long, conflicts_with = "new_password_file")]
    no_password: bool,
}

impl NewPassword {
    fn read(&self) -> anyhow::Result<String> {
        if let Some(file) = &self.new_password_file {
            return Ok(first_line(file)?);
        }
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line)?;
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }
}

pub async fn run(global: &GlobalArguments, arguments: UserArguments) -> anyhow::Result<()> {
    let client = global.client()?;
    match arguments.command {
        UserCommand::Add { name, administrator, patterns, password } => {
            let password = (!password.no_password).then(|| password.password.read()).transpose()?;
            anyhow::ensure!(password.as_deref() != Some(""), "the new password is empty");
            client.add_user(&name, password, administrator, patterns.permission()).await?;
            output::say(global.output, format!("user {name}: made"), json!({ "user": name, "created": true }))
        }
        UserCommand::List => print_list(global.output, &client.list_users().await?),
        UserCommand::Remove { name } => {
            client.remove_user(&name).await?;
            output::say(global.output, format!("user {name}: removed"), json!({ "user": name, "removed": true }))
        }
        UserCommand::SetPassword { name, password } => {
            client.set_password(&name, password.read()?).await?;
            let value = json!({ "user": name, "password_set": true });
            output::say(global.output, format!("user {name}: has another password"), value)
        }
    }
}

/// Prints users, and what they may do.
pub fn print_list(format: Output, users: &[User]) -> anyhow::Result<()> {
    if format == Output::Json {
        return users.iter().try_for_each(|user| output::line(to_json(user)));
    }
    let mut table = output::table(&["user", "administrator", "configure", "write", "read", "made at"]);
    for user in users {
        let Permission { configure, write, read } = user.permission.clone().unwrap_or_default();
        let administrator = if user.administrator { "yes" } else { "no" }.to_owned();
        table.add_row([user.name.clone(), administrator, configure, write, read, show_ms(user.created_at_ms)]);
    }
    output::print_table(&table)
}

fn to_json(user: &User) -> Value {
    let permission = user.permission.clone().unwrap_or_default();
    json!({
        "user": user.name,
        "administrator": user.administrator,
        "has_password": user.has_password,
        "configure": permission.configure,
        "write": permission.write,
        "read": permission.read,
        "created_at_ms": user.created_at_ms,
    })
}
