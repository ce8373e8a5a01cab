//! Which faults come when, by the seed.

use std::fmt;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

/// What is done to the cluster for a while, and then undone.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// Processes die, with loss of what was not synced, and come back at the end.
    Crash(Vec<u64>),
    /// No message passes between the two sides; what was sent is lost.
    Partition(Vec<u64>, Vec<u64>),
    /// No message passes between the two sides until the end, when all are delivered: as TCP does by sending again.
    Stall(Vec<u64>, Vec<u64>),
    /// No message passes from one side to the other; those in the other direction do.
    OneWay(Vec<u64>, Vec<u64>),
    /// Everything from and to a node is held back, and delivered at the end, as for a process that was stopped.
    Pause(u64),
    /// Now and then a link loses what is sent for a moment. A stream that has lost something stalls for good.
    Loss(f64),
    /// Messages take longer, and differently long, so that those of different streams change their order.
    Latency(Duration),
    /// Syncs of a node's disk take so long at most.
    SlowDisk(u64, Duration),
    /// A node's disk takes no writes: it is broken, or full. The process ends, and is started again and again.
    BrokenDisk(u64),
    /// A node's wall clock jumps, and gains or loses from then on.
    Clock {
        /// Whose.
        node: u64,
        /// Forward, or back.
        jump_ms: i64,
        /// Milliseconds gained in each second.
        drift_ms: i64,
    },
}

/// A fault and its time.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// When it begins.
    pub from: Duration,
    /// When it is undone.
    pub to: Duration,
    /// What happens.
    pub fault: Fault,
}

impl fmt::Display for Planned {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Planned { from, to, fault } = self;
        write!(formatter, "{:.3} s to {:.3} s: {fault:?}", from.as_secs_f64(), to.as_secs_f64())
    }
}

impl Fault {
    /// What kind of fault it is.
    pub fn name(&self) -> &'static str {
        match self {
            Fault::Crash(_) => "crash",
            Fault::Partition(..) => "partition",
            Fault::Stall(..) => "stall",
            Fault::OneWay(..) => "one-way",
            Fault::Pause(_) => "pause",
            Fault::Loss(_) => "loss",
            Fault::Latency(_) => "latency",
            Fault::SlowDisk(..) => "slow-disk",
            Fault::BrokenDisk(_) => "broken-disk",
            Fault::Clock { .. } => "clock",
        }
    }
}

/// The faults of a run with `nodes` nodes. All are over when `duration` is.
pub fn plan(random: &mut StdRng, nodes: u64, duration: Duration) -> Vec<Planned> {
    let mut plan = Vec::new();
    let count = random.random_range(1..=5);
    for _ in 0..count {
        let from = duration.mul_f64(random.random_range(0.1..0.8));
        let length = Duration::from_millis(random.random_range(50..2500));
        let to = (from + length).min(duration);
        plan.push(Planned { from, to, fault: fault(random, nodes) });
    }
    plan.sort_by_key(|planned| planned.from);
    plan
}

fn fault(random: &mut StdRng, nodes: u64) -> Fault {
    let node = random.random_range(1..=nodes);
    match random.random_range(0..10) {
        0 | 1 => Fault::Crash(some(random, nodes)),
        2 => Fault::Crash((1..=nodes).collect()),
        3 => {
            let (one, other) = sides(random, nodes);
            match random.random_bool(0.5) {
                true => Fault::Partition(one, other),
                false => Fault::Stall(one, other),
            }
        }
        4 => {
            let (one, other) = sides(random, nodes);
            Fault::OneWay(one, other)
        }
        5 => Fault::Pause(node),
        6 => match random.random_bool(0.5) {
            true => Fault::Loss(random.random_range(0.001..0.02)),
            false => Fault::Latency(Duration::from_millis(random.random_range(5..150))),
        },
        7 => Fault::SlowDisk(node, Duration::from_millis(random.random_range(20..600))),
        8 => Fault::BrokenDisk(node),
        _ => Fault::Clock { node, jump_ms: random.random_range(-2000..2000), drift_ms: random.random_range(-50..50) },
    }
}

/// At least one node, at most all but one.
fn some(random: &mut StdRng, nodes: u64) -> Vec<u64> {
    let count = random.random_range(1..nodes.max(2)) as usize;
    shuffled(random, nodes).into_iter().take(count).collect()
}

fn sides(random: &mut StdRng, nodes: u64) -> (Vec<u64>, Vec<u64>) {
    let shuffled = shuffled(random, nodes);
    let cut = random.random_range(1..shuffled.len().max(2));
    // Now and then a bridge: one node that both sides still reach.
    let bridge = usize::from(cut + 1 < shuffled.len() && random.random_bool(0.3));
    (shuffled[..cut].to_vec(), shuffled[cut + bridge..].to_vec())
}

fn shuffled(random: &mut StdRng, nodes: u64) -> Vec<u64> {
    let mut all: Vec<u64> = (1..=nodes).collect();
    all.shuffle(random);
    all
}
