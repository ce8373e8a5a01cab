//! The client API, answered by the leader.

mod cluster;
mod consume;
mod deliveries;
mod messages;
mod publish_stream;
mod queues;
mod receive;

use std::sync::Arc;
use std::time::Duration;

use dwell_consensus::clock::Clock;
use dwell_consensus::group::{Consistency, Group};
use dwell_consensus::leadership::Tenure;
use dwell_consensus::proposer::ProposeError;
use dwell_machine::{Command, Reply};
use dwell_proto::metadata;
use tonic::metadata::MetadataMap;

use crate::hub::Hub;
use crate::status::RequestError;
use crate::validate::Limits;

/// Longest wait for a command to be applied.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(10);

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
        accepted(self.commit(command).await?)
    }

    /// Commits a command. Gives up when the node's tenure ends, or after [`COMMIT_TIMEOUT`]: a leader that is
    /// cut off from the others keeps its proposals until it hears of another one.
    async fn commit(&self, command: Command) -> Result<Reply, RequestError> {
        let mut tenure = Tenure::current(&self.group.leadership);
        let reply = tokio::select! {
            biased;
            reply = self.group.proposer.propose(command) => reply,
            () = tenure.ended() => Err(ProposeError::Unknown("the leadership ended meanwhile".into())),
            () = tokio::time::sleep(COMMIT_TIMEOUT) => Err(ProposeError::Unknown("no majority answered".into())),
        };
        Ok(reply?)
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
