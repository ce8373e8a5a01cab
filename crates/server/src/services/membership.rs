//! `dwell.v1.Membership`.

use dwell_proto::v1;
use tonic::{Request, Response, Status};

use super::Services;
use crate::status::RequestError;
use crate::validate;

#[tonic::async_trait]
impl v1::membership_server::Membership for Services {
    #[tracing::instrument(skip_all, fields(node_id = request.get_ref().node_id))]
    async fn add_member(
        &self,
        request: Request<v1::AddMemberRequest>,
    ) -> Result<Response<v1::AddMemberResponse>, Status> {
        let member = validate::add_member(request.into_inner()).map_err(RequestError::from)?;
        let added = self.group.add_member(member.node_id, member.address, member.catch_up_timeout);
        let changed = added.await.map_err(RequestError::from)?;
        Ok(Response::new(v1::AddMemberResponse { changed }))
    }

    #[tracing::instrument(skip_all, fields(node_id = request.get_ref().node_id))]
    async fn remove_member(
        &self,
        request: Request<v1::RemoveMemberRequest>,
    ) -> Result<Response<v1::RemoveMemberResponse>, Status> {
        let node_id = request.into_inner().node_id;
        validate::node_id("node_id", node_id).map_err(RequestError::from)?;
        let changed = self.group.remove_member(node_id).await.map_err(RequestError::from)?;
        Ok(Response::new(v1::RemoveMemberResponse { changed }))
    }

    #[tracing::instrument(skip_all, fields(node_id = request.get_ref().node_id))]
    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        let v1::TransferLeaderRequest { node_id, from_node_id } = request.into_inner();
        for (field, id) in [("node_id", node_id), ("from_node_id", from_node_id)] {
            id.map_or(Ok(()), |id| validate::node_id(field, id)).map_err(RequestError::from)?;
        }
        let transferred = self.group.transfer_leader(node_id, from_node_id).await;
        let leader_id = transferred.map_err(RequestError::from)?;
        Ok(Response::new(v1::TransferLeaderResponse { leader_id }))
    }
}
