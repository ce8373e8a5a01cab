//! Settings of queues, to declare or to change.

use std::time::Duration;

use dwell_proto::v1;

use crate::message::milliseconds;

/// Settings of a queue: what is not set has the server's default. Limits are the server's, and named in its refusal.
///
/// ```
/// # use std::time::Duration;
/// # use dwell_client::{Backoff, QueueSettings};
/// let settings = QueueSettings::default()
///     .delivery_limit(5)
///     .backoff(Backoff::exponential(Duration::from_secs(1)).cap(Duration::from_secs(60)))
///     .dead_letter_queue("failed");
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct QueueSettings {
    values: v1::QueueSettings,
    /// Those that were named: an update changes these only.
    fields: Vec<&'static str>,
}

impl QueueSettings {
    /// How long a delivered message may go unacknowledged before it returns. 100 ms to 24 h. Default: 30 s.
    pub fn lease_timeout(self, timeout: Duration) -> QueueSettings {
        self.set("lease_timeout_ms", |values| values.lease_timeout_ms = milliseconds(timeout))
    }

    /// How often a message may come back before it becomes a dead letter; 0 is without limit, the default.
    pub fn delivery_limit(self, limit: u32) -> QueueSettings {
        self.set("delivery_limit", |values| values.delivery_limit = limit)
    }

    /// Delay of messages that bring neither a delay nor a time; zero is none, the default.
    pub fn default_delay(self, delay: Duration) -> QueueSettings {
        self.set("default_delay_ms", |values| values.default_delay_ms = milliseconds(delay))
    }

    /// A message expires when it has been ready for this long; a shorter TTL of its own wins. Zero, the default, is
    /// without.
    pub fn message_ttl(self, ttl: Duration) -> QueueSettings {
        self.set("message_ttl_ms", |values| values.message_ttl_ms = milliseconds(ttl))
    }

    /// The queue is deleted, with its messages, when it had no consumer and was neither declared nor received from
    /// for this long. Zero, the default, is never.
    pub fn idle_ttl(self, ttl: Duration) -> QueueSettings {
        self.set("idle_ttl_ms", |values| values.idle_ttl_ms = milliseconds(ttl))
    }

    /// Most messages it holds, in every state; 0 is without limit, the default.
    pub fn messages_max(self, messages: u64) -> QueueSettings {
        self.set("messages_max", |values| values.messages_max = messages)
    }

    /// Most body bytes it holds, of messages in every state; 0 is without limit, the default.
    pub fn bytes_max(self, bytes: u64) -> QueueSettings {
        self.set("bytes_max", |values| values.bytes_max = bytes)
    }

    /// What gives way when it is full. Default: the newcomer is rejected.
    pub fn overflow(self, overflow: v1::Overflow) -> QueueSettings {
        self.set("overflow", |values| values.overflow = overflow.into())
    }

    /// Dead letters go to the queue of this name.
    pub fn dead_letter_queue(self, queue: impl Into<String>) -> QueueSettings {
        self.dead_letter(v1::DeadLetter { exchange: String::new(), routing_key: Some(queue.into()) })
    }

    /// Dead letters go to this exchange, with the key that they were published with.
    pub fn dead_letter_exchange(self, exchange: impl Into<String>) -> QueueSettings {
        self.dead_letter(v1::DeadLetter { exchange: exchange.into(), routing_key: None })
    }

    /// Dead letters go to this exchange, with this key.
    pub fn dead_letter_exchange_with_key(
        self,
        exchange: impl Into<String>,
        routing_key: impl Into<String>,
    ) -> QueueSettings {
        self.dead_letter(v1::DeadLetter { exchange: exchange.into(), routing_key: Some(routing_key.into()) })
    }

    /// Dead letters are dropped: the default.
    pub fn without_dead_letters(self) -> QueueSettings {
        self.set("dead_letter", |values| values.dead_letter = None)
    }

    /// Higher priorities are lowered to this. It cannot be changed later. Default: 255.
    pub fn priority_max(self, priority: u8) -> QueueSettings {
        self.set("priority_max", |values| values.priority_max = Some(priority.into()))
    }

    /// How long a `dedupe_id` is remembered. At most 7 days. Default: 5 min.
    pub fn dedupe_window(self, window: Duration) -> QueueSettings {
        self.set("dedupe_window_ms", |values| values.dedupe_window_ms = milliseconds(window))
    }

    /// All messages go to one consumer, the one that came first, until its session ends. It cannot be changed later.
    pub fn single_active_consumer(self, single: bool) -> QueueSettings {
        self.set("single_active_consumer", |values| values.single_active_consumer = single)
    }

    /// Nothing is delivered while this is set.
    pub fn paused(self, paused: bool) -> QueueSettings {
        self.set("paused", |values| values.paused = paused)
    }

    /// How long returned messages wait.
    pub fn backoff(self, backoff: Backoff) -> QueueSettings {
        self.set("backoff", |values| values.backoff = Some(backoff.0))
    }

    /// Returned messages are ready at once, at their old position: the default.
    pub fn without_backoff(self) -> QueueSettings {
        self.set("backoff", |values| values.backoff = None)
    }

    /// A ready message counts as one priority higher for each such time that it waits. At least 100 ms; zero, the
    /// default, is never.
    pub fn aging(self, aging: Duration) -> QueueSettings {
        self.set("aging_ms", |values| values.aging_ms = milliseconds(aging))
    }

    /// True if nothing is set.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The settings, and the names of those that were set.
    pub(crate) fn into_proto(self) -> (v1::QueueSettings, Vec<String>) {
        (self.values, self.fields.into_iter().map(str::to_owned).collect())
    }

    fn dead_letter(self, dead_letter: v1::DeadLetter) -> QueueSettings {
        self.set("dead_letter", |values| values.dead_letter = Some(dead_letter))
    }

    fn set(mut self, field: &'static str, change: impl FnOnce(&mut v1::QueueSettings)) -> QueueSettings {
        change(&mut self.values);
        if !self.fields.contains(&field) {
            self.fields.push(field);
        }
        self
    }
}

/// How long a returned message waits, by how often it came back.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Backoff(v1::Backoff);

impl Backoff {
    /// Always `base`. 1 ms to 10 years.
    pub fn fixed(base: Duration) -> Backoff {
        Backoff::new(v1::BackoffKind::Fixed, base)
    }

    /// `base`, then two times `base`, then three times.
    pub fn linear(base: Duration) -> Backoff {
        Backoff::new(v1::BackoffKind::Linear, base)
    }

    /// `base`, then two times `base`, then four times.
    pub fn exponential(base: Duration) -> Backoff {
        Backoff::new(v1::BackoffKind::Exponential, base)
    }

    /// The longest wait. Default: 10 years.
    pub fn cap(mut self, cap: Duration) -> Backoff {
        self.0.cap_ms = milliseconds(cap);
        self
    }

    /// Up to this share of the wait is taken off, by chance: 0 to 100.
    pub fn jitter_percent(mut self, percent: u32) -> Backoff {
        self.0.jitter_percent = percent;
        self
    }

    fn new(kind: v1::BackoffKind, base: Duration) -> Backoff {
        Backoff(v1::Backoff { kind: kind.into(), base_ms: milliseconds(base), ..v1::Backoff::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_names_what_was_set_once_each() {
        let settings = QueueSettings::default().paused(true).delivery_limit(3).paused(false);
        let (values, fields) = settings.into_proto();
        assert_eq!(fields, ["paused", "delivery_limit"]);
        assert_eq!((values.paused, values.delivery_limit), (false, 3));
    }

    #[test]
    fn what_is_taken_back_is_named_too() {
        let settings = QueueSettings::default().without_backoff().without_dead_letters();
        let (values, fields) = settings.into_proto();
        assert_eq!(values, v1::QueueSettings::default());
        assert_eq!(fields, ["backoff", "dead_letter"]);
    }
}
