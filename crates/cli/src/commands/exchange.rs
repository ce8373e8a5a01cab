//! `dwell exchange`: declares, lists and deletes exchanges.

use clap::{Args, Subcommand, ValueEnum};
use dwell_client::{Exchange, ExchangeKind, ExchangeSettings};
use serde_json::{Value, json};

use crate::arguments::{GlobalArguments, Output, ReadArguments};
use crate::output;
use crate::times::show_ms;

#[derive(Debug, Args)]
pub struct ExchangeArguments {
    #[command(subcommand)]
    command: ExchangeCommand,
}

#[derive(Debug, Subcommand)]
enum ExchangeCommand {
    /// Make an exchange. Again with the same settings is fine
    Declare {
        /// Its name: 1 to 255 bytes
        exchange: String,
        /// How it routes
        #[arg(long, value_enum, default_value = "direct")]
        kind: KindArgument,
        /// The exchange that gets what this one routes nowhere; it need not exist
        #[arg(long, value_name = "EXCHANGE")]
        alternate: Option<String>,
    },
    /// List exchanges
    List {
        /// Only names that begin so
        #[arg(default_value = "")]
        prefix: String,
        #[command(flatten)]
        read: ReadArguments,
    },
    /// Delete an exchange with the bindings from and to it
    Delete {
        /// Its name
        exchange: String,
        /// Only if it has no binding
        #[arg(long)]
        if_unused: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum KindArgument {
    /// To the bindings whose key is the message's
    Direct,
    /// To the bindings whose pattern matches: words between dots, * for one, # for any number
    Topic,
    /// To every binding
    Fanout,
    /// To the bindings whose headers are among the message's
    Headers,
}

impl From<KindArgument> for ExchangeKind {
    fn from(kind: KindArgument) -> ExchangeKind {
        match kind {
            KindArgument::Direct => ExchangeKind::Direct,
            KindArgument::Topic => ExchangeKind::Topic,
            KindArgument::Fanout => ExchangeKind::Fanout,
            KindArgument::Headers => ExchangeKind::Headers,
        }
    }
}

pub async fn run(global: &GlobalArguments, arguments: ExchangeArguments) -> anyhow::Result<()> {
    let client = global.client()?;
    match arguments.command {
        ExchangeCommand::Declare { exchange, kind, alternate } => {
            let mut settings = ExchangeSettings::new(kind.into());
            if let Some(alternate) = alternate {
                settings = settings.alternate(alternate);
            }
            let created = client.declare_exchange(&exchange, settings).await?;
            let state = if created { "made" } else { "there already, with these settings" };
            let value = json!({ "exchange": exchange, "created": created });
            output::say(global.output, format!("exchange {exchange}: {state}"), value)
        }
        ExchangeCommand::List { prefix, read } => {
            let exchanges = read.client(global)?.list_exchanges(prefix).await?;
            print_list(global.output, &exchanges)
        }
        ExchangeCommand::Delete { exchange, if_unused } => {
            client.delete_exchange(&exchange, if_unused).await?;
            let value = json!({ "exchange": exchange, "deleted": true });
            output::say(global.output, format!("exchange {exchange}: deleted with its bindings"), value)
        }
    }
}

fn print_list(format: Output, exchanges: &[Exchange]) -> anyhow::Result<()> {
    if format == Output::Json {
        return exchanges.iter().try_for_each(|exchange| output::line(to_json(exchange)));
    }
    if exchanges.is_empty() {
        return output::line("no exchanges; `dwell exchange declare EXCHANGE` makes one");
    }
    let mut table = output::table(&["exchange", "kind", "bindings", "alternate", "declared at"]);
    for exchange in exchanges {
        table.add_row([
            exchange.name.clone(),
            kind_name(exchange.kind()).to_owned(),
            exchange.bindings.to_string(),
            exchange.alternate.clone(),
            show_ms(exchange.created_at_ms),
        ]);
    }
    output::print_table(&table)
}

fn kind_name(kind: ExchangeKind) -> &'static str {
    match kind {
        ExchangeKind::Direct => "direct",
        ExchangeKind::Topic => "topic",
        ExchangeKind::Fanout => "fanout",
        ExchangeKind::Headers => "headers",
        ExchangeKind::Unspecified => "unknown",
    }
}

fn to_json(exchange: &Exchange) -> Value {
    json!({
        "exchange": exchange.name,
        "kind": kind_name(exchange.kind()),
        "alternate": exchange.alternate,
        "bindings": exchange.bindings,
        "created_at_ms": exchange.created_at_ms,
    })
}
