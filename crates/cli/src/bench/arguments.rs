//! What load to make.

use std::time::Duration;

use anyhow::ensure;
use clap::Args;
use dwell_load::{Consume, Due, IDENTITY_BYTES, LoadSpec, Produce, Until};

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
    /// Consumers; up to eight have a connection each, more share them. 0: only publish
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

    /// The load that they ask for.
    pub fn load(&self) -> LoadSpec {
        let until = match self.duration {
            Some(duration) => Until::Seconds(duration.as_secs_f64()),
            None => Until::Messages(self.messages.unwrap_or(MESSAGES)),
        };
        let produce = Produce {
            producers: self.producers,
            in_flight: self.in_flight,
            body_bytes: self.body_bytes,
            until,
            rate: self.rate.map(|rate| rate as f64),
            due: self.due(),
        };
        let consume = Consume {
            consumers: self.consumers,
            credit: self.credit,
            expect: Vec::new(),
            patience_seconds: self.patience.as_secs_f64(),
        };
        LoadSpec {
            run: rand::random(),
            queues: (0..self.queues).map(|number| format!("{}-{number}", self.queue_prefix)).collect(),
            produce: Some(produce),
            consume: (self.consumers > 0).then_some(consume),
        }
    }

    fn due(&self) -> Option<Due> {
        let milliseconds = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let (shortest, longest) = (self.delay, self.delay + self.delay_spread);
        (!longest.is_zero()).then(|| Due::After { ms_min: milliseconds(shortest), ms_max: milliseconds(longest) })
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
    fn messages_are_limited_by_number_unless_a_time_is_given() {
        let until = |arguments: &[&str]| parse(arguments).load().produce.unwrap().until;
        assert_eq!(until(&[]), Until::Messages(100_000));
        assert_eq!(until(&["--messages", "10"]), Until::Messages(10));
        assert_eq!(until(&["--duration", "1500ms"]), Until::Seconds(1.5));
    }

    #[test]
    fn messages_are_delayed_if_a_delay_or_a_spread_is_given() {
        let due = |arguments: &[&str]| parse(arguments).load().produce.unwrap().due;
        assert_eq!(due(&[]), None);
        assert_eq!(due(&["--delay", "2s"]), Some(Due::After { ms_min: 2000, ms_max: 2000 }));
        assert_eq!(due(&["--delay", "2s", "--delay-spread", "500ms"]), Some(Due::After { ms_min: 2000, ms_max: 2500 }));
    }

    #[test]
    fn without_consumers_nothing_is_consumed() {
        assert!(parse(&["--consumers", "0"]).load().consume.is_none());
        let load = parse(&["--queues", "2", "--queue-prefix", "q"]).load();
        assert_eq!((load.queues, load.consume.unwrap().consumers), (vec!["q-0".to_owned(), "q-1".to_owned()], 4));
    }

    #[test]
    fn a_body_too_small_to_be_identified_is_refused() {
        let error = parse(&["--body-bytes", "27"]).check().unwrap_err();
        assert!(error.to_string().contains("at least 28"));
        parse(&["--body-bytes", "28"]).check().unwrap();
    }
}
