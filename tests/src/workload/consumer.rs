//! A consumer that acknowledges everything, without waiting for one acknowledgement before it takes the next
//! message.

use anyhow::Context as _;
use dwell_client::{Client, ConsumeOptions, Consumer, Delivery};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::environment::now_us;
use crate::history::{Delivered, Recorder};
use crate::workload::id_of;

/// What one consumer is to do.
#[derive(Debug, Clone)]
pub struct Consumption {
    /// Where from.
    pub queue: String,
    /// Its number in the history.
    pub number: usize,
    /// How many messages it may hold unacknowledged.
    pub credit: u32,
}

/// A consumer at work.
#[derive(Debug)]
pub struct ConsumerTask {
    stop: watch::Sender<bool>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Consumption {
    /// Attaches the consumer, and lets it consume until it is told to stop.
    pub async fn start(self, client: &Client, recorder: Recorder) -> anyhow::Result<ConsumerTask> {
        let consumer = client.consume(&self.queue, ConsumeOptions::default().credit(self.credit)).await?;
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(self.run(consumer, recorder, stopped));
        Ok(ConsumerTask { stop, task })
    }

    async fn run(
        self,
        mut consumer: Consumer,
        recorder: Recorder,
        mut stopped: watch::Receiver<bool>,
    ) -> anyhow::Result<()> {
        let mut acknowledgements = JoinSet::new();
        loop {
            let delivery = tokio::select! {
                // Also when the sender is dropped: the test is over.
                _ = stopped.changed() => break,
                delivery = consumer.next() => delivery.context("the consumer's stream ended")??,
            };
            let received_at_us = now_us();
            self.take(delivery, received_at_us, &recorder, &mut acknowledgements)?;
            while acknowledgements.try_join_next().is_some() {}
        }
        acknowledgements.join_all().await;
        consumer.close().await?;
        Ok(())
    }

    fn take(
        &self,
        delivery: Delivery,
        received_at_us: u64,
        recorder: &Recorder,
        acknowledgements: &mut JoinSet<()>,
    ) -> anyhow::Result<()> {
        let index = recorder.received(Delivered {
            id: id_of(&delivery.message.body)?,
            consumer: self.number,
            received_at_us,
            ready_at_ms: u64::try_from(delivery.ready_at_ms)?,
            delivery_count: delivery.delivery_count,
            acknowledged_at_us: None,
        });
        let recorder = recorder.clone();
        acknowledgements.spawn(async move {
            // A lost lease is no fault by itself: whether the message comes again is for the history to judge.
            match delivery.ack().await {
                Ok(()) => recorder.acknowledged(index),
                Err(error) => eprintln!("acknowledging {:?}: {error}", delivery.handle),
            }
        });
        Ok(())
    }
}

impl ConsumerTask {
    /// Ends the consumer, and reports what went wrong with it, if anything did.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.stop.send_replace(true);
        self.task.await?
    }
}
