//! Messages on their way in.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use dwell_proto::v1;
use dwell_proto::v1::timing::Visible;
use prost::Message as _;

/// A message to publish, with where it goes and when. Limits are the server's, and named in its refusal.
#[derive(Debug, Clone, PartialEq)]
pub struct PublishMessage {
    message: v1::Message,
    timing: v1::Timing,
    /// Everything else; its message and timing are unset.
    envelope: v1::PublishMessage,
}

impl PublishMessage {
    /// A message for the queue of this name, or, with [`PublishMessage::exchange`], with this routing key. It is
    /// ready after the queue's default delay, and expires by the queue's settings alone.
    pub fn new(routing_key: impl Into<String>, body: impl Into<Bytes>) -> PublishMessage {
        let message = v1::Message { body: body.into(), ..v1::Message::default() };
        let envelope = v1::PublishMessage { routing_key: routing_key.into(), ..v1::PublishMessage::default() };
        PublishMessage { message, timing: v1::Timing::default(), envelope }
    }

    /// The exchange that routes it, by its key or its headers. Without one it goes to the queue that the key names.
    pub fn exchange(mut self, exchange: impl Into<String>) -> PublishMessage {
        self.envelope.exchange = exchange.into();
        self
    }

    /// Refuse the whole request, with [`Error::Unroutable`](crate::Error::Unroutable), if this message reaches no
    /// queue. Without it the other messages are stored, and the result of this one tells.
    pub fn mandatory(mut self) -> PublishMessage {
        self.envelope.mandatory = true;
        self
    }

    /// A message with the same id that came to the same queue within the queue's dedupe window is not stored there
    /// again.
    pub fn dedupe_id(mut self, dedupe_id: impl Into<String>) -> PublishMessage {
        self.envelope.dedupe_id = dedupe_id.into();
        self
    }

    /// Messages of one group are delivered in order, one at a time.
    pub fn group(mut self, group: impl Into<String>) -> PublishMessage {
        self.envelope.group = group.into();
        self
    }

    /// Ready this long after the publish is committed; replaces [`PublishMessage::deliver_at`]. At most ten
    /// years, in whole milliseconds. Zero means at once, whatever the queue's default delay.
    pub fn delay(self, delay: Duration) -> PublishMessage {
        self.delay_ms(milliseconds(delay))
    }

    /// The same in milliseconds, unchecked.
    pub fn delay_ms(mut self, delay_ms: i64) -> PublishMessage {
        self.timing.visible = Some(Visible::DelayMs(delay_ms));
        self
    }

    /// Ready at this time; replaces [`PublishMessage::delay`]. Within ten years of now.
    pub fn deliver_at(self, at: SystemTime) -> PublishMessage {
        self.deliver_at_ms(since_epoch_ms(at))
    }

    /// The same in milliseconds since the Unix epoch.
    pub fn deliver_at_ms(mut self, at_ms: i64) -> PublishMessage {
        self.timing.visible = Some(Visible::DeliverAtMs(at_ms));
        self
    }

    /// Expires when it has been ready, and not leased, for this long. 1 ms to ten years.
    pub fn ttl(mut self, ttl: Duration) -> PublishMessage {
        self.timing.ttl_ms = Some(milliseconds(ttl));
        self
    }

    /// Expires at this time, unless it is leased. Within ten years of now.
    pub fn expire_at(self, at: SystemTime) -> PublishMessage {
        self.expire_at_ms(since_epoch_ms(at))
    }

    /// The same in milliseconds since the Unix epoch.
    pub fn expire_at_ms(mut self, at_ms: i64) -> PublishMessage {
        self.timing.expire_at_ms = Some(at_ms);
        self
    }

    /// 0 (default) to 255: higher is delivered first.
    pub fn priority(mut self, priority: u8) -> PublishMessage {
        self.message.priority = priority.into();
        self
    }

    /// Adds an application header, or replaces it.
    pub fn header(mut self, key: impl Into<String>, value: impl Into<String>) -> PublishMessage {
        self.message.headers.insert(key.into(), value.into());
        self
    }

    /// The MIME type of the body.
    pub fn content_type(mut self, content_type: impl Into<String>) -> PublishMessage {
        self.message.content_type = content_type.into();
        self
    }

    /// Ties a reply to its request.
    pub fn correlation_id(mut self, correlation_id: impl Into<String>) -> PublishMessage {
        self.message.correlation_id = correlation_id.into();
        self
    }

    /// Where a reply should go, by convention a queue name.
    pub fn reply_to(mut self, reply_to: impl Into<String>) -> PublishMessage {
        self.message.reply_to = reply_to.into();
        self
    }

    /// The application's own id of the message, by which it can be recalled. It need not be unique.
    pub fn message_id(mut self, message_id: impl Into<String>) -> PublishMessage {
        self.message.message_id = message_id.into();
        self
    }

    /// The queue it is for, or the key that its exchange routes by.
    pub fn routing_key(&self) -> &str {
        &self.envelope.routing_key
    }

    pub(crate) fn into_proto(self) -> v1::PublishMessage {
        let timing = (self.timing != v1::Timing::default()).then_some(self.timing);
        v1::PublishMessage { message: Some(self.message), timing, ..self.envelope }
    }
}

impl From<v1::PublishMessage> for PublishMessage {
    fn from(mut envelope: v1::PublishMessage) -> PublishMessage {
        let message = envelope.message.take().unwrap_or_default();
        let timing = envelope.timing.take().unwrap_or_default();
        PublishMessage { message, timing, envelope }
    }
}

/// Roughly how much memory and network a message takes.
pub(crate) fn encoded_bytes(message: &v1::PublishMessage) -> usize {
    message.encoded_len()
}

/// A duration as the API counts it. One too long for the API becomes the longest, which the server refuses.
pub(crate) fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A time as the API counts it.
pub(crate) fn since_epoch_ms(at: SystemTime) -> i64 {
    match at.duration_since(UNIX_EPOCH) {
        Ok(after) => milliseconds(after),
        Err(before) => -milliseconds(before.duration()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_delay_and_due_time_counts() {
        let message = PublishMessage::new("q", "body").delay(Duration::from_millis(5)).deliver_at_ms(7);
        assert_eq!(message.into_proto().timing.and_then(|timing| timing.visible), Some(Visible::DeliverAtMs(7)));
        let message = PublishMessage::new("q", "body").deliver_at_ms(7).delay(Duration::from_millis(5));
        assert_eq!(message.into_proto().timing.and_then(|timing| timing.visible), Some(Visible::DelayMs(5)));
    }

    #[test]
    fn a_message_without_times_carries_no_timing() {
        assert_eq!(PublishMessage::new("q", "body").into_proto().timing, None);
    }

    #[test]
    fn where_a_message_goes_and_what_it_carries_comes_through() {
        let message = PublishMessage::new("orders.eu", "body").exchange("orders").mandatory().dedupe_id("d").group("g");
        let proto = message.clone().into_proto();
        assert_eq!((proto.exchange.as_str(), proto.routing_key.as_str()), ("orders", "orders.eu"));
        assert_eq!((proto.mandatory, proto.dedupe_id.as_str(), proto.group.as_str()), (true, "d", "g"));
        assert_eq!(PublishMessage::from(proto), message);
    }

    #[test]
    fn times_before_the_epoch_are_negative() {
        assert_eq!(since_epoch_ms(UNIX_EPOCH - Duration::from_millis(3)), -3);
    }
}
