//! (c): fill a queue, then drain it.

use std::path::Path;

use dwell_load::{Consume, LoadSpec, Produce, Until};

use super::measure::{latency, measure};
use super::{BODY, Contestant, WINDOW, consume, load, short};
use crate::load::Assignment;
use crate::results::Outcome;
use crate::systems::Cluster;

/// Publishes without consumers, and consumes when all is there.
#[derive(Debug, Clone, PartialEq)]
pub struct Backlog {
    /// Messages that come to stand in the queue.
    pub depth: u64,
}

impl Backlog {
    /// As the results name it.
    pub fn name(&self) -> String {
        format!("c: backlog of {}, 1 KiB, 4x256", short(self.depth))
    }

    /// Measures it.
    pub async fn measure(&self, contestant: &Contestant, directory: &Path) -> anyhow::Result<Outcome> {
        let cluster = contestant.start(directory).await?;
        let fill = self.fill(&cluster);
        let drain = drain(&fill);
        let mut outcome = Outcome::default();
        let filled = measure(&cluster, &fill).await?;
        anyhow::ensure!(filled.report.failed == 0, "{} publishes failed", filled.report.failed);
        outcome.set("fill_messages_per_second", filled.report.publish_rate);
        latency(&mut outcome, "fill_confirm", filled.report.confirm_latency);
        outcome.curves.insert("fill rate (messages/s) by depth".to_owned(), filled.rate_by_depth(0));
        let drained = measure(&cluster, &drain).await?;
        outcome.set("drain_messages_per_second", drained.report.receive_rate);
        drained.costs(&mut outcome, self.depth, BODY);
        // CPU and bytes of the whole life of a message, not of its end alone.
        for name in ["server_cpu_s_per_1000", "client_cpu_s_per_1000", "written_bytes_per_node_and_byte"] {
            let mut filling = Outcome::default();
            filled.costs(&mut filling, self.depth, BODY);
            let both = outcome.metrics.get(name).copied().unwrap_or(0.0) + filling.metrics[name];
            outcome.set(name, both);
        }
        // The peak is of the servers' whole life; idle they were before the filling only.
        filled.memory(&mut outcome);
        for name in ["memory_after_mib", "memory_peak_mib"] {
            let mut draining = Outcome::default();
            drained.memory(&mut draining);
            outcome.set(name, draining.metrics[name]);
        }
        let full = drained.before;
        outcome.set("memory_full_mib", full.resident_bytes as f64 / crate::systems::NODES as f64 / (1024.0 * 1024.0));
        outcome.curves.insert("drain rate (messages/s) by depth".to_owned(), drained.rate_by_depth(self.depth));
        outcome.curves.insert("memory of a node (MiB) by depth, filling".to_owned(), filled.memory_by_depth(0));
        outcome
            .curves
            .insert("memory of a node (MiB) by depth, draining".to_owned(), drained.memory_by_depth(self.depth));
        cluster.stop().await?;
        Ok(outcome)
    }

    fn fill(&self, cluster: &Cluster) -> Assignment {
        let (producers, in_flight) = WINDOW;
        let until = Until::Messages(self.depth);
        let produce = Produce { producers, in_flight, body_bytes: BODY, until, rate: None, due: None };
        load(cluster, 1, produce, None)
    }
}

/// Consumes what was filled in.
fn drain(fill: &Assignment) -> Assignment {
    let expect = fill.spec.produce.as_ref().map(Produce::shares).unwrap_or_default();
    let spec = LoadSpec { produce: None, consume: Some(Consume { expect, ..consume() }), ..fill.spec.clone() };
    Assignment { declare: false, spec, ..fill.clone() }
}
