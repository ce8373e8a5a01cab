//! The faults.

mod clocks;
mod membership;
mod network;
mod process;
mod storage;

use std::collections::BTreeSet;
use std::sync::Arc;

use clap::ValueEnum;
use futures::future::BoxFuture;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};

use crate::harness::disk::Rot;
use crate::harness::{Abilities, Cluster, EventKind, HarnessError, NodeId};

/// A kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub enum Fault {
    /// SIGKILL of one node, the leader every other time.
    KillOne,
    /// SIGKILL of as many nodes at once as the cluster can spare.
    KillMinority,
    /// SIGKILL of all nodes at once.
    KillAll,
    /// SIGSTOP of the leader, or of a minority; then SIGCONT.
    Pause,
    /// SIGTERM of one node after the other, each waited for.
    RollingRestart,
    /// The leader is cut off from the other nodes, and not from the clients.
    PartitionLeader,
    /// Two halves, drawn by lot, that do not reach each other.
    PartitionHalves,
    /// Each node reaches a majority, and no two the same one.
    PartitionRing,
    /// Two halves that only one node reaches both of.
    PartitionBridge,
    /// One node sends and receives nothing, or receives and sends nothing.
    PartitionOneWay,
    /// All packets are late.
    Latency,
    /// Some packets are lost.
    Loss,
    /// Each node's clock is wrong by another amount.
    ClockSkew,
    /// The clocks jump, forth and back.
    ClockJump,
    /// One node loses power, with what it has not synced.
    PowerOne,
    /// As many nodes as the cluster can spare lose power at once.
    PowerMinority,
    /// All nodes lose power at once.
    PowerAll,
    /// Bits flip in the logs, or the logs' ends go missing, of a minority.
    CorruptLog,
    /// Bits flip in the state's files, or their ends go missing, of a minority.
    CorruptState,
    /// Disks fill up.
    DiskFull,
    /// A node is added, and another one removed.
    Membership,
}

/// What a fault has to do with: two faults of one area are not put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Area {
    /// Processes, and what they have on disk.
    Node,
    /// Which links there are.
    Partition,
    /// How good the links are.
    Quality,
    /// What time it is.
    Clock,
    /// Who belongs to the cluster.
    Members,
}

impl Fault {
    /// All kinds.
    pub fn all() -> &'static [Fault] {
        Fault::value_variants()
    }

    /// The name, as on the command line.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    pub(crate) fn area(self) -> Area {
        match self {
            Fault::PartitionLeader
            | Fault::PartitionHalves
            | Fault::PartitionRing
            | Fault::PartitionBridge
            | Fault::PartitionOneWay => Area::Partition,
            Fault::Latency | Fault::Loss => Area::Quality,
            Fault::ClockSkew | Fault::ClockJump => Area::Clock,
            Fault::Membership => Area::Members,
            _ => Area::Node,
        }
    }

    /// Whether it destroys what a node had stored durably. Such faults come alone, and hit a minority.
    pub(crate) fn is_corruption(self) -> bool {
        matches!(self, Fault::CorruptLog | Fault::CorruptState)
    }

    /// Whether it lasts as long as its own steps take.
    pub(crate) fn has_own_length(self) -> bool {
        self == Fault::RollingRestart
    }

    /// Whether it can be tried here, and why not.
    pub fn possible(self, abilities: &Abilities, binary: &std::path::Path) -> Result<(), String> {
        match self {
            Fault::PowerOne | Fault::PowerMinority | Fault::PowerAll | Fault::DiskFull => abilities.disks.clone(),
            Fault::Membership => membership::possible(binary),
            _ => match self.area() {
                Area::Partition | Area::Quality => abilities.network.clone(),
                Area::Clock => abilities.clocks.clone().map(drop),
                Area::Node | Area::Members => Ok(()),
            },
        }
    }

    pub(crate) fn nemesis(self) -> Box<dyn Nemesis> {
        use network::Shape;
        match self {
            Fault::KillOne => Box::new(process::Kill::new(Reach::One)),
            Fault::KillMinority => Box::new(process::Kill::new(Reach::Minority)),
            Fault::KillAll => Box::new(process::Kill::new(Reach::All)),
            Fault::Pause => Box::new(process::Pause::default()),
            Fault::RollingRestart => Box::new(process::RollingRestart::default()),
            Fault::PartitionLeader => Box::new(network::Partition::new(Shape::Leader)),
            Fault::PartitionHalves => Box::new(network::Partition::new(Shape::Halves)),
            Fault::PartitionRing => Box::new(network::Partition::new(Shape::Ring)),
            Fault::PartitionBridge => Box::new(network::Partition::new(Shape::Bridge)),
            Fault::PartitionOneWay => Box::new(network::Partition::new(Shape::OneWay)),
            Fault::Latency => Box::new(network::Latency::default()),
            Fault::Loss => Box::new(network::Loss::default()),
            Fault::ClockSkew => Box::new(clocks::Skew::default()),
            Fault::ClockJump => Box::new(clocks::Jump::default()),
            Fault::PowerOne => Box::new(storage::PowerCut::new(Reach::One)),
            Fault::PowerMinority => Box::new(storage::PowerCut::new(Reach::Minority)),
            Fault::PowerAll => Box::new(storage::PowerCut::new(Reach::All)),
            Fault::CorruptLog => Box::new(storage::Corruption::new(Rot::Log)),
            Fault::CorruptState => Box::new(storage::Corruption::new(Rot::State)),
            Fault::DiskFull => Box::new(storage::FullDisk::default()),
            Fault::Membership => Box::new(membership::Exchange::default()),
        }
    }
}

/// How many nodes a fault hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    One,
    Minority,
    All,
}

/// What a nemesis chooses its victims from.
#[derive(Debug, Clone)]
pub struct Situation {
    pub(crate) members: Vec<NodeId>,
    /// New nodes, that were never members.
    pub(crate) spares: Vec<NodeId>,
    pub(crate) leader: Option<NodeId>,
    pub(crate) damaged: BTreeSet<NodeId>,
}

impl Situation {
    async fn of(cluster: &Cluster) -> Situation {
        Situation {
            members: cluster.members(),
            spares: cluster.spares(),
            leader: cluster.leader().await,
            damaged: cluster.damaged(),
        }
    }

    /// How many nodes the cluster can spare, if it spares those that may be beyond help.
    fn spare(&self) -> usize {
        (self.members.len().saturating_sub(1) / 2).saturating_sub(self.damaged.len())
    }

    /// The leader or another one, by lot: most faults are worse for a leader, and there is one leader only.
    fn one(&self, random: &mut StdRng) -> Vec<NodeId> {
        let others: Vec<NodeId> = self
            .members
            .iter()
            .copied()
            .filter(|node| Some(*node) != self.leader && !self.damaged.contains(node))
            .collect();
        let candidates = [self.leader, others.choose(random).copied()];
        candidates.iter().flatten().copied().collect::<Vec<_>>().choose(random).copied().into_iter().collect()
    }

    fn victims(&self, reach: Reach, random: &mut StdRng) -> Vec<NodeId> {
        match reach {
            Reach::One => self.one(random),
            Reach::Minority => {
                let mut healthy: Vec<NodeId> =
                    self.members.iter().copied().filter(|node| !self.damaged.contains(node)).collect();
                healthy.shuffle(random);
                healthy.truncate(self.spare().max(1));
                healthy.sort_unstable();
                healthy
            }
            Reach::All => self.members.clone(),
        }
    }
}

/// What a nemesis is about to do.
#[derive(Debug, Clone)]
pub struct Choice {
    /// In words.
    pub(crate) text: String,
    /// To whom.
    pub(crate) nodes: Vec<NodeId>,
}

impl Choice {
    fn new(text: impl Into<String>, nodes: Vec<NodeId>) -> Choice {
        Choice { text: text.into(), nodes }
    }
}

/// Whether a fault was seen to take effect.
#[derive(Debug, Clone)]
pub struct Evidence {
    /// It was.
    pub seen: bool,
    /// What was seen, or what was not.
    pub text: String,
}

impl Evidence {
    fn new(seen: bool, text: impl Into<String>) -> Evidence {
        Evidence { seen, text: text.into() }
    }
}

/// Injects one fault, and heals it.
pub trait Nemesis: Send {
    /// Chooses what to do. Nothing is done yet.
    fn choose(&mut self, situation: &Situation, random: &mut StdRng) -> Choice;

    /// Does it.
    fn start<'a>(&'a mut self, cluster: &'a Arc<Cluster>) -> BoxFuture<'a, Result<(), HarnessError>>;

    /// Looks whether it took effect, and undoes it.
    fn stop<'a>(&'a mut self, cluster: &'a Arc<Cluster>) -> BoxFuture<'a, Result<Evidence, HarnessError>>;
}

/// A fault under way.
pub struct Injected {
    fault: Fault,
    nemesis: Box<dyn Nemesis>,
}

impl Injected {
    /// Chooses victims and injects the fault, and tells so.
    pub async fn start(fault: Fault, cluster: &Arc<Cluster>, random: &mut StdRng) -> Result<Injected, HarnessError> {
        let mut nemesis = fault.nemesis();
        let choice = nemesis.choose(&Situation::of(cluster).await, random);
        cluster.events().tell_fault(EventKind::FaultStarted, fault, &choice.nodes, choice.text);
        nemesis.start(cluster).await?;
        Ok(Injected { fault, nemesis })
    }

    /// Heals the fault, and tells what was seen of it.
    pub async fn stop(mut self, cluster: &Arc<Cluster>) -> Result<Evidence, HarnessError> {
        let evidence = self.nemesis.stop(cluster).await?;
        let kind = if evidence.seen { EventKind::Evidence } else { EventKind::NoEvidence };
        cluster.events().tell_fault(kind, self.fault, &[], evidence.text.clone());
        cluster.events().tell_fault(EventKind::FaultStopped, self.fault, &[], "healed");
        Ok(evidence)
    }

    /// Its kind.
    pub fn fault(&self) -> Fault {
        self.fault
    }
}

/// The nodes' numbers, in words.
fn list(nodes: &[NodeId]) -> String {
    let names: Vec<String> = nodes.iter().map(|node| format!("n{node}")).collect();
    names.join(" ")
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    fn situation(damaged: &[NodeId]) -> Situation {
        Situation {
            members: vec![1, 2, 3, 4, 5],
            spares: vec![6],
            leader: Some(3),
            damaged: damaged.iter().copied().collect(),
        }
    }

    #[test]
    fn a_minority_is_one_that_the_cluster_can_spare() {
        for seed in 0..100 {
            let random = &mut StdRng::seed_from_u64(seed);
            assert_eq!(situation(&[]).victims(Reach::Minority, random).len(), 2);
            let victims = situation(&[4]).victims(Reach::Minority, random);
            assert!(victims.len() == 1 && !victims.contains(&4), "{victims:?}");
        }
    }

    #[test]
    fn the_one_is_the_leader_about_every_other_time() {
        let random = &mut StdRng::seed_from_u64(1);
        let leaders = (0..200).filter(|_| situation(&[]).victims(Reach::One, random) == [3]).count();
        assert!((60..140).contains(&leaders), "{leaders}");
    }

    #[test]
    fn names_are_those_of_the_command_line() {
        assert_eq!(Fault::PartitionOneWay.name(), "partition-one-way");
        assert_eq!(Fault::all().len(), 21);
    }
}
