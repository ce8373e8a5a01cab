//! Making a snapshot beside the state machine.

use std::io;

use openraft::RaftSnapshotBuilder;
use openraft::storage::Snapshot as RaftSnapshot;

use super::metrics::StateMachineMetrics;
use super::{SnapshotOfState, snapshot_meta};
use crate::blocking;
use crate::types::TypeConfig;
use dwell_storage::snapshot::{Snapshot, SnapshotBuilder as StateSnapshotBuilder};

/// Makes one snapshot, on a thread that may block, while the state machine goes on applying.
pub struct SnapshotBuilder {
    pub(super) builder: Option<StateSnapshotBuilder>,
    pub(super) metrics: StateMachineMetrics,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    type SnapshotData = Snapshot;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOfState> {
        let builder = self.builder.take().ok_or_else(|| io::Error::other("a snapshot builder makes one snapshot"))?;
        let timer = self.metrics.snapshot_seconds.start_timer();
        let snapshot = blocking::apart(move || builder.build()).await.map_err(io::Error::other)??;
        timer.observe_duration();
        self.metrics.set_snapshot_bytes(snapshot.length());
        tracing::info!(?snapshot, bytes = snapshot.length(), "snapshot made");
        // Not what was applied when the builder was made: the data may be some entries further.
        Ok(RaftSnapshot { meta: snapshot_meta(&snapshot)?, snapshot })
    }
}
