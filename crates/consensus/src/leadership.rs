//! Who leads, as this node sees it.

use std::time::Duration;

use tokio::sync::watch;

use crate::types::{NodeAddress, NodeId, Raft};

/// Who leads a group.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Leadership {
    /// The current term.
    pub term: u64,
    /// The leader and where it is reached; `None` while there is none.
    pub leader: Option<(NodeId, NodeAddress)>,
    /// True if it is this node.
    pub is_local: bool,
}

/// Follows openraft's metrics; the receiver holds the current state.
pub(crate) fn watch(raft: &Raft) -> watch::Receiver<Leadership> {
    let mut metrics = raft.server_metrics();
    let own_id = *raft.node_id();
    let (sender, receiver) = watch::channel(Leadership::default());
    tokio::spawn(async move {
        loop {
            let leadership = {
                let metrics = openraft::async_runtime::watch::WatchReceiver::borrow_watched(&metrics);
                let leader = metrics.current_leader.and_then(|leader_id| {
                    let address = metrics.membership_config.get_node(&leader_id)?;
                    Some((leader_id, address.clone()))
                });
                let is_local = metrics.state == openraft::ServerState::Leader && metrics.current_leader == Some(own_id);
                Leadership { term: metrics.vote.leader_id.term, leader, is_local }
            };
            sender.send_if_modified(|current| {
                let changed = *current != leadership;
                if changed {
                    tracing::info!(term = leadership.term, leader = ?leadership.leader, "leadership changed");
                    *current = leadership;
                }
                changed
            });
            if openraft::async_runtime::watch::WatchReceiver::changed(&mut metrics).await.is_err() || sender.is_closed()
            {
                return;
            }
        }
    });
    receiver
}

/// A time during which one node led, or none did. What was begun in a tenure ends with it, even if the same
/// node leads again: consumers are detached in between, and replies may never come.
#[derive(Debug, Clone)]
pub struct Tenure {
    began: Leadership,
    leadership: watch::Receiver<Leadership>,
}

impl Tenure {
    /// The present one.
    pub fn current(leadership: &watch::Receiver<Leadership>) -> Tenure {
        let leadership = leadership.clone();
        let began = leadership.borrow().clone();
        Tenure { began, leadership }
    }

    /// How it began.
    pub fn leadership(&self) -> &Leadership {
        &self.began
    }

    /// Waits until it is over.
    pub async fn ended(&mut self) {
        let began = &self.began;
        let is_over = |now: &Leadership| now.term != began.term || now.is_local != began.is_local;
        // An error means that the group has stopped.
        let _ = self.leadership.wait_for(is_over).await;
    }

    /// Where the leader of a later term is reached, once there is one. None if none is known within `patience`.
    pub async fn successor(&self, patience: Duration) -> Option<NodeAddress> {
        let mut leadership = self.leadership.clone();
        let is_later = |now: &Leadership| now.term > self.began.term && now.leader.is_some();
        let later = tokio::time::timeout(patience, leadership.wait_for(is_later)).await.ok()?.ok()?;
        later.leader.as_ref().map(|(_, address)| address.clone())
    }
}
