//! Attaching consumers, and detaching them whatever happens.

use std::pin::pin;
use std::time::Duration;

use dwell_consensus::leadership::Leadership;
use dwell_machine::{Attach, Command, Detach, Lease, Reply};
use futures::future::{FusedFuture, FutureExt};
use tokio::sync::oneshot;

use super::super::{Services, accepted};
use crate::status::RequestError;

/// Between attempts to detach a consumer while the leader cannot reach the others.
const DETACH_RETRY_PAUSE: Duration = Duration::from_millis(100);

/// A consumer that is attached, until it is detached.
pub(super) struct Attached {
    pub(super) consumer: u64,
    attachment: u64,
    /// In which it was attached.
    term: u64,
    pub(super) resumed: bool,
    pub(super) lost: Vec<Lease>,
}

/// An outcome that is waited for. One that came and was not taken is not forgotten.
struct Attaching {
    services: Services,
    outcome: oneshot::Receiver<Result<Attached, RequestError>>,
}

impl Drop for Attaching {
    fn drop(&mut self) {
        self.outcome.close();
        if let Ok(Ok(unwanted)) = self.outcome.try_recv() {
            let services = self.services.clone();
            tokio::spawn(async move { services.detach(unwanted, false).await });
        }
    }
}

impl Services {
    /// Attaches a consumer. If nobody takes the outcome, it is detached again.
    pub(super) fn attach(&self, attach: Attach) -> impl Future<Output = Result<Attached, RequestError>> + use<> {
        let (answer, outcome) = oneshot::channel();
        // In a task of its own: the outcome matters also when the stream is gone.
        tokio::spawn(self.clone().attach_and_answer(attach, answer));
        let mut attaching = Attaching { services: self.clone(), outcome };
        async move { (&mut attaching.outcome).await.unwrap_or(Err(RequestError::UnexpectedReply)) }
    }

    async fn attach_and_answer(self, attach: Attach, answer: oneshot::Sender<Result<Attached, RequestError>>) {
        let attachment = attach.attachment;
        let mut attaching = pin!(self.group.proposer.propose(Command::Attach(attach)).fuse());
        let outcome = self.in_tenure(&mut attaching).await.and_then(accepted);
        let term = self.group.leadership.borrow().term;
        let unwanted = match outcome {
            Ok(Reply::Attached { consumer, resumed, lost }) => {
                answer.send(Ok(Attached { consumer, attachment, term, resumed, lost })).err().and_then(Result::ok)
            }
            outcome => {
                let _ = answer.send(Err(outcome.err().unwrap_or(RequestError::UnexpectedReply)));
                // Nobody waits for it any more, but it may come about yet.
                if attaching.is_terminated() {
                    return;
                }
                let Ok(Reply::Attached { consumer, resumed, lost }) = attaching.await else { return };
                Some(Attached { consumer, attachment, term, resumed, lost })
            }
        };
        if let Some(unwanted) = unwanted {
            self.detach(unwanted, false).await;
        }
    }

    /// Detaches a consumer; with `close` its leases return at once. A leader that cannot reach the others refuses that,
    /// and may lead on in the same term when it can again: then it would send to nobody what falls to the consumer.
    /// Every other leadership begins with detaching all.
    pub(super) async fn detach(&self, attached: Attached, close: bool) {
        let Attached { consumer, attachment, term, .. } = attached;
        let detach = Detach { consumer, attachment, close };
        let mut leadership = self.group.leadership.clone();
        let own_id = self.group.node_id;
        let is_another = |now: &Leadership| {
            now.term != term || now.leader.as_ref().is_some_and(|(leader_id, _)| *leader_id != own_id)
        };
        while self.group.proposer.propose(Command::Detach(detach.clone())).await.is_err() {
            // An error means that the group has stopped.
            if tokio::time::timeout(DETACH_RETRY_PAUSE, leadership.wait_for(is_another)).await.is_ok() {
                return;
            }
        }
    }
}
