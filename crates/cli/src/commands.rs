//! One file for each command, or for a family of them.

pub mod backup;
pub mod binding;
pub mod cluster;
pub mod completion;
pub mod consume;
pub mod dev;
pub mod exchange;
pub mod inventory;
pub mod message;
pub mod permission;
pub mod pod;
pub mod publish;
pub mod queue;
pub mod receive;
pub mod revise;
pub mod schedule;
pub mod server;
pub mod settle;
pub mod target;
pub mod user;

use crate::arguments::{Arguments, Command};
use crate::bench;
use crate::logging::{self, LogFormat};

/// Runs the command.
pub async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let global = &arguments.global;
    if !matches!(arguments.command, Command::Server(_) | Command::Pod(_)) {
        logging::start(LogFormat::Text, "warn");
    }
    match arguments.command {
        Command::Server(arguments) => server::run(arguments).await,
        Command::Pod(arguments) => pod::run(global, arguments).await,
        Command::Dev(arguments) => dev::run(arguments).await,
        Command::Queue(arguments) => queue::run(global, arguments).await,
        Command::Exchange(arguments) => exchange::run(global, arguments).await,
        Command::Binding(arguments) => binding::run(global, arguments).await,
        Command::Publish(arguments) => publish::run(global, arguments).await,
        Command::Consume(arguments) => consume::run(global, arguments).await,
        Command::Receive(arguments) => receive::run(global, arguments).await,
        Command::Recall(arguments) => revise::recall(global, arguments).await,
        Command::Reschedule(arguments) => revise::reschedule(global, arguments).await,
        Command::Expire(arguments) => revise::expire(global, arguments).await,
        Command::Get(arguments) => inventory::get(global, arguments).await,
        Command::Browse(arguments) => inventory::browse(global, arguments).await,
        Command::Forecast(arguments) => inventory::forecast(global, arguments).await,
        Command::Schedule(arguments) => schedule::run(global, arguments).await,
        Command::Completion(arguments) => completion::run(&arguments),
        Command::Cluster(arguments) => cluster::run(global, arguments).await,
        Command::User(arguments) => user::run(global, arguments).await,
        Command::Permission(arguments) => permission::run(global, arguments).await,
        Command::Backup(arguments) => backup::run(global, arguments).await,
        Command::Bench(arguments) => bench::run(global, arguments).await,
    }
}
