//! Calls that change who belongs to the cluster, and digests. None of them changes anything.

use dwell_proto::v1::{
    AddMemberRequest, GetClusterStatusRequest, GetStateDigestRequest, RemoveMemberRequest, TransferLeaderRequest,
};
use dwell_tests::raw::RawClient;
use tonic::Code;

use super::checks::Checks;

pub async fn check(checks: &mut Checks, client: &mut RawClient) {
    let before = client.cluster.get_cluster_status(GetClusterStatusRequest {}).await.unwrap().into_inner();
    adding(checks, client).await;
    removing_and_transferring(checks, client).await;
    digests(checks, client).await;
    let after = client.cluster.get_cluster_status(GetClusterStatusRequest {}).await.unwrap().into_inner();
    checks.equal("the members", after.members, before.members);
    checks.equal("the leader", after.leader_id, before.leader_id);
}

async fn adding(checks: &mut Checks, client: &mut RawClient) {
    let right = AddMemberRequest {
        node_id: 9,
        peer_address: "127.0.0.1:1".to_owned(),
        client_address: "127.0.0.1:2".to_owned(),
        catch_up_timeout_ms: 0,
    };
    let code = Code::InvalidArgument;
    let request = AddMemberRequest { node_id: 0, ..right.clone() };
    checks.refused("add node 0", client.membership.add_member(request).await, code, "node_id");
    for wrong in ["", "host", "host:", ":1", "host:0", "host:65536", "http://host:1", "a b:1", "a\n:1"] {
        let request = AddMemberRequest { peer_address: wrong.to_owned(), ..right.clone() };
        let result = client.membership.add_member(request).await;
        checks.refused(&format!("add, peer address `{wrong}`"), result, code, "peer_address");
        let request = AddMemberRequest { client_address: wrong.to_owned(), ..right.clone() };
        let result = client.membership.add_member(request).await;
        checks.refused(&format!("add, client address `{wrong}`"), result, code, "client_address");
    }
    for catch_up_timeout_ms in [-1, 3_600_001, i64::MIN, i64::MAX] {
        let request = AddMemberRequest { catch_up_timeout_ms, ..right.clone() };
        let result = client.membership.add_member(request).await;
        checks.refused(&format!("add, within {catch_up_timeout_ms} ms"), result, code, "catch_up_timeout_ms");
    }
    let members = client.cluster.get_cluster_status(GetClusterStatusRequest {}).await.unwrap().into_inner().members;
    let peer_address = members[0].peer_address.clone();
    let request = AddMemberRequest { peer_address: peer_address.clone(), ..right };
    let result = client.membership.add_member(request).await;
    checks.refused("add, the address of another member", result, Code::AlreadyExists, &peer_address);
    for member in members {
        let request = AddMemberRequest {
            node_id: member.node_id,
            peer_address: member.peer_address,
            client_address: member.client_address,
            catch_up_timeout_ms: 0,
        };
        let added = client.membership.add_member(request).await.map(|response| response.into_inner().changed);
        checks.equal("add a member that there is", added.ok(), Some(false));
    }
}

async fn removing_and_transferring(checks: &mut Checks, client: &mut RawClient) {
    let result = client.membership.remove_member(RemoveMemberRequest { node_id: 0 }).await;
    checks.refused("remove node 0", result, Code::InvalidArgument, "node_id");
    let removed = client.membership.remove_member(RemoveMemberRequest { node_id: 77 }).await;
    checks.equal("remove no member", removed.map(|response| response.into_inner().changed).ok(), Some(false));
    for (request, code, names) in [
        (TransferLeaderRequest { node_id: Some(0), from_node_id: None }, Code::InvalidArgument, "node_id"),
        (TransferLeaderRequest { node_id: None, from_node_id: Some(0) }, Code::InvalidArgument, "from_node_id"),
        (TransferLeaderRequest { node_id: Some(77), from_node_id: None }, Code::NotFound, "77"),
    ] {
        let what = format!("transfer the leadership: {request:?}");
        checks.refused(&what, client.membership.transfer_leader(request).await, code, names);
    }
    let request = TransferLeaderRequest { node_id: None, from_node_id: Some(77) };
    let led = client.membership.transfer_leader(request).await.map(|response| response.into_inner().leader_id).ok();
    let leader = client.cluster.get_cluster_status(GetClusterStatusRequest {}).await.unwrap().into_inner().leader_id;
    checks.equal("transfer the leadership from a node that has it not", led, leader);
}

async fn digests(checks: &mut Checks, client: &mut RawClient) {
    for at_index in [0, 1] {
        let result = client.cluster.get_state_digest(GetStateDigestRequest { at_index: Some(at_index) }).await;
        checks.refused("a digest of the past", result, Code::FailedPrecondition, "past index");
    }
    for at_index in [10_000_000, u64::MAX] {
        let result = client.cluster.get_state_digest(GetStateDigestRequest { at_index: Some(at_index) }).await;
        checks.refused("a digest of the far future", result, Code::FailedPrecondition, "ahead of");
    }
}
