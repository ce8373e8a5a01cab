//! A producer with a steady rate, which does not wait for one confirm before it sends the next message.

use std::time::Duration;

use anyhow::Context as _;
use dwell_client::{Client, PublishMessage, Publisher, PublisherOptions};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use crate::environment::now_ms;
use crate::history::{Due, Recorder};
use crate::workload::body;

/// What one producer is to send.
#[derive(Debug, Clone)]
pub struct Production {
    /// Where to.
    pub queue: String,
    /// Number of its first message; the others follow.
    pub first_id: u64,
    /// How many messages.
    pub messages: u64,
    /// One message each.
    pub interval: Duration,
    /// Delays are spread evenly from 0 to this. Every other message names its due time instead.
    pub delay_ms_max: u64,
    /// Bytes of a body.
    pub body_bytes: usize,
}

impl Production {
    /// Sends the messages and waits for all confirms. An error is a message that was not confirmed, which the
    /// client only reports after its retry deadline.
    pub async fn run(self, client: Client, recorder: Recorder) -> anyhow::Result<()> {
        let publisher = client.publisher(PublisherOptions::default());
        let mut ticks = tokio::time::interval_at(Instant::now(), self.interval);
        // After a stall the rate is made up for, as by a producer with a backlog.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let mut confirms = JoinSet::new();
        for id in self.first_id..self.first_id + self.messages {
            ticks.tick().await;
            self.send(&publisher, id, &recorder, &mut confirms).await?;
            while let Some(confirmed) = confirms.try_join_next() {
                confirmed??;
            }
        }
        while let Some(confirmed) = confirms.join_next().await {
            confirmed??;
        }
        Ok(())
    }

    async fn send(
        &self,
        publisher: &Publisher,
        id: u64,
        recorder: &Recorder,
        confirms: &mut JoinSet<anyhow::Result<()>>,
    ) -> anyhow::Result<()> {
        let delay_ms = rand::random_range(0..=self.delay_ms_max);
        let message = PublishMessage::new(&self.queue, body(id, self.body_bytes));
        let (due, message) = if id.is_multiple_of(2) {
            (Due::AfterMs(delay_ms), message.delay(Duration::from_millis(delay_ms)))
        } else {
            let at_ms = now_ms() + delay_ms;
            (Due::AtMs(at_ms), message.deliver_at_ms(i64::try_from(at_ms)?))
        };
        recorder.sent(id, due);
        let confirm = publisher.publish(vec![message]).await.with_context(|| format!("message {id} was not sent"))?;
        let recorder = recorder.clone();
        confirms.spawn(async move {
            confirm.await.with_context(|| format!("message {id} was not confirmed"))?;
            recorder.confirmed(id);
            Ok(())
        });
        Ok(())
    }
}
