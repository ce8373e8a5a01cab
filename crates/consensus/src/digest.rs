//! Digests of the state, to be compared between nodes.

use std::time::Duration;

use dwell_machine::{Command, Release, StateDigest};

use crate::group::Group;
use crate::state_machine::{AHEAD_MAX, StateMachine, WAITING_MAX};

/// Between the first pulses with which a leader moves an idle log: time for others to be asked for the same index.
const PULSE_PAUSE: Duration = Duration::from_millis(5);
/// Pulses with a pause. With more to do there is no time to lose.
const PULSES_PACED: u32 = 200;

/// Why there is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// The state as of that index is gone.
    #[error("this node has applied the log up to index {applied}, and is past index {index}")]
    Passed {
        /// What was asked for.
        index: u64,
        /// Where this node is.
        applied: u64,
    },
    /// It would take too long to get there.
    #[error("index {index} is more than {AHEAD_MAX} ahead of {applied}, up to which this node has applied the log")]
    TooFarAhead {
        /// What was asked for.
        index: u64,
        /// Where this node is.
        applied: u64,
    },
    /// Each costs a read of the whole state.
    #[error("{WAITING_MAX} digests are waited for already")]
    TooManyWaiting,
    /// The log is idle, or slow.
    #[error("this node did not reach index {index} within {waited:?}")]
    NotReached {
        /// What was asked for.
        index: u64,
        /// For how long.
        waited: Duration,
    },
    /// Storage failed.
    #[error("the state was not readable: {0}")]
    Unreadable(String),
    /// Raft has stopped.
    #[error("the node is stopping")]
    Stopped,
}

impl Group {
    /// The digest of all rows of this node exactly as of the index, or of the next entry that is applied, and the index.
    /// If the index is not reached in time, that is an error; hashing then takes as long as reading everything.
    ///
    /// On the leader, this makes an idle log move.
    pub async fn state_digest(
        &self,
        at_index: Option<u64>,
        reach_timeout: Duration,
    ) -> Result<(u64, StateDigest), DigestError> {
        let pending = self.raft.with_state_machine(move |state_machine: &mut StateMachine| {
            let requested = state_machine.request_digest(at_index);
            Box::pin(async move {
                let (pending, begun) = requested?;
                if let Some(begun) = begun {
                    // An error means that it will not be made, which the answer tells.
                    let _ = begun.await;
                }
                Ok(pending)
            })
        });
        let mut pending = pending.await.map_err(|_| DigestError::Stopped)??;
        let index = pending.index;
        tokio::select! {
            biased;
            // An error means that the digest will not be made; the answer says why.
            _ = &mut pending.begun => {}
            () = self.pulse() => {}
            () = tokio::time::sleep(reach_timeout) => {
                return Err(DigestError::NotReached { index, waited: reach_timeout });
            }
        }
        let digest = pending.answer.await.map_err(|_| DigestError::Stopped)??;
        Ok((index, digest))
    }

    /// Makes the log move as long as this node leads, by entries that change nothing that was not due to change. Does not
    /// return.
    async fn pulse(&self) {
        let mut pulses = 0;
        loop {
            let leads = self.leadership.borrow().is_local;
            if !leads || pulses < PULSES_PACED {
                tokio::time::sleep(PULSE_PAUSE).await;
            }
            if leads && self.proposer.propose(Command::Release(Release {})).await.is_err() {
                tokio::time::sleep(PULSE_PAUSE).await;
            }
            pulses += u32::from(leads && pulses < PULSES_PACED);
        }
    }
}
