//! Who belongs to the cluster, who leads it, and whether its nodes hold the same.

use std::time::Duration;

use dwell_proto::v1;
use dwell_proto::v1::cluster_client::ClusterClient;
use dwell_proto::v1::membership_client::MembershipClient;
use futures::future::join_all;
use tonic::{Code, Status};

use crate::call::{Policy, describe};
use crate::client::Client;
use crate::connections::Channel;
use crate::error::{Error, is_broken_connection};
use crate::message::milliseconds;

/// How far ahead of the log the nodes are asked for their digests: little on an idle cluster; a busy one may be past
/// that before the last node is asked.
const MARGINS: [u64; 5] = [20, 200, 2_000, 20_000, 60_000];
/// How long a change of members or of the leader may rightly take, besides catching up.
const CHANGE_WAIT: Duration = Duration::from_secs(20);
/// How many nodes may name another one as the leader before it is given up.
const LEADER_HOPS_MAX: usize = 4;
/// How long a node may take for its digest: it reads all that it has stored.
const DIGEST_TIMEOUT: Duration = Duration::from_secs(1_800);
/// How long a node may take for a snapshot: longer than it lets its caller wait.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(660);

/// The digests of all members, as of one index.
#[derive(Debug, Clone)]
pub struct ClusterDigest {
    /// The index of the log.
    pub index: u64,
    /// Each member's, by node id.
    pub nodes: Vec<NodeDigest>,
}

/// What a member said.
#[derive(Debug, Clone)]
pub struct NodeDigest {
    /// The member.
    pub member: v1::Member,
    /// Its digest, or why there is none.
    pub result: Result<v1::GetStateDigestResponse, Error>,
}

impl ClusterDigest {
    /// True if all members answered, and hold the same.
    pub fn is_equal(&self) -> bool {
        let mut digests = self.nodes.iter().map(|node| node.result.as_ref().ok().map(|digest| &digest.digest));
        let Some(Some(first)) = digests.next() else { return false };
        digests.all(|digest| digest == Some(first))
    }

    /// A node was past the index, or did not get there, which another index may cure.
    fn missed(&self) -> bool {
        self.nodes.iter().any(|node| match &node.result {
            Err(Error::FailedPrecondition(_)) => true,
            Err(Error::Server { code, .. }) => *code == Code::DeadlineExceeded,
            _ => false,
        })
    }
}

impl Client {
    /// Makes a node a voting member, once it has caught up, for which it has that long. The node must be running and wait
    /// to be added. A member that has other addresses gets these. False if it was a member with these addresses.
    ///
    /// Errors: [`Error::FailedPrecondition`] if it does not catch up (the call may be repeated), or too few voters
    /// answer; [`Error::AlreadyExists`] if another member has one of the addresses.
    pub async fn add_member(
        &self,
        node_id: u64,
        peer_address: impl Into<String>,
        client_address: impl Into<String>,
        catch_up_timeout: Duration,
    ) -> Result<bool, Error> {
        let message = v1::AddMemberRequest {
            node_id,
            peer_address: peer_address.into(),
            client_address: client_address.into(),
            catch_up_timeout_ms: milliseconds(catch_up_timeout),
        };
        let policy = Policy { server_wait: CHANGE_WAIT + catch_up_timeout, ..Policy::CHANGE };
        let outcome = self.core.call(policy, |channel| {
            let request = message.clone();
            async move { MembershipClient::new(channel).add_member(request).await }
        });
        Ok(outcome.await.result?.changed)
    }

    /// Removes a member. False if it was none. A leader hands over first. Errors: [`Error::FailedPrecondition`] if it is
    /// the last voter, or too few of the others answer.
    pub async fn remove_member(&self, node_id: u64) -> Result<bool, Error> {
        let policy = Policy { server_wait: CHANGE_WAIT, ..Policy::CHANGE };
        let outcome = self.core.call(policy, |channel| async move {
            MembershipClient::new(channel).remove_member(v1::RemoveMemberRequest { node_id }).await
        });
        Ok(outcome.await.result?.changed)
    }

    /// Lets another voter lead: this one, or the one that is furthest. Answers who leads then. Errors:
    /// [`Error::NotFound`] if it is no member; [`Error::FailedPrecondition`] if it cannot lead.
    pub async fn transfer_leader(&self, node_id: Option<u64>) -> Result<u64, Error> {
        let from_node_id = match node_id {
            Some(_) => None,
            // A repeated call must not go on to the one after.
            None => Some(self.leader_status().await?.node_id),
        };
        self.transfer(node_id, from_node_id).await
    }

    /// Lets the voter that is furthest lead if this node leads now, and does nothing otherwise. Answers who leads then.
    /// Errors: [`Error::FailedPrecondition`] if there is nobody who can.
    pub async fn transfer_leader_from(&self, node_id: u64) -> Result<u64, Error> {
        self.transfer(None, Some(node_id)).await
    }

    async fn transfer(&self, node_id: Option<u64>, from_node_id: Option<u64>) -> Result<u64, Error> {
        let policy = Policy { server_wait: CHANGE_WAIT, ..Policy::CHANGE };
        let outcome = self.core.call(policy, |channel| async move {
            let request = v1::TransferLeaderRequest { node_id, from_node_id };
            MembershipClient::new(channel).transfer_leader(request).await
        });
        Ok(outcome.await.result?.leader_id)
    }

    /// The cluster as its leader sees it, whom every node that is known is asked for until one is found that says itself
    /// that it leads. Nodes that do not belong to the cluster, not yet or not any more, may not know. Errors:
    /// [`Error::Unavailable`].
    pub async fn leader_status(&self) -> Result<v1::GetClusterStatusResponse, Error> {
        let mut last = None;
        for address in self.core.directory.addresses() {
            match self.follow_to_leader(&address).await {
                Ok(Some(status)) => {
                    self.core.learn(&status);
                    return Ok(status);
                }
                Ok(None) => {}
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| Error::Unavailable {
            deadline: self.core.options.connect_timeout,
            reason: "no node knows of a leader".to_owned(),
        }))
    }

    async fn follow_to_leader(&self, address: &str) -> Result<Option<v1::GetClusterStatusResponse>, Error> {
        let mut status = self.core.status_of(address).await?;
        for _ in 0..LEADER_HOPS_MAX {
            if status.leader_id == Some(status.node_id) {
                return Ok(Some(status));
            }
            let leader = status.members.iter().find(|member| Some(member.node_id) == status.leader_id);
            let Some(leader) = leader else { return Ok(None) };
            status = self.core.status_of(&leader.client_address).await?;
        }
        Ok(None)
    }

    /// The digest of all that the node at `address` has stored, as of an index of the log, or of the next entry. Asks
    /// that node once and no other. Errors: [`Error::FailedPrecondition`] if it is past the index.
    pub async fn state_digest(
        &self,
        address: &str,
        at_index: Option<u64>,
    ) -> Result<v1::GetStateDigestResponse, Error> {
        self.ask_node(address, DIGEST_TIMEOUT, |channel| get_state_digest(channel, at_index)).await
    }

    /// Lets the node at `address` make a snapshot of what it has applied, and waits until it is made. Asks that node once
    /// and no other.
    pub async fn make_snapshot(&self, address: &str) -> Result<v1::MakeSnapshotResponse, Error> {
        self.ask_node(address, SNAPSHOT_TIMEOUT, make_snapshot).await
    }

    /// Asks one node, once, something that may take long.
    pub(crate) async fn ask_node<T, A: Future<Output = Result<T, Status>>>(
        &self,
        address: &str,
        patience: Duration,
        ask: impl FnOnce(Channel) -> A,
    ) -> Result<T, Error> {
        let unavailable = |reason| Error::Unavailable { deadline: self.core.options.connect_timeout, reason };
        let connection = self.core.connections.get(address).await.map_err(unavailable)?;
        match tokio::time::timeout(patience, ask(connection.channel.clone())).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(status)) if is_broken_connection(&status) => {
                self.core.connections.forget(&connection);
                Err(unavailable(describe(address, &status)))
            }
            Ok(Err(status)) => Err(Error::from_status(&status)),
            Err(_) => Err(unavailable(format!("{address}: no answer within {patience:?}"))),
        }
    }

    /// Asks every member for the digest of all that it has stored, as of the same index of the log: they are equal, or
    /// the nodes do not hold the same. Errors: [`Error::Unavailable`] if there is no leader.
    pub async fn digest(&self) -> Result<ClusterDigest, Error> {
        let mut digest = self.digest_ahead(MARGINS[0]).await?;
        for margin in &MARGINS[1..] {
            if !digest.missed() {
                break;
            }
            digest = self.digest_ahead(*margin).await?;
        }
        Ok(digest)
    }

    async fn digest_ahead(&self, margin: u64) -> Result<ClusterDigest, Error> {
        let status = self.leader_status().await?;
        let index = status.last_log_index + margin;
        let mut nodes = join_all(status.members.into_iter().map(async |member| {
            let result = self.state_digest(&member.client_address, Some(index)).await;
            NodeDigest { member, result }
        }))
        .await;
        nodes.sort_by_key(|node| node.member.node_id);
        Ok(ClusterDigest { index, nodes })
    }
}

async fn make_snapshot(channel: Channel) -> Result<v1::MakeSnapshotResponse, Status> {
    Ok(ClusterClient::new(channel).make_snapshot(v1::MakeSnapshotRequest {}).await?.into_inner())
}

async fn get_state_digest(channel: Channel, at_index: Option<u64>) -> Result<v1::GetStateDigestResponse, Status> {
    let request = v1::GetStateDigestRequest { at_index };
    Ok(ClusterClient::new(channel).get_state_digest(request).await?.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest_of(nodes: impl IntoIterator<Item = Result<&'static [u8], Error>>) -> ClusterDigest {
        let nodes = nodes.into_iter().map(|result| NodeDigest {
            member: v1::Member::default(),
            result: result.map(|digest| v1::GetStateDigestResponse { digest: digest.into(), ..Default::default() }),
        });
        ClusterDigest { index: 1, nodes: nodes.collect() }
    }

    #[test]
    fn nodes_are_equal_if_all_answer_and_hold_the_same() {
        assert!(digest_of([Ok(&b"a"[..]), Ok(b"a"), Ok(b"a")]).is_equal());
        assert!(!digest_of([Ok(&b"a"[..]), Ok(b"b"), Ok(b"a")]).is_equal());
        assert!(!digest_of([Ok(&b"a"[..]), Err(Error::Closed)]).is_equal());
        assert!(!digest_of([Err(Error::Closed)]).is_equal());
        assert!(!digest_of([]).is_equal());
    }

    #[test]
    fn a_node_that_was_past_the_index_is_asked_for_another_one() {
        assert!(digest_of([Ok(&b"a"[..]), Err(Error::FailedPrecondition("past".into()))]).missed());
        assert!(!digest_of([Ok(&b"a"[..]), Err(Error::Closed)]).missed());
    }
}
