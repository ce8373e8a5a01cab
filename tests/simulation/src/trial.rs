//! One run: a cluster, its clients, faults, and a judgement.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum;
use dwell_client::{BrowseOptions, Client, ClientOptions, MessageState};
use dwell_jepsen::checkers::{Report, check_all};
use dwell_jepsen::history::{History, Recorder};
use dwell_jepsen::workload::Workload;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::changes::Changes;
use crate::disk::Behaviour;
use crate::faults::{Planned, plan};
use crate::network::SimulatedNetwork;
use crate::node::{CLIENT_PORT, host_name};
use crate::world::World;

/// For how long faults may come.
const FAULTS: Duration = Duration::from_millis(3500);
/// For how long clients go on beginning new calls.
const LOAD: Duration = Duration::from_secs(4);
/// Calls a second.
const RATE: f64 = 60.0;
/// Processes of each kind.
const PROCESSES: u32 = 2;
/// Within this simulated time a run is over, or stands still.
const END: Duration = Duration::from_secs(240);
/// How long a first leader, and later a digest, may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is broken on purpose, to show that it is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Sabotage {
    /// The disks say that they have synced when they have not.
    LyingDisks,
    /// Clocks are wrong, and the checkers do not know.
    HiddenClocks,
}

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct Trial {
    /// Everything is drawn from it.
    pub seed: u64,
    /// Without, nothing goes wrong.
    pub faults: bool,
    /// What is broken on purpose.
    pub sabotage: Option<Sabotage>,
}

/// What came of it.
pub struct Outcome {
    /// How many nodes the cluster began with.
    pub nodes: u64,
    /// What went wrong when.
    pub plan: Vec<Planned>,
    /// How the cluster's members changed.
    pub changes: Changes,
    /// What clients saw.
    pub history: History,
    /// What is to be said of it.
    pub report: Report,
    /// Why the run did not come to its end, if it did not.
    pub failure: Option<String>,
    /// Simulated time.
    pub elapsed: Duration,
}

impl Outcome {
    /// True if nothing is wrong.
    pub fn is_valid(&self) -> bool {
        self.failure.is_none() && self.report.is_valid() && self.report.unchecked.is_empty()
    }

    /// A number that two runs have in common only if their histories are the same.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for event in &self.history.events {
            format!("{event:?}").hash(&mut hasher);
        }
        hasher.finish()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "{} nodes, {:.3} s of simulated time", self.nodes, self.elapsed.as_secs_f64())?;
        for planned in &self.plan {
            writeln!(formatter, "  {planned}")?;
        }
        for change in &self.changes.0 {
            writeln!(formatter, "  {change}")?;
        }
        if let Some(failure) = &self.failure {
            writeln!(formatter, "UNFINISHED {failure}")?;
        }
        for violation in &self.report.violations {
            writeln!(formatter, "VIOLATION {violation}")?;
        }
        for unchecked in &self.report.unchecked {
            writeln!(formatter, "UNCHECKED {unchecked}")?;
        }
        Ok(())
    }
}

impl Trial {
    /// Runs it. `directory` is for the nodes' states. Errors: the simulation itself failed.
    pub fn run(&self, directory: &Path) -> anyhow::Result<Outcome> {
        let mut random = StdRng::seed_from_u64(self.seed);
        let nodes = if random.random_bool(0.7) { 3 } else { 5 };
        let plan = if self.faults { plan(&mut random, nodes, FAULTS) } else { Vec::new() };
        let changes = if self.faults { Changes::draw(&mut random, nodes, FAULTS) } else { Changes::default() };
        let mut world = World::new(random.random(), nodes, changes.added(), directory);
        if self.sabotage == Some(Sabotage::LyingDisks) {
            world.nodes().for_each(|node| node.disk.set(Behaviour { lies: true, ..Behaviour::default() }));
        }

        // Between the steps of the simulation there is no time but that of the last step.
        let elapsed_us = Arc::new(AtomicU64::new(0));
        let at_last_step = elapsed_us.clone();
        let recorder = Recorder::with_clock(move || {
            let last = Duration::from_micros(at_last_step.load(Ordering::Relaxed));
            turmoil::sim_elapsed().map_or(last, |now| now.max(last))
        });
        world.record(recorder.clone(), self.sabotage != Some(Sabotage::HiddenClocks));
        let (begun, has_begun) = watch::channel(false);
        let (healed, is_healed) = watch::channel(false);
        let workload = Workload::new(random.random(), LOAD, PROCESSES, RATE);
        let clients = Clients { workload, recorder: recorder.clone(), changes: changes.clone(), begun, is_healed };
        let hosts = (1..=nodes + changes.added()).collect();
        let failure = Arc::new(Mutex::new(None));
        let ended = failure.clone();
        world.clients(async move {
            *ended.lock() = clients.run(hosts).await.err();
            Ok(())
        });

        let mut begin = None;
        while !world.step()? {
            let now = world.elapsed();
            elapsed_us.store(now.as_micros() as u64, Ordering::Relaxed);
            if now >= END {
                *failure.lock() = Some(anyhow::anyhow!("it still goes on"));
                break;
            }
            if begin.is_none() && *has_begun.borrow() {
                begin = Some(now);
            }
            let Some(begin) = begin else { continue };
            world.follow(&plan, now - begin)?;
            if now - begin >= LOAD && !*healed.borrow() && world.is_whole() {
                recorder.healed();
                healed.send_replace(true);
            }
        }
        let elapsed = world.elapsed();
        let history = recorder.history();
        let report = check_all(&history);
        let failure = failure.lock().take().map(|error| format!("{error:#}"));
        Ok(Outcome { nodes, plan, changes, history, report, failure, elapsed })
    }
}

/// What runs on the clients' host.
struct Clients {
    workload: Workload,
    recorder: Recorder,
    changes: Changes,
    /// Told when everything is prepared.
    begun: watch::Sender<bool>,
    /// Tells that no fault will come any more.
    is_healed: watch::Receiver<bool>,
}

impl Clients {
    async fn run(self, nodes: Vec<u64>) -> anyhow::Result<()> {
        let connect = || {
            let addresses = nodes.iter().map(|id| format!("{}:{CLIENT_PORT}", host_name(*id)));
            Client::connect_with(addresses, ClientOptions::default().transport(SimulatedNetwork))
        };
        let clients = (0..PROCESSES).map(|_| connect()).collect::<Result<Vec<_>, _>>()?;
        let administrator = connect()?;
        let prepared = tokio::time::timeout(PATIENCE, self.workload.prepare(&administrator, &self.recorder)).await;
        prepared.context("no leader was elected")?.context("preparing")?;
        self.begun.send_replace(true);

        let load = self.workload.run(clients.clone(), &self.recorder).shared();
        let finishing = async {
            self.is_healed.clone().wait_for(|healed| *healed).await.context("the simulation is over")?;
            anyhow::Ok(self.workload.finish(clients, &self.recorder, load.clone()).await)
        };
        let changing = async {
            let changed = self.changes.carry_out(&administrator, &self.recorder).await;
            self.is_healed.clone().wait_for(|healed| *healed).await.context("the simulation is over")?;
            // What could not be done while things were broken, must be possible now.
            for change in changed {
                change.complete(&administrator).await?;
            }
            anyhow::Ok(())
        };
        let ((), finished, changed) = tokio::join!(load.clone(), finishing, changing);
        changed?;
        let finished = finished?;
        if !finished {
            anyhow::bail!("the queues did not become empty: {}", standing(&administrator).await?);
        }
        self.compare(&administrator).await
    }

    /// Records the digests of all members.
    async fn compare(&self, client: &Client) -> anyhow::Result<()> {
        let comparing = async {
            loop {
                match client.digest().await {
                    Ok(digest) if digest.nodes.iter().all(|node| node.result.is_ok()) => return digest,
                    // A node is busy, or has lost its connection.
                    _ => sleep(Duration::from_millis(100)).await,
                }
            }
        };
        let digest = tokio::time::timeout(PATIENCE, comparing).await.context("not all members gave their digests")?;
        for node in digest.nodes {
            let state = node.result?.digest;
            let hexadecimal: String = state.iter().map(|byte| format!("{byte:02x}")).collect();
            self.recorder.digest(host_name(node.member.node_id), digest.index, hexadecimal);
        }
        Ok(())
    }
}

/// What is leased, and until when.
async fn standing(client: &Client) -> anyhow::Result<String> {
    let mut lines = Vec::new();
    for queue in client.list_queues("").await? {
        let name = queue.name;
        let mut leased = client.browse(&name, MessageState::Leased, BrowseOptions::default()).boxed();
        while let Some(stored) = leased.try_next().await? {
            let sequence = stored.handle.map_or(0, |handle| handle.sequence);
            lines.push(format!(
                "{name}/{sequence} leased to {:?} until {}",
                stored.consumer_id, stored.lease_deadline_ms
            ));
        }
    }
    Ok(lines.join(", "))
}
