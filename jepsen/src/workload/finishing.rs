//! The end of a run, when nothing is broken any more: everything is brought out, and what remains is read.

use std::time::Duration;

use dwell_client::{BrowseOptions, Client, Error, MessageState, PublisherOptions};
use futures::{StreamExt, TryStreamExt};
use rand::RngExt;
use tokio::time::{Instant, sleep};

use super::Workload;
use super::actor::{Actor, delivered, schedule_due_ms};
use super::topology::{PRIORITIES, queues, schedules};
use crate::history::{Answer, Call, Found, Publication, Recorder, Settlement, State};

/// Most messages of one receive call.
const MESSAGES_MAX: u32 = 100;
/// How long a receive call waits.
const WAIT: Duration = Duration::from_millis(200);
/// How long to wait for an answer, at least and at most.
const PATIENCE_MIN: Duration = Duration::from_secs(3);
const PATIENCE_MAX: Duration = Duration::from_secs(40);
/// How many messages the order of priorities is tried with.
const PRIORITIES_TRIED: usize = 12;

/// See [`Workload::finish`].
pub(super) async fn run(
    workload: &Workload,
    clients: Vec<Client>,
    recorder: &Recorder,
    load: impl Future<Output = ()>,
) -> bool {
    if clients.is_empty() {
        return false;
    }
    let deadline = Instant::now() + workload.quiescence_timeout;
    // Behind those of the run.
    let first = workload.processes * 3;
    let actors = (first..).zip(clients.iter().cycle());
    let mut actors = actors.map(|(process, client)| workload.actor(process, client.clone(), recorder));
    let Some(mut actor) = actors.next() else { return false };
    let queues_drained = queues().into_iter().filter(|queue| !queue.kept);
    let drains: Vec<(String, Actor)> = queues_drained.map(|queue| queue.name).zip(actors).collect();
    let drain_all = || futures::future::join_all(drains.iter().map(|(queue, actor)| drain(actor, queue, deadline)));
    // A last call that waits for a connection to be given up must not keep what is due in its queue.
    tokio::join!(load, stop_schedules(workload, &actor, deadline), drain_all());
    let drained = drain_all().await;
    try_priorities(&mut actor, deadline).await;
    for queue in queues() {
        browse(&actor, &queue.name, deadline).await;
    }
    drained.into_iter().all(|drained| drained)
}

async fn stop_schedules(workload: &Workload, actor: &Actor, deadline: Instant) {
    for schedule in schedules(workload.schedules) {
        loop {
            let call = Call::StopSchedule { schedule: schedule.schedule.clone() };
            let stopping = async {
                actor.client.pause_schedule(&schedule.schedule).await?;
                let report = actor.client.describe_schedule(&schedule.schedule, 0).await?;
                Ok(report.schedule.unwrap_or_default().fired)
            };
            let patience = deadline.saturating_duration_since(Instant::now());
            let stopped = actor.perform(call, patience, stopping, |&fired| Answer::Schedule { fired }).await;
            if stopped.is_some() || !pause_before(deadline).await {
                break;
            }
        }
    }
}

/// False if there is no time left.
async fn pause_before(deadline: Instant) -> bool {
    sleep(Duration::from_millis(50)).await;
    Instant::now() < deadline
}

/// How long to wait for an answer: a cluster that is gone must not hold up the end for longer than it may last.
fn patience(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now()).clamp(PATIENCE_MIN, PATIENCE_MAX)
}

/// Consumes a queue until nothing is in it, in whatever state.
async fn drain(actor: &Actor, queue: &str, deadline: Instant) -> bool {
    loop {
        let received = receive(actor, queue, MESSAGES_MAX, deadline).await;
        let settling = received.iter().map(|delivery| actor.settle(delivery, Settlement::Ack, patience(deadline)));
        futures::future::join_all(settling).await;
        if received.is_empty() && is_empty(&actor.client, queue).await {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
    }
}

async fn receive(actor: &Actor, queue: &str, messages_max: u32, deadline: Instant) -> Vec<dwell_client::Delivery> {
    let call = Call::Receive { queue: queue.into(), consumer: None };
    let receiving = actor.client.receive(queue, messages_max, WAIT);
    let received = actor.perform(call, patience(deadline), receiving, |deliveries| {
        Answer::Received(deliveries.iter().map(delivered).collect())
    });
    received.await.unwrap_or_default()
}

async fn is_empty(client: &Client, queue: &str) -> bool {
    let counts = client.queue_counts(queue).await;
    counts.is_ok_and(|counts| counts.scheduled == 0 && counts.ready == 0 && counts.leased == 0)
}

/// Publishes a handful with priorities into an empty queue, and takes one after the other.
async fn try_priorities(actor: &mut Actor, deadline: Instant) {
    let publisher = actor.client.publisher(PublisherOptions::default());
    for _ in 0..PRIORITIES_TRIED {
        if Instant::now() >= deadline {
            return;
        }
        let priority = actor.random.random_range(0..=255);
        let message =
            Publication { message: actor.next_message(), to: PRIORITIES.into(), priority, ..Publication::default() };
        actor.publish(&publisher, None, vec![message], patience(deadline)).await;
    }
    loop {
        let received = receive(actor, PRIORITIES, 1, deadline).await;
        for delivery in &received {
            actor.settle(delivery, Settlement::Ack, patience(deadline)).await;
        }
        let done = received.is_empty() && is_empty(&actor.client, PRIORITIES).await;
        if done || Instant::now() >= deadline {
            return;
        }
    }
}

/// Reads everything that stands in a queue.
async fn browse(actor: &Actor, queue: &str, deadline: Instant) {
    loop {
        let call = Call::Browse { queue: queue.into() };
        let browsing = read_all(&actor.client, queue);
        let found = actor.perform(call, patience(deadline), browsing, |found| Answer::Found(found.clone())).await;
        if found.is_some() || !pause_before(deadline).await {
            return;
        }
    }
}

async fn read_all(client: &Client, queue: &str) -> Result<Vec<Found>, Error> {
    let states = [
        (MessageState::Scheduled, State::Scheduled),
        (MessageState::Ready, State::Ready),
        (MessageState::Leased, State::Leased),
    ];
    let mut found = Vec::new();
    for (browsed, state) in states {
        let mut messages = client.browse(queue, browsed, BrowseOptions::default().page_size(1000)).boxed();
        while let Some(stored) = messages.try_next().await? {
            let message = stored.message.unwrap_or_default();
            found.push(Found {
                message: message.message_id.parse().unwrap_or(0),
                schedule_due_ms: schedule_due_ms(&message),
                sequence: stored.handle.map_or(0, |handle| handle.sequence),
                state,
                ready_at_ms: stored.ready_at_ms,
                died: stored.deaths.first().map(|death| (death.queue.clone(), death.last_at_ms)),
            });
        }
    }
    Ok(found)
}
