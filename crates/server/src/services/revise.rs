//! Changing plans for messages: named ones in one step, those that match a filter in many.

use bytes::Bytes;
use dwell_machine::{Command, Reply, Revise, ReviseById, ReviseMatching, Revision, RevisionOutcome};
use dwell_proto::v1;
use dwell_proto::v1::target::By;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::Services;
use super::deliveries::handle_of;
use crate::status::RequestError;
use crate::validate::{self, Named, Selected};

/// Responses waiting for the client to read them. The next step is not begun until there is room: a client that
/// does not read holds up its own revision only.
const RESPONSES_MAX: usize = 1;

type Responses = mpsc::Sender<Result<v1::ReviseProgress, Status>>;

impl Services {
    /// Revises the messages that the request names.
    pub(super) async fn revise_named(
        &self,
        namespace: &str,
        target: Option<v1::Target>,
        revision: Revision,
    ) -> Result<v1::ReviseResponse, RequestError> {
        validate::namespace(namespace)?;
        let named = validate::target(target)?;
        let queue = named.queue.clone();
        match self.propose(command(named, revision)).await? {
            Reply::Revised { outcomes, has_more } => Ok(v1::ReviseResponse {
                revised: outcomes.into_iter().map(|outcome| revised_of(&queue, outcome)).collect(),
                has_more,
            }),
            _ => Err(RequestError::UnexpectedReply),
        }
    }

    /// Revises all messages that match, and reports after each step.
    pub(super) fn revise_selected(
        &self,
        namespace: &str,
        selection: Option<v1::Selection>,
        revision: Revision,
    ) -> Result<ReceiverStream<Result<v1::ReviseProgress, Status>>, RequestError> {
        validate::namespace(namespace)?;
        let selected = validate::selection(selection, self.clock.now_ms())?;
        let (responses, receiver) = mpsc::channel(RESPONSES_MAX);
        let services = self.clone();
        tokio::spawn(async move {
            if let Err(error) = services.revise_in_steps(selected, revision, &responses).await {
                // A client that went away has no use for the reason.
                let _ = responses.send(Err(error.into())).await;
            }
        });
        Ok(ReceiverStream::new(receiver))
    }

    /// One step after the other, until all is done or the client is gone.
    async fn revise_in_steps(
        &self,
        selected: Selected,
        revision: Revision,
        responses: &Responses,
    ) -> Result<(), RequestError> {
        let Selected { queue, filter, revoke } = selected;
        let mut step = ReviseMatching { queue, filter, revoke, cursor: Bytes::new(), revision: Some(revision) };
        let mut progress = v1::ReviseProgress::default();
        while !progress.done {
            let reply = self.propose(Command::ReviseMatching(step.clone())).await?;
            let Reply::RevisedMatching { examined, revised, leased, next } = reply else {
                return Err(RequestError::UnexpectedReply);
            };
            progress.examined += examined;
            progress.revised += revised;
            progress.leased += leased;
            progress.done = next.is_none();
            step.cursor = next.unwrap_or_default();
            if responses.send(Ok(progress)).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}

fn command(named: Named, revision: Revision) -> Command {
    let Named { queue, by, revoke, after } = named;
    let revision = Some(revision);
    match by {
        By::Sequences(v1::Sequences { sequences }) => Command::Revise(Revise { queue, sequences, revoke, revision }),
        By::MessageId(message_id) => Command::ReviseById(ReviseById { queue, message_id, revoke, after, revision }),
    }
}

fn revised_of(queue: &str, (sequence, outcome): (u64, RevisionOutcome)) -> v1::Revised {
    let outcome = match outcome {
        RevisionOutcome::Done => v1::RevisionOutcome::Done,
        RevisionOutcome::Leased => v1::RevisionOutcome::Leased,
        RevisionOutcome::Gone => v1::RevisionOutcome::Gone,
        RevisionOutcome::Unknown => v1::RevisionOutcome::Unknown,
    };
    v1::Revised { handle: Some(handle_of(queue, sequence)), outcome: outcome.into() }
}
