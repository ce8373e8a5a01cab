//! From requests to commands, checking every limit on the way.

use dwell_machine as machine;
use dwell_machine::limits::{
    CREDIT_MAX, DELIVERY_LIMIT_MAX, HEADERS_BYTES_MAX, HEADERS_MAX, HORIZON_MS, LEASE_TIMEOUT_MS_DEFAULT,
    NAME_BYTES_MAX, PUBLISH_MESSAGES_MAX, RECEIVE_MESSAGES_MAX, RECEIVE_WAIT_MS_MAX, SESSION_TIMEOUT_MS_DEFAULT,
    SETTLE_LEASES_MAX, TIMEOUT_MS_MAX, TIMEOUT_MS_MIN,
};
use dwell_proto::v1;
use dwell_proto::v1::timing::Visible;

use crate::status::Invalid;

/// The only namespace there is so far.
pub const NAMESPACE: &str = "default";

/// What requests are checked against.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest body of a message, in bytes.
    pub body_bytes_max: usize,
}

type Checked<T> = Result<T, Invalid>;

fn invalid<T>(field: &str, problem: impl Into<String>) -> Checked<T> {
    Err(Invalid { field: field.to_owned(), problem: problem.into() })
}

/// Checks a namespace's name.
pub fn namespace(name: &str) -> Checked<()> {
    if name.is_empty() || name == NAMESPACE {
        return Ok(());
    }
    invalid("namespace", format!("must be empty or `{NAMESPACE}`"))
}

/// Checks the name of a queue, consumer or producer.
pub fn name(field: &str, name: &str) -> Checked<()> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return invalid(field, format!("must have 1 to {NAME_BYTES_MAX} bytes, not {}", name.len()));
    }
    if name.chars().any(char::is_control) {
        return invalid(field, "must not contain control characters");
    }
    Ok(())
}

/// Checks that a number lies within its limits.
fn within(field: &str, value: i64, min: u64, max: u64) -> Checked<u64> {
    match u64::try_from(value) {
        Ok(value) if (min..=max).contains(&value) => Ok(value),
        _ => invalid(field, format!("must be {min} to {max}, not {value}")),
    }
}

/// A timeout, or the default where it is 0.
fn timeout(field: &str, value: i64, default: u64) -> Checked<u64> {
    if value == 0 { Ok(default) } else { within(field, value, TIMEOUT_MS_MIN, TIMEOUT_MS_MAX) }
}

/// An absolute time near enough to `now_ms`; 0 is left to the caller.
fn time(field: &str, value: i64, now_ms: u64) -> Checked<u64> {
    within(field, value, now_ms.saturating_sub(HORIZON_MS).max(1), now_ms + HORIZON_MS)
        .map_err(|error| Invalid { problem: format!("{} (ten years from now)", error.problem), ..error })
}

/// A publish command.
pub fn publish(request: v1::PublishRequest, limits: &Limits, now_ms: u64) -> Checked<machine::Publish> {
    namespace(&request.namespace)?;
    let count = request.messages.len();
    if count == 0 || count > PUBLISH_MESSAGES_MAX {
        return invalid("messages", format!("must be 1 to {PUBLISH_MESSAGES_MAX}, not {count}"));
    }
    let producer = request.producer.map(producer).transpose()?;
    let messages = request.messages.into_iter().enumerate().map(|(position, message)| {
        publish_message(message, limits, now_ms)
            .map_err(|error| Invalid { field: format!("messages[{position}].{}", error.field), ..error })
    });
    Ok(machine::Publish { messages: messages.collect::<Checked<_>>()?, producer })
}

fn producer(producer: v1::ProducerSequence) -> Checked<machine::ProducerSequence> {
    name("producer.producer_id", &producer.producer_id)?;
    if producer.sequence == 0 {
        return invalid("producer.sequence", "must be at least 1");
    }
    Ok(machine::ProducerSequence { producer_id: producer.producer_id, sequence: producer.sequence })
}

fn publish_message(message: v1::PublishMessage, limits: &Limits, now_ms: u64) -> Checked<machine::PublishMessage> {
    name("queue", &message.queue)?;
    let timing = message.timing.unwrap_or_default();
    let (mut delay_ms, mut deliver_at_ms) = (0, 0);
    match timing.visible {
        Some(Visible::DelayMs(delay)) => delay_ms = within("timing.delay_ms", delay, 0, HORIZON_MS)?,
        Some(Visible::DeliverAtMs(at)) => deliver_at_ms = time("timing.deliver_at_ms", at, now_ms)?,
        None => {}
    }
    let ttl_ms = timing.ttl_ms.map_or(Ok(0), |ttl| within("timing.ttl_ms", ttl, 1, HORIZON_MS))?;
    let expire_at_ms = timing.expire_at_ms.map_or(Ok(0), |at| time("timing.expire_at_ms", at, now_ms))?;
    let message_body = message.message.unwrap_or_default();
    let priority = message_body.priority;
    if priority > u8::MAX.into() {
        return invalid("message.priority", format!("must be 0 to 255, not {priority}"));
    }
    Ok(machine::PublishMessage {
        queue: message.queue,
        content: content(message_body, limits)?,
        priority,
        delay_ms,
        deliver_at_ms,
        ttl_ms,
        expire_at_ms,
    })
}

fn content(message: v1::Message, limits: &Limits) -> Checked<machine::Content> {
    if message.body.len() > limits.body_bytes_max {
        let (limit, size) = (limits.body_bytes_max, message.body.len());
        return invalid("message.body", format!("must have at most {limit} bytes, not {size}"));
    }
    for (field, text) in [
        ("message.content_type", &message.content_type),
        ("message.correlation_id", &message.correlation_id),
        ("message.reply_to", &message.reply_to),
        ("message.message_id", &message.message_id),
    ] {
        if text.len() > NAME_BYTES_MAX {
            return invalid(field, format!("must have at most {NAME_BYTES_MAX} bytes, not {}", text.len()));
        }
    }
    if message.headers.len() > HEADERS_MAX {
        return invalid("message.headers", format!("must be at most {HEADERS_MAX}, not {}", message.headers.len()));
    }
    if message.headers.keys().any(|key| key.is_empty() || key.len() > NAME_BYTES_MAX) {
        return invalid("message.headers", format!("must have keys of 1 to {NAME_BYTES_MAX} bytes"));
    }
    let bytes: usize = message.headers.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > HEADERS_BYTES_MAX {
        return invalid("message.headers", format!("must have at most {HEADERS_BYTES_MAX} bytes, not {bytes}"));
    }
    Ok(machine::Content {
        body: message.body,
        headers: message.headers,
        content_type: message.content_type,
        correlation_id: message.correlation_id,
        reply_to: message.reply_to,
        message_id: message.message_id,
    })
}

/// A queue's settings with the defaults filled in.
pub fn queue_settings(settings: Option<v1::QueueSettings>) -> Checked<machine::QueueSettings> {
    let settings = settings.unwrap_or_default();
    if settings.delivery_limit > DELIVERY_LIMIT_MAX {
        let limit = settings.delivery_limit;
        return invalid("settings.delivery_limit", format!("must be 0 to {DELIVERY_LIMIT_MAX}, not {limit}"));
    }
    Ok(machine::QueueSettings {
        lease_timeout_ms: timeout("settings.lease_timeout_ms", settings.lease_timeout_ms, LEASE_TIMEOUT_MS_DEFAULT)?,
        delivery_limit: settings.delivery_limit,
    })
}

/// An attach command, but for the attachment and a consumer id that the server makes.
pub fn attach(attach: v1::Attach) -> Checked<machine::Attach> {
    namespace(&attach.namespace)?;
    name("attach.queue", &attach.queue)?;
    if !attach.consumer_id.is_empty() {
        name("attach.consumer_id", &attach.consumer_id)?;
    }
    let session_timeout_ms =
        timeout("attach.session_timeout_ms", attach.session_timeout_ms, SESSION_TIMEOUT_MS_DEFAULT)?;
    if attach.holding.len() > SETTLE_LEASES_MAX {
        let count = attach.holding.len();
        return invalid("attach.holding", format!("must be at most {SETTLE_LEASES_MAX} leases, not {count}"));
    }
    Ok(machine::Attach {
        queue: attach.queue,
        consumer_id: attach.consumer_id,
        credit: credit("attach.credit", attach.credit)?,
        session_timeout_ms,
        holding: attach.holding.into_iter().map(lease).collect(),
        attachment: 0,
    })
}

/// A consumer's credit.
pub fn credit(field: &str, credit: u32) -> Checked<u32> {
    if credit == 0 || credit > CREDIT_MAX {
        return invalid(field, format!("must be 1 to {CREDIT_MAX}, not {credit}"));
    }
    Ok(credit)
}

fn lease(lease: v1::Lease) -> machine::Lease {
    machine::Lease { sequence: lease.sequence, token: lease.token }
}

/// The leases of a settling command.
pub fn leases(leases: Vec<v1::Lease>) -> Checked<Vec<machine::Lease>> {
    if leases.is_empty() || leases.len() > SETTLE_LEASES_MAX {
        return invalid("leases", format!("must be 1 to {SETTLE_LEASES_MAX}, not {}", leases.len()));
    }
    Ok(leases.into_iter().map(lease).collect())
}

/// An ack command.
pub fn ack(queue: String, named: Vec<v1::Lease>) -> Checked<machine::Ack> {
    name("queue", &queue)?;
    Ok(machine::Ack { queue, leases: leases(named)? })
}

/// A nack command.
pub fn nack(queue: String, named: Vec<v1::Lease>, delay_ms: i64) -> Checked<machine::Nack> {
    name("queue", &queue)?;
    Ok(machine::Nack { queue, leases: leases(named)?, delay_ms: within("delay_ms", delay_ms, 0, HORIZON_MS)? })
}

/// An extend command.
pub fn extend(queue: String, named: Vec<v1::Lease>, lease_timeout_ms: i64) -> Checked<machine::Extend> {
    name("queue", &queue)?;
    let lease_timeout_ms = timeout("lease_timeout_ms", lease_timeout_ms, 0)?;
    Ok(machine::Extend { queue, leases: leases(named)?, lease_timeout_ms })
}

/// A receive command, and how long to wait.
pub fn receive(request: v1::ReceiveRequest) -> Checked<(machine::Receive, u64)> {
    namespace(&request.namespace)?;
    name("queue", &request.queue)?;
    within("messages_max", request.messages_max.into(), 1, RECEIVE_MESSAGES_MAX.into())?;
    let wait_ms = within("wait_ms", request.wait_ms, 0, RECEIVE_WAIT_MS_MAX)?;
    let lease_timeout_ms = timeout("lease_timeout_ms", request.lease_timeout_ms, 0)?;
    Ok((machine::Receive { queue: request.queue, messages_max: request.messages_max, lease_timeout_ms }, wait_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    fn one(message: v1::PublishMessage) -> Result<machine::Publish, String> {
        let request = v1::PublishRequest { messages: vec![message], ..Default::default() };
        publish(request, &Limits { body_bytes_max: 8 }, NOW_MS).map_err(|error| error.to_string())
    }

    fn timed(visible: Visible) -> v1::PublishMessage {
        let timing = v1::Timing { visible: Some(visible), ..Default::default() };
        v1::PublishMessage { queue: "q".into(), timing: Some(timing), ..Default::default() }
    }

    #[test]
    fn a_refusal_names_the_message_the_field_and_the_limit() {
        assert_eq!(
            one(timed(Visible::DelayMs(-1))).unwrap_err(),
            "`messages[0].timing.delay_ms` must be 0 to 315360000000, not -1"
        );
        let message = v1::Message { body: vec![0; 9].into(), ..Default::default() };
        let large = v1::PublishMessage { queue: "q".into(), message: Some(message), ..Default::default() };
        assert_eq!(one(large).unwrap_err(), "`messages[0].message.body` must have at most 8 bytes, not 9");
    }

    #[test]
    fn times_are_taken_within_ten_years_only() {
        assert!(one(timed(Visible::DeliverAtMs((NOW_MS - 1) as i64))).is_ok());
        assert!(one(timed(Visible::DeliverAtMs(1_800_000_000))).is_err());
        assert!(one(timed(Visible::DeliverAtMs((NOW_MS + HORIZON_MS + 1) as i64))).is_err());
        assert!(one(timed(Visible::DeliverAtMs(i64::MAX))).is_err());
    }

    #[test]
    fn names_have_1_to_255_bytes_and_no_control_characters() {
        assert!(name("queue", "").is_err());
        assert!(name("queue", &"x".repeat(255)).is_ok());
        assert!(name("queue", &"x".repeat(256)).is_err());
        assert!(name("queue", "a\nb").is_err());
    }

    #[test]
    fn credit_of_zero_and_of_a_billion_is_refused() {
        assert!(credit("credit", 0).is_err());
        assert!(credit("credit", 1_000_000_000).is_err());
        assert!(credit("credit", CREDIT_MAX).is_ok());
    }
}
