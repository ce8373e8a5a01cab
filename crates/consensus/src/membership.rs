//! Changes of who belongs to a group, and of who leads it.
//!
//! Each call brings the group closer to what it asks for, from wherever it stands, so that one that was interrupted is
//! completed by repeating it. Voters change by joint consensus: at no time can two majorities exist that do not overlap.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{ChangeMembers, Instant as _};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::group::Group;
use crate::leadership::{Leadership, Tenure};
use crate::types::{NodeAddress, NodeId, Raft, TypeConfig};

/// Longest wait for a change to be committed.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a majority may take to be heard of: a new leader has heard of nobody yet.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a node that lost its vote may take to hear of it, before it is not told anything any more.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(2);
/// How often something awaited is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

type Changes = ChangeMembers<NodeId, NodeAddress>;

/// Why the membership was not changed as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MembershipError {
    /// Only the leader can change anything.
    #[error("this node is not the leader")]
    NotLeader,
    /// One change at a time.
    #[error("another change of the membership is under way")]
    InProgress,
    /// It may not run, or not be reached, or have much to copy.
    #[error(
        "node {node_id} at {address} has not caught up within {waited:?}: it must run, with this node id, and be reached \
         at that address. It stays a learner; repeat the call to go on, or remove it"
    )]
    NotCaughtUp {
        /// The learner.
        node_id: NodeId,
        /// Its peer address.
        address: String,
        /// For how long.
        waited: Duration,
    },
    /// The group could not commit anything with these voters.
    #[error("of the voters {voters:?} only {answering:?} answer, which is no majority: nothing was changed")]
    NoQuorum {
        /// Those that there are, or would be.
        voters: Vec<NodeId>,
        /// Those of them that answer.
        answering: Vec<NodeId>,
    },
    /// There would be no group left.
    #[error("node {0} is the last voter")]
    LastVoter(NodeId),
    /// Two nodes cannot be reached at one address.
    #[error("the address {address} belongs to node {node_id}")]
    AddressTaken {
        /// Whose it is.
        node_id: NodeId,
        /// The address.
        address: String,
    },
    /// It cannot lead a group that it does not belong to.
    #[error("node {0} is no member")]
    NotMember(NodeId),
    /// A learner does not lead.
    #[error("node {0} has no vote")]
    NotVoter(NodeId),
    /// Nobody else can lead.
    #[error("{}", no_successor(*.0))]
    NoSuccessor(Option<NodeId>),
    /// The leader was to be removed, and another node leads now.
    #[error("node {from} led, and handed over to node {to} in order to be removed: repeat the call")]
    HandedOver {
        /// It is still a member.
        from: NodeId,
        /// Who leads now.
        to: NodeId,
    },
    /// The successor did not take over.
    #[error("{} has not taken over", .0.map_or("another voter".to_owned(), |node_id| format!("node {node_id}")))]
    NotTakenOver(Option<NodeId>),
    /// It was not committed in time, or the leadership ended meanwhile. It may be committed yet.
    #[error("the outcome of the change is unknown: {0}")]
    Unknown(String),
    /// openraft refused.
    #[error("the change was refused: {0}")]
    Refused(String),
}

fn no_successor(wanted: Option<NodeId>) -> String {
    match wanted {
        Some(node_id) => format!("node {node_id} does not answer, or lags too far behind to lead"),
        None => "there is no other voter that answers and is not too far behind to lead".to_owned(),
    }
}

impl Group {
    /// Makes a node a voter with this address, which it gets when it has caught up. False if it was one before.
    pub async fn add_member(
        &self,
        node_id: NodeId,
        address: NodeAddress,
        catch_up_timeout: Duration,
    ) -> Result<bool, MembershipError> {
        let members = self.members()?;
        members.check_addresses(node_id, &address)?;
        let known = members.nodes.get(&node_id);
        if known == Some(&address) && members.is_settled() && members.is_voter(node_id) {
            return Ok(false);
        }
        if known.is_some_and(|known| *known != address) {
            if node_id == self.node_id {
                self.await_quorum(&members.voters).await?;
                return self.change(ChangeMembers::SetNodes([(node_id, address)].into()), true).await.map(|()| true);
            }
            // openraft goes on sending to the address that it began with. So the node leaves, and comes anew: it was not
            // reached where it was, and was of no use as a voter.
            tracing::info!(node_id, ?address, "member has another address");
            self.remove_member(node_id).await?;
        }
        tracing::info!(node_id, ?address, "adding member");
        self.await_quorum(&members.voters).await?;
        self.change(ChangeMembers::AddNodes([(node_id, address.clone())].into()), true).await?;
        if !self.until(catch_up_timeout, |members| members.is_caught_up(node_id)).await? {
            return Err(MembershipError::NotCaughtUp { node_id, address: address.peer, waited: catch_up_timeout });
        }
        let voters: BTreeSet<NodeId> = self.members()?.voters.into_iter().chain([node_id]).collect();
        self.await_quorum(&voters).await?;
        self.change(ChangeMembers::AddVoterIds([node_id].into()), true).await?;
        tracing::info!(node_id, "member added");
        Ok(true)
    }

    /// Takes a node's vote away, and then its membership. False if it was no member. This node hands over first if it is
    /// the one to go, which is an error that says so.
    pub async fn remove_member(&self, node_id: NodeId) -> Result<bool, MembershipError> {
        let members = self.members()?;
        if !members.nodes.contains_key(&node_id) {
            return Ok(false);
        }
        tracing::info!(node_id, "removing member");
        if members.is_voter(node_id) {
            let remaining: BTreeSet<NodeId> = members.voters.iter().copied().filter(|id| *id != node_id).collect();
            if remaining.is_empty() {
                return Err(MembershipError::LastVoter(node_id));
            }
            // Of the voters before, too: they must agree.
            self.await_quorum(&members.voters).await?;
            self.await_quorum(&remaining).await?;
            if node_id == self.node_id {
                let to = self.hand_over(None).await?;
                return Err(MembershipError::HandedOver { from: node_id, to });
            }
            // It stays a learner for a moment, and so hears that it has no vote, and does not stand for election.
            self.change(ChangeMembers::RemoveVoters([node_id].into()), true).await?;
        }
        // Most likely it does not run.
        let _ = self.until(FAREWELL_TIMEOUT, |members| members.knows_membership(node_id)).await?;
        self.change(ChangeMembers::RemoveNodes([node_id].into()), true).await?;
        tracing::info!(node_id, "member removed");
        Ok(true)
    }

    /// Lets another voter lead: this one, or the one that is furthest. With `from`, only if that node leads. Answers who
    /// leads now.
    pub async fn transfer_leader(&self, to: Option<NodeId>, from: Option<NodeId>) -> Result<NodeId, MembershipError> {
        let members = self.members()?;
        if let Some(to) = to {
            if !members.nodes.contains_key(&to) {
                return Err(MembershipError::NotMember(to));
            }
            if !members.is_voter(to) {
                return Err(MembershipError::NotVoter(to));
            }
        }
        if to == Some(self.node_id) || from.is_some_and(|from| from != self.node_id) {
            return Ok(self.node_id);
        }
        let leader = self.hand_over(to).await?;
        match to {
            Some(wanted) if wanted != leader => Err(MembershipError::NotTakenOver(to)),
            _ => Ok(leader),
        }
    }

    /// Ends this node's leadership in favour of another voter. Answers who leads now.
    async fn hand_over(&self, to: Option<NodeId>) -> Result<NodeId, MembershipError> {
        let group = self.clone();
        // Once begun it must end with another leader, also if nobody waits for it: this one takes no more commands.
        let yielding = tokio::spawn(async move { group.yield_leadership(to, ANSWER_TIMEOUT).await });
        match tokio::time::timeout(ANSWER_TIMEOUT + self.succession_timeout() * 3, yielding).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => Err(MembershipError::Unknown(error.to_string())),
            Err(_) => Err(MembershipError::NotTakenOver(to)),
        }
    }

    /// Commits a change. It goes on when nobody waits for it any more.
    async fn change(&self, change: Changes, retain: bool) -> Result<(), MembershipError> {
        let mut tenure = Tenure::current(&self.leadership);
        let raft = self.raft.clone();
        let changing = tokio::spawn(async move { raft.change_membership(change, retain).await });
        tokio::select! {
            biased;
            changed = changing => match changed {
                Ok(outcome) => outcome.map(drop).map_err(refusal),
                Err(error) => Err(MembershipError::Unknown(error.to_string())),
            },
            () = tenure.ended() => Err(MembershipError::Unknown("the leadership ended meanwhile".into())),
            () = tokio::time::sleep(COMMIT_TIMEOUT) => {
                Err(MembershipError::Unknown(format!("it was not committed within {COMMIT_TIMEOUT:?}")))
            }
        }
    }

    /// Waits until a majority of these answers: without one nothing would be committed any more.
    async fn await_quorum(&self, voters: &BTreeSet<NodeId>) -> Result<(), MembershipError> {
        let is_majority = |answering: usize| answering * 2 > voters.len();
        let answer = |members: &Members| voters.iter().copied().filter(|voter| members.answers(*voter)).collect();
        let mut answering: Vec<NodeId> = Vec::new();
        let found = self.until(ANSWER_TIMEOUT, |members| {
            answering = answer(members);
            is_majority(answering.len())
        });
        if found.await? {
            return Ok(());
        }
        Err(MembershipError::NoQuorum { voters: voters.iter().copied().collect(), answering })
    }

    /// Polls until it is so, or time is up: then false. An error if this node leads no more.
    async fn until(&self, timeout: Duration, mut is_so: impl FnMut(&Members) -> bool) -> Result<bool, MembershipError> {
        let deadline = Instant::now() + timeout;
        loop {
            if is_so(&self.members()?) {
                return Ok(true);
            }
            if Instant::now() >= deadline {
                return Ok(false);
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// The members as the leader sees them; an error if this node does not lead.
    pub(crate) fn members(&self) -> Result<Members, MembershipError> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let (Some(heartbeats), Some(replication)) = (&metrics.heartbeat, &metrics.replication) else {
            return Err(MembershipError::NotLeader);
        };
        let config = self.raft.config();
        // Some heartbeats may be late or lost.
        let patience = Duration::from_millis(config.election_timeout_max * 2);
        let heard = |at: &Option<openraft::type_config::alias::SerdeInstantOf<TypeConfig>>| {
            at.as_ref().is_some_and(|at| at.elapsed() <= patience)
        };
        let membership = &metrics.membership_config;
        Ok(Members {
            own_id: self.node_id,
            nodes: membership.nodes().map(|(id, address)| (*id, address.clone())).collect(),
            // While voters change, those that will be.
            voters: membership.get_joint_config().last().cloned().unwrap_or_default(),
            all_voters: membership.voter_ids().collect(),
            is_joint: membership.get_joint_config().len() > 1,
            is_committed: metrics.committed_membership_config.log_id() == membership.log_id(),
            membership_index: membership.log_id().map_or(0, |log_id| log_id.index),
            last_index: metrics.last_log_index.unwrap_or(0),
            lag_max: config.replication_lag_threshold,
            answering: heartbeats.iter().filter(|(_, at)| heard(at)).map(|(id, _)| *id).collect(),
            matched: replication.iter().map(|(id, at)| (*id, at.map_or(0, |at| at.index))).collect(),
        })
    }
}

/// Completes a change of voters that a former leader did not live to complete. Runs until the node stops.
pub(crate) async fn complete_changes(raft: Raft, mut leadership: watch::Receiver<Leadership>) {
    loop {
        let leads = leadership.borrow_and_update().is_local;
        if leads && is_joint(&raft) {
            // No change of the voters, but the second step of the one that is under way.
            match raft.change_membership(ChangeMembers::AddVoterIds(BTreeSet::new()), true).await {
                Ok(_) => tracing::info!("completed a change of the voters that a former leader began"),
                Err(error) => {
                    tracing::debug!(%error, "a change of the voters is not completed yet");
                    tokio::time::sleep(POLL_INTERVAL).await;
                    continue;
                }
            }
        }
        if leadership.changed().await.is_err() {
            return;
        }
    }
}

fn is_joint(raft: &Raft) -> bool {
    raft.metrics().borrow_watched().membership_config.get_joint_config().len() > 1
}

/// The members, as their leader sees them.
#[derive(Debug)]
pub(crate) struct Members {
    own_id: NodeId,
    nodes: BTreeMap<NodeId, NodeAddress>,
    /// Those that will be, while they change.
    pub(crate) voters: BTreeSet<NodeId>,
    /// And those that were.
    all_voters: BTreeSet<NodeId>,
    is_joint: bool,
    is_committed: bool,
    membership_index: u64,
    last_index: u64,
    lag_max: u64,
    /// Others that were heard of lately.
    answering: BTreeSet<NodeId>,
    /// How far others have the log.
    matched: BTreeMap<NodeId, u64>,
}

impl Members {
    /// No change is under way.
    fn is_settled(&self) -> bool {
        !self.is_joint && self.is_committed
    }

    fn is_voter(&self, node_id: NodeId) -> bool {
        self.all_voters.contains(&node_id)
    }

    fn answers(&self, node_id: NodeId) -> bool {
        node_id == self.own_id || self.answering.contains(&node_id)
    }

    fn matched(&self, node_id: NodeId) -> u64 {
        self.matched.get(&node_id).copied().unwrap_or(0)
    }

    fn is_caught_up(&self, node_id: NodeId) -> bool {
        let is_near = self.last_index.saturating_sub(self.matched(node_id)) <= self.lag_max;
        // A small log is near from the beginning: it must have begun.
        node_id == self.own_id || (self.answers(node_id) && is_near && self.matched(node_id) > 0)
    }

    fn knows_membership(&self, node_id: NodeId) -> bool {
        self.matched(node_id) >= self.membership_index
    }

    /// Who may lead next, best first.
    pub(crate) fn successors(&self, leader: NodeId, wanted: Option<NodeId>) -> Vec<NodeId> {
        let mut fit: Vec<NodeId> = self.voters.iter().copied().filter(|voter| *voter != leader).collect();
        fit.retain(|voter| self.is_caught_up(*voter));
        if wanted.is_some_and(|wanted| !fit.contains(&wanted)) {
            return Vec::new();
        }
        fit.sort_by_key(|voter| (Some(*voter) != wanted, std::cmp::Reverse(self.matched(*voter))));
        fit
    }

    fn check_addresses(&self, node_id: NodeId, address: &NodeAddress) -> Result<(), MembershipError> {
        for (other, known) in self.nodes.iter().filter(|(other, _)| **other != node_id) {
            for (taken, wanted) in [(&known.peer, &address.peer), (&known.client, &address.client)] {
                if taken == wanted {
                    return Err(MembershipError::AddressTaken { node_id: *other, address: wanted.clone() });
                }
            }
        }
        Ok(())
    }
}

fn refusal(error: RaftError<TypeConfig, ClientWriteError<TypeConfig>>) -> MembershipError {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => MembershipError::NotLeader,
        RaftError::APIError(ClientWriteError::ChangeMembershipError(
            ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_),
        )) => MembershipError::InProgress,
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => {
            MembershipError::Refused(error.to_string())
        }
        error => MembershipError::Unknown(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u64) -> NodeAddress {
        NodeAddress { peer: format!("peer:{number}"), client: format!("client:{number}") }
    }

    /// Node 1 leads 2 and 3, of which 2 lags a little; 4 is a learner that was not heard of.
    fn members() -> Members {
        Members {
            own_id: 1,
            nodes: (1..=4).map(|id| (id, address(id))).collect(),
            voters: [1, 2, 3].into(),
            all_voters: [1, 2, 3].into(),
            is_joint: false,
            is_committed: true,
            membership_index: 90,
            last_index: 100,
            lag_max: 50,
            answering: [2, 3].into(),
            matched: [(1, 100), (2, 80), (3, 95), (4, 0)].into(),
        }
    }

    #[test]
    fn the_voter_that_is_furthest_comes_first_unless_another_one_is_wanted() {
        assert_eq!(members().successors(1, None), [3, 2]);
        assert_eq!(members().successors(1, Some(2)), [2, 3]);
        assert_eq!(members().successors(1, Some(4)), []);
        let silent = Members { answering: [2].into(), ..members() };
        assert_eq!(silent.successors(1, None), [2]);
        assert_eq!(silent.successors(1, Some(3)), []);
        let lagging = Members { last_index: 200, ..members() };
        assert_eq!(lagging.successors(1, None), []);
    }

    #[test]
    fn a_learner_is_caught_up_when_it_answers_and_is_near() {
        assert!(members().is_caught_up(2) && !members().is_caught_up(4));
        let begun = Members { answering: [4].into(), matched: [(4, 60)].into(), ..members() };
        assert!(begun.is_caught_up(4));
        assert!(!Members { matched: [].into(), last_index: 3, ..begun }.is_caught_up(4));
        assert!(members().knows_membership(3) && !members().knows_membership(2));
    }

    #[test]
    fn an_address_belongs_to_one_node() {
        assert_eq!(members().check_addresses(2, &address(2)), Ok(()));
        assert_eq!(members().check_addresses(2, &address(5)), Ok(()));
        let taken = NodeAddress { peer: "peer:3".into(), client: "client:5".into() };
        let error = members().check_addresses(5, &taken).unwrap_err();
        assert_eq!(error.to_string(), "the address peer:3 belongs to node 3");
    }
}
