//! Where a leader's log ends.

use std::time::Duration;

use dwell_proto::peer as wire;
use openraft::ServerState;
use tonic::Status;

use super::PeerLinks;
use super::convert::{log_id_to_wire, optional_log_id, vote_from_wire, vote_to_wire};
use super::groups::PeerGroup;
use super::service::stopped;
use crate::types::{LogId, Vote};

/// How long an answer may take: it waits for nothing but the leader's other work.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);

/// Answers where this node's log ends, if it leads. As of one moment: what its followers were sent before, is in it.
pub(super) async fn answer(group: &PeerGroup) -> Result<wire::PositionResponse, Status> {
    let state = group.raft.with_raft_state(|state| {
        let is_leader = state.server_state == ServerState::Leader && state.vote_ref().committed;
        is_leader.then(|| (*state.vote_ref(), state.log_ids.last().copied()))
    });
    let (vote, last) = state
        .await
        .map_err(stopped)?
        .ok_or_else(|| Status::failed_precondition(format!("node {} does not lead", group.node)))?;
    Ok(wire::PositionResponse { vote: Some(vote_to_wire(&vote)), last_log_id: last.as_ref().map(log_id_to_wire) })
}

/// Asks the node at `address`, which is thought to lead, where its log ends.
pub(crate) async fn position_of(
    links: &PeerLinks,
    address: &str,
    route: wire::Route,
) -> Result<(Vote, Option<LogId>), Status> {
    let link = links.link(address).map_err(|error| Status::invalid_argument(error.to_string()))?;
    let mut calls = link.calls();
    let request = wire::PositionRequest { route: Some(route) };
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, calls.position(request)).await;
    let answer = answer.map_err(|_| Status::deadline_exceeded("no answer in time"))??.into_inner();
    Ok((vote_from_wire(answer.vote, "vote")?, optional_log_id(answer.last_log_id, "last_log_id")?))
}
