//! `dwell.v1.Messages`: the calls; the streams stand in files of their own.

use dwell_machine::{Command, Reply};
use dwell_proto::v1;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::deliveries::{handle_of, leases_of};
use super::queues::counts_of;
use super::{Services, accepted, consistency};
use crate::status::RequestError;
use crate::validate;

#[tonic::async_trait]
impl v1::messages_server::Messages for Services {
    #[tracing::instrument(skip_all, fields(messages = request.get_ref().messages.len()))]
    async fn publish(&self, request: Request<v1::PublishRequest>) -> Result<Response<v1::PublishResponse>, Status> {
        let (command, queues) = self.publish_command(request.into_inner())?;
        let reply = self.commit(command).await?;
        Ok(Response::new(publish_response(&queues, reply)?))
    }

    type PublishStreamStream = ReceiverStream<Result<v1::PublishStreamResponse, Status>>;

    async fn publish_stream(
        &self,
        request: Request<Streaming<v1::PublishStreamRequest>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        Ok(Response::new(self.open_publish_stream(request.into_inner())))
    }

    type ConsumeStream = ReceiverStream<Result<v1::ConsumeResponse, Status>>;

    async fn consume(
        &self,
        request: Request<Streaming<v1::ConsumeRequest>>,
    ) -> Result<Response<Self::ConsumeStream>, Status> {
        Ok(Response::new(self.open_consume_stream(request.into_inner()).await?))
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
        let command = validate::nack(request.queue, request.leases, request.delay_ms).map_err(RequestError::from)?;
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

    #[tracing::instrument(skip_all, fields(queue = %request.get_ref().queue))]
    async fn get_queue_counts(
        &self,
        request: Request<v1::GetQueueCountsRequest>,
    ) -> Result<Response<v1::GetQueueCountsResponse>, Status> {
        let consistency = consistency(request.metadata());
        let request = request.into_inner();
        let queue = self.describe(consistency, &request.namespace, request.queue).await?;
        Ok(Response::new(v1::GetQueueCountsResponse { counts: Some(counts_of(&queue)) }))
    }
}

impl Services {
    /// The command of a publish request, and the queue of each of its messages, for the handles.
    pub(super) fn publish_command(&self, request: v1::PublishRequest) -> Result<(Command, Vec<String>), RequestError> {
        let queues = request.messages.iter().map(|message| message.queue.clone()).collect();
        let command = validate::publish(request, &self.limits, self.clock.now_ms())?;
        Ok((Command::Publish(command), queues))
    }

    pub(super) async fn settle(&self, command: Command) -> Result<Vec<v1::Lease>, RequestError> {
        match self.propose(command).await? {
            Reply::Settled { lost } => Ok(leases_of(lost)),
            _ => Err(RequestError::UnexpectedReply),
        }
    }
}

fn check_namespace(namespace: &str) -> Result<(), RequestError> {
    Ok(validate::namespace(namespace)?)
}

/// The confirm of a publish command.
pub(super) fn publish_response(queues: &[String], reply: Reply) -> Result<v1::PublishResponse, RequestError> {
    match accepted(reply)? {
        Reply::Published { sequences, duplicate } => Ok(v1::PublishResponse {
            results: queues
                .iter()
                .zip(sequences)
                .map(|(queue, sequence)| v1::PublishResult { handle: Some(handle_of(queue, sequence)), duplicate })
                .collect(),
        }),
        _ => Err(RequestError::UnexpectedReply),
    }
}
