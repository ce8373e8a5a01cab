//! What became of published messages.

use dwell_proto::v1;

use crate::error::Error;

/// A message that is stored.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Published {
    /// Names the stored message: its first copy, if an exchange routed it to several queues.
    pub handle: v1::Handle,
    /// True if it was stored before: by an earlier attempt of the same request, whose answer was lost, or by an
    /// earlier message with the same `dedupe_id`. The handle is that first one's, which may be gone by now.
    pub duplicate: bool,
    /// The copies in further queues.
    pub further: Vec<StoredCopy>,
}

/// A copy of a message in a further queue.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct StoredCopy {
    /// Names the copy.
    pub handle: v1::Handle,
    /// True if an earlier message with the same `dedupe_id` was stored there, of which this is the handle.
    pub duplicate: bool,
}

/// What became of one message of a request that was accepted.
#[derive(Debug, Clone, PartialEq)]
#[must_use = "the message may not be stored"]
pub enum PublishOutcome {
    /// It is stored, now or earlier.
    Stored(Published),
    /// No queue wanted it: it is not stored.
    Unroutable,
    /// A queue is full: it is stored in none.
    Rejected {
        /// The queue that is full.
        queue: String,
    },
}

impl PublishOutcome {
    /// The stored message, or why it is not: [`Error::Unroutable`] or [`Error::Rejected`].
    pub fn stored(self) -> Result<Published, Error> {
        match self {
            PublishOutcome::Stored(published) => Ok(published),
            PublishOutcome::Unroutable => Err(Error::Unroutable("no queue wanted the message".into())),
            PublishOutcome::Rejected { queue } => Err(Error::Rejected { queue }),
        }
    }

    /// True if the message is stored.
    pub fn is_stored(&self) -> bool {
        matches!(self, PublishOutcome::Stored(_))
    }
}

impl From<v1::PublishResult> for PublishOutcome {
    fn from(result: v1::PublishResult) -> PublishOutcome {
        match (result.outcome(), result.handle) {
            (v1::PublishOutcome::Rejected, _) => PublishOutcome::Rejected { queue: result.rejected_by },
            // A handle is what makes the difference, whatever a server says beside it.
            (v1::PublishOutcome::Unroutable, _) | (_, None) => PublishOutcome::Unroutable,
            (_, Some(handle)) => {
                let further = result.further.into_iter().map(StoredCopy::from).collect();
                PublishOutcome::Stored(Published { handle, duplicate: result.duplicate, further })
            }
        }
    }
}

impl From<v1::PublishCopy> for StoredCopy {
    fn from(copy: v1::PublishCopy) -> StoredCopy {
        StoredCopy { handle: copy.handle.unwrap_or_default(), duplicate: copy.duplicate }
    }
}

/// All of them, if all are stored. Otherwise the error of the only message, or one that tells of each.
pub(crate) fn all_stored(outcomes: Vec<PublishOutcome>) -> Result<Vec<Published>, Error> {
    if outcomes.len() > 1 && !outcomes.iter().all(PublishOutcome::is_stored) {
        return Err(Error::NotAllStored { outcomes });
    }
    outcomes.into_iter().map(PublishOutcome::stored).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(sequence: u64) -> PublishOutcome {
        let handle = v1::Handle { sequence, ..Default::default() };
        PublishOutcome::from(v1::PublishResult {
            handle: Some(handle),
            outcome: v1::PublishOutcome::Stored.into(),
            ..Default::default()
        })
    }

    fn rejected() -> PublishOutcome {
        PublishOutcome::from(v1::PublishResult {
            outcome: v1::PublishOutcome::Rejected.into(),
            rejected_by: "full".into(),
            ..Default::default()
        })
    }

    #[test]
    fn a_single_message_that_is_not_stored_is_an_error_of_its_own() {
        assert!(matches!(all_stored(vec![rejected()]), Err(Error::Rejected { queue }) if queue == "full"));
        let unroutable = PublishOutcome::from(v1::PublishResult {
            outcome: v1::PublishOutcome::Unroutable.into(),
            ..Default::default()
        });
        assert!(matches!(all_stored(vec![unroutable]), Err(Error::Unroutable(_))));
    }

    #[test]
    fn a_batch_of_which_one_is_not_stored_tells_of_each() {
        let Err(Error::NotAllStored { outcomes }) = all_stored(vec![stored(1), rejected()]) else {
            panic!("one was rejected")
        };
        assert!(outcomes[0].is_stored() && !outcomes[1].is_stored());
        assert_eq!(all_stored(vec![stored(1), stored(2)]).unwrap().len(), 2);
    }

    #[test]
    fn a_result_without_a_handle_is_never_taken_for_a_stored_message() {
        let stored = v1::PublishOutcome::Stored.into();
        let outcome = PublishOutcome::from(v1::PublishResult { outcome: stored, ..Default::default() });
        assert!(!outcome.is_stored());
    }
}
