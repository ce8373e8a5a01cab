//! Faults of disks.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::{Choice, Evidence, Nemesis, Reach, Situation, list};
use crate::harness::disk::{Disk, Rot, rot};
use crate::harness::node::Node;
use crate::harness::{Cluster, HarnessError, NodeId};

/// Cuts the power of nodes, and gives it back at the end.
pub(super) struct PowerCut {
    reach: Reach,
    nodes: Vec<NodeId>,
}

impl PowerCut {
    pub(super) fn new(reach: Reach) -> PowerCut {
        PowerCut { reach, nodes: Vec::new() }
    }
}

impl Nemesis for PowerCut {
    fn choose(&mut self, situation: &Situation, random: &mut StdRng) -> Choice {
        self.nodes = situation.victims(self.reach, random);
        Choice::new(format!("{} without power", list(&self.nodes)), self.nodes.clone())
    }

    fn start<'a>(&'a mut self, cluster: &'a Arc<Cluster>) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            // Power goes from process and disk at once. The process is halted first: it must neither act on the errors of
            // a disk without power, nor write to a disk that still has it after others lost theirs.
            for id in &self.nodes {
                cluster.node(*id)?.pause().await?;
            }
            for id in &self.nodes {
                let mut disk = disk(cluster.node(*id)?)?.lock();
                disk.prepare_power_cut()?;
                disk.cut_power()?;
            }
            cluster.kill(&self.nodes).await
        }
        .boxed()
    }

    fn stop<'a>(&'a mut self, cluster: &'a Arc<Cluster>) -> BoxFuture<'a, Result<Evidence, HarnessError>> {
        async move {
            let mut seen = true;
            let mut texts = Vec::new();
            for id in &self.nodes {
                let lost = disk(cluster.node(*id)?)?.lock().restore_power()?;
                seen &= lost.is_ok();
                texts.push(format!("n{id}: {}", lost.unwrap_or_else(|problem| problem)));
            }
            for id in &self.nodes {
                cluster.start_node(*id)?;
            }
            Ok(Evidence::new(seen, texts.join(", ")))
        }
        .boxed()
    }
}

/// Has the files of a minority rot while they are down.
pub(super) struct Corruption {
    what: Rot,
    nodes: Vec<NodeId>,
    seed: u64,
    done: Vec<String>,
}

impl Corruption {
    pub(super) fn new(what: Rot) -> Corruption {
        Corruption { what, nodes: Vec::new(), seed: 0, done: Vec::new() }
    }
}

impl Nemesis for Corruption {
    fn choose(&mut self, situation: &Situation, random: &mut StdRng) -> Choice {
        // If some are damaged already, these may rot further, but nobody else.
        let mut candidates = situation.members.clone();
        if situation.damaged.is_empty() {
            let count = random.random_range(1..=situation.spare().max(1));
            self.nodes = candidates.sample(random, count).copied().collect();
        } else {
            candidates.retain(|node| situation.damaged.contains(node));
            self.nodes = candidates;
        }
        self.nodes.sort_unstable();
        self.seed = random.random();
        Choice::new(format!("files of {} rot: {:?}", list(&self.nodes), self.what), self.nodes.clone())
    }

    fn start<'a>(&'a mut self, cluster: &'a Arc<Cluster>) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            let mut random = StdRng::seed_from_u64(self.seed);
            for id in &self.nodes {
                cluster.set_damaged(*id);
            }
            cluster.kill(&self.nodes).await?;
            for id in &self.nodes {
                let done = rot(&cluster.node(*id)?.data_directory(), self.what, &mut random)?;
                self.done.extend(done.into_iter().map(|what| format!("n{id} {what}")));
                cluster.start_node(*id)?;
            }
            Ok(())
        }
        .boxed()
    }

    fn stop<'a>(&'a mut self, _cluster: &'a Arc<Cluster>) -> BoxFuture<'a, Result<Evidence, HarnessError>> {
        async move { Ok(Evidence::new(!self.done.is_empty(), self.done.join("; "))) }.boxed()
    }
}

/// Fills disks, and gives the space back at the end.
#[derive(Default)]
pub(super) struct FullDisk {
    nodes: Vec<NodeId>,
    filled: u64,
    /// All were at first. Later a server may have deleted something.
    full: bool,
}

impl Nemesis for FullDisk {
    fn choose(&mut self, situation: &Situation, random: &mut StdRng) -> Choice {
        let reach = [Reach::One, Reach::Minority, Reach::All].choose(random).copied().unwrap_or(Reach::One);
        self.nodes = situation.victims(reach, random);
        Choice::new(format!("the disks of {} are full", list(&self.nodes)), self.nodes.clone())
    }

    fn start<'a>(&'a mut self, cluster: &'a Arc<Cluster>) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            self.full = true;
            for id in &self.nodes {
                let disk = disk(cluster.node(*id)?)?.lock();
                self.filled += disk.fill()?;
                self.full &= disk.is_full();
            }
            Ok(())
        }
        .boxed()
    }

    fn stop<'a>(&'a mut self, cluster: &'a Arc<Cluster>) -> BoxFuture<'a, Result<Evidence, HarnessError>> {
        async move {
            let mut still = Vec::new();
            for id in &self.nodes {
                let disk = disk(cluster.node(*id)?)?.lock();
                if disk.is_full() {
                    still.push(*id);
                }
                disk.empty()?;
            }
            let (taken, nodes) = (self.filled >> 20, list(&self.nodes));
            let refused = if self.full { "nothing could be written" } else { "something could be written" };
            let text = format!("{taken} MiB taken on {nodes}, {refused}; full until the end: {}", list(&still));
            Ok(Evidence::new(self.full, text))
        }
        .boxed()
    }
}

fn disk(node: &Node) -> Result<&Mutex<Disk>, HarnessError> {
    let missing = || HarnessError::Node { node: node.id(), problem: "has no disk of its own".to_owned() };
    node.disk.as_ref().ok_or_else(missing)
}
