//! What becomes of messages that were printed.

use std::time::Duration;

use clap::Args;
use dwell_client::{Delivery, Error};

use crate::times::parse_duration;

/// Without any of these, messages are acknowledged.
#[derive(Debug, Clone, Args)]
pub struct SettleArguments {
    /// Leave the messages leased: they come back when their leases end
    #[arg(long, conflicts_with_all = ["nack", "reject"])]
    pub no_ack: bool,
    /// Return the messages, to be tried again: after so long, or by the queue's backoff
    #[arg(long, value_name = "DELAY", num_args = 0..=1, require_equals = true, value_parser = parse_duration)]
    #[arg(conflicts_with = "reject")]
    nack: Option<Option<Duration>>,
    /// Give the messages up: they go to the queue's dead letters
    #[arg(long)]
    reject: bool,
}

impl SettleArguments {
    /// Settles one delivery, unless it is to stay leased.
    pub async fn settle(&self, delivery: &Delivery) -> Result<(), Error> {
        match self.nack {
            _ if self.no_ack => Ok(()),
            _ if self.reject => delivery.reject().await,
            Some(delay) => delivery.nack(delay).await,
            None => delivery.ack().await,
        }
    }
}
