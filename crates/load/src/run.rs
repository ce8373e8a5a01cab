//! A load from its first consumer to its report.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::driver::Driver;
use crate::ledger::Ledger;
use crate::measurements::{Latencies, Silence};
use crate::report::LoadReport;
use crate::schedule::now_us;
use crate::spec::{Consume, LoadSpec, Until};
use crate::{consuming, producing};

/// How often the end of the load is looked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// A load while it is made: what all its tasks share.
#[derive(Debug)]
pub struct Run {
    pub(crate) spec: LoadSpec,
    pub(crate) ledger: Ledger,
    pub(crate) silence: Silence,
    /// Deliveries before their due time.
    pub(crate) early: AtomicU64,
    /// Deliveries of messages that this run did not publish.
    pub(crate) foreign: AtomicU64,
    /// Acknowledgements that came too late, or failed.
    pub(crate) unacknowledged: AtomicU64,
    /// Acknowledgements that may have been accepted, or not.
    pub(crate) acknowledged_perhaps: AtomicU64,
    /// The latest due time.
    pub(crate) last_due_us: AtomicU64,
    /// Nothing more is to be published.
    pub(crate) stopping: CancellationToken,
    /// Nothing more is to be received.
    pub(crate) drained: CancellationToken,
}

/// How far a load is.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    /// Messages confirmed so far.
    pub confirmed: u64,
    /// Messages received so far, each counted once.
    pub received: u64,
    /// Confirmed messages that have not been received.
    pub outstanding: u64,
    /// The longest time so far between one confirm and the next.
    pub longest_silence: Duration,
}

impl Run {
    fn new(spec: LoadSpec) -> Run {
        let ledger = match (&spec.produce, &spec.consume) {
            (Some(produce), _) => Ledger::new(produce.producers),
            (None, Some(consume)) => Ledger::expecting(&consume.expect),
            (None, None) => Ledger::new(0),
        };
        Run {
            spec,
            ledger,
            silence: Silence::new(),
            early: AtomicU64::new(0),
            foreign: AtomicU64::new(0),
            unacknowledged: AtomicU64::new(0),
            acknowledged_perhaps: AtomicU64::new(0),
            last_due_us: AtomicU64::new(0),
            stopping: CancellationToken::new(),
            drained: CancellationToken::new(),
        }
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        Progress {
            confirmed: self.ledger.confirmed(),
            received: self.ledger.received(),
            outstanding: self.ledger.outstanding(),
            longest_silence: self.silence.longest(),
        }
    }

    /// Publishes nothing more. What is confirmed is waited for still.
    pub fn stop(&self) {
        self.stopping.cancel();
    }
}

/// A load whose producers and consumers are there.
pub struct Prepared<D: Driver> {
    run: Arc<Run>,
    driver: D,
    producers: Vec<D::Producer>,
    consumers: JoinSet<anyhow::Result<Latencies>>,
}

/// A load of which everything was published and received, and nothing is closed yet.
pub struct Made {
    run: Arc<Run>,
    publishing: Duration,
    total: Duration,
    confirms: Latencies,
    consumers: JoinSet<anyhow::Result<Latencies>>,
}

/// Opens producers and consumers of queues that are there.
pub async fn prepare<D: Driver>(driver: D, spec: LoadSpec) -> anyhow::Result<Prepared<D>> {
    let run = Arc::new(Run::new(spec));
    let (mut producers, mut consumers) = (Vec::new(), JoinSet::new());
    // A load that only consumes begins with its consumers, so that nothing flows before the start.
    if let Some(produce) = &run.spec.produce {
        for _ in 0..produce.producers {
            producers.push(driver.producer().await?);
        }
        open_consumers(&driver, &run, &mut consumers).await?;
    }
    Ok(Prepared { run, driver, producers, consumers })
}

/// At least one consumer for each queue, and as many as were asked for.
async fn open_consumers<D: Driver>(
    driver: &D,
    run: &Arc<Run>,
    consumers: &mut JoinSet<anyhow::Result<Latencies>>,
) -> anyhow::Result<()> {
    let Some(consume) = &run.spec.consume else { return Ok(()) };
    let queues = &run.spec.queues;
    for number in 0..consume.consumers.max(u32::try_from(queues.len())?) {
        let consumer = driver.consumer(&queues[number as usize % queues.len()], number, consume.credit).await?;
        consumers.spawn(consuming::run(run.clone(), consumer));
    }
    Ok(())
}

impl<D: Driver> Prepared<D> {
    /// To look how far it is, and to stop it.
    pub fn run(&self) -> Arc<Run> {
        self.run.clone()
    }

    /// Makes the load.
    pub async fn make(self) -> anyhow::Result<Made> {
        let Prepared { run, driver, producers, mut consumers } = self;
        let began = Instant::now();
        if run.spec.produce.is_none() {
            open_consumers(&driver, &run, &mut consumers).await?;
        }
        let stop = tokio::spawn(stop_in_time(run.clone()));
        let published = publish_all::<D>(&run, producers, &mut consumers).await;
        let publishing = began.elapsed();
        stop.abort();
        let confirms = published?;
        if let Some(consume) = &run.spec.consume {
            drain(&run, consume, &mut consumers).await?;
        }
        let total = began.elapsed();
        Ok(Made { run, publishing, total, confirms, consumers })
    }
}

impl Made {
    /// Closes the consumers, and says what came of it all.
    pub async fn close(mut self) -> anyhow::Result<LoadReport> {
        self.run.drained.cancel();
        let mut receipts = Latencies::new()?;
        while let Some(latencies) = self.consumers.join_next().await {
            receipts.add(&latencies??)?;
        }
        Ok(LoadReport::new(&self.run, self.publishing, self.total, &self.confirms, &receipts))
    }
}

async fn stop_in_time(run: Arc<Run>) {
    if let Some(Until::Seconds(seconds)) = run.spec.produce.as_ref().map(|produce| produce.until) {
        tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
        run.stop();
    }
}

async fn publish_all<D: Driver>(
    run: &Arc<Run>,
    producers: Vec<D::Producer>,
    consumers: &mut JoinSet<anyhow::Result<Latencies>>,
) -> anyhow::Result<Latencies> {
    let began_us = now_us();
    let mut producing = JoinSet::new();
    for (number, producer) in (0..).zip(producers) {
        producing.spawn(producing::run(run.clone(), number, producer, began_us));
    }
    let mut latencies = Latencies::new()?;
    loop {
        tokio::select! {
            produced = producing.join_next() => match produced {
                Some(produced) => latencies.add(&produced??)?,
                None => return Ok(latencies),
            },
            Some(ended) = consumers.join_next() => {
                ended??;
                anyhow::bail!("a consumer ended before the producers");
            }
        }
    }
}

/// Waits until every confirmed message has come, or none has for too long after all were due.
async fn drain(run: &Run, consume: &Consume, consumers: &mut JoinSet<anyhow::Result<Latencies>>) -> anyhow::Result<()> {
    let patience = Duration::from_secs_f64(consume.patience_seconds);
    let (mut received, mut progress_at) = (run.ledger.received(), Instant::now());
    while run.ledger.outstanding() > 0 {
        tokio::select! {
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
            Some(ended) = consumers.join_next() => {
                ended??;
                anyhow::bail!("a consumer ended before everything had come");
            }
        }
        let all_is_due = now_us() >= run.last_due_us.load(Ordering::Relaxed);
        if received != run.ledger.received() || !all_is_due {
            (received, progress_at) = (run.ledger.received(), Instant::now());
        }
        if progress_at.elapsed() > patience {
            break;
        }
    }
    Ok(())
}
