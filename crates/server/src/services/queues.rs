//! `dwell.v1.Queues`.

use dwell_consensus::group::Consistency;
use dwell_machine::{Command, Counts, DeclareQueue, DeleteQueue, QueueView, Refusal, Reply, Totals};
use dwell_proto::v1;
use tonic::{Request, Response, Status};

use super::settings::settings_of;
use super::{Page, Services, after, consistency, signed};
use crate::status::RequestError;
use crate::validate;

#[tonic::async_trait]
impl v1::queues_server::Queues for Services {
    #[tracing::instrument(skip_all, fields(queue = %request.get_ref().queue))]
    async fn declare_queue(
        &self,
        request: Request<v1::DeclareQueueRequest>,
    ) -> Result<Response<v1::DeclareQueueResponse>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.declare(request).await?))
    }

    #[tracing::instrument(skip_all, fields(queue = %request.get_ref().queue))]
    async fn update_queue(
        &self,
        request: Request<v1::UpdateQueueRequest>,
    ) -> Result<Response<v1::UpdateQueueResponse>, Status> {
        let command = validate::update_queue(request.into_inner()).map_err(RequestError::from)?;
        self.done(Command::UpdateQueue(command)).await?;
        Ok(Response::new(v1::UpdateQueueResponse {}))
    }

    #[tracing::instrument(skip_all, fields(queue = %request.get_ref().queue))]
    async fn delete_queue(
        &self,
        request: Request<v1::DeleteQueueRequest>,
    ) -> Result<Response<v1::DeleteQueueResponse>, Status> {
        let request = request.into_inner();
        Ok(Response::new(self.delete(request).await?))
    }

    #[tracing::instrument(skip_all)]
    async fn list_queues(
        &self,
        request: Request<v1::ListQueuesRequest>,
    ) -> Result<Response<v1::ListQueuesResponse>, Status> {
        let consistency = consistency(request.metadata());
        Ok(Response::new(self.list(consistency, request.into_inner()).await?))
    }

    #[tracing::instrument(skip_all, fields(queue = %request.get_ref().queue))]
    async fn describe_queue(
        &self,
        request: Request<v1::DescribeQueueRequest>,
    ) -> Result<Response<v1::DescribeQueueResponse>, Status> {
        let consistency = consistency(request.metadata());
        let request = request.into_inner();
        let queue = self.describe(consistency, &request.namespace, request.queue).await?;
        Ok(Response::new(v1::DescribeQueueResponse { queue: Some(queue_of(queue)) }))
    }
}

impl Services {
    async fn declare(&self, request: v1::DeclareQueueRequest) -> Result<v1::DeclareQueueResponse, RequestError> {
        validate::namespace(&request.namespace)?;
        validate::name("queue", &request.queue)?;
        let settings = validate::queue_settings(request.settings)?;
        let command = DeclareQueue { queue: request.queue, settings };
        match self.propose(Command::DeclareQueue(command)).await? {
            Reply::QueueDeclared { created } => Ok(v1::DeclareQueueResponse { created }),
            _ => Err(RequestError::UnexpectedReply),
        }
    }

    async fn delete(&self, request: v1::DeleteQueueRequest) -> Result<v1::DeleteQueueResponse, RequestError> {
        validate::namespace(&request.namespace)?;
        validate::name("queue", &request.queue)?;
        let command = DeleteQueue { queue: request.queue, if_empty: request.if_empty, if_unused: request.if_unused };
        match self.propose(Command::DeleteQueue(command)).await? {
            Reply::QueueDeleted { messages } => Ok(v1::DeleteQueueResponse { messages }),
            _ => Err(RequestError::UnexpectedReply),
        }
    }

    async fn list(
        &self,
        consistency: Consistency,
        request: v1::ListQueuesRequest,
    ) -> Result<v1::ListQueuesResponse, RequestError> {
        validate::namespace(&request.namespace)?;
        let page_size = validate::page_size(request.page_size)?;
        let after = after(request.page_token);
        let queues = self
            .group
            .read(consistency, move |machine| machine.queues(&request.prefix, after.as_deref(), page_size + 1))
            .await?;
        let page = Page::of(queues, page_size);
        Ok(v1::ListQueuesResponse {
            next_page_token: page.last().map(|queue| queue.name.clone()).unwrap_or_default(),
            queues: page.items.into_iter().map(queue_of).collect(),
        })
    }

    pub(super) async fn describe(
        &self,
        consistency: Consistency,
        namespace: &str,
        queue: String,
    ) -> Result<QueueView, RequestError> {
        validate::namespace(namespace)?;
        validate::name("queue", &queue)?;
        let name = queue.clone();
        let view = self.group.read(consistency, move |machine| machine.queue(&name)).await?;
        view.ok_or_else(|| Refusal::QueueNotFound { queue }.into())
    }
}

fn queue_of(queue: QueueView) -> v1::Queue {
    v1::Queue {
        name: queue.name,
        settings: Some(settings_of(queue.settings)),
        counts: Some(counts_of(queue.counts)),
        consumers: u32::try_from(queue.consumers).unwrap_or(u32::MAX),
        created_at_ms: signed(queue.created_at_ms),
        totals: Some(totals_of(queue.totals)),
    }
}

/// A queue's counts as the API shows them.
pub(super) fn counts_of(counts: Counts) -> v1::QueueCounts {
    v1::QueueCounts { scheduled: counts.scheduled, ready: counts.ready, leased: counts.leased, bytes: counts.bytes }
}

fn totals_of(totals: Totals) -> v1::QueueTotals {
    v1::QueueTotals {
        published: totals.published,
        delivered: totals.delivered,
        acknowledged: totals.acknowledged,
        returned: totals.returned,
        expired: totals.expired,
        exhausted: totals.exhausted,
        rejected: totals.rejected,
        overflowed: totals.overflowed,
        recalled: totals.recalled,
        dead_lettered: totals.dead_lettered,
        refused: totals.refused,
        deduplicated: totals.deduplicated,
    }
}
