//! The `dwell` binary: server, local cluster, client commands, benchmark.

mod arguments;
mod bench;
mod commands;
#[cfg(test)]
mod deployed;
mod hint;
mod logging;
mod output;
mod pod;
mod render;
mod times;

use std::process::ExitCode;

use clap::Parser;

use crate::arguments::Arguments;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    match commands::run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if output::is_closed(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            if let Some(hint) = hint::next_step(&error) {
                eprintln!("{hint}");
            }
            ExitCode::FAILURE
        }
    }
}
