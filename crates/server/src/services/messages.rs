//! `dwell.v1.Messages`: the calls; the streams stand in files of their own.

use dwell_machine::{Command, PublishMessage, PublishResult, Reply, RoutedCopy};
use dwell_proto::v1;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::consume::ConsumeResponses;
use super::deliveries::{handle_of, leases_of};
use super::queues::counts_of;
use super::{Services, accepted, consistency};
use crate::access::Caller;
use crate::metrics::PublishMetrics;
use crate::status::RequestError;
use crate::validate;
use crate::watermarks::InFlight;

#[tonic::async_trait]
impl v1::messages_server::Messages for Services {
    #[tracing::instrument(skip_all, fields(messages = request.get_ref().messages.len()))]
    async fn publish(&self, request: Request<v1::PublishRequest>) -> Result<Response<v1::PublishResponse>, Status> {
        let request = request.into_inner();
        let publishing = self.traces.publishing(&request.messages);
        let results = self.publish_messages(request).await.map_err(Status::from);
        if let Some(publishing) = publishing {
            publishing.answered(results.as_deref());
        }
        Ok(Response::new(v1::PublishResponse { results: results? }))
    }

    type PublishStreamStream = ReceiverStream<Result<v1::PublishStreamResponse, Status>>;

    async fn publish_stream(
        &self,
        request: Request<Streaming<v1::PublishStreamRequest>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        let caller = Caller::of(request.extensions(), &self.access)?;
        Ok(Response::new(self.open_publish_stream(caller, request.into_inner())))
    }

    type ConsumeStream = ConsumeResponses;

    async fn consume(
        &self,
        request: Request<Streaming<v1::ConsumeRequest>>,
    ) -> Result<Response<Self::ConsumeStream>, Status> {
        let caller = Caller::of(request.extensions(), &self.access)?;
        Ok(Response::new(self.open_consume_stream(caller, request.into_inner())))
    }

    #[tracing::instrument(skip_all, fields(queue = %request.get_ref().queue))]
    async fn receive(&self, request: Request<v1::ReceiveRequest>) -> Result<Response<v1::ReceiveResponse>, Status> {
        let deliveries = self.receive_messages(request.into_inner()).await?;
        Ok(Response::new(v1::ReceiveResponse { deliveries }))
    }

    #[tracing::instrument(skip_all, fields(queue = %request.get_ref().queue))]
    async fn ack(&self, request: Request<v1::AckRequest>) -> Result<Response<v1::AckResponse>, Status> {
        let request = request.into_inner();
        check_namespace(&request.namespace)?;
        let command = validate::ack(request.queue, request.leases).map_err(RequestError::from)?;
        let lost = self.settle(Command::Ack(command)).await?;
        Ok(Response::new(v1::AckResponse { lost }))
    }

    #[tracing::instrument(skip_all, fields(queue = %request.get_ref().queue))]
    async fn nack(&self, request: Request<v1::NackRequest>) -> Result<Response<v1::NackResponse>, Status> {
        let request = request.into_inner();
        check_namespace(&request.namespace)?;
        let command = validate::nack(request.queue, request.leases, request.delay_ms, request.reject)
            .map_err(RequestError::from)?;
        let lost = self.settle(Command::Nack(command)).await?;
        Ok(Response::new(v1::NackResponse { lost }))
    }

    #[tracing::instrument(skip_all, fields(queue = %request.get_ref().queue))]
    async fn extend(&self, request: Request<v1::ExtendRequest>) -> Result<Response<v1::ExtendResponse>, Status> {
        let request = request.into_inner();
        check_namespace(&request.namespace)?;
        let command =
            validate::extend(request.queue, request.leases, request.lease_timeout_ms).map_err(RequestError::from)?;
        let lost = self.settle(Command::Extend(command)).await?;
        Ok(Response::new(v1::ExtendResponse { lost }))
    }

    #[tracing::instrument(skip_all, fields(
        queues = request.get_ref().acks.len(),
        messages = request.get_ref().messages.len(),
    ))]
    async fn transact(&self, request: Request<v1::TransactRequest>) -> Result<Response<v1::TransactResponse>, Status> {
        let request = request.into_inner();
        let publishing = self.traces.publishing(&request.messages);
        let results = self.transact_messages(request).await;
        if let Some(publishing) = publishing {
            publishing.answered(results.as_deref());
        }
        Ok(Response::new(v1::TransactResponse { results: results? }))
    }

    #[tracing::instrument(skip_all, fields(queue = %request.get_ref().queue))]
    async fn get_queue_counts(
        &self,
        request: Request<v1::GetQueueCountsRequest>,
    ) -> Result<Response<v1::GetQueueCountsResponse>, Status> {
        let consistency = consistency(request.metadata());
        let request = request.into_inner();
        let queue = self.describe(consistency, &request.namespace, request.queue).await?;
        Ok(Response::new(v1::GetQueueCountsResponse { counts: Some(counts_of(queue.counts)) }))
    }
}

impl Services {
    async fn publish_messages(&self, request: v1::PublishRequest) -> Result<Vec<v1::PublishResult>, RequestError> {
        let (command, routing_keys, in_flight) = self.publish_command(request)?;
        let reply = self.commit(command).await?;
        drop(in_flight);
        publish_results(&routing_keys, reply, &self.published)
    }

    async fn transact_messages(&self, request: v1::TransactRequest) -> Result<Vec<v1::PublishResult>, Status> {
        let command = validate::transact(request, &self.limits, self.clock.now_ms()).map_err(RequestError::from)?;
        let admitted = self.watermarks.admit(body_bytes(&command.publish.messages));
        let in_flight = admitted.map_err(RequestError::from)?;
        let routing_keys = routing_keys(&command.publish.messages);
        let command = Command::Transact(command);
        let settling = self.traces.settling(&command);
        let reply = self.commit(command).await;
        drop(in_flight);
        let results = reply.and_then(|reply| publish_results(&routing_keys, reply, &self.published));
        let results = results.map_err(Status::from);
        if let Some(settling) = settling {
            // All of it is done, or nothing: no lease is lost alone.
            settling.answered(results.as_ref().map(|_| &[][..]));
        }
        results
    }

    /// The command of a publish request, the routing key of each of its messages, for the handles, and what is to be kept
    /// until it is committed.
    pub(super) fn publish_command(
        &self,
        request: v1::PublishRequest,
    ) -> Result<(Command, Vec<String>, InFlight), RequestError> {
        let command = validate::publish(request, &self.limits, self.clock.now_ms())?;
        let in_flight = self.watermarks.admit(body_bytes(&command.messages))?;
        let routing_keys = routing_keys(&command.messages);
        Ok((Command::Publish(command), routing_keys, in_flight))
    }

    pub(super) async fn settle(&self, command: Command) -> Result<Vec<v1::Lease>, Status> {
        let settling = self.traces.settling(&command);
        let lost = match self.propose(command).await {
            Ok(Reply::Settled { lost }) => Ok(leases_of(lost)),
            Ok(_) => Err(RequestError::UnexpectedReply.into()),
            Err(error) => Err(error.into()),
        };
        if let Some(settling) = settling {
            settling.answered(lost.as_deref());
        }
        lost
    }
}

fn check_namespace(namespace: &str) -> Result<(), RequestError> {
    Ok(validate::namespace(namespace)?)
}

fn body_bytes(messages: &[PublishMessage]) -> usize {
    messages.iter().map(|message| message.content.body.len()).sum()
}

fn routing_keys(messages: &[PublishMessage]) -> Vec<String> {
    messages.iter().map(|message| message.routing_key.clone()).collect()
}

/// What became of the messages of a publish command or a transaction.
pub(super) fn publish_results(
    routing_keys: &[String],
    reply: Reply,
    metrics: &PublishMetrics,
) -> Result<Vec<v1::PublishResult>, RequestError> {
    let Reply::Published { results, duplicate } = accepted(reply)? else { return Err(RequestError::UnexpectedReply) };
    let results = routing_keys.iter().zip(results).map(|(routing_key, result)| {
        let result = result_of(routing_key, result, duplicate);
        metrics.count(&result);
        result
    });
    Ok(results.collect())
}

/// `repeated`: the command was applied before, and this is its first outcome.
fn result_of(routing_key: &str, result: PublishResult, repeated: bool) -> v1::PublishResult {
    match result {
        PublishResult::Stored { sequence } => v1::PublishResult {
            handle: Some(handle_of(routing_key, sequence)),
            duplicate: repeated,
            outcome: v1::PublishOutcome::Stored.into(),
            ..Default::default()
        },
        PublishResult::Routed(copies) => {
            let mut copies = copies.into_iter().map(copy_of);
            let first = copies.next();
            v1::PublishResult {
                duplicate: repeated || first.as_ref().is_some_and(|first| first.duplicate),
                handle: first.and_then(|first| first.handle),
                outcome: v1::PublishOutcome::Stored.into(),
                further: copies.collect(),
                ..Default::default()
            }
        }
        PublishResult::Unroutable => {
            v1::PublishResult { outcome: v1::PublishOutcome::Unroutable.into(), ..Default::default() }
        }
        PublishResult::Rejected { queue } => {
            v1::PublishResult { outcome: v1::PublishOutcome::Rejected.into(), rejected_by: queue, ..Default::default() }
        }
    }
}

fn copy_of(copy: RoutedCopy) -> v1::PublishCopy {
    v1::PublishCopy { handle: Some(handle_of(&copy.queue, copy.sequence)), duplicate: copy.duplicate }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(queue: &str, sequence: u64, duplicate: bool) -> RoutedCopy {
        RoutedCopy { queue: queue.into(), sequence, duplicate }
    }

    #[test]
    fn a_stored_message_is_answered_with_its_handle() {
        let result = result_of("orders", PublishResult::Stored { sequence: 7 }, false);
        assert_eq!((result.outcome(), result.duplicate), (v1::PublishOutcome::Stored, false));
        assert_eq!(result.handle, Some(handle_of("orders", 7)));
        assert!(result_of("orders", PublishResult::Stored { sequence: 7 }, true).duplicate);
    }

    #[test]
    fn a_routed_message_is_answered_with_all_its_copies_the_first_one_apart() {
        let result = result_of("a.b", PublishResult::Routed(vec![copy("one", 7, false), copy("two", 3, true)]), false);
        assert_eq!((result.handle, result.duplicate), (Some(handle_of("one", 7)), false));
        assert_eq!(result.further, [v1::PublishCopy { handle: Some(handle_of("two", 3)), duplicate: true }]);
        let result = result_of("one", PublishResult::Routed(vec![copy("one", 3, true)]), false);
        assert_eq!((result.handle, result.duplicate), (Some(handle_of("one", 3)), true));
        assert_eq!(result.further, []);
    }

    #[test]
    fn what_was_not_stored_has_no_handle_and_says_why() {
        let result = result_of("a.b", PublishResult::Unroutable, true);
        assert_eq!((result.outcome(), result.handle), (v1::PublishOutcome::Unroutable, None));
        let result = result_of("a.b", PublishResult::Rejected { queue: "full".into() }, false);
        assert_eq!((result.outcome(), result.handle), (v1::PublishOutcome::Rejected, None));
        assert_eq!(result.rejected_by, "full");
    }
}
