//! The paths whose instructions are counted.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::{broker, entries, machine};

/// A path that every message takes, or every delayed one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum HotPath {
    /// The machine stores messages.
    Publish,
    /// The machine removes messages that a consumer acknowledges, and leases it the next ones.
    DeliverAndAck,
    /// The machine stores delayed messages, and makes them ready when they are due.
    DelayAndRelease,
    /// A log entry with messages is encoded.
    EncodeEntry,
    /// A log entry with messages is decoded.
    DecodeEntry,
    /// A client publishes to a server, and consumes and acknowledges.
    PublishAndConsume,
}

impl HotPath {
    /// Its name in commands and files.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// How many messages take it in one round. Enough for the steadiness that its tolerance promises, and no more: a
    /// counted instruction takes fifty times as long as another.
    pub fn messages_per_round(self) -> u64 {
        match self {
            HotPath::PublishAndConsume => 4096,
            _ => 64 * machine::BATCH,
        }
    }

    /// How far a first figure may be missed. Two measurements of the machine differ by less than 0.1 %, so this is room
    /// for small changes. A server with its client has timers and threads: two measurements differ by up to 2 %.
    pub fn tolerance_percent(self) -> f64 {
        match self {
            HotPath::PublishAndConsume => 3.0,
            _ => 1.0,
        }
    }

    /// Does its work.
    pub fn run(self, rounds: u64) -> anyhow::Result<()> {
        let messages = rounds * self.messages_per_round();
        let prepared = super::ROUNDS_MAX * self.messages_per_round();
        match self {
            HotPath::Publish => machine::publish(prepared, messages),
            HotPath::DeliverAndAck => machine::deliver_and_ack(prepared, messages),
            HotPath::DelayAndRelease => machine::delay_and_release(prepared, messages),
            HotPath::EncodeEntry => entries::encode(prepared, messages),
            HotPath::DecodeEntry => entries::decode(prepared, messages),
            HotPath::PublishAndConsume => broker::publish_and_consume(messages),
        }
    }
}
