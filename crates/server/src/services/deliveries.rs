//! From the machine's messages and deliveries to the API's.

use dwell_machine::{Death, DeathReason, Delivery, MessageRecord, MessageState, MessageView};
use dwell_proto::v1;

use super::{Services, signed};
use crate::status::RequestError;
use crate::validate::NAMESPACE;

impl Services {
    /// The delivery as it is sent, which it is then. `None` if the message is gone by now: its lease timed out, and the
    /// consumer need not hear of it.
    pub(super) fn delivery(&self, queue: &str, delivery: Delivery) -> Result<Option<v1::Delivery>, RequestError> {
        let mut delivery = delivery;
        let record = match delivery.message.take() {
            // Just stored, and nobody else holds it: not even the body's bytes are copied.
            Some(record) => std::sync::Arc::try_unwrap(record).unwrap_or_else(|record| (*record).clone()),
            None => match self.group.reader.message(delivery.queue, delivery.sequence)? {
                Some(record) => record,
                None => return Ok(None),
            },
        };
        let delivery = delivery_of(queue, &delivery, record);
        self.traces.delivered(&delivery);
        Ok(Some(delivery))
    }
}

fn delivery_of(queue: &str, delivery: &Delivery, record: MessageRecord) -> v1::Delivery {
    let parts = Parts::of(queue, record);
    v1::Delivery {
        handle: Some(handle_of(queue, delivery.sequence)),
        token: delivery.token,
        message: Some(parts.message),
        delivery_count: delivery.delivery_count,
        published_at_ms: parts.published_at_ms,
        ready_at_ms: signed(delivery.ready_at_ms),
        lease_deadline_ms: signed(delivery.deadline_ms),
        exchange: parts.exchange,
        routing_key: parts.routing_key,
        group: parts.group,
        deaths: parts.deaths,
    }
}

/// A message where it stands in a queue.
pub(super) fn stored_message_of(queue: &str, view: MessageView) -> v1::StoredMessage {
    let parts = Parts::of(queue, view.record);
    v1::StoredMessage {
        handle: Some(handle_of(queue, view.sequence)),
        state: state_of(view.state).into(),
        message: Some(parts.message),
        body_bytes: view.body_bytes,
        delivery_count: view.delivery_count,
        published_at_ms: parts.published_at_ms,
        ready_at_ms: signed(view.ready_at_ms),
        expires_at_ms: signed(view.expires_at_ms),
        lease_deadline_ms: signed(view.lease_deadline_ms),
        consumer_id: view.consumer_id,
        exchange: parts.exchange,
        routing_key: parts.routing_key,
        group: parts.group,
        deaths: parts.deaths,
    }
}

/// A message's handle.
pub(super) fn handle_of(queue: &str, sequence: u64) -> v1::Handle {
    v1::Handle { namespace: NAMESPACE.to_owned(), queue: queue.to_owned(), sequence }
}

/// What a delivery and a stored message tell alike.
struct Parts {
    message: v1::Message,
    published_at_ms: i64,
    exchange: String,
    routing_key: String,
    group: String,
    deaths: Vec<v1::Death>,
}

impl Parts {
    fn of(queue: &str, record: MessageRecord) -> Parts {
        // With the default exchange the key is the queue's name, and is not stored.
        let routing_key = if record.exchange.is_empty() { queue.to_owned() } else { record.routing_key };
        let content = record.content;
        Parts {
            message: v1::Message {
                body: content.body,
                headers: content.headers,
                content_type: content.content_type,
                correlation_id: content.correlation_id,
                reply_to: content.reply_to,
                message_id: content.message_id,
                priority: record.priority,
            },
            published_at_ms: signed(record.published_at_ms),
            exchange: record.exchange,
            routing_key,
            group: record.group,
            deaths: record.deaths.into_iter().map(death_of).collect(),
        }
    }
}

fn death_of(death: Death) -> v1::Death {
    let reason = match death.reason() {
        DeathReason::Expired => v1::DeathReason::Expired,
        DeathReason::Rejected => v1::DeathReason::Rejected,
        DeathReason::DeliveryLimit => v1::DeathReason::DeliveryLimit,
        DeathReason::Overflow => v1::DeathReason::Overflow,
    };
    v1::Death {
        reason: reason.into(),
        queue: death.queue,
        exchange: death.exchange,
        routing_key: death.routing_key,
        count: death.count,
        first_at_ms: signed(death.first_at_ms),
        last_at_ms: signed(death.last_at_ms),
    }
}

fn state_of(state: MessageState) -> v1::MessageState {
    match state {
        MessageState::Scheduled => v1::MessageState::Scheduled,
        MessageState::Ready => v1::MessageState::Ready,
        MessageState::Leased => v1::MessageState::Leased,
    }
}

/// Lost leases as the API shows them.
pub(super) fn leases_of(leases: Vec<dwell_machine::Lease>) -> Vec<v1::Lease> {
    leases.into_iter().map(|lease| v1::Lease { sequence: lease.sequence, token: lease.token }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivered(record: MessageRecord) -> v1::Delivery {
        let delivery = Delivery {
            queue: 1,
            sequence: 7,
            token: 3,
            delivery_count: 2,
            ready_at_ms: 5,
            deadline_ms: 6,
            message: None,
        };
        delivery_of("orders", &delivery, record)
    }

    #[test]
    fn through_the_default_exchange_the_key_is_the_name_of_the_queue() {
        let delivery = delivered(MessageRecord::default());
        assert_eq!((&*delivery.exchange, &*delivery.routing_key), ("", "orders"));
        let record = MessageRecord { exchange: "logs".into(), routing_key: "a.b".into(), ..Default::default() };
        let delivery = delivered(record);
        assert_eq!((&*delivery.exchange, &*delivery.routing_key), ("logs", "a.b"));
    }

    #[test]
    fn a_dead_letter_is_delivered_with_its_deaths_and_its_group() {
        let death = Death {
            queue: "orders".into(),
            reason: DeathReason::DeliveryLimit.into(),
            exchange: "e".into(),
            routing_key: "k".into(),
            count: 3,
            first_at_ms: 10,
            last_at_ms: 20,
        };
        let delivery = delivered(MessageRecord { group: "g".into(), deaths: vec![death], ..Default::default() });
        assert_eq!(delivery.group, "g");
        let shown = &delivery.deaths[0];
        assert_eq!(shown.reason(), v1::DeathReason::DeliveryLimit);
        assert_eq!((&*shown.queue, &*shown.exchange, &*shown.routing_key), ("orders", "e", "k"));
        assert_eq!((shown.count, shown.first_at_ms, shown.last_at_ms), (3, 10, 20));
    }
}
