//! A snapshot when somebody asks for one.

use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;

use crate::group::Group;
use crate::types::LogId;

/// Why there is no snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// There is nothing to make one of.
    #[error("nothing has been applied yet")]
    Nothing,
    /// It goes on.
    #[error("the snapshot was not made within {0:?}; it goes on")]
    NotMade(Duration),
    /// Raft has stopped.
    #[error("the node is stopping: {0}")]
    Stopped(String),
}

impl Group {
    /// Makes a snapshot of what is applied by now, unless the newest one covers that, and answers the index of the last
    /// entry that it covers.
    pub async fn make_snapshot(&self, timeout: Duration) -> Result<u64, SnapshotError> {
        let mut metrics = self.raft.metrics();
        let applied = metrics.borrow_watched().last_applied.ok_or(SnapshotError::Nothing)?;
        let made = |snapshot: Option<LogId>| snapshot.filter(|snapshot| *snapshot >= applied).map(|at| at.index);
        let making = async {
            loop {
                let before = metrics.borrow_watched().snapshot;
                if let Some(index) = made(before) {
                    return Ok(index);
                }
                // One that was under way when it was asked for may not cover all: asked again when it is made.
                let stopped = |error: String| SnapshotError::Stopped(error);
                self.raft.trigger().snapshot().await.map_err(|error| stopped(error.to_string()))?;
                while metrics.borrow_watched().snapshot == before {
                    metrics.changed().await.map_err(|error| stopped(error.to_string()))?;
                }
            }
        };
        tokio::time::timeout(timeout, making).await.unwrap_or(Err(SnapshotError::NotMade(timeout)))
    }
}
