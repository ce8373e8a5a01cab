//! Publishing over one stream: requests go to the proposer as they come, confirms go back in their order.

use dwell_consensus::leadership::Tenure;
use dwell_consensus::proposer::{Hurry, ProposeError};
use dwell_machine::Reply;
use dwell_proto::v1;
use dwell_proto::v1::publish_stream_response::Outcome;
use futures::StreamExt;
use futures::future::Either;
use futures::stream::FuturesOrdered;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::Services;
use super::messages::publish_results;
use crate::access::Caller;
use crate::status::{RequestError, unavailable};

/// Requests of a stream that may be unconfirmed. The server reads no further until then, and HTTP/2's flow
/// control stops the client. No more than the outcomes that the machine remembers for a producer.
const UNCONFIRMED_MAX: usize = dwell_machine::limits::PRODUCER_WINDOW as usize;
/// Confirms waiting for the client to read them.
const RESPONSES_MAX: usize = 16;

type Responses = mpsc::Sender<Result<v1::PublishStreamResponse, Status>>;

impl Services {
    pub(super) fn open_publish_stream(
        &self,
        caller: Caller,
        requests: Streaming<v1::PublishStreamRequest>,
    ) -> ReceiverStream<Result<v1::PublishStreamResponse, Status>> {
        let (responses, receiver) = mpsc::channel(RESPONSES_MAX);
        let services = self.clone();
        tokio::spawn(async move {
            let tenure = Tenure::current(&services.group.leadership);
            if let Err(status) = services.serve_publish_stream(&caller, requests, &responses, tenure.clone()).await {
                let status = services.redirected(status, &tenure).await;
                // A client that went away has no use for the reason.
                let _ = responses.send(Err(status)).await;
            }
        });
        ReceiverStream::new(receiver)
    }

    async fn serve_publish_stream(
        &self,
        caller: &Caller,
        mut requests: Streaming<v1::PublishStreamRequest>,
        responses: &Responses,
        mut tenure: Tenure,
    ) -> Result<(), Status> {
        let mut unconfirmed = FuturesOrdered::new();
        let mut open = true;
        let mut stopping = false;
        while open || !unconfirmed.is_empty() {
            tokio::select! {
                // Confirms first: they make room.
                biased;
                Some(confirm) = unconfirmed.next() => {
                    if responses.send(Ok(confirm?)).await.is_err() {
                        return Ok(());
                    }
                }
                request = requests.message(), if open && unconfirmed.len() < UNCONFIRMED_MAX => {
                    match request? {
                        Some(request) => unconfirmed.push_back(self.begin_publish(caller, request).await),
                        None => open = false,
                    }
                }
                // What was read is answered before the stream ends.
                () = self.stopping.draining(), if !stopping => (open, stopping) = (false, true),
                // What is under way may never be answered here: the client repeats it at the new leader.
                () = tenure.ended() => {
                    return Err(unavailable("this node is not the leader any more"));
                }
            }
        }
        if stopping { Err(unavailable("this node is stopping")) } else { Ok(()) }
    }

    /// Hands one request to the proposer; what is returned resolves to its confirm.
    async fn begin_publish(
        &self,
        caller: &Caller,
        request: v1::PublishStreamRequest,
    ) -> impl Future<Output = Result<v1::PublishStreamResponse, Status>> + use<> {
        let request_id = request.request_id;
        if let Err(status) = caller.may(&request) {
            return Either::Left(std::future::ready(Ok(refused(request_id, status))));
        }
        let publish = request.publish.unwrap_or_default();
        let publishing = self.traces.publishing(&publish.messages);
        let (command, routing_keys, in_flight) = match self.publish_command(publish) {
            Ok(command) => command,
            Err(error) => {
                let status = error.into();
                if let Some(publishing) = publishing {
                    publishing.answered(Err(&status));
                }
                return Either::Left(std::future::ready(Ok(refused(request_id, status))));
            }
        };
        let pending = self.group.proposer.submit(command, Hurry::Now).await;
        let metrics = self.published.clone();
        Either::Right(async move {
            let reply: Result<Reply, ProposeError> = pending.wait().await;
            drop(in_flight);
            let results = publish_results(&routing_keys, reply.map_err(RequestError::from)?, &metrics);
            let results = results.map_err(Status::from);
            if let Some(publishing) = publishing {
                publishing.answered(results.as_deref());
            }
            match results {
                Ok(results) => {
                    let confirmed = Outcome::Confirmed(v1::PublishResponse { results });
                    Ok(v1::PublishStreamResponse { request_id, outcome: Some(confirmed) })
                }
                Err(status) => Ok(refused(request_id, status)),
            }
        })
    }
}

fn refused(request_id: u64, error: impl Into<Status>) -> v1::PublishStreamResponse {
    v1::PublishStreamResponse { request_id, outcome: Some(Outcome::Refused(failure_of(error))) }
}

/// A refusal inside a stream that goes on.
pub(super) fn failure_of(error: impl Into<Status>) -> v1::Failure {
    let status = error.into();
    v1::Failure { code: status.code() as i32, message: status.message().to_owned() }
}
