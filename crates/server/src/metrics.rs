//! The node's metrics, in Prometheus' naming.

use std::time::Duration;

use dwell_consensus::group::{Consistency, Group};
use dwell_machine::{COMMAND_FORMAT, QueueView};
use dwell_proto::v1;
use prometheus::{
    Encoder, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder, exponential_buckets,
};
use tonic::Code;

/// Queues shown one by one; more would make a scrape too large.
const QUEUES_MAX: usize = 1000;
/// How long a scrape waits for the machine.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(2);

/// Tells which version runs here, by the labels of a metric that is always 1, as is usual.
pub fn register_build(registry: &Registry) -> Result<(), prometheus::Error> {
    let build = IntGaugeVec::new(
        Opts::new("dwell_build_info", "Always 1: the version, and the newest format of commands that it understands."),
        &["version", "command_format"],
    )?;
    build.with_label_values(&[env!("CARGO_PKG_VERSION"), &COMMAND_FORMAT.to_string()]).set(1);
    registry.register(Box::new(build))
}

/// What the hub counts.
pub struct HubMetrics {
    /// Streams of consumers on this node.
    pub streams: IntGauge,
    /// Consumers that are attached by them.
    pub consumers: IntGauge,
    /// From due to applied, on the leader.
    pub release_lateness: Histogram,
}

impl HubMetrics {
    /// Registers them.
    pub fn register(registry: &Registry) -> Result<HubMetrics, prometheus::Error> {
        let streams = IntGauge::new("dwell_consumer_streams", "Streams of consumers served by this node.")?;
        let consumers = IntGauge::new("dwell_stream_consumers", "Consumers attached by these streams.")?;
        let release_lateness = Histogram::with_opts(
            HistogramOpts::new(
                "dwell_release_lateness_seconds",
                "From a scheduled message's due time to its release, by the leader's clock.",
            )
            .buckets(exponential_buckets(0.0005, 2.0, 18)?),
        )?;
        registry.register(Box::new(streams.clone()))?;
        registry.register(Box::new(consumers.clone()))?;
        registry.register(Box::new(release_lateness.clone()))?;
        Ok(HubMetrics { streams, consumers, release_lateness })
    }
}

/// What became of the messages that were published through this node while it led.
#[derive(Clone)]
pub struct PublishMetrics {
    stored: IntCounter,
    duplicate: IntCounter,
    unroutable: IntCounter,
    rejected: IntCounter,
}

impl PublishMetrics {
    /// Registers them.
    pub fn register(registry: &Registry) -> Result<PublishMetrics, prometheus::Error> {
        let outcomes = IntCounterVec::new(
            Opts::new("dwell_publish_messages_total", "Published messages that this node answered, by outcome."),
            &["outcome"],
        )?;
        registry.register(Box::new(outcomes.clone()))?;
        let of = |outcome| outcomes.with_label_values(&[outcome]);
        Ok(PublishMetrics {
            stored: of("stored"),
            duplicate: of("duplicate"),
            unroutable: of("unroutable"),
            rejected: of("rejected"),
        })
    }

    /// Counts one message.
    pub fn count(&self, result: &v1::PublishResult) {
        match result.outcome() {
            v1::PublishOutcome::Unroutable => self.unroutable.inc(),
            v1::PublishOutcome::Rejected => self.rejected.inc(),
            v1::PublishOutcome::Stored | v1::PublishOutcome::Unspecified if result.duplicate => self.duplicate.inc(),
            v1::PublishOutcome::Stored | v1::PublishOutcome::Unspecified => self.stored.inc(),
        }
    }
}

/// What scalers ask this node.
#[derive(Clone)]
pub struct ScalerMetrics {
    answered: IntCounter,
    refused: IntCounter,
    failed: IntCounter,
    /// Streams that scalers watch queues by.
    pub streams: IntGauge,
}

impl ScalerMetrics {
    /// Registers them.
    pub fn register(registry: &Registry) -> Result<ScalerMetrics, prometheus::Error> {
        let outcomes = IntCounterVec::new(
            Opts::new("dwell_scaler_requests_total", "Requests of scalers that this node answered, by outcome."),
            &["outcome"],
        )?;
        let streams = IntGauge::new("dwell_scaler_streams", "Streams of scalers served by this node.")?;
        registry.register(Box::new(outcomes.clone()))?;
        registry.register(Box::new(streams.clone()))?;
        let of = |outcome| outcomes.with_label_values(&[outcome]);
        Ok(ScalerMetrics { answered: of("answered"), refused: of("refused"), failed: of("failed"), streams })
    }

    /// Counts one answer.
    pub fn count(&self, code: Code) {
        match code {
            Code::Ok => self.answered.inc(),
            Code::Unavailable | Code::Internal => self.failed.inc(),
            _ => self.refused.inc(),
        }
    }
}

/// Renders everything for one scrape: what is registered, and what is read from Raft and the machine now.
pub async fn render(group: &Group, registry: &Registry) -> Result<Vec<u8>, prometheus::Error> {
    let scrape = Registry::new();
    record_raft(group, &scrape)?;
    let queues = group.read(Consistency::Stale, |machine| machine.queues("", None, QUEUES_MAX));
    // A machine that does not answer must not hide the other metrics, which tell why.
    if let Ok(Ok(queues)) = tokio::time::timeout(SCRAPE_TIMEOUT, queues).await {
        record_queues(&queues, &scrape)?;
    }
    let mut text = Vec::new();
    let encoder = TextEncoder::new();
    encoder.encode(&registry.gather(), &mut text)?;
    encoder.encode(&scrape.gather(), &mut text)?;
    Ok(text)
}

fn record_raft(group: &Group, scrape: &Registry) -> Result<(), prometheus::Error> {
    let status = group.status();
    let gauges = [
        ("dwell_raft_term", "The current Raft term.", status.term),
        ("dwell_raft_leader_id", "The leader's node id; 0 while there is none.", status.leader_id.unwrap_or(0)),
        ("dwell_raft_is_leader", "1 if this node leads.", u64::from(status.leader_id == Some(group.node_id))),
        ("dwell_raft_last_log_index", "Index of the last log entry.", status.last_log_index),
        ("dwell_raft_committed_index", "Index up to which the log is committed.", status.committed_index),
        ("dwell_raft_applied_index", "Index up to which the log is applied.", status.applied_index),
        ("dwell_raft_snapshot_index", "Index of the last snapshot.", status.snapshot_index),
        ("dwell_raft_purged_index", "Index up to which the log is purged.", status.purged_index),
    ];
    for (name, help, value) in gauges {
        let gauge = IntGauge::new(name, help)?;
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        scrape.register(Box::new(gauge))?;
    }
    Ok(())
}

type ReadQueue = fn(&QueueView) -> u64;

/// Replicated: they go on over a failover, and are the same on every node.
const TOTALS: [(&str, &str, ReadQueue); 12] = [
    ("dwell_queue_published_total", "Messages stored in a queue.", |queue| queue.totals.published),
    ("dwell_queue_delivered_total", "Leases granted.", |queue| queue.totals.delivered),
    ("dwell_queue_acknowledged_total", "Leases acknowledged.", |queue| queue.totals.acknowledged),
    ("dwell_queue_returned_total", "Leases that ended otherwise.", |queue| queue.totals.returned),
    ("dwell_queue_expired_total", "Messages whose time was over.", |queue| queue.totals.expired),
    ("dwell_queue_exhausted_total", "Messages that came back too often.", |queue| queue.totals.exhausted),
    ("dwell_queue_rejected_total", "Messages that a consumer rejected.", |queue| queue.totals.rejected),
    ("dwell_queue_overflowed_total", "Messages that had to make room.", |queue| queue.totals.overflowed),
    ("dwell_queue_recalled_total", "Messages that were recalled.", |queue| queue.totals.recalled),
    ("dwell_queue_dead_lettered_total", "Messages that went on as dead letters.", |queue| queue.totals.dead_lettered),
    ("dwell_queue_refused_total", "Publishes refused by a full queue.", |queue| queue.totals.refused),
    ("dwell_queue_deduplicated_total", "Publishes with a known dedupe id.", |queue| queue.totals.deduplicated),
];

fn record_queues(queues: &[QueueView], scrape: &Registry) -> Result<(), prometheus::Error> {
    let by_state =
        GaugeVec::new(Opts::new("dwell_queue_messages", "Messages of a queue, by state."), &["queue", "state"])?;
    scrape.register(Box::new(by_state.clone()))?;
    let states: [(&str, ReadQueue); 3] = [
        ("scheduled", |queue| queue.counts.scheduled),
        ("ready", |queue| queue.counts.ready),
        ("leased", |queue| queue.counts.leased),
    ];
    for queue in queues {
        for (state, read) in states {
            by_state.with_label_values(&[&queue.name, state]).set(read(queue) as f64);
        }
    }
    let gauges: [(&str, &str, ReadQueue); 2] = [
        ("dwell_queue_bytes", "Body bytes of a queue's messages.", |queue| queue.counts.bytes),
        ("dwell_queue_consumers", "Consumers of a queue.", |queue| queue.consumers),
    ];
    for (name, help, read) in TOTALS {
        let counter = IntCounterVec::new(Opts::new(name, help), &["queue"])?;
        for queue in queues {
            counter.with_label_values(&[&queue.name]).inc_by(read(queue));
        }
        scrape.register(Box::new(counter))?;
    }
    for (name, help, read) in gauges {
        let gauge = GaugeVec::new(Opts::new(name, help), &["queue"])?;
        for queue in queues {
            gauge.with_label_values(&[&queue.name]).set(read(queue) as f64);
        }
        scrape.register(Box::new(gauge))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_messages_are_counted_by_outcome() {
        let metrics = PublishMetrics::register(&Registry::new()).unwrap();
        let result = |outcome: v1::PublishOutcome, duplicate| v1::PublishResult {
            outcome: outcome.into(),
            duplicate,
            ..Default::default()
        };
        metrics.count(&result(v1::PublishOutcome::Stored, false));
        metrics.count(&result(v1::PublishOutcome::Stored, true));
        metrics.count(&result(v1::PublishOutcome::Unroutable, false));
        metrics.count(&result(v1::PublishOutcome::Rejected, false));
        metrics.count(&result(v1::PublishOutcome::Rejected, false));
        let counted =
            [&metrics.stored, &metrics.duplicate, &metrics.unroutable, &metrics.rejected].map(IntCounter::get);
        assert_eq!(counted, [1, 1, 1, 2]);
    }
}
