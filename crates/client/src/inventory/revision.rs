//! Recall, reschedule, expire now.

use std::pin::Pin;
use std::task::{Context, Poll};

use dwell_proto::v1;
use futures::{Stream, StreamExt};
use tonic::Streaming;

use super::inventory;
use super::selection::{NewTime, Selection, Target};
use crate::call::{Outcome, Policy};
use crate::client::Client;
use crate::error::{Error, is_transient};

/// What became of the messages that a revision named.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Revision {
    /// One for each message named, in order; by message id one for each message found, the oldest first.
    pub revised: Vec<Revised>,
    /// There are more messages with this message id: call again, with [`Target::after`] the last of these.
    pub has_more: bool,
}

/// What became of one message that was to be revised.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Revised {
    /// Names the message.
    pub handle: v1::Handle,
    /// What became of it.
    pub outcome: RevisionOutcome,
}

/// See [`Revised`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevisionOutcome {
    /// It is recalled, rescheduled or expired now. Who recalls a message and gets this answer can rely on it: nobody
    /// will see the message.
    Done,
    /// A consumer has it, and it was left alone.
    Leased,
    /// It was acknowledged, expired, dead-lettered or recalled before.
    Gone,
    /// No message ever had this sequence.
    Unknown,
    /// It is gone. The answer to an earlier attempt of this call was lost: that attempt may have done it, or the message
    /// was gone before.
    DoneOrGone,
}

/// Changing plans for messages that no consumer has.
impl Client {
    /// Withdraws messages: nobody will see those whose outcome is [`RevisionOutcome::Done`]. Errors:
    /// [`Error::NotFound`] for the queue; [`Error::Unknown`] if an answer was lost, and there is no message with this
    /// message id any more.
    pub async fn recall(&self, target: Target) -> Result<Revision, Error> {
        let message = v1::RecallRequest { namespace: String::new(), target: Some(target.into_proto()) };
        let outcome = self.core.call(Policy::WRITE, |channel| {
            let request = message.clone();
            async move { inventory(channel).recall(request).await }
        });
        revision(outcome.await)
    }

    /// Gives messages another due time. Errors: as [`Client::recall`].
    pub async fn reschedule(&self, target: Target, time: NewTime) -> Result<Revision, Error> {
        let message = v1::RescheduleRequest {
            namespace: String::new(),
            target: Some(target.into_proto()),
            time: Some(time.into_proto()),
        };
        let outcome = self.core.call(Policy::WRITE, |channel| {
            let request = message.clone();
            async move { inventory(channel).reschedule(request).await }
        });
        revision(outcome.await)
    }

    /// Lets messages expire at once. Errors: as [`Client::recall`].
    pub async fn expire_now(&self, target: Target) -> Result<Revision, Error> {
        let message = v1::ExpireNowRequest { namespace: String::new(), target: Some(target.into_proto()) };
        let outcome = self.core.call(Policy::WRITE, |channel| {
            let request = message.clone();
            async move { inventory(channel).expire_now(request).await }
        });
        revision(outcome.await)
    }

    /// Withdraws the messages of a queue that match, in steps: answers the progress after each. Dropping the stream
    /// ends it after the step under way. Errors: [`Error::NotFound`].
    pub async fn recall_matching(&self, selection: Selection) -> Result<Revising, Error> {
        let message = v1::RecallMatchingRequest { namespace: String::new(), selection: Some(selection.into_proto()) };
        let outcome = self.core.call(Policy::WRITE, |channel| {
            let request = message.clone();
            async move { inventory(channel).recall_matching(request).await }
        });
        outcome.await.result.map(Revising::new)
    }

    /// Gives the messages of a queue that match another due time, as [`Client::recall_matching`] withdraws them.
    pub async fn reschedule_matching(&self, selection: Selection, time: NewTime) -> Result<Revising, Error> {
        let message = v1::RescheduleMatchingRequest {
            namespace: String::new(),
            selection: Some(selection.into_proto()),
            time: Some(time.into_proto()),
        };
        let outcome = self.core.call(Policy::WRITE, |channel| {
            let request = message.clone();
            async move { inventory(channel).reschedule_matching(request).await }
        });
        outcome.await.result.map(Revising::new)
    }

    /// Lets the messages of a queue that match expire at once, as [`Client::recall_matching`] withdraws them.
    pub async fn expire_matching(&self, selection: Selection) -> Result<Revising, Error> {
        let message = v1::ExpireMatchingRequest { namespace: String::new(), selection: Some(selection.into_proto()) };
        let outcome = self.core.call(Policy::WRITE, |channel| {
            let request = message.clone();
            async move { inventory(channel).expire_matching(request).await }
        });
        outcome.await.result.map(Revising::new)
    }
}

fn revision(outcome: Outcome<v1::ReviseResponse>) -> Result<Revision, Error> {
    let response = outcome.result?;
    // By message id, what an earlier attempt withdrew is not found any more.
    if outcome.repeated && response.revised.is_empty() {
        let reason = "the connection broke before the answer came, and there is no such message now: it was revised, \
                      or never was";
        return Err(Error::Unknown(reason.into()));
    }
    let revised = response.revised.into_iter().map(|revised| {
        let result = match revised.outcome() {
            v1::RevisionOutcome::Done => RevisionOutcome::Done,
            v1::RevisionOutcome::Leased => RevisionOutcome::Leased,
            v1::RevisionOutcome::Gone if outcome.repeated => RevisionOutcome::DoneOrGone,
            v1::RevisionOutcome::Gone => RevisionOutcome::Gone,
            v1::RevisionOutcome::Unknown | v1::RevisionOutcome::Unspecified => RevisionOutcome::Unknown,
        };
        Revised { handle: revised.handle.unwrap_or_default(), outcome: result }
    });
    Ok(Revision { revised: revised.collect(), has_more: response.has_more })
}

/// A revision by filter under way: yields the progress so far after each step, and ends after the one that is `done`.
///
/// An error is the last thing it yields. What was done stays done; to call again does the rest.
#[derive(Debug)]
#[must_use = "dropping it ends the revision"]
pub struct Revising {
    /// None after the end.
    steps: Option<Streaming<v1::ReviseProgress>>,
}

impl Revising {
    /// Waits for the end, and answers the progress in total.
    pub async fn finish(mut self) -> Result<v1::ReviseProgress, Error> {
        let mut last = v1::ReviseProgress::default();
        while let Some(progress) = self.next().await {
            last = progress?;
        }
        Ok(last)
    }

    fn new(steps: Streaming<v1::ReviseProgress>) -> Revising {
        Revising { steps: Some(steps) }
    }
}

impl Stream for Revising {
    type Item = Result<v1::ReviseProgress, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(steps) = &mut self.steps else { return Poll::Ready(None) };
        let step = std::task::ready!(steps.poll_next_unpin(context));
        let item = match step {
            Some(Ok(progress)) => {
                if progress.done {
                    self.steps = None;
                }
                return Poll::Ready(Some(Ok(progress)));
            }
            Some(Err(status)) if is_transient(&status) => {
                Error::Unknown(format!("the revision broke off, and can be called again: {}", status.message()))
            }
            Some(Err(status)) => Error::from_status(&status),
            None => Error::Unknown("the revision broke off, and can be called again: the server ended it".into()),
        };
        self.steps = None;
        Poll::Ready(Some(Err(item)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(outcomes: &[v1::RevisionOutcome], repeated: bool) -> Result<Revision, Error> {
        let revised = |outcome: &v1::RevisionOutcome| v1::Revised { handle: None, outcome: (*outcome).into() };
        let revised = outcomes.iter().map(revised).collect();
        revision(Outcome { result: Ok(v1::ReviseResponse { revised, has_more: false }), repeated })
    }

    #[test]
    fn a_message_that_is_gone_when_the_call_is_repeated_may_have_been_recalled_by_it() {
        let outcomes = [v1::RevisionOutcome::Done, v1::RevisionOutcome::Gone];
        let outcome = |repeated| answer(&outcomes, repeated).unwrap().revised[1].outcome;
        assert_eq!(outcome(false), RevisionOutcome::Gone);
        assert_eq!(outcome(true), RevisionOutcome::DoneOrGone);
    }

    #[test]
    fn finding_nothing_is_an_answer_only_if_it_is_the_first() {
        assert_eq!(answer(&[], false).unwrap().revised, []);
        assert!(matches!(answer(&[], true), Err(Error::Unknown(_))));
    }
}
