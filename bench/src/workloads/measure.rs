//! One load over one cluster, with what servers and clients use meanwhile.

use std::time::{Duration, Instant};

use dwell_load::{LoadReport, Percentiles};

use crate::client::LoadProcess;
use crate::load::timeline::Moment;
use crate::load::{Assignment, Course};
use crate::results::{Curve, Outcome};
use crate::systems::{Cluster, NODES};
use crate::usage::Usage;

/// Bytes of a MiB.
pub const MIB: f64 = 1024.0 * 1024.0;
/// After the last receipt: acknowledgements without an answer are on their way still.
const SETTLE: Duration = Duration::from_millis(200);
/// How often memory is looked at.
const MEMORY_INTERVAL: Duration = Duration::from_millis(500);

/// What one load came to.
pub struct Measurement {
    /// What the load saw.
    pub report: LoadReport,
    /// How it went.
    pub course: Course,
    /// All servers together, when queues and consumers were there and nothing else.
    pub before: Usage,
    /// All servers together, right after the load.
    pub after: Usage,
    /// The most that one server had resident since its start.
    pub peak_bytes: u64,
    /// All servers' resident memory, by seconds since the start.
    pub memory: Curve,
}

/// Makes a load, and measures.
pub async fn measure(cluster: &Cluster, assignment: &Assignment) -> anyhow::Result<Measurement> {
    let mut load = LoadProcess::prepare(assignment).await?;
    tokio::time::sleep(SETTLE).await;
    let before = cluster.usage()?;
    let began = Instant::now();
    load.begin().await?;
    let mut memory = Curve::new();
    let mut tick = tokio::time::interval(MEMORY_INTERVAL);
    let course = loop {
        tokio::select! {
            measured = load.measured() => break measured?,
            _ = tick.tick() => {
                let resident = cluster.usage()?.resident_bytes;
                memory.push((began.elapsed().as_secs_f64(), resident as f64 / MIB));
            }
        }
    };
    tokio::time::sleep(SETTLE).await;
    let usages = cluster.usages()?;
    let mut after = Usage::default();
    usages.iter().for_each(|usage| after.add(usage));
    let peak_bytes = usages.iter().map(|usage| usage.peak_bytes).max().unwrap_or(0);
    let report = load.report().await?;
    report.check()?;
    Ok(Measurement { report, course, before, after, peak_bytes, memory })
}

impl Measurement {
    /// CPU and disk of `messages` messages of so many bytes.
    pub fn costs(&self, outcome: &mut Outcome, messages: u64, body_bytes: usize) {
        let (thousands, nodes) = (messages.max(1) as f64 / 1000.0, NODES as f64);
        let written = self.after.written_bytes.saturating_sub(self.before.written_bytes) as f64;
        let cpu = self.after.cpu_seconds - self.before.cpu_seconds;
        outcome.set("server_cpu_s_per_1000", cpu / thousands);
        outcome.set("client_cpu_s_per_1000", self.course.client_cpu_seconds / thousands);
        outcome.set("written_bytes_per_node_and_byte", written / nodes / (messages.max(1) as f64 * body_bytes as f64));
    }

    /// Memory of one node: the mean when idle, the largest at most.
    pub fn memory(&self, outcome: &mut Outcome) {
        outcome.set("memory_idle_mib", self.before.resident_bytes as f64 / NODES as f64 / MIB);
        outcome.set("memory_idle_anonymous_mib", self.before.anonymous_bytes as f64 / NODES as f64 / MIB);
        outcome.set("memory_after_mib", self.after.resident_bytes as f64 / NODES as f64 / MIB);
        outcome.set("memory_peak_mib", self.peak_bytes as f64 / MIB);
    }

    /// The servers' mean resident memory by how many messages stand in the queues, of which `standing` did before.
    pub fn memory_by_depth(&self, standing: u64) -> Curve {
        let depth = |seconds: f64| {
            let moment = self.course.timeline.iter().rfind(|moment| moment.seconds <= seconds);
            moment.map_or(standing, |moment| (standing + moment.confirmed).saturating_sub(moment.received))
        };
        self.memory.iter().map(|(seconds, mib)| (depth(*seconds) as f64, mib / NODES as f64)).collect()
    }

    /// Messages a second by how many stand in the queues, one point for each second or more.
    pub fn rate_by_depth(&self, standing: u64) -> Curve {
        let mut curve = Curve::new();
        let mut last = self.course.timeline.first().copied();
        for moment in &self.course.timeline {
            let Some(before) = last else { break };
            if moment.seconds - before.seconds < 1.0 {
                continue;
            }
            let done = |moment: &Moment| moment.confirmed + moment.received;
            let rate = (done(moment) - done(&before)) as f64 / (moment.seconds - before.seconds);
            let depth = (standing + moment.confirmed).saturating_sub(moment.received);
            curve.push((depth as f64, rate));
            last = Some(*moment);
        }
        curve
    }
}

/// Adds the percentiles of a latency.
pub fn latency(outcome: &mut Outcome, name: &str, percentiles: Option<Percentiles>) {
    let Some(Percentiles { p50_ms, p99_ms, p999_ms, max_ms, .. }) = percentiles else { return };
    for (quantile, value) in [("p50", p50_ms), ("p99", p99_ms), ("p99.9", p999_ms), ("max", max_ms)] {
        outcome.set(format!("{name}_{quantile}_ms"), value);
    }
}
