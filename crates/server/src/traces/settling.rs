//! Spans of settlements, of the sampled messages that this node has delivered itself.

use std::sync::Arc;
use std::time::SystemTime;

use dwell_machine::{Command, Lease};
use dwell_proto::v1;
use tonic::Status;

use super::delivering::Leased;
use super::span::{Operation, Span, message_id, outcome_unknown, own, refusal};
use super::{Tracer, Traces};

/// The sampled messages that a command settles. Dropped without an answer, they are told of as of unknown outcome.
pub struct Settling {
    tracer: Arc<Tracer>,
    started: SystemTime,
    operation: Operation,
    leases: Vec<(Lease, Leased)>,
}

impl Traces {
    /// Looks which messages a command settles are sampled. None if none is.
    pub fn settling(&self, command: &Command) -> Option<Box<Settling>> {
        let tracer = self.0.as_ref()?;
        let mut known = tracer.leases.lock();
        if known.is_empty() {
            return None;
        }
        let mut take = |leases: &[Lease]| -> Vec<(Lease, Leased)> {
            leases.iter().filter_map(|lease| known.take(lease).map(|leased| (*lease, leased))).collect()
        };
        let (operation, leases) = match command {
            Command::Ack(ack) => (Operation::Ack, take(&ack.leases)),
            Command::Nack(nack) if nack.reject => (Operation::Reject, take(&nack.leases)),
            Command::Nack(nack) => (Operation::Nack, take(&nack.leases)),
            Command::Transact(transact) => {
                (Operation::Ack, transact.acks.iter().flat_map(|ack| take(&ack.leases)).collect())
            }
            // An extended lease goes on.
            _ => return None,
        };
        if leases.is_empty() {
            return None;
        }
        Some(Box::new(Settling { tracer: tracer.clone(), started: SystemTime::now(), operation, leases }))
    }
}

impl Settling {
    /// The command is answered: by the leases that were not held any more, or refused as a whole.
    pub fn answered(mut self, answer: Result<&[v1::Lease], &Status>) {
        self.tell(|lease| match answer {
            Ok(lost) if lost.iter().any(|lost| lost.token == lease.token && lost.sequence == lease.sequence) => {
                Some(("lease_lost", "the lease was not held any more".to_owned()))
            }
            Ok(_) => None,
            Err(status) => Some(refusal(status)),
        });
    }

    fn tell(&mut self, problem: impl Fn(&Lease) -> Option<(&'static str, String)>) {
        let ended = SystemTime::now();
        for (lease, leased) in std::mem::take(&mut self.leases) {
            self.tracer.exporter.export(Span {
                parent: leased.message.clone(),
                operation: self.operation,
                attributes: vec![message_id(&leased.handle), own("attempt", leased.attempt)],
                destination: leased.handle.queue,
                started: self.started,
                ended,
                links: vec![leased.message, leased.delivery],
                error: problem(&lease),
            });
        }
    }
}

impl Drop for Settling {
    fn drop(&mut self) {
        self.tell(|_| Some(outcome_unknown()));
    }
}
