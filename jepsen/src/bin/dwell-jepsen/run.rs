//! One run.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::ValueEnum as _;
use dwell_client::{Client, ClientOptions};
use dwell_jepsen::checkers::check_all;
use dwell_jepsen::harness::{Cluster, ClusterOptions, Event, EventKind, Events, Fault, Pace, Plan, Sandbox, Selection};
use dwell_jepsen::history::Recorder;
use dwell_jepsen::report::write_all;
use dwell_jepsen::workload::Workload;
use futures::FutureExt as _;
use parking_lot::Mutex;

use crate::arguments::{CommonArguments, RunArguments};
use crate::outcome::{RunOutcome, table};

/// How long all nodes may take to be up and to agree: at first, and after the last fault.
const UP_TIMEOUT: Duration = Duration::from_secs(90);
/// No fault begins this short a time before the workload ends.
const LAST_FAULT: Duration = Duration::from_secs(8);
/// How many nodes a run has at most that become members during it.
const NEW_NODES_MAX: u64 = 40;
/// Clients, each with connections of its own.
const CLIENTS: usize = 4;

/// Runs once, and says whether nothing was found.
pub async fn run(arguments: &RunArguments, sandbox: &Sandbox) -> anyhow::Result<bool> {
    let planned = PlannedRun {
        name: arguments.nemesis.join(","),
        selection: select(&arguments.nemesis)?,
        pace: Pace::USUAL,
        seed: arguments.common.seed.unwrap_or_else(rand::random),
        time_limit: arguments.time_limit,
        directory: arguments.common.directory.clone(),
    };
    let outcome = once(&arguments.common, &planned, sandbox).await?;
    print!("{}", outcome.text());
    println!("{}", table(std::slice::from_ref(&outcome)));
    Ok(outcome.passed())
}

/// The faults of a `--nemesis`.
fn select(names: &[String]) -> anyhow::Result<Selection> {
    match names {
        [name] if name == "mixed" => Ok(Selection::Mixed(Fault::all().to_vec())),
        [name] if name == "none" => Ok(Selection::Alone(Vec::new())),
        names => {
            let fault = |name: &String| {
                let known = || Fault::all().iter().map(|fault| fault.name()).collect::<Vec<_>>().join(", ");
                Fault::from_str(name, false).map_err(|_| anyhow::anyhow!("there is no fault {name}, but {}", known()))
            };
            Ok(Selection::Alone(names.iter().map(fault).collect::<Result<_, _>>()?))
        }
    }
}

/// What one run is to do.
#[derive(Debug)]
pub struct PlannedRun {
    pub name: String,
    pub selection: Selection,
    pub pace: Pace,
    pub seed: u64,
    /// For how long the workload runs.
    pub time_limit: Duration,
    pub directory: PathBuf,
}

/// Starts a cluster, breaks it, and checks what its clients saw.
pub async fn once(common: &CommonArguments, planned: &PlannedRun, sandbox: &Sandbox) -> anyhow::Result<RunOutcome> {
    let PlannedRun { name, selection, pace, seed, time_limit, directory } = planned;
    let (seed, time_limit) = (*seed, *time_limit);
    if directory.exists() {
        remove_earlier(directory)?;
    }
    std::fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let (selection, mut not_run) = possible(selection, sandbox, &common.binary);
    println!("run {name}, seed {seed}, {}", directory.display());
    announce(sandbox);
    let plan = Plan::new(&selection, pace, seed, time_limit);
    let recorder = Recorder::new(tokio::time::Instant::now());
    let events = listen(&recorder, directory)?;
    let options = ClusterOptions {
        binary: common.binary.clone(),
        nodes: common.nodes,
        spares: plan.exchanges().min(NEW_NODES_MAX),
        directory: directory.clone(),
        seed,
        disk_bytes: common.disk_mib << 20,
        // Snapshots and purges within a minute, and not in an hour.
        environment: vec![
            ("DWELL_SNAPSHOT_LOG_ENTRIES".into(), "2000".into()),
            ("DWELL_SNAPSHOT_LOG_ENTRIES_KEPT".into(), "500".into()),
            // The disks are small, and are to become full, and not only nearly so.
            ("DWELL_DISK_FREE_WATERMARK_BYTES".into(), "0".into()),
        ],
    };
    let cluster = Cluster::start(options, sandbox, events).await?;
    let first = cluster.wait_recovered(UP_TIMEOUT, UP_TIMEOUT).await;
    anyhow::ensure!(first.missing.is_empty(), "the cluster does not come up: {}", first.missing.join(", "));
    println!("{} nodes up after {:.1?}", common.nodes, first.took);
    let overhead = tokio::task::block_in_place(|| cluster.network().measure())?;
    println!(
        "network: a round trip takes {:.0?}, one connection carries {:.0} MB/s",
        overhead.round_trip,
        overhead.bytes_per_second / 1e6
    );
    let workload = Workload::new(seed, time_limit, common.processes, common.rate);
    let clients = clients(&cluster)?;
    workload.prepare(&clients[0], &recorder).await.context("cannot declare the workload's queues")?;
    let load_end = Instant::now() + time_limit;
    let deadline = load_end - LAST_FAULT.min(time_limit);
    let load = workload.run(clients.clone(), &recorder).shared();
    let breaking = async {
        let outcome = plan.run(&cluster, deadline).await?;
        tokio::time::sleep_until(load_end.into()).await;
        cluster.network().heal();
        // Everything must come out from now on, and not only once all nodes are up.
        recorder.healed();
        let finishing = workload.finish(clients, &recorder, load.clone());
        let (last, emptied) = tokio::join!(cluster.wait_recovered(UP_TIMEOUT, UP_TIMEOUT), finishing);
        anyhow::Ok((outcome, last, emptied))
    };
    let ((), broken) = tokio::join!(load.clone(), breaking);
    let (outcome, last, emptied) = broken?;
    let mut not_compared = compare(&cluster, &recorder).await;
    let history = recorder.history();
    let report = tokio::task::block_in_place(|| {
        let mut report = check_all(&history);
        report.unchecked.append(&mut not_compared);
        write_all(directory, &history, &report).map(|()| report)
    })?;
    if let Selection::Alone(planned) = &selection {
        let injected: Vec<Fault> = outcome.injected.iter().map(|(fault, _)| *fault).collect();
        let left_out = planned.iter().filter(|fault| !injected.contains(fault));
        not_run.extend(left_out.map(|fault| (*fault, "there was no time left".to_owned())));
    }
    let outcome = RunOutcome {
        name: name.clone(),
        seed,
        report,
        faults: outcome,
        not_run,
        not_back: last.missing,
        emptied,
        exits: cluster.exits(),
    };
    let path = directory.join("results.txt");
    let table = table(std::slice::from_ref(&outcome));
    let text = format!("{}{table}\n\n{}", outcome.text(), dwell_jepsen::report::text(&outcome.report));
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(outcome)
}

/// Says loudly what this machine does not permit.
fn announce(sandbox: &Sandbox) {
    let abilities = sandbox.abilities();
    let clocks = abilities.clocks.as_ref().map(drop).map_err(Clone::clone);
    for (what, able) in [("networks", &abilities.network), ("disks", &abilities.disks), ("clocks", &clocks)] {
        if let Err(reason) = able {
            println!("WARNING: nodes have no {what} of their own, faults of these are NOT RUN: {reason}");
        }
    }
}

/// Leaves out what cannot be tried here.
fn possible(selection: &Selection, sandbox: &Sandbox, binary: &Path) -> (Selection, Vec<(Fault, String)>) {
    let mut not_run = Vec::new();
    let mut filter = |faults: &[Fault]| {
        let possible = faults.iter().copied().filter(|fault| match fault.possible(sandbox.abilities(), binary) {
            Ok(()) => true,
            Err(reason) => {
                not_run.push((*fault, reason));
                false
            }
        });
        possible.collect()
    };
    let selection = match selection {
        Selection::Alone(faults) => Selection::Alone(filter(faults)),
        Selection::Mixed(faults) => Selection::Mixed(filter(faults)),
    };
    (selection, not_run)
}

fn clients(cluster: &Arc<Cluster>) -> anyhow::Result<Vec<Client>> {
    let options =
        ClientOptions::default().retry_deadline(Duration::from_secs(10)).attempt_timeout(Duration::from_secs(2));
    let client = |_| Client::connect_with(cluster.client_addresses(), options.clone());
    Ok((0..CLIENTS).map(client).collect::<Result<_, _>>()?)
}

/// Writes what the harness does and sees into the history and a file, and prints it.
fn listen(recorder: &Recorder, directory: &Path) -> anyhow::Result<Events> {
    let path = directory.join("nemesis.log");
    let file = File::create(&path).with_context(|| format!("cannot create {}", path.display()))?;
    let (recorder, file) = (recorder.clone(), Mutex::new(file));
    Ok(Events::new(move |event| {
        record(&recorder, event);
        let line = line(&recorder, event);
        println!("{line}");
        if let Err(error) = writeln!(file.lock(), "{line}") {
            tracing::warn!(%error, "cannot write nemesis.log");
        }
    }))
}

fn record(recorder: &Recorder, event: &Event) {
    let nodes = event.nodes.iter().map(|node| format!("n{node}"));
    let fault = event.fault.map(Fault::name).unwrap_or_default();
    match event.kind {
        EventKind::FaultStarted => recorder.fault_started(fault, &event.text, nodes),
        EventKind::FaultStopped => recorder.fault_stopped(fault, &event.text),
        EventKind::Clock(error_ms) => nodes.for_each(|node| recorder.clock_error(node, error_ms)),
        _ => {}
    }
}

fn line(recorder: &Recorder, event: &Event) -> String {
    let fault = event.fault.map(Fault::name).unwrap_or_default();
    let nodes: Vec<String> = event.nodes.iter().map(|node| format!("n{node}")).collect();
    let time = recorder.now().as_secs_f64();
    format!("{time:8.3} {:<11} {fault} [{}] {}", event.kind.name(), nodes.join(" "), event.text)
}

/// Writes the members' digests into the history. Answers which members gave none, and why.
async fn compare(cluster: &Cluster, recorder: &Recorder) -> Vec<String> {
    match cluster.digests().await {
        Ok((index, nodes)) => {
            let mut missing = Vec::new();
            for (node, told) in nodes {
                match told {
                    Ok(digest) => recorder.digest(format!("n{node}"), index, digest),
                    Err(reason) => missing.push(format!("n{node} gave no digest: {reason}")),
                }
            }
            missing
        }
        Err(error) => vec![format!("there are no digests: {error}")],
    }
}

/// Removes what an earlier run wrote, and refuses a directory with anything else.
fn remove_earlier(directory: &Path) -> anyhow::Result<()> {
    let is_empty = std::fs::read_dir(directory)?.next().is_none();
    let is_ours = directory.join("nemesis.log").exists();
    anyhow::ensure!(is_empty || is_ours, "{} is neither empty nor of an earlier run", directory.display());
    std::fs::remove_dir_all(directory).with_context(|| format!("cannot remove {}", directory.display()))
}
