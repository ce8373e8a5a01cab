//! How a leader gives the leadership to another voter: before it stops, so that nobody has to notice its silence; before it
//! is removed; or because an operator wants another node to lead.

use std::time::Duration;

use tokio::time::Instant;

use crate::group::Group;
use crate::leadership::Leadership;
use crate::membership::MembershipError;
use crate::types::NodeId;

/// How long a leader that is about to stop, and has heard of nobody yet, waits for a voter that it could hand over to.
const NEW_LEADER_PATIENCE: Duration = Duration::from_millis(500);
/// How often that is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

impl Group {
    /// Ends this node's leadership, if it leads, in favour of the voter whose log is furthest. Answers who leads
    /// now; none if this node did not lead.
    ///
    /// [`MembershipError::NoSuccessor`] comes at once if this node is the only voter, and soon if no other one answers.
    /// Has no limit of its own. What was begun when it is dropped may come about all the same.
    pub async fn resign(&self) -> Result<Option<NodeId>, MembershipError> {
        if matches!(self.members(), Err(MembershipError::NotLeader)) {
            return Ok(None);
        }
        match self.yield_leadership(None, NEW_LEADER_PATIENCE).await {
            Ok(leader) => Ok(Some(leader)),
            // It was deposed meanwhile, and nobody leads yet.
            Err(MembershipError::NotLeader) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Lets another voter lead: the `wanted` one, or the one whose log is furthest. Answers who leads now.
    ///
    /// One that answers, within `answer_timeout`, and does not take over is asked again, or another one is: there is no limit
    /// to that, since a leader that has begun to hand over takes no commands until somebody leads.
    pub(crate) async fn yield_leadership(
        &self,
        wanted: Option<NodeId>,
        answer_timeout: Duration,
    ) -> Result<NodeId, MembershipError> {
        let begun = Instant::now();
        let mut attempts = 0;
        loop {
            let members = match self.members() {
                Err(MembershipError::NotLeader) => return self.other_leader().ok_or(MembershipError::NotLeader),
                members => members?,
            };
            let successors = members.successors(self.node_id, wanted);
            if successors.is_empty() {
                if members.voters.len() < 2 || attempts > 0 || begun.elapsed() >= answer_timeout {
                    return Err(MembershipError::NoSuccessor(wanted));
                }
                tokio::time::sleep(POLL_INTERVAL).await;
                continue;
            }
            let successor = successors[attempts % successors.len()];
            attempts += 1;
            tracing::info!(successor, "handing over the leadership");
            let triggered = self.raft.trigger().transfer_leader(successor).await;
            triggered.map_err(|error| MembershipError::Unknown(error.to_string()))?;
            let own_id = self.node_id;
            let is_other = |now: &Leadership| now.leader.as_ref().is_some_and(|(leader, _)| *leader != own_id);
            let mut leadership = self.leadership.clone();
            if let Ok(changed) = tokio::time::timeout(self.succession_timeout(), leadership.wait_for(is_other)).await {
                let changed = changed.map_err(|_| MembershipError::Unknown("the group has stopped".into()))?;
                return changed.leader.as_ref().map(|(leader, _)| *leader).ok_or(MembershipError::NotLeader);
            }
        }
    }

    /// How long a successor may take: it may wait for its log to be on disk for as long as an election, and needs some time
    /// to be elected.
    pub(crate) fn succession_timeout(&self) -> Duration {
        Duration::from_millis(self.raft.config().election_timeout_max * 2)
    }

    fn other_leader(&self) -> Option<NodeId> {
        let leadership = self.leadership.borrow();
        leadership.leader.as_ref().map(|(leader, _)| *leader).filter(|leader| *leader != self.node_id)
    }
}
