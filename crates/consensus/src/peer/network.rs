//! The sending side: what a group's Raft calls to reach the other members.

use std::future::Future;
use std::time::Duration;

use dwell_proto::peer as wire;
use dwell_storage::snapshot::Snapshot;
use futures::Stream;
use openraft::base::BoxFuture;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable};
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption, RaftNetworkFactory,
};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{OptionalSend, RPCTypes};
use tonic::{Response, Status};

use super::append::{AppendAnswers, stream_append};
use super::convert::{
    WireError, transfer_request_to_wire, transfer_response_from_wire, vote_request_to_wire, vote_response_from_wire,
};
use super::retry::{self, Retry};
use super::ship::ship_snapshot;
use super::{LinkError, PeerLink, PeerLinks};
use crate::identity::ClusterIdentity;
use crate::types::{GroupId, NodeAddress, NodeId, TypeConfig, Vote};

/// Makes the clients through which one group on this node reaches its other members.
#[derive(Debug, Clone)]
pub struct PeerNetwork {
    links: PeerLinks,
    group: GroupId,
    node: NodeId,
    identity: ClusterIdentity,
}

impl PeerNetwork {
    /// The network of `group` on this node, `node`.
    pub fn new(links: PeerLinks, group: GroupId, node: NodeId) -> Self {
        Self { links, group, node, identity: ClusterIdentity::default() }
    }

    /// Says in each call which cluster this node belongs to.
    pub fn identified(self, identity: ClusterIdentity) -> Self {
        Self { identity, ..self }
    }

    pub(crate) fn links(&self) -> &PeerLinks {
        &self.links
    }
}

impl RaftNetworkFactory<TypeConfig> for PeerNetwork {
    type Network = PeerClient;

    async fn new_client(&mut self, target: NodeId, node: &NodeAddress) -> PeerClient {
        let (group_id, from_node_id) = (self.group, self.node);
        let route = wire::Route { group_id, from_node_id, to_node_id: target, ..wire::Route::default() };
        let identity = self.identity.clone();
        PeerClient { link: self.links.link(&node.peer), route, identity, retry: Retry::default() }
    }
}

/// Reaches one member of one group.
#[derive(Debug)]
pub struct PeerClient {
    link: Result<PeerLink, LinkError>,
    route: wire::Route,
    identity: ClusterIdentity,
    pub(super) retry: Retry,
}

impl PeerClient {
    /// Whom a call is from and for, as of now.
    pub(super) fn route(&self) -> wire::Route {
        self.identity.stamp(self.route)
    }

    /// The connections. An address that makes no sense is a peer that cannot be reached.
    pub(super) fn link(&self) -> Result<&PeerLink, Unreachable<TypeConfig>> {
        self.link.as_ref().map_err(Unreachable::new)
    }

    /// Waits for an answer, but not longer than `limit`.
    async fn answer<T>(
        &self,
        action: RPCTypes,
        limit: Duration,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, RPCError<TypeConfig>> {
        let link = self.link()?;
        match tokio::time::timeout(limit, call).await {
            Ok(Ok(response)) => {
                link.answered();
                Ok(response.into_inner())
            }
            Ok(Err(status)) => Err(unreachable(link, &status).into()),
            Err(_) => {
                link.failed(&Status::deadline_exceeded("no answer in time"));
                let (id, target) = (self.route.from_node_id, self.route.to_node_id);
                Err(Timeout { action, id, target, timeout: limit }.into())
            }
        }
    }

    async fn request_vote(
        &self,
        request: &VoteRequest<TypeConfig>,
        pre_vote: bool,
        option: &RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = self.link()?.calls();
        let message = vote_request_to_wire(self.route(), request, pre_vote);
        let answer = self.answer(RPCTypes::Vote, option.soft_ttl(), client.vote(message)).await?;
        Ok(vote_response_from_wire(answer).map_err(nonsense)?)
    }
}

/// A call that failed, whatever the reason, is not worth repeating at once: openraft backs off from a peer that
/// is unreachable, and from no other. A refusal (unknown group, wrong node) does not go away in a millisecond.
pub(super) fn unreachable(link: &PeerLink, status: &Status) -> Unreachable<TypeConfig> {
    link.failed(status);
    Unreachable::new(status)
}

/// The peer answers, but not in a way that this node understands.
pub(super) fn nonsense(error: WireError) -> Unreachable<TypeConfig> {
    Unreachable::new(&error)
}

impl NetStreamAppend<TypeConfig> for PeerClient {
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<AppendAnswers<'s>, RPCError<TypeConfig>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(stream_append(self, input))
    }
}

impl NetVote<TypeConfig> for PeerClient {
    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.request_vote(&request, false, &option).await
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.request_vote(&request, true, &option).await
    }
}

impl NetSnapshot<TypeConfig> for PeerClient {
    type SnapshotData = Snapshot;

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::alias::SnapshotOf<TypeConfig, Snapshot>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        tokio::select! {
            closed = cancel => Err(closed.into()),
            answer = ship_snapshot(self, vote, snapshot.snapshot, &option) => answer,
        }
    }
}

impl NetTransferLeader<TypeConfig> for PeerClient {
    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let mut client = self.link()?.calls();
        let message = transfer_request_to_wire(self.route(), &request);
        let answer = self.answer(RPCTypes::TransferLeader, option.soft_ttl(), client.transfer_leader(message)).await?;
        Ok(transfer_response_from_wire(answer).map_err(nonsense)?)
    }
}

impl NetBackoff<TypeConfig> for PeerClient {
    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(retry::delays()))
    }
}
