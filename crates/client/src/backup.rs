//! Taking a backup from a node, piece by piece.

use std::time::Duration;

use dwell_proto::v1;
use dwell_proto::v1::backups_client::BackupsClient;
use dwell_proto::v1::create_backup_response::Part;
use futures::future::join_all;
use tonic::{Code, Status, Streaming};

use crate::call::describe;
use crate::client::Client;
use crate::connections::Channel;
use crate::error::{Error, is_broken_connection};

/// How long a node may take to say where the log is.
const INDEX_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a node may take to begin: longer than it allows itself to get to the index, and to make its snapshot.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(1_260);
/// How long it may take over the next piece.
const CHUNK_TIMEOUT: Duration = Duration::from_secs(120);

/// A backup on its way. It is complete only when [`BackupStream::next`] has said that nothing is missing.
#[derive(Debug)]
pub struct BackupStream {
    /// Where it comes from, and what it covers.
    pub begin: v1::BackupBegin,
    address: String,
    parts: Streaming<v1::CreateBackupResponse>,
}

impl Client {
    /// Asks a member for all that the cluster has stored, with all that was confirmed before this call: this one, or the
    /// follower that is furthest, or the leader if there is none.
    ///
    /// Errors: [`Error::Unavailable`] without a leader; [`Error::NotFound`] if there is no such member;
    /// [`Error::ResourceExhausted`] if it makes backups already.
    pub async fn create_backup(&self, node_id: Option<u64>) -> Result<BackupStream, Error> {
        let status = self.leader_status().await?;
        let leader = address_of(&status, status.node_id)?;
        let address = match node_id {
            Some(node_id) => address_of(&status, node_id)?,
            None => self.furthest_follower(&status).await.unwrap_or_else(|| leader.clone()),
        };
        let index_min = self.ask_node(&leader, INDEX_TIMEOUT, backup_index).await?;
        let begin = |channel| begin_backup(channel, v1::CreateBackupRequest { index_min });
        let (begin, parts) = self.ask_node(&address, BEGIN_TIMEOUT, begin).await?;
        Ok(BackupStream { begin, address, parts })
    }

    /// A voter that answers, other than the leader, which has enough to do.
    async fn furthest_follower(&self, status: &v1::GetClusterStatusResponse) -> Option<String> {
        let followers = status.members.iter().filter(|member| member.voter && member.node_id != status.node_id);
        let answers = join_all(followers.map(async |member| {
            let status = self.cluster_status(&member.client_address).await.ok()?;
            Some((status.applied_index, member.client_address.clone()))
        }));
        answers.await.into_iter().flatten().max().map(|(_, address)| address)
    }
}

impl BackupStream {
    /// The next piece of a file; `None`: that was all.
    ///
    /// Errors: the backup is incomplete, and another one has to be asked for.
    pub async fn next(&mut self) -> Result<Option<v1::BackupChunk>, Error> {
        let next = tokio::time::timeout(CHUNK_TIMEOUT, self.parts.message()).await;
        let unavailable = |reason| Error::Unavailable { deadline: CHUNK_TIMEOUT, reason };
        match next.map_err(|_| unavailable(format!("{}: the backup stands still", self.address)))? {
            Ok(Some(v1::CreateBackupResponse { part: Some(Part::Chunk(chunk)) })) => Ok(Some(chunk)),
            Ok(Some(v1::CreateBackupResponse { part: Some(Part::End(_)) })) => Ok(None),
            Ok(_) => Err(Error::from_status(&unexpected("the backup ended before its end"))),
            Err(status) if is_broken_connection(&status) => Err(unavailable(describe(&self.address, &status))),
            Err(status) => Err(Error::from_status(&status)),
        }
    }
}

async fn backup_index(channel: Channel) -> Result<u64, Status> {
    Ok(BackupsClient::new(channel).get_backup_index(v1::GetBackupIndexRequest {}).await?.into_inner().index)
}

async fn begin_backup(
    channel: Channel,
    request: v1::CreateBackupRequest,
) -> Result<(v1::BackupBegin, Streaming<v1::CreateBackupResponse>), Status> {
    let mut parts = BackupsClient::new(channel).create_backup(request).await?.into_inner();
    match parts.message().await?.and_then(|response| response.part) {
        Some(Part::Begin(begin)) => Ok((begin, parts)),
        _ => Err(unexpected("the backup does not begin with what it is")),
    }
}

fn address_of(status: &v1::GetClusterStatusResponse, node_id: u64) -> Result<String, Error> {
    let member = status.members.iter().find(|member| member.node_id == node_id);
    let address = member.map(|member| member.client_address.clone());
    address.ok_or_else(|| Error::NotFound(format!("node {node_id} is no member")))
}

fn unexpected(message: &str) -> Status {
    Status::new(Code::DataLoss, message)
}
