//! What fails is tried again after longer and longer waits, and put aside when it has failed too often.
//!
//! All of it is a setting of the queue. The consumer says that it failed, or dies: both count.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use dwell_client::{Backoff, Client, ConsumeOptions, DeathReason, Delivery, PublishMessage, QueueSettings};

const QUEUE: &str = "webhooks";
const FAILED: &str = "failed-webhooks";
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// How often a message may come back.
const LIMIT: u32 = 3;

/// What became of the message that always fails.
#[derive(Debug)]
pub struct Poison {
    /// The waits before it was tried again.
    pub waits: Vec<Duration>,
    /// The message as it stands among the failed ones, with its history.
    pub dead: Delivery,
}

/// Delivers two webhooks, one of which always fails.
pub async fn run(server: &str) -> anyhow::Result<Poison> {
    let client = Client::connect([server])?;
    for queue in [QUEUE, FAILED] {
        // What an earlier run left.
        let _ = client.delete_queue(queue, false, false).await;
    }
    client.declare_queue(FAILED, QueueSettings::default()).await?;
    let backoff = Backoff::exponential(FIRST_WAIT).cap(Duration::from_secs(60));
    let settings = QueueSettings::default().delivery_limit(LIMIT).backoff(backoff).dead_letter_queue(FAILED);
    client.declare_queue(QUEUE, settings).await?;

    client.publish(vec![PublishMessage::new(QUEUE, "good"), PublishMessage::new(QUEUE, "poison")]).await?;
    let waits = consume(&client).await?;
    ensure!(waits.len() == LIMIT as usize, "it came back {LIMIT} times: {waits:?}");
    for (number, wait) in waits.iter().enumerate() {
        // The way of the messages takes time as well, so that a wait may look a little shorter here.
        let least = FIRST_WAIT * 2_u32.pow(number as u32) * 3 / 4;
        ensure!(*wait >= least, "wait {number} was {wait:?}, which is shorter than {least:?}");
    }

    let dead = client.receive(FAILED, 10, Duration::from_secs(10)).await?;
    ensure!(dead.len() == 1, "only the one that fails is put aside");
    let dead = dead.into_iter().next().context("the poison message is put aside")?;
    let death = dead.deaths.first().context("it has a history")?;
    println!("put aside: {}: {:?} in {}", text(&dead), death.reason(), death.queue);
    ensure!(death.reason() == DeathReason::DeliveryLimit && death.queue == QUEUE, "the history tells the truth");
    ensure!(dead.message.headers["x-first-death-queue"] == QUEUE, "and so do the headers");
    dead.ack().await?;
    for queue in [QUEUE, FAILED] {
        client.delete_queue(queue, true, false).await?;
    }
    Ok(Poison { waits, dead })
}

/// Consumes until the poison message will not come again. Answers the waits between its attempts.
async fn consume(client: &Client) -> anyhow::Result<Vec<Duration>> {
    let mut consumer = client.consume(QUEUE, ConsumeOptions::default()).await?;
    let (mut waits, mut failed_at) = (Vec::new(), None);
    let mut delivered = false;
    loop {
        let next = tokio::time::timeout(Duration::from_secs(10), consumer.next()).await.context("a message was due")?;
        let delivery = next.context("the consumer ended")??;
        if delivery.message.body == "good" {
            println!("{}: delivered", text(&delivery));
            delivery.ack().await?;
            delivered = true;
            continue;
        }
        waits.extend(failed_at.map(|at: Instant| at.elapsed()));
        println!("{}: attempt {} fails", text(&delivery), delivery.delivery_count + 1);
        failed_at = Some(Instant::now());
        // Again after the queue's backoff, or among the dead letters if this was once too often.
        delivery.nack(None).await?;
        if delivery.delivery_count == LIMIT {
            ensure!(delivered, "the other message does not wait for the one that fails");
            consumer.close().await?;
            return Ok(waits);
        }
    }
}

fn text(delivery: &Delivery) -> String {
    String::from_utf8_lossy(&delivery.message.body).into_owned()
}
