//! The client: calls on queues and messages, and the way to publishers and consumers.

use std::sync::Arc;
use std::time::Duration;

use dwell_proto::metadata;
use dwell_proto::v1;
use dwell_proto::v1::messages_client::MessagesClient;
use dwell_proto::v1::queues_client::QueuesClient;
use parking_lot::Mutex;
use tonic::metadata::MetadataValue;

use crate::call::{Core, Policy};
use crate::connections::{Channel, Connections, MESSAGE_BYTES_MAX, endpoint};
use crate::consumer::Consumer;
use crate::delivery::Delivery;
use crate::directory::Directory;
use crate::error::Error;
use crate::message::{PublishMessage, milliseconds};
use crate::options::{ClientOptions, Consistency, ConsumeOptions, PublisherOptions};
use crate::published::Published;
use crate::publisher::Publisher;
use crate::settings::QueueSettings;
use crate::settle::UnarySettler;
use crate::transaction::Transactors;

/// How much of a list is asked for at a time.
pub(crate) const PAGE: u32 = 1000;

/// A client of one cluster. Cloning it is cheap: clones share connections and what is known of the cluster.
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) core: Arc<Core>,
    pub(crate) transactors: Arc<Transactors>,
    /// Made on the first [`Client::publish`].
    publisher: Arc<Mutex<Option<Publisher>>>,
    consistency: Consistency,
}

impl Client {
    /// A client of the cluster whose nodes, or some of them, have these addresses (`host:port`). Nothing is
    /// connected yet. Errors: [`Error::Address`].
    pub fn connect(addresses: impl IntoIterator<Item = impl Into<String>>) -> Result<Client, Error> {
        Client::connect_with(addresses, ClientOptions::default())
    }

    /// The same with options.
    pub fn connect_with(
        addresses: impl IntoIterator<Item = impl Into<String>>,
        options: ClientOptions,
    ) -> Result<Client, Error> {
        let addresses: Vec<String> = addresses.into_iter().map(Into::into).collect();
        if addresses.is_empty() {
            return Err(Error::Address { address: String::new(), reason: "at least one is needed".into() });
        }
        for address in &addresses {
            endpoint(address, options.connect_timeout)?;
            if address.starts_with("https://") && !options.transport.is_secure() {
                return Err(Error::Tls(format!(
                    "{address} asks for it, and the options do not: see `ClientOptions::tls`"
                )));
            }
        }
        let directory = Directory::new(addresses, options.follow_leader);
        let connections = Connections::new(options.transport.clone(), options.connect_timeout, options.login.as_ref())?;
        let core = Arc::new(Core { options, directory, connections, consumer_streams: Default::default() });
        Ok(Client { core, transactors: Arc::default(), publisher: Arc::default(), consistency: Consistency::default() })
    }

    /// The same client with another consistency of its reads: of what lists, describes, counts, gets, browses or
    /// forecasts.
    pub fn with_consistency(&self, consistency: Consistency) -> Client {
        Client { consistency, ..self.clone() }
    }

    /// Makes a queue. False if it existed with these settings. Errors: [`Error::AlreadyExists`] if it exists
    /// with others.
    pub async fn declare_queue(&self, queue: impl Into<String>, settings: QueueSettings) -> Result<bool, Error> {
        let (settings, _) = settings.into_proto();
        let message =
            v1::DeclareQueueRequest { namespace: String::new(), queue: queue.into(), settings: Some(settings) };
        let outcome = self.core.call(Policy::DECLARE, |channel| {
            let request = message.clone();
            async move { queues(channel).declare_queue(request).await }
        });
        Ok(outcome.await.result?.created)
    }

    /// Changes those settings of a queue that are set here. Errors: [`Error::NotFound`]; [`Error::FailedPrecondition`]
    /// for `priority_max` and `single_active_consumer`, which stay as they were declared.
    pub async fn update_queue(&self, queue: impl Into<String>, settings: QueueSettings) -> Result<(), Error> {
        let (settings, fields) = settings.into_proto();
        let message =
            v1::UpdateQueueRequest { namespace: String::new(), queue: queue.into(), settings: Some(settings), fields };
        let outcome = self.core.call(Policy::WRITE, |channel| {
            let request = message.clone();
            async move { queues(channel).update_queue(request).await }
        });
        outcome.await.result.map(drop)
    }

    /// Deletes a queue with its messages, and says how many there were. Errors: [`Error::NotFound`];
    /// [`Error::FailedPrecondition`] if it is to be empty, or unused, and is not; [`Error::Unknown`] if an
    /// answer was lost and the queue is gone now.
    pub async fn delete_queue(&self, queue: impl Into<String>, if_empty: bool, if_unused: bool) -> Result<u64, Error> {
        let message = v1::DeleteQueueRequest { namespace: String::new(), queue: queue.into(), if_empty, if_unused };
        let outcome = self.core.call(Policy::WRITE, |channel| {
            let request = message.clone();
            async move { queues(channel).delete_queue(request).await }
        });
        Ok(outcome.await.deleted()?.messages)
    }

    /// All queues whose names begin with `prefix`, by name.
    pub async fn list_queues(&self, prefix: impl Into<String>) -> Result<Vec<v1::Queue>, Error> {
        let mut message = v1::ListQueuesRequest { prefix: prefix.into(), page_size: PAGE, ..Default::default() };
        let mut found = Vec::new();
        loop {
            let outcome = self.core.call(Policy::READ, |channel| {
                let request = self.read_request(message.clone());
                async move { queues(channel).list_queues(request).await }
            });
            let page = outcome.await.result?;
            found.extend(page.queues);
            if page.next_page_token.is_empty() {
                return Ok(found);
            }
            message.page_token = page.next_page_token;
        }
    }

    /// One queue with its settings and counts. Errors: [`Error::NotFound`].
    pub async fn describe_queue(&self, queue: impl Into<String>) -> Result<v1::Queue, Error> {
        let message = v1::DescribeQueueRequest { namespace: String::new(), queue: queue.into() };
        let outcome = self.core.call(Policy::READ, |channel| {
            let request = self.read_request(message.clone());
            async move { queues(channel).describe_queue(request).await }
        });
        Ok(outcome.await.result?.queue.unwrap_or_default())
    }

    /// How many messages a queue holds, by state. Errors: [`Error::NotFound`].
    pub async fn queue_counts(&self, queue: impl Into<String>) -> Result<v1::QueueCounts, Error> {
        let message = v1::GetQueueCountsRequest { namespace: String::new(), queue: queue.into() };
        let outcome = self.core.call(Policy::READ, |channel| {
            let request = self.read_request(message.clone());
            async move { messages(channel).get_queue_counts(request).await }
        });
        Ok(outcome.await.result?.counts.unwrap_or_default())
    }

    /// A publisher with its own stream. Must be called within a tokio runtime.
    pub fn publisher(&self, options: PublisherOptions) -> Publisher {
        Publisher::start(self.core.clone(), options)
    }

    /// Publishes messages in one request, and waits for the confirm: one result for each, in order. 1 to 1000. All
    /// callers share one [`Publisher`]. Errors: as those of [`Publisher::publish`] and its confirm;
    /// [`Error::NotAllStored`], which tells of each message, if some are stored and some are not.
    pub async fn publish(&self, messages: Vec<PublishMessage>) -> Result<Vec<Published>, Error> {
        let publisher = self.shared_publisher();
        publisher.publish(messages).await?.await
    }

    /// Publishes one message and waits until it is stored. Messages of concurrent callers for the same queue or
    /// exchange travel together. Errors: as [`Publisher::publish`]; [`Error::Unroutable`] and [`Error::Rejected`] if it
    /// is not stored because no queue wanted it, or one is full.
    pub async fn publish_one(&self, message: PublishMessage) -> Result<Published, Error> {
        let publisher = self.shared_publisher();
        publisher.publish_one(message).await
    }

    fn shared_publisher(&self) -> Publisher {
        let mut publisher = self.publisher.lock();
        match &*publisher {
            // Its task dies with the runtime that it was started on.
            Some(publisher) if !publisher.is_closed() => publisher.clone(),
            _ => publisher.insert(self.publisher(PublisherOptions::default())).clone(),
        }
    }

    /// Opens a consumer, or resumes the one of [`ConsumeOptions::consumer_id`]. Errors: [`Error::NotFound`];
    /// [`Error::FailedPrecondition`] if the id belongs to a consumer of another queue.
    pub async fn consume(&self, queue: impl Into<String>, options: ConsumeOptions) -> Result<Consumer, Error> {
        Consumer::start(self.core.clone(), queue.into(), options).await
    }

    /// Leases up to `messages_max` (1 to 1000) ready messages, waiting for the first one up to `wait` (at most
    /// one minute). None within the wait is no error. When an answer is lost, the messages in it return to the
    /// queue after its lease timeout.
    pub async fn receive(
        &self,
        queue: impl Into<String>,
        messages_max: u32,
        wait: Duration,
    ) -> Result<Vec<Delivery>, Error> {
        let queue = queue.into();
        let message = v1::ReceiveRequest {
            namespace: String::new(),
            queue: queue.clone(),
            messages_max,
            wait_ms: milliseconds(wait),
            lease_timeout_ms: 0,
        };
        let policy = Policy { server_wait: wait, ..Policy::WRITE };
        let outcome = self.core.call(policy, |channel| {
            let request = message.clone();
            async move { self::messages(channel).receive(request).await }
        });
        let response = outcome.await.result?;
        let settler = UnarySettler::new(self.core.clone(), queue);
        Ok(response.deliveries.into_iter().map(|delivery| Delivery::received(delivery, settler.clone())).collect())
    }

    /// The cluster as the node at `address` sees it. Asks that node once and no other. Errors:
    /// [`Error::Unavailable`] if it does not answer within the connect timeout.
    pub async fn cluster_status(&self, address: &str) -> Result<v1::GetClusterStatusResponse, Error> {
        self.core.status_of(address).await
    }

    /// Asks the nodes that are known for their view of the cluster, until one answers; its members are known
    /// to this client from then on. Errors: [`Error::Unavailable`].
    pub async fn discover(&self) -> Result<v1::GetClusterStatusResponse, Error> {
        let mut last = None;
        for address in self.core.directory.addresses() {
            match self.core.status_of(&address).await {
                Ok(status) => {
                    self.core.learn(&status);
                    return Ok(status);
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or(Error::Closed))
    }

    /// The addresses that this client knows: the given ones, then those it learned.
    pub fn addresses(&self) -> Vec<String> {
        self.core.directory.addresses()
    }

    pub(crate) fn read_request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        if self.consistency == Consistency::Stale {
            let stale = MetadataValue::from_static(metadata::CONSISTENCY_STALE);
            request.metadata_mut().insert(metadata::CONSISTENCY, stale);
        }
        request
    }
}

fn queues(channel: Channel) -> QueuesClient<Channel> {
    QueuesClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

pub(crate) fn messages(channel: Channel) -> MessagesClient<Channel> {
    MessagesClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}
