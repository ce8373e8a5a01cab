//! NATS JetStream: streams with three replicas and work-queue retention, durable pull consumers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::consumer::{AckPolicy, PullConsumer};
use async_nats::jetstream::context::ContextBuilder;
use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use async_nats::jetstream::{Context, Message};
use async_nats::{Client, ConnectOptions};
use bytes::Bytes;
use dwell_load::{CONSUMER_CONNECTIONS, Consumer, Delivery, Driver, Producer};
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use parking_lot::Mutex;

use crate::load::Assignment;

/// Up to so many queues have a stream each. More are subjects of so many streams: a stream is a Raft group, and its
/// consumers are further ones.
const STREAMS_MAX: usize = 10;
/// Making a stream with its Raft group may take long on a busy machine.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// As long as the other clients wait for a confirm.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);
/// More than any load has in flight.
const IN_FLIGHT_MAX: usize = 16_384;

/// A client of JetStream.
pub struct NatsDriver {
    addresses: Vec<String>,
    queues: Vec<String>,
    /// With one queue all connections go to its leader. Known when the stream is there.
    leader: Mutex<Option<usize>>,
    consuming: tokio::sync::Mutex<BTreeMap<u32, Context>>,
    next: AtomicUsize,
}

impl NatsDriver {
    /// Finds the leader, if the stream is there.
    pub async fn connect(assignment: &Assignment) -> anyhow::Result<NatsDriver> {
        let driver = NatsDriver {
            addresses: assignment.addresses.clone(),
            queues: assignment.spec.queues.clone(),
            leader: Mutex::new(None),
            consuming: tokio::sync::Mutex::default(),
            next: AtomicUsize::new(0),
        };
        if !assignment.declare {
            driver.find_leader().await;
        }
        Ok(driver)
    }

    async fn find_leader(&self) {
        if let [queue] = &self.queues[..] {
            // Not found, if the leader is not among the addresses: then any will do.
            *self.leader.lock() = stream_leader(&self.addresses, queue).await.ok();
        }
    }

    async fn context(&self) -> anyhow::Result<Context> {
        let leader = *self.leader.lock();
        let number = leader.unwrap_or_else(|| self.next.fetch_add(1, Ordering::Relaxed));
        context(&self.addresses, number).await
    }

    fn stream_name(&self, queue: &str) -> anyhow::Result<String> {
        let position = self.queues.iter().position(|name| name == queue);
        Ok(stream_of(position.with_context(|| format!("{queue} is not of this load"))?, &self.queues))
    }
}

/// The stream that holds the queue at a position.
fn stream_of(position: usize, queues: &[String]) -> String {
    if queues.len() <= STREAMS_MAX { queues[position].clone() } else { format!("streams-{}", position % STREAMS_MAX) }
}

async fn context(addresses: &[String], number: usize) -> anyhow::Result<Context> {
    // The wanted node first, and the others for when it fails.
    let mut addresses = addresses.to_vec();
    let wanted = number % addresses.len();
    addresses.rotate_left(wanted);
    let servers: Vec<async_nats::ServerAddr> =
        addresses.iter().map(|address| address.parse()).collect::<Result<_, _>>()?;
    let options = ConnectOptions::new().retain_servers_order().ignore_discovered_servers();
    let client: Client = options.connect(servers).await?;
    let context = ContextBuilder::new().timeout(REQUEST_TIMEOUT).ack_timeout(CONFIRM_TIMEOUT);
    Ok(context.max_ack_inflight(IN_FLIGHT_MAX).backpressure_on_inflight(false).build(client))
}

/// Which of the addresses is the leader's. Servers are named n1, n2, n3, in the order of the addresses.
pub async fn stream_leader(addresses: &[String], queue: &str) -> anyhow::Result<usize> {
    let stream = context(addresses, 0).await?.get_stream(queue).await?;
    let cluster = stream.cached_info().cluster.as_ref().context("the stream is not of a cluster")?;
    let leader = cluster.leader.as_deref().context("the stream has no leader")?;
    let number: usize = leader.strip_prefix('n').context("the leader has another name")?.parse()?;
    anyhow::ensure!((1..=addresses.len()).contains(&number), "the leader is not among the addresses");
    Ok(number - 1)
}

impl Driver for NatsDriver {
    type Producer = JetStreamProducer;
    type Consumer = JetStreamConsumer;

    async fn declare(&self, queues: &[String]) -> anyhow::Result<()> {
        let context = self.context().await?;
        let mut streams: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (position, queue) in queues.iter().enumerate() {
            streams.entry(stream_of(position, queues)).or_default().push(queue.clone());
        }
        for (name, subjects) in streams {
            let stream = context.create_stream(Config {
                name,
                subjects: subjects.clone(),
                retention: RetentionPolicy::WorkQueue,
                discard: DiscardPolicy::New,
                storage: StorageType::File,
                num_replicas: 3,
                ..Config::default()
            });
            let stream = stream.await?;
            for subject in subjects {
                stream.create_consumer(consumer_config(&subject)).await?;
            }
        }
        self.find_leader().await;
        Ok(())
    }

    async fn producer(&self) -> anyhow::Result<JetStreamProducer> {
        Ok(JetStreamProducer { context: self.context().await? })
    }

    async fn consumer(&self, queue: &str, number: u32, credit: u32) -> anyhow::Result<JetStreamConsumer> {
        let connection = number % CONSUMER_CONNECTIONS;
        let mut consuming = self.consuming.lock().await;
        if let std::collections::btree_map::Entry::Vacant(vacant) = consuming.entry(connection) {
            vacant.insert(self.context().await?);
        }
        let context = consuming[&connection].clone();
        drop(consuming);
        let stream = context.get_stream_no_info(self.stream_name(queue)?).await?;
        let consumer: PullConsumer = stream.get_consumer(queue).await.map_err(|error| anyhow::anyhow!(error))?;
        let messages = consumer.stream().max_messages_per_batch(credit as usize).messages().await?;
        Ok(JetStreamConsumer { messages })
    }
}

fn consumer_config(subject: &str) -> pull::Config {
    pull::Config {
        durable_name: Some(subject.to_owned()),
        filter_subject: subject.to_owned(),
        ack_policy: AckPolicy::Explicit,
        // As many as all consumers of the queue may hold: each is limited by its own batches.
        max_ack_pending: 100_000,
        ..pull::Config::default()
    }
}

/// Publishes over its own connection.
pub struct JetStreamProducer {
    context: Context,
}

impl Producer for JetStreamProducer {
    type Confirm = BoxFuture<'static, anyhow::Result<()>>;

    async fn send(&mut self, queue: &str, body: Bytes, due_ms: Option<u64>) -> anyhow::Result<Self::Confirm> {
        anyhow::ensure!(due_ms.is_none(), "this version of NATS has no delays");
        let confirm = self.context.publish(queue.to_owned(), body).await?;
        Ok(async move { Ok(confirm.await.map(drop)?) }.boxed())
    }
}

/// Pulls over a connection that it shares.
pub struct JetStreamConsumer {
    messages: pull::Stream,
}

impl Consumer for JetStreamConsumer {
    type Delivery = JetStreamDelivery;

    async fn next(&mut self) -> Option<anyhow::Result<JetStreamDelivery>> {
        Some(self.messages.next().await?.map(JetStreamDelivery).map_err(Into::into))
    }

    async fn close(self) -> anyhow::Result<()> {
        Ok(())
    }
}

/// A message that was pulled.
pub struct JetStreamDelivery(Message);

impl Delivery for JetStreamDelivery {
    fn body(&self) -> &[u8] {
        &self.0.payload
    }

    fn is_again(&self) -> bool {
        self.0.info().is_ok_and(|info| info.delivered > 1)
    }

    async fn ack(self) -> anyhow::Result<()> {
        self.0.ack().await.map_err(|error| anyhow::anyhow!(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_queues_have_streams_of_their_own_and_many_share_some() {
        let queues = |count: usize| (0..count).map(|number| format!("q{number}")).collect::<Vec<_>>();
        assert_eq!(stream_of(3, &queues(10)), "q3");
        assert_eq!(stream_of(23, &queues(1000)), "streams-3");
    }
}
