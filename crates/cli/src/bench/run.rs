//! A run from the declaration of its queues to its report.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use dwell_client::{Client, QueueSettings};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::arguments::BenchArguments;
use super::ledger::Ledger;
use super::measurements::{Latencies, Silence};
use super::report::Report;
use super::{consumer, producer};
use crate::arguments::GlobalArguments;
use crate::times::since_epoch_ms;

/// How often the end of the run is looked for.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// What all tasks of a run share.
#[derive(Debug)]
pub struct Run {
    pub id: u64,
    pub arguments: BenchArguments,
    pub queues: Vec<String>,
    pub ledger: Ledger,
    pub silence: Silence,
    /// Deliveries before their due time.
    pub early: AtomicU64,
    /// Deliveries of messages that this run did not publish.
    pub foreign: AtomicU64,
    /// Acknowledgements that came too late, or failed.
    pub unacknowledged: AtomicU64,
    /// Acknowledgements whose first answer was lost with the connection.
    pub acknowledged_perhaps: AtomicU64,
    /// Nothing more is to be published.
    pub stopping: CancellationToken,
    /// Nothing more is to be received.
    pub drained: CancellationToken,
    global: GlobalArguments,
    /// The latest due time.
    last_due_ms: AtomicU64,
}

impl Run {
    /// A client with connections of its own, as another process would have.
    pub fn client(&self) -> anyhow::Result<Client> {
        Ok(self.global.streaming_client()?)
    }

    /// A message is due then.
    pub fn note_due(&self, due_ms: u64) {
        self.last_due_ms.fetch_max(due_ms, Ordering::Relaxed);
    }

    fn all_is_due(&self) -> bool {
        since_epoch_ms(SystemTime::now()).unsigned_abs() >= self.last_due_ms.load(Ordering::Relaxed)
    }
}

/// Runs the load.
pub async fn run(global: &GlobalArguments, arguments: &BenchArguments) -> anyhow::Result<Report> {
    let run = Arc::new(Run {
        id: rand::random(),
        arguments: arguments.clone(),
        queues: arguments.queue_names(),
        ledger: Ledger::new(arguments.producers),
        silence: Silence::new(),
        early: AtomicU64::new(0),
        foreign: AtomicU64::new(0),
        unacknowledged: AtomicU64::new(0),
        acknowledged_perhaps: AtomicU64::new(0),
        stopping: CancellationToken::new(),
        drained: CancellationToken::new(),
        global: global.clone(),
        last_due_ms: AtomicU64::new(0),
    });
    let client = run.client()?;
    for queue in &run.queues {
        client.declare_queue(queue, QueueSettings::default()).await?;
    }
    let progress = tokio::spawn(show_progress(run.clone()));
    let report = measure(&run).await;
    progress.abort();
    if !arguments.keep {
        for queue in &run.queues {
            client.delete_queue(queue, false, false).await?;
        }
    }
    report
}

async fn measure(run: &Arc<Run>) -> anyhow::Result<Report> {
    let mut consumers = open_consumers(run).await?;
    let began = Instant::now();
    let stop = tokio::spawn(stop_in_time(run.clone()));
    let published = publish_all(run, &mut consumers).await;
    let publishing = began.elapsed();
    stop.abort();
    let drained = match &published {
        Ok(_) if run.arguments.consumers > 0 => drain(run, &mut consumers).await,
        _ => Ok(()),
    };
    let consuming = began.elapsed();
    run.drained.cancel();
    let confirm_latency = published?;
    drained?;
    let mut receipt_latency = Latencies::new()?;
    while let Some(latencies) = consumers.join_next().await {
        receipt_latency.add(&latencies??)?;
    }
    Ok(Report::new(run, publishing, consuming, &confirm_latency, &receipt_latency))
}

/// At least one consumer for each queue, and as many as were asked for.
async fn open_consumers(run: &Arc<Run>) -> anyhow::Result<JoinSet<anyhow::Result<Latencies>>> {
    let mut consumers = JoinSet::new();
    if run.arguments.consumers == 0 {
        return Ok(consumers);
    }
    for number in 0..(run.arguments.consumers as usize).max(run.queues.len()) {
        let consumer = consumer::open(run, &run.queues[number % run.queues.len()]).await?;
        consumers.spawn(consumer::run(run.clone(), consumer));
    }
    Ok(consumers)
}

async fn stop_in_time(run: Arc<Run>) {
    let time_is_up = async {
        match run.arguments.duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = time_is_up => {}
        _ = tokio::signal::ctrl_c() => eprintln!("stopping; waiting for what is confirmed"),
    }
    run.stopping.cancel();
}

async fn publish_all(run: &Arc<Run>, consumers: &mut JoinSet<anyhow::Result<Latencies>>) -> anyhow::Result<Latencies> {
    let mut producers = JoinSet::new();
    for number in 0..run.arguments.producers {
        producers.spawn(producer::run(run.clone(), number));
    }
    let mut latencies = Latencies::new()?;
    loop {
        tokio::select! {
            produced = producers.join_next() => match produced {
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
async fn drain(run: &Run, consumers: &mut JoinSet<anyhow::Result<Latencies>>) -> anyhow::Result<()> {
    let (mut received, mut progress_at) = (run.ledger.received(), Instant::now());
    while run.ledger.outstanding() > 0 {
        tokio::select! {
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
            Some(ended) = consumers.join_next() => {
                ended??;
                anyhow::bail!("a consumer ended before everything had come");
            }
        }
        if received != run.ledger.received() || !run.all_is_due() {
            (received, progress_at) = (run.ledger.received(), Instant::now());
        }
        if progress_at.elapsed() > run.arguments.patience {
            break;
        }
    }
    Ok(())
}

async fn show_progress(run: Arc<Run>) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.tick().await;
    let (mut confirmed_before, mut received_before) = (0, 0);
    for second in 1.. {
        tick.tick().await;
        let (confirmed, received) = (run.ledger.confirmed(), run.ledger.received());
        eprintln!(
            "{second:>4} s  confirmed {confirmed:>9} ({:>7}/s)  received {received:>9} ({:>7}/s)  to come {:>8}  \
             longest silence {:>5} ms",
            confirmed - confirmed_before,
            received - received_before,
            run.ledger.outstanding(),
            run.silence.longest().as_millis(),
        );
        (confirmed_before, received_before) = (confirmed, received);
    }
}
