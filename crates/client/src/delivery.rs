//! A message that is leased to this client.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use dwell_proto::v1;
use opentelemetry::trace::SpanContext;

use crate::consumer::Link;
use crate::error::Error;
use crate::message::milliseconds;
use crate::settle::{Settlement, UnarySettler};
use crate::trace;

/// One message leased to this client, until it is acknowledged or returned, or its lease times out.
///
/// Dropping it unsettled leaves the lease to its timeout: the message is then delivered again, to anybody.
#[derive(Debug)]
#[non_exhaustive]
pub struct Delivery {
    /// Names the message.
    pub handle: v1::Handle,
    /// The lease token.
    pub token: u64,
    /// The message as it was published.
    pub message: v1::Message,
    /// How often it was delivered before and came back: 0 on the first delivery.
    pub delivery_count: u32,
    /// When the publish was committed, in ms since the Unix epoch by the leader's clock.
    pub published_at_ms: i64,
    /// When it became, or should have become, ready: its due time if it was delayed.
    pub ready_at_ms: i64,
    /// When the lease times out, unless extended.
    pub lease_deadline_ms: i64,
    /// The exchange that it was published to; empty: the default one.
    pub exchange: String,
    /// The key that it was published with; with the default exchange, the queue's name.
    pub routing_key: String,
    /// Its ordering group; empty: none.
    pub group: String,
    /// How it came to be a dead letter, the newest first.
    pub deaths: Vec<v1::Death>,
    /// When this client took it from the network, by this machine's clock.
    pub received_at: SystemTime,
    lease: HeldLease,
}

#[derive(Debug)]
enum HeldLease {
    /// Settled over the consumer's stream, or by single calls once that is gone.
    Consumed { link: Arc<Link>, lease: v1::Lease },
    /// Settled by single calls.
    Received { settler: UnarySettler, lease: v1::Lease },
}

impl Drop for HeldLease {
    fn drop(&mut self) {
        if let HeldLease::Consumed { link, lease } = self {
            link.forget(lease);
        }
    }
}

impl Delivery {
    pub(crate) fn received(delivery: v1::Delivery, settler: UnarySettler) -> Delivery {
        let lease = lease_of(&delivery);
        Delivery::new(delivery, SystemTime::now(), HeldLease::Received { settler, lease })
    }

    pub(crate) fn consumed(delivery: v1::Delivery, received_at: SystemTime, link: Arc<Link>) -> Delivery {
        let lease = lease_of(&delivery);
        Delivery::new(delivery, received_at, HeldLease::Consumed { link, lease })
    }

    fn new(delivery: v1::Delivery, received_at: SystemTime, lease: HeldLease) -> Delivery {
        Delivery {
            handle: delivery.handle.unwrap_or_default(),
            token: delivery.token,
            message: delivery.message.unwrap_or_default(),
            delivery_count: delivery.delivery_count,
            published_at_ms: delivery.published_at_ms,
            ready_at_ms: delivery.ready_at_ms,
            lease_deadline_ms: delivery.lease_deadline_ms,
            exchange: delivery.exchange,
            routing_key: delivery.routing_key,
            group: delivery.group,
            deaths: delivery.deaths,
            received_at,
            lease,
        }
    }

    /// The span that the message was published in, for the consumer's own span to be linked to, or to be a child of. None
    /// if the message carries no trace context (W3C, in its headers), or a malformed one.
    ///
    /// ```
    /// # fn process(delivery: &dwell_client::Delivery, tracer: &impl opentelemetry::trace::Tracer) {
    /// use opentelemetry::trace::{Link, SpanKind};
    ///
    /// let origin = delivery.span_context().into_iter().map(Link::with_context).collect();
    /// let span = tracer.span_builder("process reminders").with_kind(SpanKind::Consumer).with_links(origin).start(tracer);
    /// # }
    /// ```
    pub fn span_context(&self) -> Option<SpanContext> {
        trace::span_context(&self.message.headers)
    }

    /// Acknowledges the message: it is gone, and nobody sees it again.
    ///
    /// Errors: [`Error::LeaseLost`] if the lease was not held any more; [`Error::Unknown`] if the connection
    /// broke before the answer came, and the repetition found the lease gone: then either this
    /// acknowledgement took effect or the lease timed out, and the message may come again; [`Error::Timeout`].
    pub async fn ack(&self) -> Result<(), Error> {
        self.settle(Settlement::Ack).await
    }

    /// Returns the message to the queue, to be tried again: after `delay`; with a delay of zero at once, to its old
    /// position; without one after the queue's backoff, or at once if it has none. Past the queue's delivery limit
    /// it is a dead letter. Errors: as [`Delivery::ack`].
    pub async fn nack(&self, delay: Option<Duration>) -> Result<(), Error> {
        self.settle(Settlement::Nack { delay_ms: delay.map(milliseconds) }).await
    }

    /// Gives the message up: it becomes a dead letter, or is dropped if its queue has nowhere to send them.
    /// Errors: as [`Delivery::ack`].
    pub async fn reject(&self) -> Result<(), Error> {
        self.settle(Settlement::Reject).await
    }

    /// Moves the end of the lease to `lease_timeout` from now; zero means the queue's lease timeout. At most
    /// 24 h. Errors: [`Error::LeaseLost`]; [`Error::Timeout`].
    pub async fn extend(&self, lease_timeout: Duration) -> Result<(), Error> {
        self.settle(Settlement::Extend { lease_timeout_ms: milliseconds(lease_timeout) }).await
    }

    /// What to settle it with.
    pub(crate) fn lease(&self) -> v1::Lease {
        v1::Lease { sequence: self.handle.sequence, token: self.token }
    }

    async fn settle(&self, settlement: Settlement) -> Result<(), Error> {
        match &self.lease {
            HeldLease::Consumed { link, lease } => link.settle(*lease, settlement).await,
            HeldLease::Received { settler, lease } => settler.settle(*lease, settlement, false).await,
        }
    }
}

/// The lease that a delivery brings.
pub(crate) fn lease_of(delivery: &v1::Delivery) -> v1::Lease {
    let sequence = delivery.handle.as_ref().map_or(0, |handle| handle.sequence);
    v1::Lease { sequence, token: delivery.token }
}
