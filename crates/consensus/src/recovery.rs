//! A node that begins again with empty stores, after its files were found damaged.
//!
//! It may have acknowledged entries that were committed by its word, and does not have them any more. Its vote could
//! make a leader of a node that does not have them either. So while it recovers it neither votes nor stands for
//! election; it takes entries and snapshots, and acknowledges what it has of them. It has its vote still (see
//! [`dwell_storage::log::Log::put_vote`]), so it takes nothing from a leader older than those that it has followed.
//!
//! # To ensure correctness
//!
//! Let `e` be an entry that this node acknowledged before, and that is committed, or will be by that word. This node
//! acknowledged it in a term not later than its vote. A leader of its vote's term or a later one has `e`: either it
//! proposed `e` itself, before this node acknowledged it, or it was elected by a majority, in which some voter had
//! acknowledged `e` before it voted, and had it still, since who has lost anything does not vote. So the end of that
//! leader's log, asked for after this node began anew, is not before `e`, and a node that has applied everything up
//! to there has `e` again: what is applied is committed, and in all later leaders' logs.
//!
//! That holds while at most a minority is damaged at a time. If more are, no majority votes, and the group waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dwell_proto::peer as wire;
use openraft::async_runtime::WatchReceiver;

use crate::peer::{PeerLinks, position_of};
use crate::types::{GroupId, LogId, NodeId, Raft, Vote};

/// How often the leader is looked for, and the own progress looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Whether a node recovers; cheap to clone, shared by all that must not vote meanwhile.
#[derive(Debug, Clone, Default)]
pub struct RecoveryGate {
    recovering: Arc<AtomicBool>,
}

impl RecoveryGate {
    /// Of a node that recovers. The default is one that does not.
    pub fn recovering() -> RecoveryGate {
        RecoveryGate { recovering: Arc::new(AtomicBool::new(true)) }
    }

    /// True while it recovers.
    pub fn is_recovering(&self) -> bool {
        self.recovering.load(Ordering::Acquire)
    }

    /// Lets the node vote, and stand for election. Not before that it may is on disk.
    pub fn end(&self, raft: &Raft) {
        self.recovering.store(false, Ordering::Release);
        raft.runtime_config().elect(true);
    }
}

/// What a recovering node must reach, and under which leader it learned so.
#[derive(Debug, Clone, Copy)]
struct Goal {
    leader: Vote,
    index: u64,
}

/// Waits until this node holds again all that it can have acknowledged: until it has applied everything that the
/// leader's log held when it was asked.
pub async fn caught_up(raft: &Raft, links: &PeerLinks, group: GroupId, node: NodeId) {
    let mut goal: Option<Goal> = None;
    loop {
        let (vote, applied, leader_address) = {
            let metrics = raft.metrics();
            let metrics = metrics.borrow_watched();
            let leader = metrics.vote.leader_id.node_id;
            let address = metrics.membership_config.get_node(&leader).map(|address| address.peer.clone());
            (metrics.vote, metrics.last_applied, address)
        };
        // Another leader than the one that was asked: its log may go further, so it is asked anew.
        if goal.is_some_and(|goal| goal.leader != vote) {
            goal = None;
        }
        let is_led = vote.committed && vote.leader_id.node_id != node;
        if goal.is_none()
            && is_led
            && let Some(address) = leader_address
        {
            let route = wire::Route {
                group_id: group,
                from_node_id: node,
                to_node_id: vote.leader_id.node_id,
                ..wire::Route::default()
            };
            match position_of(links, &address, route).await {
                Ok((leader, last)) if leader == vote => {
                    let index = last.map_or(0, |last| last.index);
                    tracing::info!(
                        leader = vote.leader_id.node_id,
                        term = vote.leader_id.term,
                        index,
                        "recovering up to here"
                    );
                    goal = Some(Goal { leader, index });
                }
                Ok((leader, _)) => tracing::debug!(%leader, %vote, "the leader has changed meanwhile"),
                Err(status) => tracing::debug!(%status, "the leader did not say where its log ends"),
            }
        }
        if goal.is_some_and(|goal| is_reached(goal, applied)) {
            return;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

fn is_reached(goal: Goal, applied: Option<LogId>) -> bool {
    applied.is_some_and(|applied| applied.index >= goal.index)
}
