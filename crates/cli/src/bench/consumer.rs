//! One consumer of a run: receives, checks, acknowledges.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use dwell_client::{ConsumeOptions, Consumer, Delivery, Error};
use futures::StreamExt;
use futures::stream::FuturesUnordered;

use super::identity::Identity;
use super::measurements::Latencies;
use super::run::Run;
use crate::times::since_epoch_us;

/// Opens a consumer of the run.
pub async fn open(run: &Run, queue: &str) -> anyhow::Result<Consumer> {
    let options = ConsumeOptions::default().credit(run.arguments.credit);
    Ok(run.client()?.consume(queue, options).await?)
}

/// Consumes until the run is drained. Answers the latencies from when a message was due, or published, to its
/// receipt.
pub async fn run(run: Arc<Run>, mut consumer: Consumer) -> anyhow::Result<Latencies> {
    let mut latencies = Latencies::new()?;
    let mut acknowledging = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            () = run.drained.cancelled() => break,
            delivery = consumer.next() => {
                let Some(delivery) = delivery else { break };
                let delivery = delivery?;
                check(&run, &delivery, &mut latencies);
                acknowledging.push(async move { delivery.ack().await });
            }
            Some(acknowledged) = acknowledging.next() => note(&run, acknowledged),
        }
    }
    while let Some(acknowledged) = acknowledging.next().await {
        note(&run, acknowledged);
    }
    consumer.close().await?;
    Ok(latencies)
}

fn check(run: &Run, delivery: &Delivery, latencies: &mut Latencies) {
    let identity = Identity::of(&delivery.message.body).filter(|identity| identity.run == run.id);
    let Some(identity) = identity else {
        run.foreign.fetch_add(1, Ordering::Relaxed);
        return;
    };
    let late_us = since_epoch_us(delivery.received_at) - identity.at_us as i64;
    if late_us < 0 {
        run.early.fetch_add(1, Ordering::Relaxed);
    }
    // A message that comes again says nothing about how fast the first delivery was.
    if delivery.delivery_count == 0 {
        latencies.record_us(late_us);
    }
    run.ledger.receive(identity.producer, identity.number);
}

fn note(run: &Run, acknowledged: Result<(), Error>) {
    if let Err(error) = acknowledged {
        let count = if error.is_outcome_unknown() { &run.acknowledged_perhaps } else { &run.unacknowledged };
        count.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%error, "a message was not acknowledged");
    }
}
