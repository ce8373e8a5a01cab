//! `dwell.v1.Inventory`; revising stands in a file of its own.

use dwell_consensus::group::Consistency;
use dwell_machine::{ExpireNow, Recall, Refusal, Revision};
use dwell_proto::v1;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::deliveries::stored_message_of;
use super::queues::counts_of;
use super::{Services, consistency, signed};
use crate::status::RequestError;
use crate::validate;

type Progress = ReceiverStream<Result<v1::ReviseProgress, Status>>;

#[tonic::async_trait]
impl v1::inventory_server::Inventory for Services {
    #[tracing::instrument(skip_all, fields(queue = queue_of(&request.get_ref().target)))]
    async fn recall(&self, request: Request<v1::RecallRequest>) -> Result<Response<v1::ReviseResponse>, Status> {
        let request = request.into_inner();
        let revision = Revision::Recall(Recall {});
        Ok(Response::new(self.revise_named(&request.namespace, request.target, revision).await?))
    }

    #[tracing::instrument(skip_all, fields(queue = queue_of(&request.get_ref().target)))]
    async fn reschedule(
        &self,
        request: Request<v1::RescheduleRequest>,
    ) -> Result<Response<v1::ReviseResponse>, Status> {
        let request = request.into_inner();
        let revision = self.reschedule_revision(request.time)?;
        Ok(Response::new(self.revise_named(&request.namespace, request.target, revision).await?))
    }

    #[tracing::instrument(skip_all, fields(queue = queue_of(&request.get_ref().target)))]
    async fn expire_now(&self, request: Request<v1::ExpireNowRequest>) -> Result<Response<v1::ReviseResponse>, Status> {
        let request = request.into_inner();
        let revision = Revision::ExpireNow(ExpireNow {});
        Ok(Response::new(self.revise_named(&request.namespace, request.target, revision).await?))
    }

    type RecallMatchingStream = Progress;

    #[tracing::instrument(skip_all, fields(queue = selected_queue_of(&request.get_ref().selection)))]
    async fn recall_matching(&self, request: Request<v1::RecallMatchingRequest>) -> Result<Response<Progress>, Status> {
        let request = request.into_inner();
        let revision = Revision::Recall(Recall {});
        Ok(Response::new(self.revise_selected(&request.namespace, request.selection, revision)?))
    }

    type RescheduleMatchingStream = Progress;

    #[tracing::instrument(skip_all, fields(queue = selected_queue_of(&request.get_ref().selection)))]
    async fn reschedule_matching(
        &self,
        request: Request<v1::RescheduleMatchingRequest>,
    ) -> Result<Response<Progress>, Status> {
        let request = request.into_inner();
        let revision = self.reschedule_revision(request.time)?;
        Ok(Response::new(self.revise_selected(&request.namespace, request.selection, revision)?))
    }

    type ExpireMatchingStream = Progress;

    #[tracing::instrument(skip_all, fields(queue = selected_queue_of(&request.get_ref().selection)))]
    async fn expire_matching(&self, request: Request<v1::ExpireMatchingRequest>) -> Result<Response<Progress>, Status> {
        let request = request.into_inner();
        let revision = Revision::ExpireNow(ExpireNow {});
        Ok(Response::new(self.revise_selected(&request.namespace, request.selection, revision)?))
    }

    #[tracing::instrument(skip_all, fields(queue = %request.get_ref().queue, sequence = request.get_ref().sequence))]
    async fn get_message(
        &self,
        request: Request<v1::GetMessageRequest>,
    ) -> Result<Response<v1::GetMessageResponse>, Status> {
        let consistency = consistency(request.metadata());
        let message = self.stored_message(consistency, request.into_inner()).await?;
        Ok(Response::new(v1::GetMessageResponse { message: Some(message) }))
    }

    #[tracing::instrument(skip_all, fields(queue = %request.get_ref().queue))]
    async fn browse_messages(
        &self,
        request: Request<v1::BrowseMessagesRequest>,
    ) -> Result<Response<v1::BrowseMessagesResponse>, Status> {
        let consistency = consistency(request.metadata());
        Ok(Response::new(self.page_of_messages(consistency, request.into_inner()).await?))
    }

    #[tracing::instrument(skip_all, fields(queue = %request.get_ref().queue))]
    async fn forecast(&self, request: Request<v1::ForecastRequest>) -> Result<Response<v1::ForecastResponse>, Status> {
        let consistency = consistency(request.metadata());
        Ok(Response::new(self.forecast_of(consistency, request.into_inner()).await?))
    }
}

impl Services {
    async fn stored_message(
        &self,
        consistency: Consistency,
        request: v1::GetMessageRequest,
    ) -> Result<v1::StoredMessage, RequestError> {
        validate::namespace(&request.namespace)?;
        validate::name("queue", &request.queue)?;
        let (queue, sequence) = (request.queue.clone(), request.sequence);
        let (exists, message) = self
            .group
            .read_rows(consistency, move |machine, store| {
                (machine.queue(&queue).is_some(), machine.message(store, &queue, sequence))
            })
            .await?;
        if !exists {
            return Err(Refusal::QueueNotFound { queue: request.queue }.into());
        }
        match message? {
            Some(view) => Ok(stored_message_of(&request.queue, view)),
            None => Err(RequestError::MessageNotFound { queue: request.queue, sequence }),
        }
    }

    async fn page_of_messages(
        &self,
        consistency: Consistency,
        request: v1::BrowseMessagesRequest,
    ) -> Result<v1::BrowseMessagesResponse, RequestError> {
        let (state, page_size) = validate::browse(&request)?;
        let queue = request.queue.clone();
        let page = self
            .group
            .read_rows(consistency, move |machine, store| {
                machine.browse(store, &request.queue, state, &request.page_token, page_size, request.with_bodies)
            })
            .await???;
        Ok(v1::BrowseMessagesResponse {
            messages: page.messages.into_iter().map(|view| stored_message_of(&queue, view)).collect(),
            next_page_token: page.next.unwrap_or_default(),
        })
    }

    async fn forecast_of(
        &self,
        consistency: Consistency,
        request: v1::ForecastRequest,
    ) -> Result<v1::ForecastResponse, RequestError> {
        let horizons_ms = validate::forecast(&request)?;
        let clock_ms = self.clock.now_ms();
        let queue = request.queue.clone();
        let (now_ms, forecast) = self
            .group
            .read_rows(consistency, move |machine, store| {
                // Machine time stands still while nothing happens, and may be ahead of this node's clock.
                let now_ms = machine.now_ms().max(clock_ms);
                (now_ms, machine.forecast(store, &queue, now_ms, &horizons_ms))
            })
            .await?;
        let forecast = forecast?.ok_or(Refusal::QueueNotFound { queue: request.queue })?;
        let due = forecast.due.into_iter().map(|due| v1::Due {
            horizon_ms: signed(due.horizon_ms),
            messages: due.messages,
            exact: due.exact,
        });
        Ok(v1::ForecastResponse {
            counts: Some(counts_of(forecast.counts)),
            due: due.collect(),
            now_ms: signed(now_ms),
        })
    }

    fn reschedule_revision(&self, time: Option<v1::NewTime>) -> Result<Revision, RequestError> {
        Ok(Revision::Reschedule(validate::new_time(time, self.clock.now_ms())?))
    }
}

fn queue_of(target: &Option<v1::Target>) -> &str {
    target.as_ref().map_or("", |target| &target.queue)
}

fn selected_queue_of(selection: &Option<v1::Selection>) -> &str {
    selection.as_ref().map_or("", |selection| &selection.queue)
}
