//! `dwell.v1.Backups`: sends a snapshot, as a follower would be sent one, to whoever keeps it elsewhere.

mod metrics;

use std::sync::Arc;
use std::time::Duration;

use dwell_consensus::backup::{BackupError, Covered, covered};
use dwell_consensus::blocking;
use dwell_consensus::identity::ClusterId;
use dwell_proto::v1;
use dwell_proto::v1::create_backup_response::Part;
use dwell_storage::snapshot::{ReadCheck, Snapshot, SnapshotFile};
use prometheus::Registry;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use self::metrics::BackupMetrics;
use super::{Services, signed};
use crate::status::RequestError;

/// Backups of a node at a time: each reads all its files.
const BACKUPS_MAX: usize = 2;
/// How long the node may take to apply the log up to the index, and then again to make the snapshot.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(600);
/// Who takes nothing for so long is not waited for: the snapshot's files take room on the disk.
const STALL_LIMIT: Duration = Duration::from_secs(60);
/// Pieces are this large; so many are read ahead.
const CHUNK_BYTES: usize = 1024 * 1024;
const PARTS_AHEAD: usize = 2;

/// Answers [`v1::backups_server::Backups`]; cheap to clone.
#[derive(Clone)]
pub struct Backups {
    services: Services,
    metrics: BackupMetrics,
    running: Arc<Semaphore>,
}

type Parts = mpsc::Sender<Result<v1::CreateBackupResponse, Status>>;

/// What was sent.
struct Sent {
    index: u64,
    bytes: u64,
}

#[tonic::async_trait]
impl v1::backups_server::Backups for Backups {
    #[tracing::instrument(skip_all)]
    async fn get_backup_index(
        &self,
        _request: Request<v1::GetBackupIndexRequest>,
    ) -> Result<Response<v1::GetBackupIndexResponse>, Status> {
        let index = self.services.group.confirmed_index().await.map_err(RequestError::from)?;
        Ok(Response::new(v1::GetBackupIndexResponse { index }))
    }

    type CreateBackupStream = ReceiverStream<Result<v1::CreateBackupResponse, Status>>;

    #[tracing::instrument(skip_all, fields(index_min = request.get_ref().index_min))]
    async fn create_backup(
        &self,
        request: Request<v1::CreateBackupRequest>,
    ) -> Result<Response<Self::CreateBackupStream>, Status> {
        let permit = self.running.clone().try_acquire_owned();
        let permit = permit.map_err(|_| RequestError::from(BackupError::TooMany { max: BACKUPS_MAX }))?;
        let (parts, sent) = mpsc::channel(PARTS_AHEAD);
        tokio::spawn(self.clone().run(request.into_inner().index_min, parts, permit));
        Ok(Response::new(ReceiverStream::new(sent)))
    }
}

impl Backups {
    /// Registers its metrics.
    pub fn new(services: Services, registry: &Registry) -> Result<Backups, prometheus::Error> {
        let metrics = BackupMetrics::register(registry)?;
        Ok(Backups { services, metrics, running: Arc::new(Semaphore::new(BACKUPS_MAX)) })
    }

    async fn run(self, index_min: u64, parts: Parts, _permit: OwnedSemaphorePermit) {
        let begun = Instant::now();
        let sent = tokio::select! {
            sent = self.send(index_min, &parts) => sent,
            () = parts.closed() => Err(BackupError::Abandoned),
            () = self.services.stopping.draining() => Err(BackupError::Stopped),
        };
        let (duration, now_ms) = (begun.elapsed(), self.services.clock.now_ms());
        match sent {
            Ok(Sent { index, bytes }) => {
                self.metrics.completed(now_ms, duration, bytes);
                tracing::info!(index, bytes, ?duration, "backup sent");
            }
            Err(error) => {
                self.metrics.failed(now_ms);
                tracing::warn!(%error, ?duration, "backup failed");
                // Whoever asked may be gone, or take nothing.
                let told = parts.send(Err(RequestError::from(error).into()));
                let _ = tokio::time::timeout(STALL_LIMIT, told).await;
            }
        }
    }

    async fn send(&self, index_min: u64, parts: &Parts) -> Result<Sent, BackupError> {
        let begun_at_ms = self.services.clock.now_ms();
        let snapshot = self.services.group.snapshot_covering(index_min, SNAPSHOT_TIMEOUT).await?;
        let covered = covered(&snapshot).map_err(std::io::Error::other)?;
        let (index, bytes) = (covered.index, snapshot.length());
        tracing::info!(index, bytes, files = snapshot.files().len(), "sending a backup");
        hand_over(parts, Part::Begin(self.begin(&snapshot, covered, begun_at_ms))).await?;
        for file in snapshot.files() {
            self.send_file(&snapshot, file, parts).await?;
        }
        hand_over(parts, Part::End(v1::BackupEnd {})).await?;
        Ok(Sent { index, bytes })
    }

    fn begin(&self, snapshot: &Snapshot, covered: Covered, begun_at_ms: u64) -> v1::BackupBegin {
        let identity = &self.services.group.identity;
        let members = covered.members.into_iter().map(|(node_id, address, voter)| v1::Member {
            node_id,
            client_address: address.client,
            peer_address: address.peer,
            voter,
            holds_data: identity.holds_data(node_id),
        });
        v1::BackupBegin {
            backup_id: rand::random(),
            cluster_id: identity.id().map(|id| ClusterId(id).to_string()).unwrap_or_default(),
            node_id: self.services.group.node_id,
            node_version: self.services.announcer.version.clone(),
            index: covered.index,
            term: covered.term,
            begun_at_ms: signed(begun_at_ms),
            members: members.collect(),
            manifest: snapshot.manifest_bytes(),
        }
    }

    async fn send_file(&self, snapshot: &Snapshot, file: &SnapshotFile, parts: &Parts) -> Result<(), BackupError> {
        let mut offset = 0;
        let mut check = ReadCheck::default();
        while offset < file.length {
            let (reading, wanted) = (snapshot.clone(), file.clone());
            let read = blocking::apart(move || reading.read(&wanted, offset, CHUNK_BYTES)).await;
            let data = read.map_err(|_| BackupError::Stopped)?.map_err(std::io::Error::from)?;
            check.add(&data);
            let length = data.len() as u64;
            hand_over(parts, Part::Chunk(v1::BackupChunk { file: file.name.clone(), offset, data })).await?;
            self.metrics.bytes.inc_by(length);
            offset += length;
        }
        Ok(snapshot.check(file, check).map_err(std::io::Error::from)?)
    }
}

async fn hand_over(parts: &Parts, part: Part) -> Result<(), BackupError> {
    let response = v1::CreateBackupResponse { part: Some(part) };
    match tokio::time::timeout(STALL_LIMIT, parts.send(Ok(response))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(BackupError::Abandoned),
        Err(_) => Err(BackupError::Stalled(STALL_LIMIT)),
    }
}
