//! Attaching consumers, and detaching them whatever happens.

use std::pin::pin;
use std::time::Duration;

use dwell_consensus::leadership::Leadership;
use dwell_machine::{Attach, Command, Detach, Lease, Reply};
use futures::future::{FusedFuture, FutureExt};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::super::{Services, accepted};
use crate::status::RequestError;

/// Between attempts to detach a consumer while the leader cannot reach the others.
const DETACH_RETRY_PAUSE: Duration = Duration::from_millis(100);

/// How a consumer is attached.
pub(super) struct Attached {
    pub(super) consumer: u64,
    pub(super) resumed: bool,
    pub(super) lost: Vec<Lease>,
}

/// A consumer that is attached, or about to be. Dropping it detaches it, then or as soon as it is attached.
pub(super) struct Attachment {
    /// Told whether the consumer closes.
    leave: oneshot::Sender<bool>,
    /// Attaches the consumer, and detaches it. Of its own: it has to be done also if the stream is gone.
    keeper: JoinHandle<()>,
}

impl Attachment {
    /// Detaches it, and resolves when that is done; with `close` its leases return at once.
    pub(super) fn leave(self, close: bool) -> impl Future<Output = ()> {
        // The keeper is gone if the consumer was never attached.
        let _ = self.leave.send(close);
        self.keeper.map(drop)
    }
}

impl Services {
    /// Attaches a consumer, and tells how.
    pub(super) fn attach(&self, attach: Attach) -> (Attachment, oneshot::Receiver<Result<Attached, RequestError>>) {
        let (answer, outcome) = oneshot::channel();
        let (leave, leaving) = oneshot::channel();
        let keeper = tokio::spawn(self.clone().keep(attach, answer, leaving));
        (Attachment { leave, keeper }, outcome)
    }

    async fn keep(
        self,
        attach: Attach,
        answer: oneshot::Sender<Result<Attached, RequestError>>,
        leaving: oneshot::Receiver<bool>,
    ) {
        let attachment = attach.attachment;
        let mut attaching = pin!(self.group.proposer.propose(Command::Attach(attach)).fuse());
        let outcome = self.in_tenure(&mut attaching).await.and_then(accepted);
        let term = self.group.leadership.borrow().term;
        let consumer = match outcome {
            Ok(Reply::Attached { consumer, resumed, lost }) => {
                let _ = answer.send(Ok(Attached { consumer, resumed, lost }));
                consumer
            }
            outcome => {
                let _ = answer.send(Err(outcome.err().unwrap_or(RequestError::UnexpectedReply)));
                // Nobody waits for it any more, but it may come about yet.
                if attaching.is_terminated() {
                    return;
                }
                let Ok(Reply::Attached { consumer, .. }) = attaching.await else { return };
                consumer
            }
        };
        let close = leaving.await.unwrap_or(false);
        self.detach(Detach { consumer, attachment, close }, term).await;
    }

    /// Detaches a consumer that was attached by the term `term`. A leader that cannot reach the others refuses that, and
    /// may lead on in the same term when it can again: then it would send to nobody what falls to the consumer. Every
    /// other leadership begins with detaching all.
    async fn detach(&self, detach: Detach, term: u64) {
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
