//! A load from the declaration of its queues to its report.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::ledger::Ledger;
use super::measurements::{Latencies, Silence};
use super::report::LoadReport;
use super::schedule::now_us;
use super::spec::{Consume, LoadSpec, Until};
use super::timeline::Timeline;
use super::{consuming, producing};
use crate::drivers::Driver;
use crate::usage;

/// How often the end of the load is looked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// What all tasks of a load share.
#[derive(Debug)]
pub struct Run {
    pub spec: LoadSpec,
    pub ledger: Ledger,
    pub silence: Silence,
    /// When the load began: microseconds since the Unix epoch.
    pub began_us: OnceLock<u64>,
    /// Deliveries before their due time.
    pub early: AtomicU64,
    /// Deliveries of messages that this run did not publish.
    pub foreign: AtomicU64,
    /// Acknowledgements that came too late, or failed.
    pub unacknowledged: AtomicU64,
    /// The latest due time.
    pub last_due_us: AtomicU64,
    /// Nothing more is to be published.
    pub stopping: CancellationToken,
    /// Nothing more is to be received.
    pub drained: CancellationToken,
}

/// A load whose queues and consumers are there.
pub struct Prepared<D: Driver> {
    run: Arc<Run>,
    producers: Vec<D::Producer>,
    consumers: JoinSet<anyhow::Result<Latencies>>,
}

/// Declares queues, opens producers and consumers.
pub async fn prepare<D: Driver>(driver: D, spec: LoadSpec) -> anyhow::Result<Prepared<D>> {
    if spec.declare {
        driver.declare(&spec.queues).await?;
    }
    let expected = spec.consume.as_ref().map(|consume| consume.expect.clone()).unwrap_or_default();
    let ledger = match &spec.produce {
        Some(produce) => Ledger::new(produce.producers),
        None => Ledger::expecting(&expected),
    };
    let run = Arc::new(Run {
        spec,
        ledger,
        silence: Silence::new(),
        began_us: OnceLock::new(),
        early: AtomicU64::new(0),
        foreign: AtomicU64::new(0),
        unacknowledged: AtomicU64::new(0),
        last_due_us: AtomicU64::new(0),
        stopping: CancellationToken::new(),
        drained: CancellationToken::new(),
    });
    let mut producers = Vec::new();
    for _ in 0..run.spec.produce.as_ref().map_or(0, |produce| produce.producers) {
        producers.push(driver.producer().await?);
    }
    let mut consumers = JoinSet::new();
    // A load that only consumes begins with its consumers, so that nothing flows before the start.
    if run.spec.produce.is_some() {
        open_consumers(&driver, &run, &mut consumers).await?;
        return Ok(Prepared { run, producers, consumers });
    }
    let waiting = run.clone();
    consumers.spawn(async move {
        while waiting.began_us.get().is_none() {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
        let mut opened = JoinSet::new();
        open_consumers(&driver, &waiting, &mut opened).await?;
        let mut latencies = Latencies::new()?;
        while let Some(ended) = opened.join_next().await {
            latencies.add(&ended??)?;
        }
        Ok(latencies)
    });
    Ok(Prepared { run, producers, consumers })
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
    /// Makes the load. `measured` is called when all was published and received, before anything is closed.
    pub async fn run(mut self, measured: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<LoadReport> {
        let run = self.run;
        let cpu_before = usage::own_cpu_seconds()?;
        let began = Instant::now();
        let _ = run.began_us.set(now_us());
        let timeline = Timeline::start(run.clone(), began);
        let stop = tokio::spawn(stop_in_time(run.clone()));
        let published = publish_all::<D>(&run, self.producers, &mut self.consumers).await;
        let publishing = began.elapsed();
        stop.abort();
        if let (Ok(_), Some(consume)) = (&published, &run.spec.consume) {
            drain(&run, consume, &mut self.consumers).await?;
        }
        let total = began.elapsed();
        let cpu_seconds = usage::own_cpu_seconds()? - cpu_before;
        let timeline = timeline.finish().await;
        measured()?;
        run.drained.cancel();
        let confirms = published?;
        let mut receipts = Latencies::new()?;
        while let Some(latencies) = self.consumers.join_next().await {
            receipts.add(&latencies??)?;
        }
        Ok(LoadReport::new(&run, (publishing, total), (&confirms, &receipts), cpu_seconds, timeline))
    }
}

async fn stop_in_time(run: Arc<Run>) {
    match run.spec.produce.as_ref().map(|produce| produce.until) {
        Some(Until::Seconds(seconds)) => tokio::time::sleep(Duration::from_secs_f64(seconds)).await,
        _ => std::future::pending().await,
    }
    run.stopping.cancel();
}

async fn publish_all<D: Driver>(
    run: &Arc<Run>,
    producers: Vec<D::Producer>,
    consumers: &mut JoinSet<anyhow::Result<Latencies>>,
) -> anyhow::Result<Latencies> {
    let mut producing = JoinSet::new();
    for (number, producer) in (0..).zip(producers) {
        producing.spawn(producing::run(run.clone(), number, producer));
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
