//! From the machine's deliveries to the API's.

use dwell_machine::{Delivery, MessageRecord};
use dwell_proto::v1;

use super::Services;
use super::queues::signed;
use crate::status::RequestError;
use crate::validate::NAMESPACE;

impl Services {
    /// The delivery as it is sent. `None` if the message is gone by now: its lease timed out, and the
    /// consumer need not hear of it.
    pub(super) fn delivery(&self, queue: &str, delivery: Delivery) -> Result<Option<v1::Delivery>, RequestError> {
        let message = match delivery.message {
            // Just stored, and nobody else holds it: not even the body's bytes are copied.
            Some(message) => std::sync::Arc::try_unwrap(message).unwrap_or_else(|message| (*message).clone()),
            None => match self.group.reader.message(delivery.queue, delivery.sequence)? {
                Some(message) => message,
                None => return Ok(None),
            },
        };
        Ok(Some(v1::Delivery {
            handle: Some(handle_of(queue, delivery.sequence)),
            token: delivery.token,
            delivery_count: delivery.delivery_count,
            published_at_ms: signed(message.published_at_ms),
            ready_at_ms: signed(delivery.ready_at_ms),
            lease_deadline_ms: signed(delivery.deadline_ms),
            message: Some(message_of(message)),
        }))
    }
}

/// A message's handle.
pub(super) fn handle_of(queue: &str, sequence: u64) -> v1::Handle {
    v1::Handle { namespace: NAMESPACE.to_owned(), queue: queue.to_owned(), sequence }
}

fn message_of(record: MessageRecord) -> v1::Message {
    let content = record.content;
    v1::Message {
        body: content.body,
        headers: content.headers,
        content_type: content.content_type,
        correlation_id: content.correlation_id,
        reply_to: content.reply_to,
        message_id: content.message_id,
        priority: record.priority,
    }
}

/// Lost leases as the API shows them.
pub(super) fn leases_of(leases: Vec<dwell_machine::Lease>) -> Vec<v1::Lease> {
    leases.into_iter().map(|lease| v1::Lease { sequence: lease.sequence, token: lease.token }).collect()
}
