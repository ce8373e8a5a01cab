//! The command line.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use dwell_client::{Client, ClientOptions, Consistency, Error, TlsFiles};
use dwell_server::{ConfigOverrides, Member};

use crate::bench::arguments::BenchArguments;
use crate::commands::backup::BackupArguments;
use crate::commands::binding::BindingArguments;
use crate::commands::cluster::ClusterArguments;
use crate::commands::completion::CompletionArguments;
use crate::commands::consume::ConsumeArguments;
use crate::commands::dev::DevArguments;
use crate::commands::exchange::ExchangeArguments;
use crate::commands::inventory::{BrowseArguments, ForecastArguments, GetArguments};
use crate::commands::permission::PermissionArguments;
use crate::commands::pod::PodArguments;
use crate::commands::publish::PublishArguments;
use crate::commands::queue::QueueArguments;
use crate::commands::receive::ReceiveArguments;
use crate::commands::revise::{ExpireArguments, RecallArguments, RescheduleArguments};
use crate::commands::schedule::ScheduleArguments;
use crate::commands::server::ServerArguments;
use crate::commands::user::UserArguments;
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

/// Keeps them from standing among the options of a command.
const GLOBAL_HEADING: &str = "Options of every command";

/// What every client command takes.
#[derive(Debug, Clone, Args)]
pub struct GlobalArguments {
    /// Addresses of one or more nodes, separated by commas. Any node will do
    #[arg(
        long,
        global = true,
        help_heading = GLOBAL_HEADING,
        env = "DWELL_SERVER",
        value_name = "HOST:PORT",
        value_delimiter = ',',
        default_value = "127.0.0.1:7600"
    )]
    pub server: Vec<String>,
    /// How to print: for people, or one JSON value a line
    #[arg(long, global = true, help_heading = GLOBAL_HEADING, value_enum, default_value = "table")]
    pub output: Output,
    /// Give up when no node could serve for so long [default: 10s; publish, consume and bench: 30s]
    #[arg(long, global = true, help_heading = GLOBAL_HEADING, value_name = "DURATION", value_parser = parse_duration)]
    pub timeout: Option<Duration>,
    /// Whose the calls are, where nodes tell users apart; the password is in DWELL_PASSWORD, or in --password-file
    #[arg(long, global = true, help_heading = GLOBAL_HEADING, env = "DWELL_USER", value_name = "NAME")]
    pub user: Option<String>,
    /// A file with the password in its first line [default: what DWELL_PASSWORD says]
    #[arg(long, global = true, help_heading = GLOBAL_HEADING, env = "DWELL_PASSWORD_FILE", value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Whose the calls are, by a file with a token (JWT), which is read again as it is renewed
    #[arg(
        long,
        global = true,
        help_heading = GLOBAL_HEADING,
        env = "DWELL_TOKEN_FILE",
        value_name = "FILE",
        conflicts_with = "user"
    )]
    pub token_file: Option<PathBuf>,
    #[command(flatten)]
    pub tls: TlsArguments,
}

/// How the nodes are reached by TLS. Any of these, or an https:// address, asks for it.
#[derive(Debug, Clone, Default, Args)]
pub struct TlsArguments {
    /// The authorities that signed the nodes' certificates, in PEM [default: those that this machine trusts]
    #[arg(long, global = true, help_heading = GLOBAL_HEADING, env = "DWELL_TLS_CA", value_name = "FILE")]
    tls_ca: Option<PathBuf>,
    /// A certificate to show to nodes that want one, in PEM
    #[arg(
        long,
        global = true,
        help_heading = GLOBAL_HEADING,
        env = "DWELL_TLS_CERTIFICATE",
        value_name = "FILE",
        requires = "tls_key"
    )]
    tls_certificate: Option<PathBuf>,
    /// The private key of that certificate, in PEM
    #[arg(
        long,
        global = true,
        help_heading = GLOBAL_HEADING,
        env = "DWELL_TLS_KEY",
        value_name = "FILE",
        requires = "tls_certificate"
    )]
    tls_key: Option<PathBuf>,
}

impl TlsArguments {
    /// None if nothing asks for TLS.
    fn files(&self, servers: &[String]) -> Option<TlsFiles> {
        let is_asked_for = self.tls_ca.is_some()
            || self.tls_certificate.is_some()
            || servers.iter().any(|server| server.starts_with("https://"));
        let identity = self.tls_certificate.clone().zip(self.tls_key.clone());
        is_asked_for.then(|| TlsFiles { identity, authority: self.tls_ca.clone() })
    }
}

/// The variable with the user's password.
pub const PASSWORD_VARIABLE: &str = "DWELL_PASSWORD";
/// Somebody waits at the terminal.
const CALL_DEADLINE: Duration = Duration::from_secs(10);
/// Work that goes on should outlast the restart of a cluster.
const STREAM_DEADLINE: Duration = Duration::from_secs(30);

impl GlobalArguments {
    /// A client of the cluster, for single calls.
    pub fn client(&self) -> Result<Client, Error> {
        Client::connect_with(&self.server, self.options(CALL_DEADLINE)?)
    }

    /// A client of the cluster, for work that goes on.
    pub fn streaming_client(&self) -> Result<Client, Error> {
        Client::connect_with(&self.server, self.streaming_options()?)
    }

    /// Of clients for work that goes on.
    pub fn streaming_options(&self) -> Result<ClientOptions, Error> {
        self.options(STREAM_DEADLINE)
    }

    fn options(&self, deadline: Duration) -> Result<ClientOptions, Error> {
        let options = ClientOptions::default().retry_deadline(self.timeout.unwrap_or(deadline));
        let options = match self.tls.files(&self.server) {
            Some(files) => options.tls(files)?,
            None => options,
        };
        if let Some(file) = &self.token_file {
            return Ok(options.token_file(file));
        }
        let Some(user) = &self.user else { return Ok(options) };
        let password = match &self.password_file {
            Some(file) => first_line(file)?,
            // No flag: everybody on a machine sees the command lines of its processes.
            None => std::env::var(PASSWORD_VARIABLE).unwrap_or_default(),
        };
        Ok(options.login(user, password))
    }
}

/// The first line of a file, as far as it is a password.
pub fn first_line(file: &Path) -> Result<String, Error> {
    let text = std::fs::read_to_string(file);
    let text = text.map_err(|error| Error::InvalidArgument(format!("{}: {error}", file.display())))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// Which node of which cluster it is, for the commands that need none that runs.
#[derive(Debug, Args)]
pub struct NodeArguments {
    /// A TOML file with the configuration
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// This node's number, from 1: one that no other node of the cluster has or ever had
    #[arg(long, value_name = "ID")]
    node_id: Option<u64>,
    /// Where the log, the state and the snapshots are kept
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
    /// One of the cluster's first members; once for each, the same on all. Without it: this node alone
    #[arg(long = "member", value_name = "ID=PEER_ADDRESS,CLIENT_ADDRESS")]
    members: Vec<Member>,
}

impl NodeArguments {
    /// The configuration file, and what the flags override of it.
    pub fn into_overrides(self) -> (Option<PathBuf>, ConfigOverrides) {
        let NodeArguments { config, node_id, data_dir, members } = self;
        let members = (!members.is_empty()).then_some(members);
        (config, ConfigOverrides { node_id, data_dir, members, ..ConfigOverrides::default() })
    }
}

/// What commands take that only look.
#[derive(Debug, Clone, Copy, Args)]
pub struct ReadArguments {
    /// Ask a node for what it knows, without making sure that it is the latest; works without a leader
    #[arg(long)]
    stale: bool,
}

impl ReadArguments {
    /// A client of the cluster, for single reads.
    pub fn client(self, global: &GlobalArguments) -> Result<Client, Error> {
        let consistency = if self.stale { Consistency::Stale } else { Consistency::Linearizable };
        Ok(global.client()?.with_consistency(consistency))
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
    /// Run a node in a pod of a Kubernetes StatefulSet, stop it, and remove the nodes of pods that are to go
    Pod(PodArguments),
    /// Run a cluster of real processes on this machine, to try things out
    Dev(DevArguments),
    /// Declare, change, list, describe and delete queues
    Queue(QueueArguments),
    /// Declare, list and delete exchanges
    Exchange(ExchangeArguments),
    /// Add, remove and list bindings of queues to exchanges
    Binding(BindingArguments),
    /// Publish messages: a body, a file, or the lines of standard input
    Publish(PublishArguments),
    /// Print messages as they come, and acknowledge them (or return, or reject them)
    Consume(ConsumeArguments),
    /// Print what is ready now, or soon, and acknowledge it (or return, or reject it)
    Receive(ReceiveArguments),
    /// Withdraw messages: nobody will see them
    Recall(RecallArguments),
    /// Give messages another due time
    Reschedule(RescheduleArguments),
    /// Let messages expire at once
    Expire(ExpireArguments),
    /// Show one message with its state and history, without taking it
    Get(GetArguments),
    /// Page through the messages of a queue, without taking them
    Browse(BrowseArguments),
    /// Show how many messages are due within certain times
    Forecast(ForecastArguments),
    /// Recurring publications: declare, preview, list, describe, trigger, pause, resume, delete
    Schedule(ScheduleArguments),
    /// Look at the cluster, add and remove members, move the leadership, compare the nodes
    Cluster(ClusterArguments),
    /// Make, list and remove users, and give them passwords. For administrators
    User(UserArguments),
    /// Say what users may do, list and clear it. For administrators
    Permission(PermissionArguments),
    /// Keep all that the cluster has stored in a folder; verify that; begin a new cluster with it
    Backup(BackupArguments),
    /// Measure rates and latencies, and check that nothing is lost or early
    Bench(BenchArguments),
    /// Print a script that lets a shell complete this command line
    Completion(CompletionArguments),
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

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(std::iter::once("dwell").chain(line.split_whitespace()))
    }

    #[test]
    fn a_message_has_one_due_time_at_most() {
        assert!(parse("publish q --delay 5s").is_ok());
        assert!(parse("publish q --deliver-at 2030-01-01T00:00:00Z").is_ok());
        assert!(parse("publish q --delay 5s --deliver-at 2030-01-01T00:00:00Z").is_err());
    }

    #[test]
    fn a_message_goes_to_a_queue_or_through_an_exchange() {
        assert!(parse("publish --exchange x --key k --mandatory --dedupe-id d --group g --priority 9").is_ok());
        assert!(parse("publish").is_err());
        assert!(parse("publish q --exchange x").is_err());
        assert!(parse("publish q --key k").is_err());
        assert!(parse("schedule declare s --every 1m --queue q --body b").is_ok());
        assert!(parse("schedule declare s --every 1m --body b").is_err());
        assert!(parse("binding add x q --key k.*").is_ok());
        assert!(parse("binding add x --to-exchange y").is_ok());
        assert!(parse("binding add x").is_err());
    }

    #[test]
    fn members_are_added_with_both_addresses_and_a_server_joins_or_has_members() {
        assert!(parse("cluster add 4 --peer-address a:1 --client-address a:2 --wait 5m").is_ok());
        assert!(parse("cluster add 4 --peer-address a:1").is_err());
        assert!(parse("cluster remove").is_err());
        assert!(parse("cluster transfer-leader").is_ok() && parse("cluster transfer-leader 2").is_ok());
        assert!(parse("server --join --node-id 4").is_ok());
        assert!(parse("server --join --member 1=a:1,a:2").is_err());
    }

    #[test]
    fn a_backup_is_written_somewhere_and_restored_for_members() {
        assert!(parse("backup create --to there --node 2").is_ok());
        assert!(parse("backup create").is_err());
        assert!(parse("backup verify there").is_ok());
        assert!(parse("backup restore there --data-dir d --member 1=a:1,a:2 --member 2=b:1,b:2").is_ok());
        assert!(parse("backup restore there --config dwell.toml --node-id 2").is_ok());
        assert!(parse("backup restore").is_err());
    }

    #[test]
    fn messages_are_settled_in_one_way() {
        for way in ["", "--no-ack", "--nack", "--nack=5s", "--reject"] {
            assert!(parse(&format!("receive q {way}")).is_ok(), "{way}");
            assert!(parse(&format!("consume q {way}")).is_ok(), "{way}");
        }
        assert!(parse("receive q --nack --reject").is_err());
        assert!(parse("receive q --no-ack --nack").is_err());
    }

    #[test]
    fn the_format_of_output_may_stand_anywhere() {
        for line in ["--output json forecast q --within 1m,10m", "forecast q --within 1m --output json"] {
            assert_eq!(parse(line).unwrap().global.output, Output::Json);
        }
        assert!(parse("forecast q --within soon").is_err());
    }
}
