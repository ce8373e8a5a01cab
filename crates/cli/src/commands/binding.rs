//! `dwell binding`: adds, removes and lists bindings of exchanges.

use clap::{Args, Subcommand};
use dwell_client::{Binding, Destination};
use serde_json::{Value, json};

use super::message::parse_header;
use crate::arguments::{GlobalArguments, Output, ReadArguments};
use crate::output;

#[derive(Debug, Args)]
pub struct BindingArguments {
    #[command(subcommand)]
    command: BindingCommand,
}

#[derive(Debug, Subcommand)]
enum BindingCommand {
    /// Bind a queue, or another exchange, to an exchange. Again is fine
    Add(OneBinding),
    /// Remove a binding, given exactly as it was added
    Remove(OneBinding),
    /// List bindings in the order of their making
    List {
        /// Only those of this exchange
        #[arg(default_value = "")]
        exchange: String,
        #[command(flatten)]
        read: ReadArguments,
    },
}

#[derive(Debug, Args)]
struct OneBinding {
    /// The exchange that routes
    exchange: String,
    /// The queue that gets the messages
    #[arg(required_unless_present = "to_exchange", conflicts_with = "to_exchange")]
    queue: Option<String>,
    /// An exchange that gets the messages, and routes them further
    #[arg(long, value_name = "EXCHANGE")]
    to_exchange: Option<String>,
    /// The key; of a topic exchange the pattern, with * for one word and # for any number
    #[arg(long, default_value = "", hide_default_value = true)]
    key: String,
    /// Of a headers exchange: what messages must have; may be given several times
    #[arg(long = "header", value_name = "KEY=VALUE", value_parser = parse_header)]
    headers: Vec<(String, String)>,
    /// Of a headers exchange: one of the headers is enough
    #[arg(long)]
    match_any: bool,
}

impl OneBinding {
    fn binding(self) -> Binding {
        let mut binding = match self.to_exchange {
            Some(to) => Binding::to_exchange(self.exchange, to),
            None => Binding::to_queue(self.exchange, self.queue.unwrap_or_default()),
        };
        binding.routing_key = self.key;
        binding.headers = self.headers.into_iter().collect();
        binding.match_any = self.match_any;
        binding
    }
}

pub async fn run(global: &GlobalArguments, arguments: BindingArguments) -> anyhow::Result<()> {
    let client = global.client()?;
    match arguments.command {
        BindingCommand::Add(one) => {
            let binding = one.binding();
            let created = client.bind(binding.clone()).await?;
            let state = if created { "made" } else { "there already" };
            let mut value = to_json(&binding);
            value["created"] = json!(created);
            output::say(global.output, format!("binding {}: {state}", describe(&binding)), value)
        }
        BindingCommand::Remove(one) => {
            let binding = one.binding();
            let existed = client.unbind(binding.clone()).await?;
            let state = if existed { "removed" } else { "was not there" };
            let mut value = to_json(&binding);
            value["existed"] = json!(existed);
            output::say(global.output, format!("binding {}: {state}", describe(&binding)), value)
        }
        BindingCommand::List { exchange, read } => {
            let bindings = read.client(global)?.list_bindings(exchange).await?;
            print_list(global.output, &bindings)
        }
    }
}

fn print_list(format: Output, bindings: &[Binding]) -> anyhow::Result<()> {
    if format == Output::Json {
        return bindings.iter().try_for_each(|binding| output::line(to_json(binding)));
    }
    if bindings.is_empty() {
        return output::line("no bindings; `dwell binding add EXCHANGE QUEUE` makes one");
    }
    let mut table = output::table(&["exchange", "to", "key", "headers"]);
    for binding in bindings {
        table.add_row([binding.exchange.clone(), destination(binding), binding.routing_key.clone(), headers(binding)]);
    }
    output::print_table(&table)
}

fn destination(binding: &Binding) -> String {
    match &binding.destination {
        Destination::Queue(queue) => format!("queue {queue}"),
        Destination::Exchange(exchange) => format!("exchange {exchange}"),
    }
}

fn headers(binding: &Binding) -> String {
    let headers = binding.headers.iter().map(|(key, value)| format!("{key}={value}"));
    headers.collect::<Vec<_>>().join(if binding.match_any { " or " } else { " and " })
}

fn describe(binding: &Binding) -> String {
    format!("of {} to {}", binding.exchange, destination(binding))
}

fn to_json(binding: &Binding) -> Value {
    let (queue, to_exchange) = match &binding.destination {
        Destination::Queue(queue) => (Some(queue), None),
        Destination::Exchange(exchange) => (None, Some(exchange)),
    };
    json!({
        "exchange": binding.exchange,
        "queue": queue,
        "to_exchange": to_exchange,
        "routing_key": binding.routing_key,
        "headers": binding.headers,
        "match_any": binding.match_any,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binding_names_its_headers_and_how_many_are_needed() {
        let binding = Binding::to_queue("x", "q").header("a", "1").header("b", "2");
        assert_eq!(headers(&binding), "a=1 and b=2");
        assert_eq!(headers(&binding.clone().match_any()), "a=1 or b=2");
        assert_eq!(describe(&binding), "of x to queue q");
        assert_eq!(to_json(&binding)["to_exchange"], Value::Null);
    }
}
