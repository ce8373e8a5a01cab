//! Ending or extending leases by single calls: for received messages, and for consumed ones whose consumer is
//! gone.

use std::sync::Arc;

use dwell_proto::v1;

use crate::call::{Core, Outcome, Policy};
use crate::client::messages;
use crate::error::Error;

/// What to do with a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Settlement {
    Ack,
    /// Without a delay: by the queue's backoff.
    Nack {
        delay_ms: Option<i64>,
    },
    Reject,
    Extend {
        lease_timeout_ms: i64,
    },
}

impl Settlement {
    /// What a lost lease means: `repeated` says that an earlier attempt may have ended it.
    pub(crate) fn lost(self, repeated: bool) -> Error {
        match self {
            Settlement::Ack | Settlement::Nack { .. } | Settlement::Reject if repeated => Error::Unknown(
                "the connection broke before the answer came, and the lease is gone: it was settled, or timed out"
                    .into(),
            ),
            // An extension leaves the lease in place, so that its loss has another cause.
            _ => Error::LeaseLost,
        }
    }
}

/// Settles leases of one queue.
#[derive(Debug, Clone)]
pub(crate) struct UnarySettler {
    core: Arc<Core>,
    queue: Arc<str>,
}

impl UnarySettler {
    pub(crate) fn new(core: Arc<Core>, queue: String) -> UnarySettler {
        UnarySettler { core, queue: queue.into() }
    }

    /// `repeated` says that an earlier attempt, by another way, may have taken effect.
    pub(crate) async fn settle(&self, lease: v1::Lease, settlement: Settlement, repeated: bool) -> Result<(), Error> {
        let outcome = match settlement {
            Settlement::Ack => self.ack(lease).await,
            Settlement::Nack { delay_ms } => self.nack(lease, delay_ms, false).await,
            Settlement::Reject => self.nack(lease, None, true).await,
            Settlement::Extend { lease_timeout_ms } => self.extend(lease, lease_timeout_ms).await,
        };
        if outcome.result?.is_empty() { Ok(()) } else { Err(settlement.lost(repeated || outcome.repeated)) }
    }

    async fn ack(&self, lease: v1::Lease) -> Outcome<Vec<v1::Lease>> {
        let queue = &self.queue;
        let outcome = self.core.call(Policy::WRITE, |channel| {
            let request = v1::AckRequest { namespace: String::new(), queue: queue.to_string(), leases: vec![lease] };
            async move { messages(channel).ack(request).await }
        });
        outcome.await.map(|response| response.lost)
    }

    async fn nack(&self, lease: v1::Lease, delay_ms: Option<i64>, reject: bool) -> Outcome<Vec<v1::Lease>> {
        let queue = &self.queue;
        let outcome = self.core.call(Policy::WRITE, |channel| {
            let queue = queue.to_string();
            let request = v1::NackRequest { namespace: String::new(), queue, leases: vec![lease], delay_ms, reject };
            async move { messages(channel).nack(request).await }
        });
        outcome.await.map(|response| response.lost)
    }

    async fn extend(&self, lease: v1::Lease, lease_timeout_ms: i64) -> Outcome<Vec<v1::Lease>> {
        let queue = &self.queue;
        let outcome = self.core.call(Policy::WRITE, |channel| {
            let queue = queue.to_string();
            let request = v1::ExtendRequest { namespace: String::new(), queue, leases: vec![lease], lease_timeout_ms };
            async move { messages(channel).extend(request).await }
        });
        outcome.await.map(|response| response.lost)
    }
}
