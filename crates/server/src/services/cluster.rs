//! `dwell.v1.Cluster`.

use std::time::Duration;

use dwell_consensus::identity::ClusterId;
use dwell_proto::v1;
use tonic::{Request, Response, Status};

use super::Services;
use crate::status::RequestError;

/// How long a digest waits for the log to reach its index.
const DIGEST_REACH_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a snapshot may take before the caller is told that it goes on.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(600);

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
            holds_data: self.group.identity.holds_data(node_id),
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
            version: self.announcer.version.clone(),
            cluster_id: self.group.identity.id().map(|id| ClusterId(id).to_string()).unwrap_or_default(),
            command_format: self.announcer.command_format,
            exhausted: self.announcer.exhausted().unwrap_or_default(),
        }))
    }

    #[tracing::instrument(skip_all)]
    async fn get_state_digest(
        &self,
        request: Request<v1::GetStateDigestRequest>,
    ) -> Result<Response<v1::GetStateDigestResponse>, Status> {
        let at_index = request.into_inner().at_index;
        let digest = self.group.state_digest(at_index, DIGEST_REACH_TIMEOUT).await;
        let (index, digest) = digest.map_err(RequestError::from)?;
        Ok(Response::new(v1::GetStateDigestResponse {
            node_id: self.group.node_id,
            index,
            digest: bytes::Bytes::copy_from_slice(&digest.hash),
            rows: digest.rows,
            row_bytes: digest.bytes,
        }))
    }

    #[tracing::instrument(skip_all)]
    async fn make_snapshot(
        &self,
        _request: Request<v1::MakeSnapshotRequest>,
    ) -> Result<Response<v1::MakeSnapshotResponse>, Status> {
        let made = self.group.make_snapshot(SNAPSHOT_TIMEOUT).await;
        let snapshot_index = made.map_err(RequestError::from)?;
        Ok(Response::new(v1::MakeSnapshotResponse { node_id: self.group.node_id, snapshot_index }))
    }
}
