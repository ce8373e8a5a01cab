//! One consumer of a load: receives, checks, acknowledges.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;

use crate::driver::{Consumer, Delivery};
use crate::identity::Identity;
use crate::measurements::Latencies;
use crate::run::Run;
use crate::schedule::now_us;

/// Consumes until everything has come. Answers the latencies from when a message was due, or published, to its
/// receipt.
pub async fn run<C: Consumer>(run: Arc<Run>, mut consumer: C) -> anyhow::Result<Latencies> {
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
                acknowledging.push(delivery.ack());
            }
            Some(acknowledged) = acknowledging.next() => note::<C::Delivery>(&run, acknowledged),
        }
    }
    while let Some(acknowledged) = acknowledging.next().await {
        note::<C::Delivery>(&run, acknowledged);
    }
    consumer.close().await?;
    Ok(latencies)
}

fn check(run: &Run, delivery: &impl Delivery, latencies: &mut Latencies) {
    let identity = Identity::of(delivery.body()).filter(|identity| identity.run == run.spec.run);
    let Some(identity) = identity else {
        run.foreign.fetch_add(1, Ordering::Relaxed);
        return;
    };
    let late_us = now_us() as i64 - identity.at_us as i64;
    if late_us < 0 {
        run.early.fetch_add(1, Ordering::Relaxed);
    }
    let first = run.ledger.receive(identity.producer, identity.number);
    // A message that comes again says nothing about how fast the first delivery was.
    if first && !delivery.is_again() {
        latencies.record_us(late_us);
    }
}

fn note<D: Delivery>(run: &Run, acknowledged: anyhow::Result<()>) {
    if let Err(error) = acknowledged {
        let count = if D::is_in_doubt(&error) { &run.acknowledged_perhaps } else { &run.unacknowledged };
        count.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%error, "a message was not acknowledged");
    }
}
