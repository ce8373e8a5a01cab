//! The receiving side: what peers call.

use dwell_proto::peer as wire;
use dwell_proto::peer::raft_server::{Raft as RaftService, RaftServer};
use futures::StreamExt;
use futures::stream::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use super::convert::{
    transfer_request_from_wire, transfer_response_to_wire, vote_request_from_wire, vote_response_to_wire,
};
use super::groups::PeerGroup;
use super::{Groups, MESSAGE_BYTES_MAX, incoming, position, receive};
use crate::identity::Purpose;

/// Answers the other nodes, for all groups of this one.
#[derive(Clone)]
pub struct PeerService {
    groups: Groups,
}

impl PeerService {
    /// Answers for `groups`.
    pub fn new(groups: Groups) -> Self {
        Self { groups }
    }

    /// The gRPC service, to be added to a server.
    pub fn into_server(self) -> RaftServer<Self> {
        RaftServer::new(self).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }
}

#[tonic::async_trait]
impl RaftService for PeerService {
    async fn vote(&self, request: Request<wire::VoteRequest>) -> Result<Response<wire::VoteResponse>, Status> {
        let message = request.into_inner();
        let group = self.groups.route(message.route.as_ref(), Purpose::Election)?;
        refuse_recovering(&group)?;
        let pre_vote = message.pre_vote;
        let request = vote_request_from_wire(message, group.node)?;
        let answer = if pre_vote { group.raft.pre_vote(request).await } else { group.raft.vote(request).await };
        Ok(Response::new(vote_response_to_wire(&answer.map_err(stopped)?)))
    }

    type AppendStream = BoxStream<'static, Result<wire::AppendResponse, Status>>;

    async fn append(
        &self,
        request: Request<Streaming<wire::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let mut messages = request.into_inner();
        let first = messages.message().await?.and_then(|message| message.part);
        let Some(wire::append_request::Part::Begin(route)) = first else {
            return Err(Status::invalid_argument("an append stream starts with `begin`"));
        };
        let group = self.groups.route(Some(&route), Purpose::Other)?;
        Ok(Response::new(incoming::append(group, route.from_node_id, messages).boxed()))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<wire::SnapshotPart>>,
    ) -> Result<Response<wire::InstallSnapshotResponse>, Status> {
        let mut parts = request.into_inner();
        let first = parts.message().await?.and_then(|message| message.part);
        let Some(wire::snapshot_part::Part::Begin(begin)) = first else {
            return Err(Status::invalid_argument("a snapshot starts with `begin`"));
        };
        let group = self.groups.route(begin.route.as_ref(), Purpose::Other)?;
        Ok(Response::new(receive::install_snapshot(&group, begin, parts).await?))
    }

    async fn transfer_leader(
        &self,
        request: Request<wire::TransferLeaderRequest>,
    ) -> Result<Response<wire::TransferLeaderResponse>, Status> {
        let message = request.into_inner();
        let group = self.groups.route(message.route.as_ref(), Purpose::Election)?;
        refuse_recovering(&group)?;
        let request = transfer_request_from_wire(message, group.node)?;
        let answer = group.raft.handle_transfer_leader(request).await.map_err(stopped)?;
        Ok(Response::new(transfer_response_to_wire(&answer)))
    }

    async fn position(
        &self,
        request: Request<wire::PositionRequest>,
    ) -> Result<Response<wire::PositionResponse>, Status> {
        let group = self.groups.route(request.into_inner().route.as_ref(), Purpose::Other)?;
        Ok(Response::new(position::answer(&group).await?))
    }

    async fn announce(
        &self,
        request: Request<wire::AnnounceRequest>,
    ) -> Result<Response<wire::AnnounceResponse>, Status> {
        let group = self.groups.route(request.into_inner().route.as_ref(), Purpose::Other)?;
        Ok(Response::new(group.announce()))
    }
}

/// A node that may have lost what it acknowledged has no part in elections.
fn refuse_recovering(group: &PeerGroup) -> Result<(), Status> {
    if group.gate.is_recovering() {
        return Err(Status::unavailable(format!("node {} recovers from damage and does not vote", group.node)));
    }
    Ok(())
}

/// Raft takes no more calls: a storage fault, or the node is on its way out.
pub(super) fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("the group has stopped: {error}"))
}
