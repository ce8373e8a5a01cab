//! What can be done while many messages are pending, what they take, and how long a restart takes with them.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::super::measure::{MIB, Measurement, latency};
use super::super::{Contestant, bytes, queue_names};
use super::inventory::Inventory;
use super::{BODY_BYTES, Pending};
use crate::results::Outcome;
use crate::systems::{Cluster, Kind, NODES};
use crate::usage::Usage;

/// Messages that are browsed, and then rescheduled or recalled: a tenth of those that are pending, but at most so many.
const BROWSED_MAX: u64 = 100_000;
/// A node that does not serve by then will not.
const RESTART_TIMEOUT: Duration = Duration::from_secs(600);

/// Schedule, browse, forecast, reschedule, recall; then a node is killed and restarted, and then all of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Operations {
    /// At this depth.
    pub pending: Pending,
}

impl Operations {
    /// As the results name it.
    pub fn name(&self) -> String {
        format!("d: operations at {}, {}", self.pending.name(), bytes(BODY_BYTES))
    }

    /// Whether it can be measured of a system.
    pub fn takes_part(&self, kind: Kind) -> bool {
        kind == Kind::Dwell
    }

    /// Measures it.
    pub async fn measure(&self, contestant: &Contestant, directory: &Path) -> anyhow::Result<Outcome> {
        let mut cluster = contestant.start(directory).await?;
        let mut outcome = Outcome::default();
        self.scheduled(&mut outcome, &self.pending.schedule(&cluster).await?);
        let mut inventory = Inventory::new(cluster.addresses(), &queue_names(1)[0], self.pending.messages)?;
        inventory.count().await.context("after scheduling")?;
        self.revise(&mut inventory, &mut outcome).await?;
        inventory.count().await.context("after revising")?;
        memory(&cluster, &mut outcome)?;
        restart_node(&mut cluster, &mut outcome).await?;
        restart_all(&mut cluster, &mut inventory, &mut outcome).await?;
        inventory.count().await.context("after the restarts")?;
        cluster.stop().await?;
        Ok(outcome)
    }

    fn scheduled(&self, outcome: &mut Outcome, scheduled: &Measurement) {
        let report = &scheduled.report;
        outcome.set("schedule_messages_per_second", report.publish_rate);
        latency(outcome, "schedule_confirm", report.confirm_latency);
        scheduled.costs(outcome, report.confirmed, BODY_BYTES);
        scheduled.memory(outcome);
        outcome.set("memory_full_mib", mean_mib(scheduled.after));
        outcome.curves.insert("schedule rate (messages/s) by depth".to_owned(), scheduled.rate_by_depth(0));
        outcome.curves.insert("memory of a node (MiB) by depth, scheduling".to_owned(), scheduled.memory_by_depth(0));
    }

    /// One after the other, so that none slows down another.
    async fn revise(&self, inventory: &mut Inventory, outcome: &mut Outcome) -> anyhow::Result<()> {
        let seen = inventory.browse(outcome, (self.pending.messages / 10).min(BROWSED_MAX)).await?;
        let (last, quarter) = (*seen.last().context("nothing is pending")?, seen.len() / 4);
        inventory.forecast(outcome, seen[seen.len() / 2]).await?;
        inventory.reschedule(outcome, &seen[..quarter]).await?;
        inventory.recall(outcome, &seen[quarter..2 * quarter]).await?;
        inventory.recall_before(outcome, last, (seen.len() - 2 * quarter) as u64).await
    }
}

/// Kills a node that does not lead, and starts it again.
async fn restart_node(cluster: &mut Cluster, outcome: &mut Outcome) -> anyhow::Result<()> {
    let node = (cluster.leader(&queue_names(1)[0]).await? + 1) % NODES;
    cluster.kill(node);
    let began = Instant::now();
    cluster.start_missing()?;
    cluster.wait_node_serving(node, RESTART_TIMEOUT).await?;
    outcome.set("node_restart_ready_s", began.elapsed().as_secs_f64());
    Ok(())
}

/// Kills all nodes at once, and starts them again.
async fn restart_all(cluster: &mut Cluster, inventory: &mut Inventory, outcome: &mut Outcome) -> anyhow::Result<()> {
    cluster.kill_all();
    let began = Instant::now();
    cluster.start_missing()?;
    let ready = async {
        cluster.wait_serving(RESTART_TIMEOUT).await?;
        anyhow::Ok(began.elapsed().as_secs_f64())
    };
    let confirmed = async {
        inventory.schedule_within(RESTART_TIMEOUT).await?;
        anyhow::Ok(began.elapsed().as_secs_f64())
    };
    let (ready, confirmed) = futures::try_join!(ready, confirmed)?;
    outcome.set("cluster_restart_ready_s", ready);
    outcome.set("cluster_restart_confirm_s", confirmed);
    outcome.set("memory_restarted_mib", mean_mib(cluster.usage()?));
    Ok(())
}

/// After the operations and not only the scheduling: the mean, and the most that one node had since its start.
fn memory(cluster: &Cluster, outcome: &mut Outcome) -> anyhow::Result<()> {
    let peaks = cluster.usages()?.into_iter().map(|usage| usage.peak_bytes);
    outcome.set("memory_peak_mib", peaks.max().unwrap_or_default() as f64 / MIB);
    outcome.set("memory_after_mib", mean_mib(cluster.usage()?));
    Ok(())
}

/// Resident memory of one node, if this is what all of them use.
fn mean_mib(all: Usage) -> f64 {
    all.resident_bytes as f64 / NODES as f64 / MIB
}

#[cfg(test)]
mod tests {
    use super::super::Spread;
    use super::*;

    #[test]
    fn only_dwell_has_operations_on_pending_messages() {
        let operations = Operations { pending: Pending { messages: 1_000_000, spread: Spread::Bunched } };
        assert_eq!(operations.name(), "d: operations at 1m pending, bunched, 100 B");
        let kinds = [Kind::Dwell, Kind::RabbitMq, Kind::Nats];
        assert_eq!(kinds.map(|kind| operations.takes_part(kind)), [true, false, false]);
    }
}
