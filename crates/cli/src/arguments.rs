//! The command line.

use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use dwell_client::{Client, ClientOptions, Error};

use crate::bench::arguments::BenchArguments;
use crate::commands::cluster::ClusterArguments;
use crate::commands::consume::ConsumeArguments;
use crate::commands::dev::DevArguments;
use crate::commands::publish::PublishArguments;
use crate::commands::queue::QueueArguments;
use crate::commands::receive::ReceiveArguments;
use crate::commands::server::ServerArguments;
use crate::times::parse_duration;

/// Dwell, a replicated message broker for messages whose time matters.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 110)]
pub struct Arguments {
    #[command(flatten)]
    pub global: GlobalArguments,
    #[command(subcommand)]
    pub command: Command,
}

/// What every client command takes.
#[derive(Debug, Clone, Args)]
pub struct GlobalArguments {
    /// Addresses of one or more nodes, separated by commas. Any node will do
    #[arg(
        long,
        global = true,
        env = "DWELL_SERVER",
        value_name = "HOST:PORT",
        value_delimiter = ',',
        default_value = "127.0.0.1:7600"
    )]
    pub server: Vec<String>,
    /// How to print: for people, or one JSON value a line
    #[arg(long, global = true, value_enum, default_value = "table")]
    pub output: Output,
    /// Give up when no node could serve for so long [default: 10s; publish, consume and bench: 30s]
    #[arg(long, global = true, value_name = "DURATION", value_parser = parse_duration)]
    pub timeout: Option<Duration>,
}

/// Somebody waits at the terminal.
const CALL_DEADLINE: Duration = Duration::from_secs(10);
/// Work that goes on should outlast the restart of a cluster.
const STREAM_DEADLINE: Duration = Duration::from_secs(30);

impl GlobalArguments {
    /// A client of the cluster, for single calls.
    pub fn client(&self) -> Result<Client, Error> {
        self.client_with(CALL_DEADLINE)
    }

    /// A client of the cluster, for work that goes on.
    pub fn streaming_client(&self) -> Result<Client, Error> {
        self.client_with(STREAM_DEADLINE)
    }

    fn client_with(&self, deadline: Duration) -> Result<Client, Error> {
        let options = ClientOptions::default().retry_deadline(self.timeout.unwrap_or(deadline));
        Client::connect_with(&self.server, options)
    }
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Aligned text for people.
    Table,
    /// One JSON value a line.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a node. Without flags: a single node on ./dwell-data
    Server(ServerArguments),
    /// Run a cluster of real processes on this machine, to try things out
    Dev(DevArguments),
    /// Declare, list, describe and delete queues
    Queue(QueueArguments),
    /// Publish messages: a body, a file, or the lines of standard input
    Publish(PublishArguments),
    /// Print messages as they come, and acknowledge them
    Consume(ConsumeArguments),
    /// Print what is ready now, or soon, and acknowledge it
    Receive(ReceiveArguments),
    /// Look at the cluster
    Cluster(ClusterArguments),
    /// Measure rates and latencies, and check that nothing is lost or early
    Bench(BenchArguments),
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn several_servers_are_separated_by_commas() {
        let arguments = Arguments::try_parse_from(["dwell", "queue", "list", "--server", "a:1,b:2"]).unwrap();
        assert_eq!(arguments.global.server, ["a:1", "b:2"]);
    }

    #[test]
    fn a_message_has_one_due_time_at_most() {
        let parse = |arguments: &[&str]| Arguments::try_parse_from([&["dwell", "publish", "q"], arguments].concat());
        assert!(parse(&["--delay", "5s"]).is_ok());
        assert!(parse(&["--deliver-at", "2030-01-01T00:00:00Z"]).is_ok());
        assert!(parse(&["--delay", "5s", "--deliver-at", "2030-01-01T00:00:00Z"]).is_err());
    }
}
