//! The groups that this node hosts, as its peers reach them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use dwell_proto::peer::{AnnounceResponse, Route};
use dwell_transport::{Tcp, Transport};
use parking_lot::RwLock;
use tokio::sync::Mutex;
use tonic::Status;

use super::PeerMetrics;
use super::succession::Succession;
use crate::announcements::{Announcer, members};
use crate::identity::{ClusterIdentity, IdentityError, Purpose};
use crate::recovery::RecoveryGate;
use crate::types::{GroupId, NodeId, Raft};

/// The groups of a node; cheap to clone. Groups may come and go while the node serves its peers.
#[derive(Clone)]
pub struct Groups {
    node: NodeId,
    metrics: PeerMetrics,
    transport: Arc<dyn Transport>,
    gate: RecoveryGate,
    identity: ClusterIdentity,
    announcer: Announcer,
    /// Why a call was refused last for where it comes from.
    refused: Arc<parking_lot::Mutex<String>>,
    groups: Arc<RwLock<BTreeMap<GroupId, Arc<PeerGroup>>>>,
}

/// One group, as its peers reach it.
pub(super) struct PeerGroup {
    pub(super) node: NodeId,
    pub(super) raft: Raft,
    pub(super) snapshot_directory: PathBuf,
    /// Held while a snapshot is received.
    pub(super) receiving: Mutex<()>,
    pub(super) succession: Succession,
    pub(super) gate: RecoveryGate,
    identity: ClusterIdentity,
    announcer: Announcer,
}

impl Groups {
    /// No groups yet, on this node, `node`.
    pub fn new(node: NodeId, metrics: PeerMetrics) -> Self {
        let (transport, gate) = (Arc::new(Tcp), RecoveryGate::default());
        let (identity, announcer) = (ClusterIdentity::default(), Announcer::default());
        let (refused, groups) = (Arc::default(), Arc::default());
        Self { node, metrics, transport, gate, identity, announcer, refused, groups }
    }

    /// Reaches peers over another transport than TCP. Before groups are inserted.
    pub fn over(self, transport: Arc<dyn Transport>) -> Self {
        Self { transport, ..self }
    }

    /// Refuses votes while the node recovers. Before groups are inserted.
    pub fn behind(self, gate: RecoveryGate) -> Self {
        Self { gate, ..self }
    }

    /// Refuses calls from other clusters, and tells peers what this node is. Before groups are inserted.
    pub fn identified(self, identity: ClusterIdentity, announcer: Announcer) -> Self {
        Self { identity, announcer, ..self }
    }

    /// Lets peers reach a group. Snapshots that they send are received in `snapshot_directory`.
    pub fn insert(&self, group: GroupId, raft: Raft, snapshot_directory: PathBuf) {
        let (transport, gate) = (self.transport.clone(), self.gate.clone());
        let dead_leaders = self.metrics.dead_leaders.clone();
        let succession = Succession::new(raft.clone(), self.node, dead_leaders, transport, gate.clone());
        let receiving = Mutex::default();
        let (node, identity, announcer) = (self.node, self.identity.clone(), self.announcer.clone());
        let peer_group = PeerGroup { node, raft, snapshot_directory, receiving, succession, gate, identity, announcer };
        self.groups.write().insert(group, Arc::new(peer_group));
    }

    /// Peers no longer reach the group. Calls under way come to their end.
    pub fn remove(&self, group: GroupId) {
        self.groups.write().remove(&group);
    }

    /// The group that a call is for, if it may answer it.
    pub(super) fn route(&self, route: Option<&Route>, purpose: Purpose) -> Result<Arc<PeerGroup>, Status> {
        let route = route.ok_or_else(|| Status::invalid_argument("`route` is missing"))?;
        if route.to_node_id != self.node {
            let message = format!("the call is for node {}, this is node {}", route.to_node_id, self.node);
            return Err(Status::failed_precondition(message));
        }
        if route.from_node_id == self.node {
            return Err(Status::failed_precondition(format!("node {} calls itself", self.node)));
        }
        let group = self.groups.read().get(&route.group_id).cloned();
        let missing = || Status::not_found(format!("group {} is not on node {}", route.group_id, self.node));
        let group = group.ok_or_else(missing)?;
        let is_member = |node: NodeId| members(&group.raft).into_iter().any(|(member, _)| member == node);
        match group.identity.admit(route, purpose, is_member) {
            Ok(()) => Ok(group),
            Err(error) => {
                self.metrics.identity_refusals.inc();
                Err(self.refusal(&error))
            }
        }
    }

    fn refusal(&self, error: &IdentityError) -> Status {
        let message = error.to_string();
        // It will join by itself.
        if matches!(error, IdentityError::NotJoined { .. }) {
            return Status::unavailable(message);
        }
        // A foreign node calls again and again: said once, as long as it stays the same.
        let mut last = self.refused.lock();
        if *last != message {
            last.clone_from(&message);
            tracing::warn!(reason = message, "refused a peer's call");
        }
        Status::failed_precondition(message)
    }
}

impl PeerGroup {
    /// What this node says of itself.
    pub(super) fn announce(&self) -> AnnounceResponse {
        self.announcer.announce(self.identity.id())
    }
}
