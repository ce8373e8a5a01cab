//! Messages on their way in, and what became of them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use dwell_proto::v1;
use dwell_proto::v1::timing::Visible;
use prost::Message as _;

/// A message to publish, with its queue and its times. Limits are the server's, and named in its refusal.
#[derive(Debug, Clone, PartialEq)]
pub struct PublishMessage {
    queue: String,
    message: v1::Message,
    timing: v1::Timing,
}

impl PublishMessage {
    /// A message that is ready at once and never expires.
    pub fn new(queue: impl Into<String>, body: impl Into<Bytes>) -> PublishMessage {
        let message = v1::Message { body: body.into(), ..v1::Message::default() };
        PublishMessage { queue: queue.into(), message, timing: v1::Timing::default() }
    }

    /// Ready this long after the publish is committed; replaces [`PublishMessage::deliver_at`]. At most ten
    /// years, in whole milliseconds.
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

    /// Dropped when it has been ready, and not leased, for this long. 1 ms to ten years.
    pub fn ttl(mut self, ttl: Duration) -> PublishMessage {
        self.timing.ttl_ms = Some(milliseconds(ttl));
        self
    }

    /// Dropped at this time, unless it is leased. Within ten years of now.
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

    /// The application's own id of the message.
    pub fn message_id(mut self, message_id: impl Into<String>) -> PublishMessage {
        self.message.message_id = message_id.into();
        self
    }

    /// The queue it is for.
    pub fn queue(&self) -> &str {
        &self.queue
    }

    pub(crate) fn into_proto(self) -> v1::PublishMessage {
        let timing = (self.timing != v1::Timing::default()).then_some(self.timing);
        v1::PublishMessage { queue: self.queue, message: Some(self.message), timing }
    }
}

impl From<v1::PublishMessage> for PublishMessage {
    fn from(message: v1::PublishMessage) -> PublishMessage {
        PublishMessage {
            queue: message.queue,
            message: message.message.unwrap_or_default(),
            timing: message.timing.unwrap_or_default(),
        }
    }
}

/// What became of a published message.
#[derive(Debug, Clone, PartialEq)]
pub struct PublishResult {
    /// Names the stored message.
    pub handle: v1::Handle,
    /// True if an earlier attempt of the same request, whose answer was lost, stored it.
    pub duplicate: bool,
}

impl From<v1::PublishResult> for PublishResult {
    fn from(result: v1::PublishResult) -> PublishResult {
        PublishResult { handle: result.handle.unwrap_or_default(), duplicate: result.duplicate }
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
    fn times_before_the_epoch_are_negative() {
        assert_eq!(since_epoch_ms(UNIX_EPOCH - Duration::from_millis(3)), -3);
    }
}
