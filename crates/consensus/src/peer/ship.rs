//! The leader's side of a snapshot: file by file, chunk by chunk.

use std::time::Duration;

use dwell_proto::peer as wire;
use dwell_proto::peer::snapshot_part::Part;
use dwell_storage::snapshot::{ReadCheck, Snapshot, SnapshotError, SnapshotFile};
use openraft::StorageError;
use openraft::errors::{ErrorSource, RPCError, StreamingError, Unreachable};
use openraft::impls::BoxedErrorSource;
use openraft::network::RPCOption;
use openraft::raft::SnapshotResponse;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::convert::{vote_from_wire, vote_to_wire};
use super::network::{nonsense, unreachable};
use super::{PeerClient, PeerLink};
use crate::blocking;
use crate::types::{TypeConfig, Vote};

/// Chunks that are read ahead of the connection.
const PARTS_AHEAD: usize = 4;

/// In bytes; if openraft does not say.
const CHUNK_BYTES_DEFAULT: usize = 1024 * 1024;

/// What a receiver manages at least in a second once it has everything, in bytes: it reads it all again to
/// check it, and opens a database. How long it may take follows from the snapshot's size.
const INSTALL_BYTES_PER_SECOND_MIN: u64 = 16 * 1024 * 1024;

/// Why a transfer failed.
#[derive(Debug, thiserror::Error)]
enum ShipError {
    #[error(transparent)]
    Storage(#[from] SnapshotError),
    #[error("reading a snapshot was broken off: {0}")]
    Reader(#[from] tokio::task::JoinError),
    #[error("the receiver took nothing for {0:?}")]
    Stalled(Duration),
    #[error("the receiver did not install the snapshot within {0:?}")]
    NotInstalled(Duration),
    #[error("the receiver hung up")]
    HungUp,
}

/// Ships a snapshot and waits until it is installed. It may take as long as it likes, if it makes progress.
pub(super) async fn ship_snapshot(
    client: &PeerClient,
    vote: Vote,
    snapshot: Snapshot,
    option: &RPCOption,
) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
    let link = client.link()?;
    let stall_limit = option.soft_ttl();
    let install_limit = stall_limit + Duration::from_secs(snapshot.length() / INSTALL_BYTES_PER_SECOND_MIN);
    let (parts, sent) = mpsc::channel(PARTS_AHEAD);
    let mut calls = link.bulk();
    let mut call = std::pin::pin!(calls.install_snapshot(ReceiverStream::new(sent)));

    let begin = wire::SnapshotBegin {
        route: Some(client.route()),
        vote: Some(vote_to_wire(&vote)),
        manifest: snapshot.manifest_bytes(),
    };
    let shipment = Shipment {
        link,
        snapshot,
        parts,
        stall_limit,
        chunk_bytes: option.snapshot_chunk_size().unwrap_or(CHUNK_BYTES_DEFAULT),
    };
    let answer = tokio::select! {
        // Early: a refusal, or the receiver knows of a newer leader.
        answer = &mut call => answer,
        shipped = shipment.send(begin) => {
            // Who hung up says why in its answer.
            match shipped {
                Ok(()) | Err(ShipError::HungUp) => {}
                Err(error) => return Err(broken_off(link, error)),
            }
            match tokio::time::timeout(install_limit, call).await {
                Ok(answer) => answer,
                Err(_) => return Err(broken_off(link, ShipError::NotInstalled(install_limit))),
            }
        }
    };
    let response = answer.map_err(|status| RPCError::from(unreachable(link, &status)))?.into_inner();
    link.answered();
    let vote = vote_from_wire(response.vote, "vote").map_err(|error| RPCError::from(nonsense(error)))?;
    Ok(SnapshotResponse::new(vote))
}

/// A snapshot that cannot be read is a fault of this node's disk; everything else is the way or the receiver.
fn broken_off(link: &PeerLink, error: ShipError) -> StreamingError<TypeConfig> {
    match error {
        ShipError::Storage(error) => StorageError::read_snapshot(None, BoxedErrorSource::from_error(&error)).into(),
        error => {
            link.failed(&Status::deadline_exceeded(error.to_string()));
            Unreachable::new(&error).into()
        }
    }
}

struct Shipment<'a> {
    link: &'a PeerLink,
    snapshot: Snapshot,
    parts: mpsc::Sender<wire::SnapshotPart>,
    stall_limit: Duration,
    chunk_bytes: usize,
}

impl Shipment<'_> {
    /// Hands over all parts. The stream ends with it.
    async fn send(self, begin: wire::SnapshotBegin) -> Result<(), ShipError> {
        self.part(Part::Begin(begin)).await?;
        for file in self.snapshot.files() {
            self.file(file).await?;
        }
        self.part(Part::End(wire::SnapshotEnd {})).await
    }

    async fn file(&self, file: &SnapshotFile) -> Result<(), ShipError> {
        let mut offset = 0;
        let mut check = ReadCheck::default();
        while offset < file.length {
            let (snapshot, reading, chunk_bytes) = (self.snapshot.clone(), file.clone(), self.chunk_bytes);
            let data = blocking::apart(move || snapshot.read(&reading, offset, chunk_bytes)).await??;
            let length = data.len() as u64;
            check.add(&data);
            let chunk = wire::SnapshotChunk { file: file.name.clone(), offset, data };
            self.part(Part::Chunk(chunk)).await?;
            self.link.snapshot_bytes.inc_by(length);
            offset += length;
        }
        // Before `end`: the receiver does not install what this node knows to be damaged.
        Ok(self.snapshot.check(file, check)?)
    }

    async fn part(&self, part: Part) -> Result<(), ShipError> {
        let part = wire::SnapshotPart { part: Some(part) };
        match tokio::time::timeout(self.stall_limit, self.parts.send(part)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(ShipError::HungUp),
            Err(_) => Err(ShipError::Stalled(self.stall_limit)),
        }
    }
}
