//! `dwell receive`: takes what is ready, once.

use std::time::Duration;

use clap::Args;
use futures::future::join_all;

use super::consume::print;
use super::settle::SettleArguments;
use crate::arguments::{GlobalArguments, Output};
use crate::output;
use crate::times::parse_duration;

#[derive(Debug, Args)]
pub struct ReceiveArguments {
    /// The queue to take from
    queue: String,
    /// At most so many messages: 1 to 1000
    #[arg(long, default_value_t = 1)]
    max: u32,
    /// Wait so long for the first one: at most 60s
    #[arg(long, value_parser = parse_duration, default_value = "0", hide_default_value = true)]
    wait: Duration,
    #[command(flatten)]
    settle: SettleArguments,
}

pub async fn run(global: &GlobalArguments, arguments: ReceiveArguments) -> anyhow::Result<()> {
    let deliveries = global.client()?.receive(&arguments.queue, arguments.max, arguments.wait).await?;
    if deliveries.is_empty() && global.output == Output::Table {
        return output::line("nothing is ready");
    }
    deliveries.iter().try_for_each(|delivery| print(global.output, delivery))?;
    let settling = deliveries.iter().map(|delivery| arguments.settle.settle(delivery));
    join_all(settling).await.into_iter().collect::<Result<(), _>>()?;
    Ok(())
}
