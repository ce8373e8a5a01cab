//! `dwell.v1.Queues`.

use dwell_consensus::group::Consistency;
use dwell_machine::{Command, DeclareQueue, DeleteQueue, QueueView, Refusal, Reply};
use dwell_proto::v1;
use tonic::{Request, Response, Status};

use super::{Services, consistency};
use crate::status::{Invalid, RequestError};
use crate::validate;

/// Page size of a listing, where the request does not say.
const PAGE_SIZE_DEFAULT: u32 = 100;
const PAGE_SIZE_MAX: u32 = 1000;

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
        let page_size = match request.page_size {
            0 => PAGE_SIZE_DEFAULT,
            size if size <= PAGE_SIZE_MAX => size,
            size => {
                let problem = format!("must be 0 to {PAGE_SIZE_MAX}, not {size}");
                return Err(Invalid { field: "page_size".into(), problem }.into());
            }
        } as usize;
        let after = (!request.page_token.is_empty()).then_some(request.page_token);
        // One more than asked for tells whether another page follows.
        let mut queues = self
            .group
            .read(consistency, move |machine| machine.queues(&request.prefix, after.as_deref(), page_size + 1))
            .await?;
        let has_more = queues.len() > page_size;
        queues.truncate(page_size);
        let last_name = queues.last().map(|queue| queue.name.clone());
        Ok(v1::ListQueuesResponse {
            queues: queues.into_iter().map(queue_of).collect(),
            next_page_token: last_name.filter(|_| has_more).unwrap_or_default(),
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
        settings: Some(v1::QueueSettings {
            lease_timeout_ms: signed(queue.settings.lease_timeout_ms),
            delivery_limit: queue.settings.delivery_limit,
        }),
        counts: Some(counts_of(&queue)),
        consumers: u32::try_from(queue.consumers).unwrap_or(u32::MAX),
        created_at_ms: signed(queue.created_at_ms),
        name: queue.name,
    }
}

/// A queue's counts as the API shows them.
pub(super) fn counts_of(queue: &QueueView) -> v1::QueueCounts {
    v1::QueueCounts {
        scheduled: queue.counts.scheduled,
        ready: queue.counts.ready,
        leased: queue.counts.leased,
        bytes: queue.counts.bytes,
    }
}

/// Times and durations are signed in the API, so that a negative one can be refused by name.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
