//! Settings of queues on the command line.

use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};
use dwell_client::{Backoff, Overflow, QueueSettings};

use crate::times::parse_duration;

/// Settings of a queue: what is not given has its default on a declaration, and stays as it is on an update.
#[derive(Debug, Default, Args)]
pub struct SettingsArguments {
    /// How long a message may go unacknowledged before it returns: 100ms to 24h [server's default: 30s]
    #[arg(long, value_parser = parse_duration)]
    lease_timeout: Option<Duration>,
    /// How often a message may come back before it becomes a dead letter; 0: without limit, the default
    #[arg(long, value_name = "TIMES")]
    delivery_limit: Option<u32>,
    /// Delay of messages that bring neither a delay nor a time
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    default_delay: Option<Duration>,
    /// Messages expire when they have been ready for so long; 0: never, the default
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    message_ttl: Option<Duration>,
    /// The queue is deleted when it was not used for so long; 0: never, the default
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    idle_ttl: Option<Duration>,
    /// Most messages it holds; 0: without limit, the default
    #[arg(long, value_name = "MESSAGES")]
    messages_max: Option<u64>,
    /// Most body bytes it holds; 0: without limit, the default
    #[arg(long, value_name = "BYTES")]
    bytes_max: Option<u64>,
    /// What gives way when it is full [default: reject]
    #[arg(long, value_enum)]
    overflow: Option<OverflowArgument>,
    /// Dead letters go to this queue, or with --dead-letter-exchange carry this key
    #[arg(long, value_name = "QUEUE")]
    dead_letter_key: Option<String>,
    /// Dead letters go to this exchange
    #[arg(long, value_name = "EXCHANGE")]
    dead_letter_exchange: Option<String>,
    /// Dead letters are dropped: the default
    #[arg(long, conflicts_with_all = ["dead_letter_key", "dead_letter_exchange"])]
    no_dead_letters: bool,
    /// Higher priorities are lowered to this; cannot be updated [default: 255]
    #[arg(long, value_name = "PRIORITY")]
    priority_max: Option<u8>,
    /// How long a message's dedupe id is remembered: at most 7d [server's default: 5m]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    dedupe_window: Option<Duration>,
    /// All messages go to one consumer until it is gone; cannot be updated
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    #[arg(value_name = "true|false")]
    single_active_consumer: Option<bool>,
    /// Nothing is delivered
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    #[arg(value_name = "true|false")]
    paused: Option<bool>,
    /// How the wait of returned messages grows; `none`: they are ready at once, the default
    #[arg(long, value_enum)]
    #[arg(requires_ifs = [("fixed", "backoff_base"), ("linear", "backoff_base"), ("exponential", "backoff_base")])]
    backoff: Option<BackoffArgument>,
    /// The first wait
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, requires = "backoff")]
    backoff_base: Option<Duration>,
    /// The longest wait
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, requires = "backoff")]
    backoff_cap: Option<Duration>,
    /// Up to this share of the wait is taken off, by chance: 0 to 100
    #[arg(long, value_name = "PERCENT", requires = "backoff")]
    backoff_jitter: Option<u32>,
    /// A waiting message counts as one priority higher for each such time; 0: never, the default
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    aging: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OverflowArgument {
    /// The newcomer is rejected
    Reject,
    /// The first ready message of the lowest priority is dropped
    DropHead,
    /// The same, and it becomes a dead letter
    DeadLetterHead,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum BackoffArgument {
    /// At once
    None,
    /// Always the base
    Fixed,
    /// One base more each time
    Linear,
    /// Twice as long each time
    Exponential,
}

impl SettingsArguments {
    /// The settings that were given.
    pub fn settings(&self) -> QueueSettings {
        let settings = QueueSettings::default();
        let settings = apply(settings, self.lease_timeout, QueueSettings::lease_timeout);
        let settings = apply(settings, self.delivery_limit, QueueSettings::delivery_limit);
        let settings = apply(settings, self.default_delay, QueueSettings::default_delay);
        let settings = apply(settings, self.message_ttl, QueueSettings::message_ttl);
        let settings = apply(settings, self.idle_ttl, QueueSettings::idle_ttl);
        let settings = apply(settings, self.messages_max, QueueSettings::messages_max);
        let settings = apply(settings, self.bytes_max, QueueSettings::bytes_max);
        let settings = apply(settings, self.overflow.map(Overflow::from), QueueSettings::overflow);
        let settings = apply(settings, self.priority_max, QueueSettings::priority_max);
        let settings = apply(settings, self.dedupe_window, QueueSettings::dedupe_window);
        let settings = apply(settings, self.single_active_consumer, QueueSettings::single_active_consumer);
        let settings = apply(settings, self.paused, QueueSettings::paused);
        let settings = apply(settings, self.aging, QueueSettings::aging);
        self.backoff(self.dead_letters(settings))
    }

    fn dead_letters(&self, settings: QueueSettings) -> QueueSettings {
        match (&self.dead_letter_exchange, &self.dead_letter_key) {
            (Some(exchange), Some(key)) => settings.dead_letter_exchange_with_key(exchange, key),
            (Some(exchange), None) => settings.dead_letter_exchange(exchange),
            (None, Some(queue)) => settings.dead_letter_queue(queue),
            (None, None) if self.no_dead_letters => settings.without_dead_letters(),
            (None, None) => settings,
        }
    }

    fn backoff(&self, settings: QueueSettings) -> QueueSettings {
        let base = self.backoff_base.unwrap_or_default();
        let mut backoff = match self.backoff {
            None => return settings,
            Some(BackoffArgument::None) => return settings.without_backoff(),
            Some(BackoffArgument::Fixed) => Backoff::fixed(base),
            Some(BackoffArgument::Linear) => Backoff::linear(base),
            Some(BackoffArgument::Exponential) => Backoff::exponential(base),
        };
        if let Some(cap) = self.backoff_cap {
            backoff = backoff.cap(cap);
        }
        if let Some(percent) = self.backoff_jitter {
            backoff = backoff.jitter_percent(percent);
        }
        settings.backoff(backoff)
    }
}

fn apply<T>(settings: QueueSettings, value: Option<T>, set: fn(QueueSettings, T) -> QueueSettings) -> QueueSettings {
    match value {
        Some(value) => set(settings, value),
        None => settings,
    }
}

impl From<OverflowArgument> for Overflow {
    fn from(overflow: OverflowArgument) -> Overflow {
        match overflow {
            OverflowArgument::Reject => Overflow::Reject,
            OverflowArgument::DropHead => Overflow::DropHead,
            OverflowArgument::DeadLetterHead => Overflow::DeadLetterHead,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        settings: SettingsArguments,
    }

    fn parse(line: &str) -> Result<QueueSettings, clap::Error> {
        let line = Line::try_parse_from(std::iter::once("line").chain(line.split_whitespace()))?;
        Ok(line.settings.settings())
    }

    #[test]
    fn nothing_given_is_nothing_set() {
        assert!(parse("").unwrap().is_empty());
    }

    #[test]
    fn a_retry_ladder_is_one_line() {
        let line = "--delivery-limit 5 --backoff exponential --backoff-base 1s --backoff-cap 1m --backoff-jitter 20 \
                    --dead-letter-key failed";
        let backoff = Backoff::exponential(Duration::from_secs(1)).cap(Duration::from_secs(60)).jitter_percent(20);
        let expected = QueueSettings::default().delivery_limit(5).dead_letter_queue("failed").backoff(backoff);
        assert_eq!(parse(line).unwrap(), expected);
    }

    #[test]
    fn switches_can_be_turned_off_and_settings_taken_back() {
        assert_eq!(parse("--paused").unwrap(), QueueSettings::default().paused(true));
        assert_eq!(parse("--paused=false").unwrap(), QueueSettings::default().paused(false));
        let expected = QueueSettings::default().without_dead_letters().without_backoff();
        assert_eq!(parse("--no-dead-letters --backoff none").unwrap(), expected);
    }

    #[test]
    fn a_backoff_needs_its_first_wait_and_dead_letters_go_one_way() {
        assert!(parse("--backoff linear").is_err());
        assert!(parse("--backoff-base 1s").is_err());
        assert!(parse("--no-dead-letters --dead-letter-key failed").is_err());
    }
}
