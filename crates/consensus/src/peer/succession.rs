//! Replaces a leader whose process has died, at once.
//!
//! A process that is killed breaks its connections, and its system refuses new ones. A follower whose append
//! stream breaks, or that hears nothing for a few heartbeats, therefore looks: if the leader's address refuses,
//! nobody is there to lead, and waiting out the election timeout would only add to the outage. If it accepts,
//! nothing is done: silence decides.
//!
//! Voters refuse to vote while their leader's lease lasts, except in a transfer of leadership. So the follower
//! hands the leadership to itself, in the dead leader's name: openraft ends this node's lease, raises the term
//! and asks for votes as in any transfer, which the other voters grant in spite of their leases, whether or
//! not they noticed anything themselves.
//!
//! # To ensure correctness
//!
//! Elections keep all of Raft's rules: a majority of votes, each for a log not older than the voter's own. Only
//! the lease is set aside, and nothing here rests on leases: reads are confirmed by a majority (ReadIndex). If
//! the probe were wrong and the leader alive, it would be deposed, as by any other election, and nothing lost.

use std::sync::Arc;
use std::time::Duration;

use dwell_transport::Transport;
use openraft::async_runtime::WatchReceiver;
use openraft::raft::TransferLeaderRequest;
use parking_lot::Mutex;
use prometheus::IntCounter;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep, sleep_until};

use super::probe::{Verdict, probe};
use crate::recovery::RecoveryGate;
use crate::types::{NodeId, Raft, Vote};

/// How long the follower of the next rank waits for the one before it: for an election on a LAN, with an fsync
/// on a slow disk.
const RANK_DELAY: Duration = Duration::from_millis(60);

/// Heartbeats that are missed before the leader is looked at, its streams having ended in good order. Only a
/// look: a leader that is merely slow loses nothing by it.
const HEARTBEATS_MISSED: u32 = 3;

/// Watches over one group's leader; cheap to clone.
#[derive(Clone)]
pub(super) struct Succession {
    raft: Raft,
    node: NodeId,
    dead_leaders: IntCounter,
    transport: Arc<dyn Transport>,
    gate: RecoveryGate,
    watch: Arc<Mutex<Watch>>,
}

struct Watch {
    /// When a leader was last heard of.
    heard: Instant,
    /// Somebody waits for its silence.
    waiting: bool,
    /// The leader that is being looked at. Its streams all break together; one look is enough.
    looking: Option<Vote>,
}

/// A leader that may be dead, and where to look for it.
#[derive(Debug)]
struct Suspect {
    vote: Vote,
    address: String,
    /// Voters before this node in the line of succession.
    rank: u32,
}

impl Succession {
    pub(super) fn new(
        raft: Raft,
        node: NodeId,
        dead_leaders: IntCounter,
        transport: Arc<dyn Transport>,
        gate: RecoveryGate,
    ) -> Self {
        let watch = Watch { heard: Instant::now(), waiting: false, looking: None };
        Self { raft, node, dead_leaders, transport, gate, watch: Arc::new(Mutex::new(watch)) }
    }

    /// A leader said something. Returns at once.
    pub(super) fn heard(&self) {
        let mut watch = self.watch.lock();
        watch.heard = Instant::now();
        if !watch.waiting
            && let Ok(runtime) = Handle::try_current()
        {
            watch.waiting = true;
            runtime.spawn(self.clone().wait_for_silence());
        }
    }

    /// An append stream from `from` ended, and not by its sender's wish. Returns at once.
    pub(super) fn stream_broke(&self, from: NodeId) {
        // Without a runtime this process is at its own end, and has nothing to succeed to.
        let Ok(runtime) = Handle::try_current() else { return };
        if let Some(suspect) = self.suspect().filter(|suspect| suspect.vote.leader_id.node_id == from) {
            let succession = self.clone();
            runtime.spawn(async move { succession.look(suspect).await });
        }
    }

    /// Looks at a leader that is silent, as long as this node follows one.
    async fn wait_for_silence(self) {
        let patience = Duration::from_millis(self.raft.config().heartbeat_interval) * HEARTBEATS_MISSED;
        loop {
            let heard = self.watch.lock().heard;
            if heard.elapsed() < patience {
                sleep_until(heard + patience).await;
                continue;
            }
            let Some(suspect) = self.suspect() else {
                // Started again when the next leader is heard of.
                self.watch.lock().waiting = false;
                return;
            };
            self.look(suspect).await;
            sleep(patience).await;
        }
    }

    /// The leader that this node follows, if it may succeed to it.
    fn suspect(&self) -> Option<Suspect> {
        let metrics = self.raft.server_metrics().borrow_watched().clone();
        let vote = metrics.vote;
        let leader = vote.leader_id.node_id;
        // A node that recovers must not lead.
        if !vote.committed || leader == self.node || self.gate.is_recovering() {
            return None;
        }
        let rank = rank(metrics.membership_config.voter_ids(), leader, self.node)?;
        let address = metrics.membership_config.get_node(&leader)?.peer.clone();
        Some(Suspect { vote, address, rank })
    }

    async fn look(&self, suspect: Suspect) {
        let vote = suspect.vote;
        if self.watch.lock().looking.replace(vote) == Some(vote) {
            return;
        }
        if probe(&*self.transport, &suspect.address).await == Verdict::Dead {
            self.succeed(suspect).await;
        } else {
            tracing::info!(?suspect, "nothing is heard of the leader, but it is not dead");
        }
        let mut watch = self.watch.lock();
        // Its successor may have died since, and be looked at.
        if watch.looking == Some(vote) {
            watch.looking = None;
        }
    }

    async fn succeed(&self, suspect: Suspect) {
        self.dead_leaders.inc();
        sleep(RANK_DELAY * suspect.rank).await;
        tracing::info!(?suspect, "the leader is dead: taking over, unless another node has");
        // openraft compares the vote: if a candidate or a leader was seen meanwhile, nothing happens.
        let takeover = TransferLeaderRequest::new(suspect.vote, self.node, None);
        match self.raft.handle_transfer_leader(takeover).await {
            Ok(Ok(())) => {}
            Ok(Err(refusal)) => tracing::info!(%refusal, "not taking over"),
            Err(fatal) => tracing::warn!(%fatal, "not taking over, the group has stopped"),
        }
    }
}

/// How many voters besides the leader stand before `node` in the line. None: it does not stand in the line.
///
/// The line is in the order of the ids because votes of one term are ordered by id too: if the first in line
/// cannot win, its log being older, the next one's vote is higher than its own, and it grants it.
fn rank(voters: impl Iterator<Item = NodeId>, leader: NodeId, node: NodeId) -> Option<u32> {
    let mut rank = 0;
    let mut is_voter = false;
    for voter in voters.filter(|voter| *voter != leader) {
        is_voter |= voter == node;
        rank += u32::from(voter < node);
    }
    is_voter.then_some(rank)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_succession_is_that_of_the_ids_without_the_leader() {
        let rank_of = |leader, node| rank([1, 2, 3].into_iter(), leader, node);
        assert_eq!((rank_of(1, 2), rank_of(1, 3)), (Some(0), Some(1)));
        assert_eq!((rank_of(2, 1), rank_of(2, 3)), (Some(0), Some(1)));
        assert_eq!((rank_of(3, 1), rank_of(3, 2)), (Some(0), Some(1)));
    }

    #[test]
    fn a_node_without_a_vote_is_not_in_line() {
        assert_eq!(rank([1, 2, 3].into_iter(), 1, 4), None);
        assert_eq!(rank([].into_iter(), 1, 2), None);
    }

    #[test]
    fn a_leader_is_not_in_its_own_line() {
        assert_eq!(rank([1, 2, 3].into_iter(), 2, 2), None);
    }
}
