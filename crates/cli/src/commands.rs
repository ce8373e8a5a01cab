//! One file for each command.

pub mod cluster;
pub mod consume;
pub mod dev;
pub mod publish;
pub mod queue;
pub mod receive;
pub mod server;

use crate::arguments::{Arguments, Command};
use crate::bench;
use crate::logging::{self, LogFormat};

/// Runs the command.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let global = &arguments.global;
    if !matches!(arguments.command, Command::Server(_)) {
        logging::start(LogFormat::Text, "warn");
    }
    match arguments.command {
        Command::Server(arguments) => server::run(arguments).await,
        Command::Dev(arguments) => dev::run(arguments).await,
        Command::Queue(arguments) => queue::run(global, arguments).await,
        Command::Publish(arguments) => publish::run(global, arguments).await,
        Command::Consume(arguments) => consume::run(global, arguments).await,
        Command::Receive(arguments) => receive::run(global, arguments).await,
        Command::Cluster(arguments) => cluster::run(global, arguments).await,
        Command::Bench(arguments) => bench::run(global, arguments).await,
    }
}
