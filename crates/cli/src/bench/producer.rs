//! One producer of a run.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use dwell_client::{Confirm, Error, PublishMessage, Publisher, PublisherOptions};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::identity::Identity;
use super::measurements::Latencies;
use super::run::Run;
use crate::times::since_epoch_us;

/// A message that waits for its confirm.
struct Unconfirmed {
    number: u64,
    sent: Instant,
    confirm: Confirm,
}

/// Publishes its share, and answers the confirm latencies.
pub async fn run(run: Arc<Run>, producer: u32) -> anyhow::Result<Latencies> {
    let publisher = run.client()?.publisher(PublisherOptions::default());
    // One is with the confirming task, one with this one.
    let (unconfirmed, confirming) = mpsc::channel(run.arguments.in_flight.saturating_sub(2).max(1));
    let confirmed = tokio::spawn(confirm(run.clone(), producer, confirming));
    let published = publish(&run, producer, &publisher, unconfirmed).await;
    let latencies = confirmed.await??;
    published?;
    Ok(latencies)
}

async fn publish(
    run: &Run,
    producer: u32,
    publisher: &Publisher,
    unconfirmed: mpsc::Sender<Unconfirmed>,
) -> anyhow::Result<()> {
    let began = Instant::now();
    let interval = run.arguments.rate.map(|rate| Duration::from_secs(1).mul_f64(producers(run) / rate as f64));
    for number in 0..run.arguments.share(producer) {
        if let Some(interval) = interval {
            // By the plan, not after the last one: what was late is caught up with.
            let due = began + interval.mul_f64(number as f64);
            tokio::select! {
                () = tokio::time::sleep_until(due) => {}
                () = run.stopping.cancelled() => {}
            }
        }
        if run.stopping.is_cancelled() {
            break;
        }
        let message = message(run, producer, number);
        let sent = Instant::now();
        let confirm = publisher.submit_one(message).await?;
        // Waits while too many are unconfirmed. An error is the other task's to tell.
        if unconfirmed.send(Unconfirmed { number, sent, confirm }).await.is_err() {
            break;
        }
    }
    Ok(())
}

fn producers(run: &Run) -> f64 {
    f64::from(run.arguments.producers)
}

fn message(run: &Run, producer: u32, number: u64) -> PublishMessage {
    let arguments = &run.arguments;
    let queue = &run.queues[((number + u64::from(producer)) % run.queues.len() as u64) as usize];
    let now_us = since_epoch_us(SystemTime::now()).unsigned_abs();
    let identity = |at_us| Identity { run: run.id, producer, number, at_us };
    if !arguments.is_delayed() {
        return PublishMessage::new(queue, identity(now_us).body(arguments.body_bytes));
    }
    let spread = rand::random_range(0.0..=1.0) * arguments.delay_spread.as_secs_f64();
    let delay = arguments.delay + Duration::from_secs_f64(spread);
    // Whole milliseconds, as the server keeps them.
    let due_ms = (now_us + delay.as_micros() as u64) / 1000;
    run.note_due(due_ms);
    let body = identity(due_ms * 1000).body(arguments.body_bytes);
    PublishMessage::new(queue, body).deliver_at_ms(due_ms as i64)
}

async fn confirm(
    run: Arc<Run>,
    producer: u32,
    mut confirming: mpsc::Receiver<Unconfirmed>,
) -> anyhow::Result<Latencies> {
    let mut latencies = Latencies::new()?;
    while let Some(Unconfirmed { number, sent, confirm }) = confirming.recv().await {
        match confirm.await {
            Ok(_) => {
                run.silence.end();
                latencies.record_us(sent.elapsed().as_micros() as i64);
                run.ledger.confirm(producer, number);
            }
            Err(error) => {
                run.ledger.fail(producer, number);
                // Some errors pass, and the run is to show how many. The others would come for every message.
                if !matches!(error, Error::Timeout { .. } | Error::Unavailable { .. } | Error::ResourceExhausted(_)) {
                    return Err(error.into());
                }
                tracing::warn!(%error, producer, number, "a message is not confirmed");
            }
        }
    }
    Ok(latencies)
}
