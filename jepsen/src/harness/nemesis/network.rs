//! Faults of the network.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;

use super::{Choice, Evidence, Nemesis, Reach, Situation, list};
use crate::harness::network::LinkTraffic;
use crate::harness::probe::connect_time;
use crate::harness::{Cluster, HarnessError, NodeId};

/// Which links are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Leader,
    Halves,
    Ring,
    Bridge,
    OneWay,
}

/// Cuts links between nodes. Clients go on reaching all nodes, also those that are cut off: from these they could hear
/// something wrong.
pub(super) struct Partition {
    shape: Shape,
    cuts: Vec<(NodeId, NodeId)>,
    /// The one that is cut off from the others.
    isolated: Option<NodeId>,
    before: LinkTraffic,
}

impl Partition {
    pub(super) fn new(shape: Shape) -> Partition {
        Partition { shape, cuts: Vec::new(), isolated: None, before: LinkTraffic::default() }
    }

    fn traffic(&self, cluster: &Cluster) -> LinkTraffic {
        let mut total = LinkTraffic::default();
        for (from, to) in &self.cuts {
            let traffic = cluster.network().traffic(*from, *to);
            total.passed += traffic.passed;
            total.dropped += traffic.dropped;
        }
        total
    }
}

impl Nemesis for Partition {
    fn choose(&mut self, situation: &Situation, random: &mut StdRng) -> Choice {
        let mut nodes = situation.members.clone();
        nodes.shuffle(random);
        let half = nodes.len() / 2;
        let (text, hit) = match self.shape {
            Shape::Leader => {
                let isolated = situation.leader.unwrap_or(nodes[0]);
                nodes.retain(|node| *node != isolated);
                self.cuts = both_ways(&[isolated], &nodes);
                self.isolated = Some(isolated);
                (format!("the leader n{isolated} alone | {}", list(&nodes)), vec![isolated])
            }
            Shape::Halves => {
                let (minority, majority) = nodes.split_at(half);
                self.cuts = both_ways(minority, majority);
                (format!("{} | {}", list(minority), list(majority)), minority.to_vec())
            }
            Shape::Ring => {
                self.cuts = ring_cuts(&nodes);
                (format!("each reaches its neighbours only in the ring {}", list(&nodes)), nodes.clone())
            }
            Shape::Bridge => {
                let (left, rest) = nodes.split_at(half);
                let (bridge, right) = rest.split_at(1);
                self.cuts = both_ways(left, right);
                (
                    format!("{} | {} | {}, both reach n{}", list(left), list(bridge), list(right), bridge[0]),
                    nodes.clone(),
                )
            }
            Shape::OneWay => {
                let victims = situation.victims(Reach::One, random);
                let victim = victims.first().copied().unwrap_or(nodes[0]);
                nodes.retain(|node| *node != victim);
                let deaf = random.random_bool(0.5);
                self.cuts = nodes.iter().map(|node| if deaf { (*node, victim) } else { (victim, *node) }).collect();
                let what =
                    if deaf { "hears no other node, and is heard" } else { "is heard by no other node, and hears" };
                (format!("n{victim} {what}"), vec![victim])
            }
        };
        Choice::new(text, hit)
    }

    fn start<'a>(&'a mut self, cluster: &'a Arc<Cluster>) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            for (from, to) in &self.cuts {
                cluster.network().change(*from, *to, |rule| rule.cut = true);
            }
            self.before = self.traffic(cluster);
            Ok(())
        }
        .boxed()
    }

    fn stop<'a>(&'a mut self, cluster: &'a Arc<Cluster>) -> BoxFuture<'a, Result<Evidence, HarnessError>> {
        async move {
            let views = cluster.views().await;
            let after = self.traffic(cluster);
            for (from, to) in &self.cuts {
                cluster.network().change(*from, *to, |rule| rule.cut = false);
            }
            let (passed, dropped) = (after.passed - self.before.passed, after.dropped - self.before.dropped);
            // One packet may have been judged before the cut and counted after it.
            let mut seen = dropped > 0 && passed <= self.cuts.len() as u64;
            let mut text = format!("{dropped} packets dropped and {passed} passed on {} links", self.cuts.len());
            if let Some(isolated) = self.isolated {
                let leaders = views.iter().filter(|view| view.node != isolated).filter_map(|view| view.status.as_ref());
                let leader = leaders.max_by_key(|status| status.term);
                let replaced = leader.and_then(|status| status.leader_id).filter(|leader| *leader != isolated);
                seen &= replaced.is_some();
                let term = leader.map_or(0, |status| status.term);
                let new = replaced.map_or_else(|| "nobody".to_owned(), |leader| format!("n{leader}"));
                text.push_str(&format!("; {new} leads the others in term {term}"));
            }
            Ok(Evidence::new(seen, text))
        }
        .boxed()
    }
}

fn both_ways(left: &[NodeId], right: &[NodeId]) -> Vec<(NodeId, NodeId)> {
    left.iter().flat_map(|a| right.iter().flat_map(move |b| [(*a, *b), (*b, *a)])).collect()
}

/// Cuts all but the links to as many neighbours, on both sides, as make a majority with the node itself.
fn ring_cuts(ring: &[NodeId]) -> Vec<(NodeId, NodeId)> {
    let length = ring.len();
    let neighbours = (length / 2).div_ceil(2);
    let mut cuts = Vec::new();
    for (at, from) in ring.iter().enumerate() {
        for (other, to) in ring.iter().enumerate() {
            let distance = at.abs_diff(other).min(length - at.abs_diff(other));
            if distance > neighbours {
                cuts.push((*from, *to));
            }
        }
    }
    cuts
}

/// Makes all links slow.
#[derive(Default)]
pub(super) struct Latency {
    latency: Duration,
    jitter: Duration,
    before: Option<Duration>,
    address: String,
}

impl Nemesis for Latency {
    fn choose(&mut self, situation: &Situation, random: &mut StdRng) -> Choice {
        self.latency = Duration::from_millis(random.random_range(10..=100));
        self.jitter = self.latency.mul_f64(random.random_range(0.0..=1.0));
        let text = format!("each packet is {:?} late, and up to {:?} more", self.latency, self.jitter);
        Choice::new(text, situation.members.clone())
    }

    fn start<'a>(&'a mut self, cluster: &'a Arc<Cluster>) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            if let Some(node) = running(cluster) {
                self.address = cluster.node(node)?.client_address();
                self.before = connect_time(&self.address).await;
            }
            let (latency, jitter) = (self.latency, self.jitter);
            cluster.network().change_all(|rule| (rule.latency, rule.jitter) = (latency, jitter));
            Ok(())
        }
        .boxed()
    }

    fn stop<'a>(&'a mut self, cluster: &'a Arc<Cluster>) -> BoxFuture<'a, Result<Evidence, HarnessError>> {
        async move {
            let during = connect_time(&self.address).await;
            cluster.network().change_all(|rule| (rule.latency, rule.jitter) = (Duration::ZERO, Duration::ZERO));
            let seen = during.is_some_and(|during| during >= self.latency * 2);
            Ok(Evidence::new(seen, format!("to connect took {:.1?}, and {:.1?} before", during, self.before)))
        }
        .boxed()
    }
}

/// A node that runs.
fn running(cluster: &Cluster) -> Option<NodeId> {
    let members = cluster.members();
    members.into_iter().find(|id| cluster.node(*id).is_ok_and(|node| node.process_id().is_some() && !node.is_paused()))
}

/// Makes all links between nodes, and to clients, lose packets.
#[derive(Default)]
pub(super) struct Loss {
    loss: f64,
    before: LinkTraffic,
}

impl Nemesis for Loss {
    fn choose(&mut self, situation: &Situation, random: &mut StdRng) -> Choice {
        self.loss = random.random_range(0.01..=0.15);
        Choice::new(format!("{:.1} % of the packets are lost", self.loss * 100.0), situation.members.clone())
    }

    fn start<'a>(&'a mut self, cluster: &'a Arc<Cluster>) -> BoxFuture<'a, Result<(), HarnessError>> {
        async move {
            self.before = cluster.network().traffic_total();
            cluster.network().change_all(|rule| rule.loss = self.loss);
            Ok(())
        }
        .boxed()
    }

    fn stop<'a>(&'a mut self, cluster: &'a Arc<Cluster>) -> BoxFuture<'a, Result<Evidence, HarnessError>> {
        async move {
            cluster.network().change_all(|rule| rule.loss = 0.0);
            let after = cluster.network().traffic_total();
            let (passed, dropped) = (after.passed - self.before.passed, after.dropped - self.before.dropped);
            Ok(Evidence::new(dropped > 0, format!("{dropped} packets dropped, {passed} passed")))
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;
    use crate::harness::CLIENTS;

    fn cuts(shape: Shape, seed: u64) -> Vec<(NodeId, NodeId)> {
        let members = vec![1, 2, 3, 4, 5];
        let situation = Situation { members, spares: Vec::new(), leader: Some(3), damaged: Default::default() };
        let mut partition = Partition::new(shape);
        partition.choose(&situation, &mut StdRng::seed_from_u64(seed));
        partition.cuts
    }

    fn reached(cuts: &[(NodeId, NodeId)], from: NodeId) -> usize {
        (1..=5).filter(|to| *to != from && !cuts.contains(&(from, *to))).count()
    }

    #[test]
    fn partitions_have_the_shapes_that_they_are_named_after() {
        for seed in 0..20 {
            let leader = cuts(Shape::Leader, seed);
            assert_eq!((reached(&leader, 3), reached(&leader, 1)), (0, 3));
            let mut halves: Vec<_> = (1..=5).map(|node| reached(&cuts(Shape::Halves, seed), node)).collect();
            halves.sort_unstable();
            assert_eq!(halves, [1, 1, 2, 2, 2]);
            assert!((1..=5).all(|node| reached(&cuts(Shape::Ring, seed), node) == 2));
            let mut bridge: Vec<_> = (1..=5).map(|node| reached(&cuts(Shape::Bridge, seed), node)).collect();
            bridge.sort_unstable();
            assert_eq!(bridge, [2, 2, 2, 2, 4]);
            let one_way = cuts(Shape::OneWay, seed);
            assert_eq!(one_way.len(), 4);
            assert!(one_way.iter().all(|(from, to)| !one_way.contains(&(*to, *from))));
            for shape in [Shape::Leader, Shape::Halves, Shape::Ring, Shape::Bridge, Shape::OneWay] {
                assert!(cuts(shape, seed).iter().all(|(from, to)| *from != CLIENTS && *to != CLIENTS));
            }
        }
    }
}
