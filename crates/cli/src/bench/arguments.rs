//! What load to make.

use std::time::Duration;

use anyhow::ensure;
use clap::Args;

use super::identity::IDENTITY_BYTES;
use crate::times::parse_duration;

/// Makes load, and measures. Prints a progress line each second to standard error.
#[derive(Debug, Clone, Args)]
pub struct BenchArguments {
    /// Producers, each with a connection of its own
    #[arg(long, default_value_t = 4)]
    pub producers: u32,
    /// Unconfirmed messages of each producer
    #[arg(long, default_value_t = 1000)]
    pub in_flight: usize,
    /// Consumers, each with a connection of its own. 0: only publish
    #[arg(long, default_value_t = 4)]
    pub consumers: u32,
    /// Messages that a consumer may hold: 1 to 10000
    #[arg(long, default_value_t = 1000)]
    pub credit: u32,
    /// Messages to publish, over all producers [default: 100000, unless --duration is given]
    #[arg(long, conflicts_with = "duration")]
    pub messages: Option<u64>,
    /// Publish for so long
    #[arg(long, value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// Bytes of each body: at least 28, which identify the message
    #[arg(long, default_value_t = 1024)]
    pub body_bytes: usize,
    /// Queues, over which the messages are spread
    #[arg(long, default_value_t = 1)]
    pub queues: u32,
    /// The queues are named so, and numbered from 0
    #[arg(long, default_value = "bench")]
    pub queue_prefix: String,
    /// Every message is due this long after it is published
    #[arg(long, value_parser = parse_duration, default_value = "0")]
    pub delay: Duration,
    /// And up to this much later, uniformly spread
    #[arg(long, value_parser = parse_duration, default_value = "0")]
    pub delay_spread: Duration,
    /// Messages a second, over all producers [default: as fast as they are confirmed]
    #[arg(long)]
    pub rate: Option<u64>,
    /// Give up waiting for messages when none has come for so long, after the last one was due
    #[arg(long, value_parser = parse_duration, default_value = "30s")]
    pub patience: Duration,
    /// Leave the queues there at the end
    #[arg(long)]
    pub keep: bool,
}

/// Messages unless something else is asked for.
const MESSAGES: u64 = 100_000;

impl BenchArguments {
    /// Refuses what makes no sense.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!(self.producers > 0, "--producers must be at least 1");
        ensure!(self.in_flight > 0, "--in-flight must be at least 1");
        ensure!(self.queues > 0, "--queues must be at least 1");
        ensure!(self.rate != Some(0), "--rate must be at least 1");
        ensure!(
            self.body_bytes >= IDENTITY_BYTES,
            "--body-bytes must be at least {IDENTITY_BYTES}: a body begins with what identifies the message"
        );
        Ok(())
    }

    /// True if messages are due later than they are published.
    pub fn is_delayed(&self) -> bool {
        !(self.delay + self.delay_spread).is_zero()
    }

    /// How many messages this producer publishes; no limit if the time is limited.
    pub fn share(&self, producer: u32) -> u64 {
        if self.duration.is_some() {
            return u64::MAX;
        }
        let (messages, producers) = (self.messages.unwrap_or(MESSAGES), u64::from(self.producers));
        messages / producers + u64::from(u64::from(producer) < messages % producers)
    }

    /// The names of the queues.
    pub fn queue_names(&self) -> Vec<String> {
        (0..self.queues).map(|number| format!("{}-{number}", self.queue_prefix)).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        bench: BenchArguments,
    }

    fn parse(arguments: &[&str]) -> BenchArguments {
        Command::try_parse_from([&["bench"], arguments].concat()).unwrap().bench
    }

    #[test]
    fn the_shares_of_the_producers_make_up_the_whole() {
        let arguments = parse(&["--messages", "10", "--producers", "4"]);
        assert_eq!((0..4).map(|producer| arguments.share(producer)).collect::<Vec<_>>(), [3, 3, 2, 2]);
        assert_eq!(parse(&["--duration", "1s"]).share(0), u64::MAX);
    }

    #[test]
    fn a_body_too_small_to_be_identified_is_refused() {
        let error = parse(&["--body-bytes", "27"]).check().unwrap_err();
        assert!(error.to_string().contains("at least 28"));
        parse(&["--body-bytes", "28"]).check().unwrap();
    }
}
