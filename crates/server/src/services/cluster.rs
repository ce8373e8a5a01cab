//! `dwell.v1.Cluster`.

use dwell_proto::v1;
use tonic::{Request, Response, Status};

use super::Services;

#[tonic::async_trait]
impl v1::cluster_server::Cluster for Services {
    async fn get_cluster_status(
        &self,
        _request: Request<v1::GetClusterStatusRequest>,
    ) -> Result<Response<v1::GetClusterStatusResponse>, Status> {
        let status = self.group.status();
        let members = status.members.into_iter().map(|(node_id, address, voter)| v1::Member {
            node_id,
            client_address: address.client,
            peer_address: address.peer,
            voter,
        });
        Ok(Response::new(v1::GetClusterStatusResponse {
            node_id: self.group.node_id,
            leader_id: status.leader_id,
            term: status.term,
            last_log_index: status.last_log_index,
            committed_index: status.committed_index,
            applied_index: status.applied_index,
            snapshot_index: status.snapshot_index,
            purged_index: status.purged_index,
            members: members.collect(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }))
    }
}
