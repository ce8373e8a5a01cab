//! Dwell, by its own client.

use bytes::Bytes;
use dwell_client::{
    Client, ClientOptions, ConsumeOptions, Consumer as Stream, Delivery as Leased, Error, PublishMessage, Publisher,
    PublisherOptions, QueueSettings,
};
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};

use crate::driver::{CONSUMER_CONNECTIONS, Consumer, Delivery, Driver, Producer};

/// Queues that are declared at a time.
const DECLARING: usize = 32;

/// A client of Dwell.
pub struct DwellDriver {
    addresses: Vec<String>,
    options: ClientOptions,
    consuming: Vec<Client>,
}

impl DwellDriver {
    /// Knows the nodes; connects when something is opened.
    pub fn new(addresses: Vec<String>, options: ClientOptions) -> Result<DwellDriver, Error> {
        let mut driver = DwellDriver { addresses, options, consuming: Vec::new() };
        driver.consuming = (0..CONSUMER_CONNECTIONS).map(|_| driver.client()).collect::<Result<_, _>>()?;
        Ok(driver)
    }

    /// A client with connections of its own, as another process would have.
    fn client(&self) -> Result<Client, Error> {
        Client::connect_with(&self.addresses, self.options.clone())
    }
}

impl Driver for DwellDriver {
    type Producer = Publisher;
    type Consumer = Stream;

    async fn declare(&self, queues: &[String]) -> anyhow::Result<()> {
        let client = self.client()?;
        let queues = futures::stream::iter(queues.to_owned()).map(Ok::<_, anyhow::Error>);
        let declare = |queue| async { client.declare_queue(queue, QueueSettings::default()).await.map(drop) };
        queues.try_for_each_concurrent(DECLARING, |queue| async { Ok(declare(queue).await?) }).await
    }

    async fn producer(&self) -> anyhow::Result<Publisher> {
        Ok(self.client()?.publisher(PublisherOptions::default()))
    }

    async fn consumer(&self, queue: &str, number: u32, credit: u32) -> anyhow::Result<Stream> {
        let client = &self.consuming[(number % CONSUMER_CONNECTIONS) as usize];
        Ok(client.consume(queue, ConsumeOptions::default().credit(credit)).await?)
    }
}

impl Producer for Publisher {
    type Confirm = BoxFuture<'static, anyhow::Result<()>>;

    async fn send(&mut self, queue: &str, body: Bytes, due_ms: Option<u64>) -> anyhow::Result<Self::Confirm> {
        let mut message = PublishMessage::new(queue, body);
        if let Some(due_ms) = due_ms {
            message = message.deliver_at_ms(i64::try_from(due_ms)?);
        }
        let confirm = self.submit_one(message).await?;
        Ok(async move { Ok(confirm.await.map(drop)?) }.boxed())
    }

    fn may_pass(error: &anyhow::Error) -> bool {
        // The others would come for every message.
        matches!(
            error.downcast_ref(),
            Some(Error::Timeout { .. } | Error::Unavailable { .. } | Error::ResourceExhausted(_))
        )
    }
}

impl Consumer for Stream {
    type Delivery = Leased;

    async fn next(&mut self) -> Option<anyhow::Result<Self::Delivery>> {
        let delivery = Stream::next(self).await?;
        Some(delivery.map_err(Into::into))
    }

    async fn close(self) -> anyhow::Result<()> {
        Ok(Stream::close(self).await?)
    }
}

impl Delivery for Leased {
    fn body(&self) -> &[u8] {
        &self.message.body
    }

    fn is_again(&self) -> bool {
        self.delivery_count > 0
    }

    async fn ack(self) -> anyhow::Result<()> {
        Ok(Leased::ack(&self).await?)
    }

    fn is_in_doubt(error: &anyhow::Error) -> bool {
        error.downcast_ref().is_some_and(Error::is_outcome_unknown)
    }
}
