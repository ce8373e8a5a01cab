//! A server and its client in one process, on one thread: there, what waits for the disk is done in its turn, and the
//! same messages come together in a batch every time. A server with more threads does the same work.

use std::collections::VecDeque;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use dwell_client::{Client, ConsumeOptions, PublishMessage, PublisherOptions, QueueSettings};
use dwell_server::{Config, Environment, Node};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

const BODY_BYTES: usize = 1024;
/// Messages that are published and not yet confirmed, and messages that are delivered and not yet acknowledged.
const WINDOW: u32 = 256;
const QUEUE: &str = "orders";
/// Longer than any run: a slow machine is no reason to deliver twice.
const LEASE_TIMEOUT: Duration = Duration::from_secs(600);

/// Publishes to a new server, and consumes and acknowledges meanwhile.
pub fn publish_and_consume(messages: u64) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let directory = tempfile::tempdir()?;
    let [client, peer] = *dwell_local_cluster::free_ports(2)? else { bail!("two ports were asked for") };
    let config = Config {
        data_dir: directory.path().to_owned(),
        client_address: ([127, 0, 0, 1], client).into(),
        peer_address: ([127, 0, 0, 1], peer).into(),
        ..Config::default()
    };
    runtime.block_on(async {
        let address = config.client_address.to_string();
        let node = Node::start(config, Environment::default()).await?;
        tokio::select! {
            served = node.serve() => served.context("the server has stopped"),
            done = exchange(&address, messages) => done,
        }
    })
}

async fn exchange(address: &str, messages: u64) -> anyhow::Result<()> {
    let client = Client::connect([address])?;
    client.declare_queue(QUEUE, QueueSettings::default().lease_timeout(LEASE_TIMEOUT)).await?;
    let ((), ()) = tokio::try_join!(publish(&client, messages), consume(&client, messages))?;
    Ok(())
}

async fn publish(client: &Client, messages: u64) -> anyhow::Result<()> {
    let publisher = client.publisher(PublisherOptions::default());
    let body = Bytes::from(vec![b'x'; BODY_BYTES]);
    let mut confirms = VecDeque::new();
    for _ in 0..messages {
        if confirms.len() == WINDOW as usize
            && let Some(confirm) = confirms.pop_front()
        {
            confirm.await?;
        }
        confirms.push_back(publisher.submit_one(PublishMessage::new(QUEUE, body.clone())).await?);
    }
    for confirm in confirms {
        confirm.await?;
    }
    Ok(())
}

async fn consume(client: &Client, messages: u64) -> anyhow::Result<()> {
    let mut consumer = client.consume(QUEUE, ConsumeOptions::default().credit(WINDOW)).await?;
    let mut acks = FuturesUnordered::new();
    let mut acknowledged = 0;
    while acknowledged < messages {
        tokio::select! {
            delivery = consumer.next() => {
                let delivery = delivery.context("the consumer was closed")??;
                acks.push(async move { delivery.ack().await });
            }
            Some(ack) = acks.next() => {
                ack?;
                acknowledged += 1;
            }
        }
    }
    Ok(consumer.close().await?)
}
