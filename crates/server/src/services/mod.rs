//! The client API, answered by the leader.

mod cluster;
mod consume;
mod deliveries;
mod messages;
mod publish_stream;
mod queues;
mod receive;

use std::sync::Arc;

use dwell_consensus::clock::Clock;
use dwell_consensus::group::{Consistency, Group};
use dwell_machine::{Command, Reply};
use dwell_proto::metadata;
use tonic::metadata::MetadataMap;

use crate::hub::Hub;
use crate::status::RequestError;
use crate::validate::Limits;

/// What every service works with; cheap to clone.
#[derive(Clone)]
pub struct Services {
    /// The namespace's group.
    pub group: Group,
    /// Where effects of applied entries arrive.
    pub hub: Arc<Hub>,
    /// For checking times.
    pub clock: Arc<dyn Clock>,
    /// What requests are checked against.
    pub limits: Limits,
}

impl Services {
    /// Commits a command; a refusal is an error.
    async fn propose(&self, command: Command) -> Result<Reply, RequestError> {
        accepted(self.group.proposer.propose(command).await?)
    }
}

/// Turns a refusal into an error.
fn accepted(reply: Reply) -> Result<Reply, RequestError> {
    match reply {
        Reply::Refused(refusal) => Err(refusal.into()),
        reply => Ok(reply),
    }
}

/// How current the caller wants its answer.
pub fn consistency(metadata: &MetadataMap) -> Consistency {
    match metadata.get(metadata::CONSISTENCY) {
        Some(value) if value == metadata::CONSISTENCY_STALE => Consistency::Stale,
        _ => Consistency::Linearizable,
    }
}
