//! The leader's timer service: it sleeps until the machine wants a pulse, and proposes one.
//!
//! It keeps no list of its own. When something may be due next is derived from the stored state by the
//! machine, on every node and after every entry, so a new leader, a restart or an earlier message need no
//! special care: the wake-up time changes, and the service sleeps anew.

use std::sync::Arc;
use std::time::Duration;

use dwell_machine::{Command, Release};
use tokio::sync::watch;

use crate::clock::Clock;
use crate::leadership::Leadership;
use crate::proposer::Proposer;

/// Longest sleep: the wall clock may be set meanwhile, which a sleeping task does not see.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// Pause after a pulse that did not get through.
const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// Runs until the node stops. `next_wake_ms` is what the machine last asked for.
pub(crate) async fn run(
    proposer: Proposer,
    clock: Arc<dyn Clock>,
    mut next_wake_ms: watch::Receiver<Option<u64>>,
    mut leadership: watch::Receiver<Leadership>,
) {
    let mut introduced_term = None;
    loop {
        let (leads, term) = {
            let leadership = leadership.borrow_and_update();
            (leadership.is_local, leadership.term)
        };
        let wake_at_ms = *next_wake_ms.borrow_and_update();
        // The first pulse of a leadership goes out at once: it makes the entry that detaches the former
        // leader's consumers, even if nobody else proposes anything.
        let pulse_now = leads && introduced_term != Some(term);
        let sleep = match (leads, wake_at_ms) {
            _ if pulse_now => Duration::ZERO,
            (true, Some(wake_at_ms)) => Duration::from_millis(wake_at_ms.saturating_sub(clock.now_ms())).min(SLEEP_MAX),
            _ => {
                tokio::select! {
                    changed = next_wake_ms.changed() => if changed.is_err() { return },
                    changed = leadership.changed() => if changed.is_err() { return },
                }
                continue;
            }
        };
        if !sleep.is_zero() {
            tokio::select! {
                () = tokio::time::sleep(sleep) => {}
                changed = next_wake_ms.changed() => if changed.is_err() { return },
                changed = leadership.changed() => if changed.is_err() { return },
            }
            continue;
        }
        match proposer.propose(Command::Release(Release {})).await {
            Ok(_) => introduced_term = Some(term),
            Err(error) => {
                tracing::debug!(%error, "release pulse did not get through");
                tokio::time::sleep(RETRY_PAUSE).await;
            }
        }
    }
}
