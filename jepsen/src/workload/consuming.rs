//! Consuming by streams and by single calls, well-behaved and not.

use std::time::Duration;

use dwell_client::{ConsumeOptions, Consumer, Delivery, Error};
use rand::RngExt;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::actor::{Actor, delivered};
use super::topology::{CONSUMED, FAN_QUEUES, INCOMING, OUTGOING, queues};
use crate::history::{Answer, Call, Publication, Settlement};

/// For how long a consumer is tried to be opened.
const OPEN_PATIENCE: Duration = Duration::from_secs(5);
/// Deliveries that a process handles at a time.
const HANDLED_MAX: usize = 64;

/// Consumers with streams, one after the other, some of which resume the one before.
pub(super) async fn run_streams(mut actor: Actor, end: Instant) {
    let mut handling = JoinSet::new();
    let mut number = 0;
    let mut last: Option<(String, String)> = None;
    while Instant::now() < end {
        let resumed = last.take().filter(|_| actor.one_in(3));
        let (queue, consumer) = resumed.unwrap_or_else(|| {
            number += 1;
            (choose_queue(&mut actor), format!("consumer-{}-{number}", actor.process))
        });
        consume(&mut actor, &queue, &consumer, end, &mut handling).await;
        last = Some((queue, consumer));
    }
    handling.join_all().await;
}

async fn consume(actor: &mut Actor, queue: &str, consumer_id: &str, end: Instant, handling: &mut JoinSet<()>) {
    let session_timeout_ms = actor.random.random_range(500..=2000);
    let options = ConsumeOptions::default()
        .consumer_id(consumer_id)
        .credit(actor.random.random_range(1..=30))
        .session_timeout(Duration::from_millis(session_timeout_ms));
    let (name, consumer) = (queue.to_owned(), consumer_id.to_owned());
    let call = Call::OpenConsumer { queue: name.clone(), consumer: consumer.clone(), session_timeout_ms };
    let client = actor.client.clone();
    let opening = client.consume(queue, options);
    let Some(mut stream) = actor.perform(call, OPEN_PATIENCE, opening, |_| Answer::Done).await else {
        // Not as fast as possible while nothing answers.
        return sleep(Duration::from_millis(50)).await;
    };
    let until = end.min(Instant::now() + actor.milliseconds(300, 4000));
    while Instant::now() < until {
        let Some(delivery) = take(actor, &name, consumer_id, &mut stream, until).await else { break };
        if let Some(delivery) = delivery {
            handle(actor, delivery, handling).await;
        }
    }
    // The others leave their leases to the session timeout.
    if !actor.one_in(3) {
        let call = Call::CloseConsumer { queue: name, consumer };
        actor.perform(call, OPEN_PATIENCE, stream.close(), |()| Answer::Done).await;
    }
}

/// The next delivery; none within the time; none if the stream has ended.
async fn take(
    actor: &Actor,
    queue: &str,
    consumer_id: &str,
    stream: &mut Consumer,
    until: Instant,
) -> Option<Option<Delivery>> {
    let call = Call::Receive { queue: queue.into(), consumer: Some(consumer_id.into()) };
    let next = async {
        match tokio::time::timeout_at(until, stream.next()).await {
            Ok(Some(Ok(delivery))) => Ok(Some(delivery)),
            Ok(Some(Err(error))) => Err(error),
            Ok(None) => Err(Error::Closed),
            Err(_) => Ok(None),
        }
    };
    actor
        .perform(call, Duration::from_secs(60), next, |delivery| {
            Answer::Received(delivery.iter().map(delivered).collect())
        })
        .await
}

/// Single calls.
pub(super) async fn run_calls(mut actor: Actor, end: Instant) {
    let mut handling = JoinSet::new();
    while Instant::now() < end {
        let queue = choose_queue(&mut actor);
        let messages_max = actor.random.random_range(1..=8);
        let wait = actor.milliseconds(20, 250);
        let patience = actor.patience();
        let call = Call::Receive { queue: queue.clone(), consumer: None };
        let receiving = actor.client.receive(queue, messages_max, wait);
        let received = actor.perform(call, patience, receiving, |deliveries| {
            Answer::Received(deliveries.iter().map(delivered).collect())
        });
        for delivery in received.await.unwrap_or_default() {
            handle(&mut actor, delivery, &mut handling).await;
        }
        sleep(Duration::from_millis(5)).await;
    }
    handling.join_all().await;
}

fn choose_queue(actor: &mut Actor) -> String {
    let position = actor.random.random_range(0..=CONSUMED.len());
    CONSUMED.get(position).copied().unwrap_or(FAN_QUEUES[2]).into()
}

/// Handles a delivery beside the next ones.
async fn handle(actor: &mut Actor, delivery: Delivery, handling: &mut JoinSet<()>) {
    while handling.try_join_next().is_some() {}
    if handling.len() >= HANDLED_MAX {
        handling.join_next().await;
    }
    let branch = actor.branch();
    handling.spawn(work_on(branch, delivery));
}

async fn work_on(mut actor: Actor, delivery: Delivery) {
    let patience = actor.patience();
    let lease_timeout = lease_timeout(&delivery);
    if delivery.handle.queue == INCOMING && !actor.one_in(5) {
        return pass_on(actor, &delivery, patience).await;
    }
    match actor.random.random_range(0..100) {
        0..70 => {
            actor.settle(&delivery, Settlement::Ack, patience).await;
        }
        70..77 => {
            actor.settle(&delivery, Settlement::Nack { delay_ms: None }, patience).await;
        }
        77..83 => {
            let delay_ms = Some(actor.random.random_range(0..=800));
            actor.settle(&delivery, Settlement::Nack { delay_ms }, patience).await;
        }
        83..86 => {
            actor.settle(&delivery, Settlement::Reject, patience).await;
        }
        // Its lease times out, if its consumer does not end first.
        86..90 => {}
        90..94 => {
            let timeout_ms = lease_timeout + 500;
            actor.settle(&delivery, Settlement::Extend { timeout_ms }, patience).await;
            let work = actor.milliseconds(0, lease_timeout);
            sleep(work).await;
            actor.settle(&delivery, Settlement::Ack, patience).await;
        }
        // Too late, on purpose.
        94..97 => {
            let late = actor.milliseconds(50, 600);
            sleep(Duration::from_millis(lease_timeout) + late).await;
            actor.settle(&delivery, Settlement::Ack, patience).await;
        }
        // A second time, on purpose.
        _ => {
            actor.settle(&delivery, Settlement::Ack, patience).await;
            actor.settle(&delivery, Settlement::Ack, patience).await;
        }
    }
}

/// Consumes and publishes in one step.
async fn pass_on(mut actor: Actor, delivery: &Delivery, patience: Duration) {
    let count = actor.random.random_range(1..=2);
    let messages = (0..count).map(|_| Publication {
        message: actor.next_message(),
        to: OUTGOING.into(),
        ..Publication::default()
    });
    let messages = messages.collect();
    if actor.one_in(10) {
        // The lease is lost by then: nothing may be done.
        let late = lease_timeout(delivery) + 200;
        sleep(Duration::from_millis(late)).await;
    }
    actor.transact(delivery, messages, patience).await;
}

fn lease_timeout(delivery: &Delivery) -> u64 {
    queues().iter().find(|queue| queue.name == delivery.handle.queue).map_or(2000, |queue| queue.lease_timeout_ms)
}
