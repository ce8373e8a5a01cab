//! Which cluster a node belongs to, so that nodes of different clusters keep apart, whatever their ids and addresses.
//!
//! The first leader commits an id for the cluster, which every member keeps with its data, and each call between nodes
//! carries it. The group also remembers which nodes hold data (see [`dwell_machine::Identify`]): one of them that comes
//! with an empty disk has forgotten what it acknowledged and whom it voted for.
//!
//! # To ensure correctness
//!
//! A node that began with an empty disk and has no id yet grants no vote to a candidate of a cluster that has one: it may
//! have been a voter of it before its disk was lost. It gets the id with the log, from a leader that others elected; the
//! leader tells it besides if it is remembered to hold data, and then it does not take anything, but ends.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::sync::Arc;

use dwell_proto::peer::Route;
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::types::NodeId;

/// Why a node has nothing to do with another one, or with its own data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Two clusters, perhaps with the same ids of nodes, or an address that was used again.
    #[error(
        "node {node} belongs to cluster {own:016x}, and node {caller} of cluster {other:016x} calls it: the address, or \
         the data directory, of one of them is wrong"
    )]
    Foreign {
        /// The node that is called.
        node: NodeId,
        /// Its cluster.
        own: u64,
        /// Who calls.
        caller: NodeId,
        /// The caller's cluster.
        other: u64,
    },
    /// A disk was lost, or the data directory is the wrong one.
    #[error(
        "node {node} held data of cluster {cluster:016x}, and has an empty disk now: it has forgotten its votes and must not \
         take part. Start it over its data; or, if they are lost, remove it, and add a node with an id that was never used"
    )]
    Forgotten {
        /// The node with the empty disk.
        node: NodeId,
        /// The cluster.
        cluster: u64,
    },
    /// It may have voted before its disk was lost.
    #[error("node {node} has an empty disk and does not vote before it has joined cluster {cluster:016x}")]
    NotJoined {
        /// The node that is called.
        node: NodeId,
        /// The cluster of the candidate.
        cluster: u64,
    },
    /// Formed a second time.
    #[error(
        "cluster {cluster:016x} has been formed already, and node {caller} is no member: start it with `join` instead of \
         `members`, on an empty disk, and add it"
    )]
    NotMember {
        /// Who calls.
        caller: NodeId,
        /// The cluster of the node that is called.
        cluster: u64,
    },
    /// Files of two nodes in one directory.
    #[error("the data directory is noted to be of cluster {noted:016x}, and its state is of cluster {found:016x}")]
    Mixed {
        /// As the directory says.
        noted: u64,
        /// As the state says.
        found: u64,
    },
}

/// What a call wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A vote, or to become the leader.
    Election,
    /// Anything else.
    Other,
}

type Keep = Box<dyn Fn(u64) -> io::Result<()> + Send + Sync>;

/// The cluster that a node belongs to, as far as it is known; cheap to clone.
#[derive(Clone)]
pub struct ClusterIdentity {
    inner: Arc<Inner>,
}

struct Inner {
    known: RwLock<Known>,
    /// Notes the id durably.
    keep: Keep,
    /// Offered as the cluster's id, should it have none and this node lead.
    fresh: u64,
    trouble: watch::Sender<Option<IdentityError>>,
}

#[derive(Debug, Default)]
struct Known {
    /// 0: none yet.
    id: u64,
    began_empty: bool,
    holders: BTreeSet<NodeId>,
}

impl ClusterIdentity {
    /// Of a node whose data are noted to be of cluster `id`, if they are. `fresh` is a random number, which becomes the
    /// cluster's id if it has none and this node leads; `keep` notes an id durably.
    pub fn new(
        id: Option<u64>,
        fresh: u64,
        keep: impl Fn(u64) -> io::Result<()> + Send + Sync + 'static,
    ) -> ClusterIdentity {
        let known = Known { id: id.unwrap_or(0), ..Known::default() };
        let (trouble, _) = watch::channel(None);
        let inner = Inner { known: RwLock::new(known), keep: Box::new(keep), fresh: fresh.max(1), trouble };
        ClusterIdentity { inner: Arc::new(inner) }
    }

    /// The cluster's id, once it is known, and noted durably.
    pub fn id(&self) -> Option<u64> {
        Some(self.inner.known.read().id).filter(|id| *id != 0)
    }

    /// Resolves when this node must not go on: with a disk that has forgotten, or that is of another cluster.
    pub async fn trouble(&self) -> IdentityError {
        let mut trouble = self.inner.trouble.subscribe();
        match trouble.wait_for(Option::is_some).await.map(|found| found.clone()) {
            Ok(Some(found)) => found,
            _ => std::future::pending().await,
        }
    }

    pub(crate) fn fresh(&self) -> u64 {
        self.inner.fresh
    }

    /// This node found no log but a first membership, and no state, and does not recover from damage.
    pub(crate) fn began_empty(&self) {
        self.inner.known.write().began_empty = true;
    }

    /// True if the cluster remembers that a node holds data, or held some.
    pub fn holds_data(&self, node: NodeId) -> bool {
        self.inner.known.read().holders.contains(&node)
    }

    /// Takes what the applied state says.
    pub(crate) fn learn(&self, id: Option<u64>, holders: &[NodeId]) {
        let Some(id) = id else { return };
        let noted = self.inner.known.read().id;
        if noted != 0 && noted != id {
            return self.report(IdentityError::Mixed { noted, found: id });
        }
        if noted == 0 {
            if let Err(error) = (self.inner.keep)(id) {
                tracing::warn!(%error, "the cluster's id could not be noted");
                return;
            }
            tracing::info!(cluster_id = %ClusterId(id), "this node belongs to a cluster");
        }
        let mut known = self.inner.known.write();
        known.id = id;
        if known.holders.len() != holders.len() {
            known.holders = holders.iter().copied().collect();
        }
    }

    /// The route of a call, with what it says of clusters.
    pub(crate) fn stamp(&self, route: Route) -> Route {
        let known = self.inner.known.read();
        Route { cluster_id: known.id, to_holds_data: known.holders.contains(&route.to_node_id), ..route }
    }

    /// Looks whether this node may answer a call.
    pub(crate) fn admit(
        &self,
        route: &Route,
        purpose: Purpose,
        is_member: impl FnOnce(NodeId) -> bool,
    ) -> Result<(), IdentityError> {
        let (own, other) = (self.inner.known.read().id, route.cluster_id);
        let (node, caller) = (route.to_node_id, route.from_node_id);
        match (own, other) {
            (0, 0) => Ok(()),
            (0, cluster) if !self.inner.known.read().began_empty => {
                tracing::debug!(cluster, "a call of a cluster whose id is not known here yet");
                Ok(())
            }
            (0, cluster) if route.to_holds_data => {
                let forgotten = IdentityError::Forgotten { node, cluster };
                self.report(forgotten.clone());
                Err(forgotten)
            }
            (0, cluster) if purpose == Purpose::Election => Err(IdentityError::NotJoined { node, cluster }),
            (0, _) => Ok(()),
            (cluster, 0) if purpose == Purpose::Election => {
                if !is_member(caller) {
                    Err(IdentityError::NotMember { caller, cluster })
                } else if self.holds_data(caller) {
                    Err(IdentityError::Forgotten { node: caller, cluster })
                } else {
                    Ok(())
                }
            }
            (_, 0) => Ok(()),
            (own, other) if own != other => Err(IdentityError::Foreign { node, own, caller, other }),
            _ => Ok(()),
        }
    }

    fn report(&self, trouble: IdentityError) {
        self.inner.trouble.send_if_modified(|found| found.is_none() && found.replace(trouble).is_none());
    }
}

impl Default for ClusterIdentity {
    /// Of a node that is not known to belong to any cluster, and notes nothing.
    fn default() -> ClusterIdentity {
        ClusterIdentity::new(None, 1, |_| Ok(()))
    }
}

impl fmt::Debug for ClusterIdentity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("ClusterIdentity").field(&self.id()).finish()
    }
}

/// A cluster's id as people read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterId(pub u64);

impl fmt::Display for ClusterId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(id: u64) -> ClusterIdentity {
        ClusterIdentity::new(Some(id).filter(|id| *id != 0), 9, |_| Ok(()))
    }

    fn admitted(own: &ClusterIdentity, caller: &ClusterIdentity, purpose: Purpose) -> Result<(), IdentityError> {
        let route = Route { group_id: 1, from_node_id: 1, to_node_id: 2, ..Route::default() };
        own.admit(&caller.stamp(route), purpose, |_| true)
    }

    #[test]
    fn nodes_of_one_cluster_and_of_none_talk_and_those_of_two_do_not() {
        for purpose in [Purpose::Election, Purpose::Other] {
            assert_eq!(admitted(&of(0), &of(0), purpose), Ok(()));
            assert_eq!(admitted(&of(7), &of(7), purpose), Ok(()));
            let foreign = IdentityError::Foreign { node: 2, own: 7, caller: 1, other: 8 };
            assert_eq!(admitted(&of(7), &of(8), purpose), Err(foreign));
        }
    }

    #[test]
    fn an_empty_disk_takes_data_and_has_no_vote_until_it_has_joined() {
        let empty = of(0);
        empty.began_empty();
        assert_eq!(admitted(&empty, &of(0), Purpose::Election), Ok(()));
        assert_eq!(admitted(&empty, &of(7), Purpose::Other), Ok(()));
        let refused = admitted(&empty, &of(7), Purpose::Election);
        assert_eq!(refused, Err(IdentityError::NotJoined { node: 2, cluster: 7 }));
        empty.learn(Some(7), &[]);
        assert_eq!(admitted(&empty, &of(7), Purpose::Election), Ok(()));
    }

    #[tokio::test]
    async fn an_empty_disk_that_held_data_takes_nothing_and_the_node_hears_of_it() {
        let (empty, leader) = (of(0), of(7));
        empty.began_empty();
        leader.learn(Some(7), &[1, 2]);
        let forgotten = IdentityError::Forgotten { node: 2, cluster: 7 };
        assert_eq!(admitted(&empty, &leader, Purpose::Other), Err(forgotten.clone()));
        assert_eq!(empty.trouble().await, forgotten);
        // And it gets no votes itself.
        let voter = of(7);
        voter.learn(Some(7), &[1, 2]);
        let refused = admitted(&voter, &of(0), Purpose::Election);
        assert_eq!(refused, Err(IdentityError::Forgotten { node: 1, cluster: 7 }));
    }

    #[test]
    fn data_from_before_there_were_ids_is_given_one_and_votes_meanwhile() {
        let old = of(0);
        assert_eq!(admitted(&old, &of(7), Purpose::Election), Ok(()));
        old.learn(Some(7), &[2]);
        assert_eq!(old.id(), Some(7));
    }

    #[test]
    fn a_cluster_that_is_formed_again_beside_itself_gets_no_votes() {
        let route = Route { from_node_id: 4, to_node_id: 2, ..Route::default() };
        let refused = of(7).admit(&route, Purpose::Election, |node| node < 4);
        assert_eq!(refused, Err(IdentityError::NotMember { caller: 4, cluster: 7 }));
    }

    #[tokio::test]
    async fn an_id_is_not_known_before_it_is_noted_and_never_changes() {
        let failing = ClusterIdentity::new(None, 9, |_| Err(io::Error::other("full")));
        failing.learn(Some(7), &[]);
        assert_eq!(failing.id(), None);
        let identity = of(7);
        identity.learn(Some(8), &[]);
        assert_eq!((identity.id(), identity.trouble().await), (Some(7), IdentityError::Mixed { noted: 7, found: 8 }));
    }
}
