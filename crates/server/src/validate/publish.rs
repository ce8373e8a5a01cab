//! Publishing, and transactions.

use dwell_machine as machine;
use dwell_machine::limits::{HORIZON_MS, PUBLISH_MESSAGES_MAX, SETTLE_LEASES_MAX, TRANSACT_ACKS_MAX};
use dwell_proto::v1;
use dwell_proto::v1::timing::Visible;

use super::{Checked, Limits, count, headers, invalid, name, namespace, optional_time, priority, text, time, within};
use super::{settle, under};

/// A publish command.
pub fn publish(request: v1::PublishRequest, limits: &Limits, now_ms: u64) -> Checked<machine::Publish> {
    namespace(&request.namespace)?;
    count("messages", request.messages.len(), 1, PUBLISH_MESSAGES_MAX)?;
    let producer = request.producer.map(producer).transpose()?;
    Ok(machine::Publish { messages: messages(request.messages, limits, now_ms)?, producer })
}

/// A transaction.
pub fn transact(request: v1::TransactRequest, limits: &Limits, now_ms: u64) -> Checked<machine::Transact> {
    namespace(&request.namespace)?;
    if request.acks.is_empty() && request.messages.is_empty() {
        return invalid("acks", "must not be empty if `messages` is");
    }
    count("acks", request.acks.len(), 0, TRANSACT_ACKS_MAX)?;
    count("messages", request.messages.len(), 0, PUBLISH_MESSAGES_MAX)?;
    let leases: usize = request.acks.iter().map(|ack| ack.leases.len()).sum();
    if leases > SETTLE_LEASES_MAX {
        return invalid("acks", format!("must have at most {SETTLE_LEASES_MAX} leases, not {leases}"));
    }
    let producer = request.producer.map(producer).transpose()?;
    let acks = request.acks.into_iter().enumerate();
    let acks = acks.map(|(position, ack)| under(format!("acks[{position}]"), settle::ack(ack.queue, ack.leases)));
    Ok(machine::Transact {
        acks: acks.collect::<Checked<_>>()?,
        publish: machine::Publish { messages: messages(request.messages, limits, now_ms)?, producer },
    })
}

fn producer(producer: v1::ProducerSequence) -> Checked<machine::ProducerSequence> {
    name("producer.producer_id", &producer.producer_id)?;
    if producer.sequence == 0 {
        return invalid("producer.sequence", "must be at least 1");
    }
    Ok(machine::ProducerSequence { producer_id: producer.producer_id, sequence: producer.sequence })
}

fn messages(messages: Vec<v1::PublishMessage>, limits: &Limits, now_ms: u64) -> Checked<Vec<machine::PublishMessage>> {
    let checked = messages.into_iter().enumerate().map(|(position, message)| {
        // The path is only made for a message that is refused.
        publish_message(message, limits, now_ms)
            .or_else(|error| under(format_args!("messages[{position}]"), Err(error)))
    });
    checked.collect()
}

/// One message on its way in.
pub(super) fn publish_message(
    message: v1::PublishMessage,
    limits: &Limits,
    now_ms: u64,
) -> Checked<machine::PublishMessage> {
    if message.exchange.is_empty() {
        name("routing_key", &message.routing_key)?;
    } else {
        name("exchange", &message.exchange)?;
        text("routing_key", &message.routing_key)?;
    }
    text("dedupe_id", &message.dedupe_id)?;
    text("group", &message.group)?;
    let timing = message.timing.unwrap_or_default();
    let (mut delay_ms, mut deliver_at_ms) = (0, 0);
    match timing.visible {
        Some(Visible::DelayMs(delay)) => delay_ms = within("timing.delay_ms", delay, 0, HORIZON_MS)?,
        Some(Visible::DeliverAtMs(at)) => deliver_at_ms = time("timing.deliver_at_ms", at, now_ms)?,
        None => {}
    }
    let ttl_ms = timing.ttl_ms.map_or(Ok(0), |ttl| within("timing.ttl_ms", ttl, 1, HORIZON_MS))?;
    let expire_at_ms = optional_time("timing.expire_at_ms", timing.expire_at_ms, now_ms)?;
    let application = message.message.unwrap_or_default();
    let priority = priority("message.priority", application.priority)?;
    Ok(machine::PublishMessage {
        routing_key: message.routing_key,
        content: content(application, limits)?,
        priority,
        delay_ms,
        deliver_at_ms,
        ttl_ms,
        expire_at_ms,
        exchange: message.exchange,
        mandatory: message.mandatory,
        dedupe_id: message.dedupe_id,
        group: message.group,
        // Said in so many words, it overrules the queue's default delay.
        immediate: timing.visible == Some(Visible::DelayMs(0)),
    })
}

fn content(message: v1::Message, limits: &Limits) -> Checked<machine::Content> {
    if message.body.len() > limits.body_bytes_max {
        let (limit, size) = (limits.body_bytes_max, message.body.len());
        return invalid("message.body", format!("must have at most {limit} bytes, not {size}"));
    }
    text("message.content_type", &message.content_type)?;
    text("message.correlation_id", &message.correlation_id)?;
    text("message.reply_to", &message.reply_to)?;
    text("message.message_id", &message.message_id)?;
    headers("message.headers", &message.headers)?;
    Ok(machine::Content {
        body: message.body,
        headers: message.headers,
        content_type: message.content_type,
        correlation_id: message.correlation_id,
        reply_to: message.reply_to,
        message_id: message.message_id,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;
    const LIMITS: Limits = Limits { body_bytes_max: 8 };

    fn one(message: v1::PublishMessage) -> Result<machine::PublishMessage, String> {
        let request = v1::PublishRequest { messages: vec![message], ..Default::default() };
        let mut command = publish(request, &LIMITS, NOW_MS).map_err(|error| error.to_string())?;
        Ok(command.messages.remove(0))
    }

    fn to_queue() -> v1::PublishMessage {
        v1::PublishMessage { routing_key: "q".into(), ..Default::default() }
    }

    fn timed(visible: Visible) -> v1::PublishMessage {
        let timing = v1::Timing { visible: Some(visible), ..Default::default() };
        v1::PublishMessage { timing: Some(timing), ..to_queue() }
    }

    #[test]
    fn a_refusal_names_the_message_the_field_and_the_limit() {
        assert_eq!(
            one(timed(Visible::DelayMs(-1))).unwrap_err(),
            "`messages[0].timing.delay_ms` must be 0 to 315360000000, not -1"
        );
        let message = v1::Message { body: vec![0; 9].into(), ..Default::default() };
        let large = v1::PublishMessage { message: Some(message), ..to_queue() };
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
    fn a_delay_of_0_means_at_once_and_none_leaves_it_to_the_queue() {
        assert!(one(timed(Visible::DelayMs(0))).unwrap().immediate);
        assert!(!one(timed(Visible::DelayMs(1))).unwrap().immediate);
        assert!(!one(to_queue()).unwrap().immediate);
    }

    #[test]
    fn the_default_exchange_wants_the_name_of_a_queue_and_others_any_short_key() {
        let with = |exchange: &str, routing_key: &str| {
            let (exchange, routing_key) = (exchange.to_owned(), routing_key.to_owned());
            one(v1::PublishMessage { exchange, routing_key, ..Default::default() }).map(|message| message.routing_key)
        };
        assert_eq!(with("", "").unwrap_err(), "`messages[0].routing_key` must have 1 to 255 bytes, not 0");
        assert_eq!(with("", "a\nb").unwrap_err(), "`messages[0].routing_key` must not contain control characters");
        assert_eq!(with("logs", ""), Ok(String::new()));
        assert_eq!(with("logs", "a\nb"), Ok("a\nb".to_owned()));
        let long = "k".repeat(256);
        assert_eq!(with("logs", &long).unwrap_err(), "`messages[0].routing_key` must have at most 255 bytes, not 256");
        assert_eq!(with(&long, "k").unwrap_err(), "`messages[0].exchange` must have 1 to 255 bytes, not 256");
    }

    #[test]
    fn a_dedupe_id_and_a_group_have_at_most_255_bytes() {
        let long = "x".repeat(256);
        let message = v1::PublishMessage { dedupe_id: long.clone(), ..to_queue() };
        assert_eq!(one(message).unwrap_err(), "`messages[0].dedupe_id` must have at most 255 bytes, not 256");
        let message = v1::PublishMessage { group: long, ..to_queue() };
        assert_eq!(one(message).unwrap_err(), "`messages[0].group` must have at most 255 bytes, not 256");
    }

    fn transact_leases(leases: &[usize]) -> Result<usize, String> {
        let acks = leases.iter().map(|count| {
            let leases = vec![v1::Lease::default(); *count];
            v1::QueueLeases { queue: "q".into(), leases }
        });
        let request = v1::TransactRequest { acks: acks.collect(), ..Default::default() };
        let command = transact(request, &LIMITS, NOW_MS).map_err(|error| error.to_string())?;
        Ok(command.acks.iter().map(|ack| ack.leases.len()).sum())
    }

    #[test]
    fn a_transaction_acknowledges_or_publishes_something() {
        assert_eq!(transact_leases(&[]).unwrap_err(), "`acks` must not be empty if `messages` is");
        assert_eq!(transact_leases(&[1, 2]), Ok(3));
        let request = v1::TransactRequest { messages: vec![to_queue()], ..Default::default() };
        assert_eq!(transact(request, &LIMITS, NOW_MS).unwrap().publish.messages.len(), 1);
    }

    #[test]
    fn a_transaction_has_100_queues_and_10000_leases_at_most() {
        assert_eq!(transact_leases(&[1, 0]).unwrap_err(), "`acks[1].leases` must be 1 to 10000, not 0");
        assert_eq!(transact_leases(&[1; 101]).unwrap_err(), "`acks` must be at most 100, not 101");
        assert_eq!(transact_leases(&[5000, 5000]), Ok(10_000));
        assert_eq!(transact_leases(&[5000, 5001]).unwrap_err(), "`acks` must have at most 10000 leases, not 10001");
    }
}
