//! The main job: delayed messages from several producers to several consumers, and the leader killed among them.

use std::ops::Range;
use std::time::Duration;

use anyhow::Context as _;
use dwell_client::{Client, QueueSettings};
use dwell_local_cluster::LocalCluster;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::environment::READY_TIMEOUT;
use crate::history::{Recorder, Verdict};
use crate::workload::{ConsumerTask, Consumption, Production, wait_until_drained};

const QUEUE: &str = "delayed";
const BODY_BYTES: usize = 256;
/// How long after the last due time everything must be settled. Longer than a lease, so that a message whose
/// acknowledgement was lost comes again within it, and is counted.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(40);
/// Lateness is not measured for what falls due this soon after the kill.
const UNMEASURED_AFTER_KILL_US: u64 = 1_000_000;

/// A run of the main job.
#[derive(Debug, Clone)]
pub struct LeaderKill {
    /// Of all producers together.
    pub messages: u64,
    /// Each with its own publisher.
    pub producers: u64,
    /// Each with its own stream.
    pub consumers: usize,
    /// Over how long the messages are published, at an even rate.
    pub publish_for: Duration,
    /// Delays are random, from 0 to this.
    pub delay_ms_max: u64,
    /// When the leader is killed, from the first message on.
    pub kill_after: Duration,
    /// When it is started again, from the first message on.
    pub restart_after: Duration,
}

/// What happens, told while it does.
#[derive(Debug, Clone, Copy)]
pub enum Happening {
    /// Producers and consumers are at work.
    Started,
    /// A second passed.
    Progress {
        /// Since the start.
        elapsed: Duration,
        /// Messages confirmed so far.
        confirmed: usize,
        /// Deliveries received so far.
        deliveries: usize,
    },
    /// The leader was killed.
    Killed {
        /// Its number.
        node: u64,
    },
    /// The others agreed on a new leader.
    Elected {
        /// Its number.
        node: u64,
        /// Since the kill, as seen by asking the nodes again and again.
        after: Duration,
    },
    /// The killed node was started again.
    Restarted {
        /// Its number.
        node: u64,
    },
    /// The restarted node has caught up.
    CaughtUp {
        /// Its number.
        node: u64,
    },
}

impl LeaderKill {
    /// Runs the job on a cluster that is ready, and judges what came of it.
    pub async fn run(&self, cluster: &LocalCluster, tell: impl Fn(Happening)) -> anyhow::Result<Verdict> {
        let client = Client::connect(cluster.client_addresses())?;
        client.declare_queue(QUEUE, QueueSettings::default()).await?;
        let recorder = Recorder::default();
        let consumers = self.start_consumers(&client, &recorder).await?;
        let mut producers = self.start_producers(&client, &recorder);
        let started = Instant::now();
        tell(Happening::Started);

        let (kill, ()) = tokio::try_join!(
            self.kill_and_restart(cluster, started, &recorder, &tell),
            self.watch(started, &recorder, &mut producers, &tell),
        )?;
        let drained = wait_until_drained(&client, QUEUE, SETTLE_TIMEOUT).await;
        let verdict = recorder.history().check(&[kill]);
        drained.with_context(|| format!("not everything was consumed:\n{verdict}"))?;
        for consumer in consumers {
            consumer.stop().await?;
        }
        Ok(verdict)
    }

    async fn start_consumers(&self, client: &Client, recorder: &Recorder) -> anyhow::Result<Vec<ConsumerTask>> {
        let mut consumers = Vec::new();
        for number in 0..self.consumers {
            let consumption = Consumption { queue: QUEUE.to_owned(), number, credit: 100 };
            consumers.push(consumption.start(client, recorder.clone()).await?);
        }
        Ok(consumers)
    }

    fn start_producers(&self, client: &Client, recorder: &Recorder) -> JoinSet<anyhow::Result<()>> {
        let each = self.messages / self.producers;
        let interval = self.publish_for.div_f64(each as f64);
        let mut producers = JoinSet::new();
        for producer in 0..self.producers {
            let production = Production {
                queue: QUEUE.to_owned(),
                first_id: producer * each,
                messages: each,
                interval,
                delay_ms_max: self.delay_ms_max,
                body_bytes: BODY_BYTES,
            };
            producers.spawn(production.run(client.clone(), recorder.clone()));
        }
        producers
    }

    /// Answers the span of time in which lateness is not measured.
    async fn kill_and_restart(
        &self,
        cluster: &LocalCluster,
        started: Instant,
        recorder: &Recorder,
        tell: &impl Fn(Happening),
    ) -> anyhow::Result<Range<u64>> {
        tokio::time::sleep_until(started + self.kill_after).await;
        let leader = cluster.leader(READY_TIMEOUT).await?;
        let killed_at_us = recorder.killed();
        let killed_at = Instant::now();
        cluster.node(leader)?.kill().await?;
        tell(Happening::Killed { node: leader });
        let elected = cluster.leader(READY_TIMEOUT).await?;
        tell(Happening::Elected { node: elected, after: killed_at.elapsed() });

        tokio::time::sleep_until(started + self.restart_after).await;
        cluster.node(leader)?.start()?;
        tell(Happening::Restarted { node: leader });
        cluster.wait_ready(READY_TIMEOUT).await?;
        tell(Happening::CaughtUp { node: leader });
        Ok(killed_at_us..killed_at_us + UNMEASURED_AFTER_KILL_US)
    }

    /// Tells of progress until all messages are confirmed and due.
    async fn watch(
        &self,
        started: Instant,
        recorder: &Recorder,
        producers: &mut JoinSet<anyhow::Result<()>>,
        tell: &impl Fn(Happening),
    ) -> anyhow::Result<()> {
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        let mut all_due = None;
        loop {
            tokio::select! {
                finished = producers.join_next(), if !producers.is_empty() => {
                    finished.context("a producer")???;
                }
                _ = seconds.tick() => {
                    let (confirmed, deliveries) = recorder.progress();
                    tell(Happening::Progress { elapsed: started.elapsed(), confirmed, deliveries });
                }
            }
            if producers.is_empty() {
                let last_due =
                    *all_due.get_or_insert_with(|| Instant::now() + Duration::from_millis(self.delay_ms_max));
                let settled = recorder.missing().is_empty();
                if settled || Instant::now() > last_due + Duration::from_secs(5) {
                    return Ok(());
                }
            }
        }
    }
}
