//! The simulated cluster, its clients, and what happens to them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use dwell_jepsen::history::Recorder;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use turmoil::Sim;

use crate::disk::Behaviour;
use crate::faults::{Fault, Planned};
use crate::node::{SimulatedNode, host_name};

/// How long a supervisor waits before it starts a process again that ended by itself.
const RESTART_PAUSE: Duration = Duration::from_millis(300);
/// In steps of so much does time pass, and do messages arrive.
const TICK: Duration = Duration::from_millis(2);
/// The host that all clients run on.
const CLIENTS: &str = "clients";

/// The nodes of a cluster in their simulation, and the faults that are on.
pub struct World<'a> {
    sim: Sim<'a>,
    nodes: BTreeMap<u64, SimulatedNode>,
    /// Processes that are down, and when they are started again; `None`: when their fault is over.
    down: BTreeMap<u64, Option<Duration>>,
    /// Faults that are on, by their place in the plan.
    on: BTreeSet<usize>,
    /// How many of the plan have been on.
    begun: usize,
    recorder: Option<Recorder>,
    clocks_are_recorded: bool,
}

impl World<'_> {
    /// A cluster of `count` nodes, and `spare` more that wait to be added, with their state below `directory`. Nothing
    /// runs before [`World::step`].
    pub fn new(seed: u64, count: u64, spare: u64, directory: &Path) -> World<'static> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut sim = turmoil::Builder::new()
            .rng_seed(random.random())
            .tick_duration(TICK)
            .min_message_latency(Duration::from_micros(100))
            .max_message_latency(Duration::from_millis(2))
            .simulation_duration(Duration::from_secs(600))
            .tcp_capacity(1 << 16)
            .repair_rate(0.2)
            .enable_random_order()
            .build();
        let disks_seed = random.random();
        let mut nodes = BTreeMap::new();
        for id in 1..=count + spare {
            let node = SimulatedNode::new(id, count, directory, disks_seed);
            nodes.insert(id, node.clone());
            sim.host(node.host(), move || {
                let node = node.clone();
                async move {
                    node.run().await;
                    Ok(())
                }
            });
        }
        World {
            sim,
            nodes,
            down: BTreeMap::new(),
            on: BTreeSet::new(),
            begun: 0,
            recorder: None,
            clocks_are_recorded: true,
        }
    }

    /// Writes faults into a history, and how wrong clocks are.
    pub fn record(&mut self, recorder: Recorder, clocks_are_recorded: bool) {
        self.recorder = Some(recorder);
        self.clocks_are_recorded = clocks_are_recorded;
    }

    /// True if no fault is on, and every process runs.
    pub fn is_whole(&self) -> bool {
        self.on.is_empty() && self.down.is_empty()
    }

    /// The nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &SimulatedNode> {
        self.nodes.values()
    }

    /// Adds the host of the clients.
    pub fn clients(&mut self, clients: impl Future<Output = anyhow::Result<()>> + 'static) {
        self.sim.client(CLIENTS, async move { Ok(clients.await?) });
    }

    /// Simulated time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.sim.elapsed()
    }

    /// Goes on by a step. True when the clients are done.
    pub fn step(&mut self) -> anyhow::Result<bool> {
        let done = self.sim.step().map_err(|error| anyhow::anyhow!("{error}"))?;
        let now = self.elapsed();
        let ended: Vec<u64> = self.nodes().filter(|node| node.has_ended()).map(|node| node.id).collect();
        for id in ended {
            if !self.down.contains_key(&id) {
                self.kill(id)?;
                self.down.insert(id, Some(now + RESTART_PAUSE));
            }
        }
        let due: Vec<u64> =
            self.down.iter().filter(|(_, at)| at.is_some_and(|at| at <= now)).map(|(id, _)| *id).collect();
        due.into_iter().for_each(|id| self.start(id));
        Ok(done)
    }

    fn begin(&mut self, fault: &Fault) -> anyhow::Result<()> {
        match fault {
            Fault::Crash(ids) => {
                for id in ids {
                    self.kill(*id)?;
                    self.down.insert(*id, None);
                }
            }
            Fault::Partition(one, other) => pairs(one, other, |a, b| self.sim.partition(a, b)),
            Fault::OneWay(from, to) => pairs(from, to, |a, b| self.sim.partition_oneway(a, b)),
            Fault::Stall(one, other) => pairs(one, other, |a, b| self.sim.hold(a, b)),
            Fault::Pause(id) => self.everybody_but(*id).for_each(|other| self.sim.hold(host_name(*id), other)),
            Fault::Loss(rate) => self.sim.set_fail_rate(*rate),
            Fault::Latency(latency) => self.sim.set_max_message_latency(*latency),
            Fault::SlowDisk(id, longest) => {
                self.set_disk(*id, |disk| Behaviour { sync: (*longest / 10, *longest), ..disk })
            }
            Fault::BrokenDisk(id) => self.set_disk(*id, |disk| Behaviour { fails: true, ..disk }),
            Fault::Clock { node, jump_ms, drift_ms } => {
                let elapsed = self.elapsed();
                if let Some(node) = self.nodes.get(node) {
                    node.clock.disturb(elapsed, *jump_ms as f64, *drift_ms as f64 / 1000.0);
                }
            }
        }
        Ok(())
    }

    fn end(&mut self, fault: &Fault) {
        match fault {
            Fault::Crash(ids) => ids.iter().for_each(|id| self.start(*id)),
            Fault::Partition(one, other) => pairs(one, other, |a, b| self.sim.repair(a, b)),
            Fault::OneWay(from, to) => pairs(from, to, |a, b| self.sim.repair_oneway(a, b)),
            Fault::Stall(one, other) => pairs(one, other, |a, b| self.sim.release(a, b)),
            Fault::Pause(id) => self.everybody_but(*id).for_each(|other| self.sim.release(host_name(*id), other)),
            Fault::Loss(_) => {
                self.sim.set_fail_rate(0.0);
                for id in self.nodes.keys() {
                    self.everybody_but(*id).for_each(|other| self.sim.repair(host_name(*id), other));
                }
            }
            Fault::Latency(_) => self.sim.set_max_message_latency(Duration::from_millis(2)),
            Fault::SlowDisk(id, _) => {
                self.set_disk(*id, |disk| Behaviour { sync: Behaviour::default().sync, ..disk });
            }
            Fault::BrokenDisk(id) => self.set_disk(*id, |disk| Behaviour { fails: false, ..disk }),
            Fault::Clock { node, .. } => {
                if let Some(node) = self.nodes.get(node) {
                    node.clock.mend();
                }
                if let Some(recorder) = self.recorder.as_ref().filter(|_| self.clocks_are_recorded) {
                    clock_names(*node).into_iter().for_each(|clock| recorder.clock_error(clock, 0));
                }
            }
        }
    }

    /// Does what the plan says for this moment, `now` being the time since the faults may come.
    pub fn follow(&mut self, plan: &[Planned], now: Duration) -> anyhow::Result<()> {
        let over: Vec<usize> = self.on.iter().copied().filter(|place| plan[*place].to <= now).collect();
        for place in over {
            let fault = &plan[place].fault;
            self.on.remove(&place);
            self.end(fault);
            if let Some(recorder) = &self.recorder {
                recorder.fault_stopped(fault.name(), format!("{fault:?}"));
            }
        }
        // They are in the order of their beginnings.
        while let Some(planned) = plan.get(self.begun).filter(|planned| planned.from <= now) {
            if let Some(recorder) = &self.recorder {
                recorder.fault_started(planned.fault.name(), format!("{:?}", planned.fault), Vec::<String>::new());
            }
            self.record_clock(planned);
            self.begin(&planned.fault)?;
            self.on.insert(self.begun);
            self.begun += 1;
        }
        Ok(())
    }

    /// How wrong the clock will be at most, in both directions, before it is set right.
    fn record_clock(&self, planned: &Planned) {
        let Fault::Clock { node, jump_ms, drift_ms } = &planned.fault else { return };
        let Some(recorder) = self.recorder.as_ref().filter(|_| self.clocks_are_recorded) else { return };
        let drifted_ms = drift_ms * (planned.to - planned.from).as_millis() as i64 / 1000;
        let errors = [*jump_ms, jump_ms + drifted_ms];
        let [ahead, behind] = clock_names(*node);
        recorder.clock_error(ahead, errors.into_iter().max().unwrap_or(0).max(0) + 1);
        recorder.clock_error(behind, errors.into_iter().min().unwrap_or(0).min(0) - 1);
    }

    fn kill(&mut self, id: u64) -> anyhow::Result<()> {
        // Two faults may want the same.
        if self.down.contains_key(&id) {
            return Ok(());
        }
        let Some(node) = self.nodes.get(&id).cloned() else { return Ok(()) };
        node.before_crash().with_context(|| format!("saving the disk of node {id}"))?;
        self.sim.crash(node.host());
        node.after_crash().with_context(|| format!("restoring the disk of node {id}"))
    }

    fn start(&mut self, id: u64) {
        if self.down.remove(&id).is_some()
            && let Some(node) = self.nodes.get(&id)
        {
            self.sim.bounce(node.host());
        }
    }

    fn set_disk(&self, id: u64, change: impl FnOnce(Behaviour) -> Behaviour) {
        if let Some(node) = self.nodes.get(&id) {
            node.disk.set(change(node.disk.behaviour()));
        }
    }

    /// All hosts that a node talks to.
    fn everybody_but(&self, id: u64) -> impl Iterator<Item = String> {
        let others = self.nodes().filter(move |node| node.id != id).map(SimulatedNode::host);
        others.chain(std::iter::once(CLIENTS.to_owned()))
    }
}

fn pairs(one: &[u64], other: &[u64], connect: impl Fn(String, String)) {
    for (a, b) in one.iter().flat_map(|a| other.iter().map(move |b| (*a, *b))) {
        connect(host_name(a), host_name(b));
    }
}

/// A node's clock may be ahead and behind in the course of one fault.
fn clock_names(node: u64) -> [String; 2] {
    [format!("{} ahead", host_name(node)), format!("{} behind", host_name(node))]
}
