//! How long confirms pause when the leader is killed: the median of many runs of `dwell bench`.
//!
//! `failover-gap [RUNS]`, 20 runs by default, of one cluster: each kills whoever leads, and starts it again for the
//! next. Exits with an error if the median is not below what RabbitMQ's quorum queues take.

use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use dwell_local_cluster::LocalCluster;
use dwell_tests::environment::{READY_TIMEOUT, TestCluster, binary};
use serde_json::Value;
use tokio::process::Command;

const RUNS: usize = 20;
/// RabbitMQ 3.10 (quorum queues) after `kill -9` of the leader, measured on such a machine.
const RABBITMQ_GAP_MS: f64 = 420.0;
/// The name of the number in the report of `dwell bench`.
const GAP_FIELD: &str = "confirm_gap_ms_max";
/// In the middle of the run, so that confirms flow evenly before and after.
const KILL_AFTER: Duration = Duration::from_secs(3);
const BENCH_ARGUMENTS: [&str; 10] =
    ["bench", "--duration", "6s", "--rate", "1000", "--producers", "4", "--consumers", "2", "--body-bytes=256"];

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let runs = std::env::args().nth(1).map_or(Ok(RUNS), |runs| runs.parse()).context("RUNS is a number")?;
    anyhow::ensure!(runs > 0, "RUNS is at least 1");
    let cluster = TestCluster::start(&[]).await.context("the cluster did not start")?;
    let mut gaps = Vec::new();
    for run in 1..=runs {
        let gap_ms = gap_of_one_run(&cluster).await.with_context(|| format!("run {run}"))?;
        println!("run {run:>2} of {runs}: longest gap between confirms {gap_ms:>7.1} ms");
        gaps.push(gap_ms);
    }
    cluster.stop_all().await?;
    gaps.sort_by(f64::total_cmp);
    let median = median(&gaps);
    println!(
        "median {median:.1} ms, shortest {:.1}, longest {:.1}; RabbitMQ {RABBITMQ_GAP_MS}",
        gaps[0],
        gaps[runs - 1]
    );
    Ok(if median < RABBITMQ_GAP_MS { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn gap_of_one_run(cluster: &LocalCluster) -> anyhow::Result<f64> {
    let leader = cluster.leader(READY_TIMEOUT).await?;
    let bench = Command::new(binary()?)
        .args(["--server", &cluster.client_addresses().join(","), "--output", "json"])
        .args(BENCH_ARGUMENTS)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    tokio::time::sleep(KILL_AFTER).await;
    cluster.node(leader)?.kill().await?;
    let output = bench.wait_with_output().await?;
    cluster.node(leader)?.start()?;
    cluster.wait_ready(READY_TIMEOUT).await?;
    let report = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "`dwell bench` failed with {}: {report}\n{errors}", output.status);
    let report: Value = serde_json::from_str(&report).context("the report of `dwell bench`")?;
    report.get(GAP_FIELD).and_then(Value::as_f64).with_context(|| format!("no {GAP_FIELD} in {report}"))
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}
