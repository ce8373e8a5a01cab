//! How a node stops when it is told to: it is not ready any more, hands the leadership over, tells streams to go elsewhere,
//! and lets the calls under way end.

use std::time::Duration;

use dwell_consensus::group::Group;
use dwell_consensus::membership::MembershipError;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How far a node is with stopping; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Stopping {
    begun: CancellationToken,
    draining: CancellationToken,
}

impl Stopping {
    /// True from the moment that the node is told to stop: it is not ready for clients any more.
    pub fn has_begun(&self) -> bool {
        self.begun.is_cancelled()
    }

    /// Resolves when that happens.
    pub async fn begun(&self) {
        self.begun.cancelled().await;
    }

    /// True once streams are to end: see [`Self::draining`].
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Resolves when the node does not lead any more, or cannot help it: streams end, and no more calls are taken.
    pub async fn draining(&self) {
        self.draining.cancelled().await;
    }

    /// The same, for whoever keeps it.
    pub fn drain_token(&self) -> CancellationToken {
        self.draining.clone()
    }

    /// Waits for a signal to stop, and prepares the node for its end. Resolves when it should end although calls may be
    /// under way: `patience` later, or with a second signal.
    pub async fn on_signal(&self, mut signals: Signals, group: &Group, patience: Duration) {
        signals.received().await;
        tracing::info!("told to stop: handing over, and letting calls end");
        self.begun.cancel();
        let prepared = tokio::time::timeout(patience, async {
            hand_over(group).await;
            self.draining.cancel();
            // It may have been elected meanwhile, by another node that stops.
            hand_over(group).await;
            std::future::pending::<()>().await;
        });
        tokio::select! {
            _ = prepared => tracing::warn!(?patience, "calls are still under way: ending without them"),
            () = signals.received() => tracing::warn!("told to stop again: ending at once"),
        }
    }
}

async fn hand_over(group: &Group) {
    match group.resign().await {
        Ok(Some(leader)) => tracing::info!(leader, "handed the leadership over"),
        Ok(None) => {}
        Err(MembershipError::NoSuccessor(_)) => tracing::info!("there is nobody to hand the leadership over to"),
        Err(error) => tracing::warn!(%error, "the leadership was not handed over"),
    }
}

/// SIGTERM and SIGINT.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From now on these signals do not end the process by themselves.
    pub fn listen() -> std::io::Result<Signals> {
        Ok(Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
