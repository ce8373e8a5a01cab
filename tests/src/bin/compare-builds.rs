//! Runs `dwell bench` against three servers of another build and of this one, in turn, and compares medians.
//!
//! `compare-builds BEFORE ROUNDS [BENCH ARGUMENTS]`, where the first is a `dwell` binary. The client is this build's,
//! against both.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use dwell_local_cluster::{LocalCluster, LocalClusterOptions};
use dwell_tests::environment::{READY_TIMEOUT, binary};
use tempfile::TempDir;

/// What one run came to.
#[derive(Debug, Clone, Copy)]
struct Run {
    messages_per_second: f64,
    /// CPU seconds of all servers together for 1000 messages.
    server_seconds: f64,
    /// Median from publish to delivery.
    end_to_end_ms: f64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let mut next = |name: &str| arguments.next().with_context(|| format!("{name} is missing"));
    let builds = [PathBuf::from(next("BEFORE")?), binary()?];
    let rounds: usize = next("ROUNDS")?.parse().context("ROUNDS is a number")?;
    let bench: Vec<String> = arguments.collect();
    let mut runs = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        // Each goes first in half of the rounds.
        for position in [round % 2, (round + 1) % 2] {
            let run = run(&builds[position], &builds[1], &bench).await?;
            println!("{}: {run:?}", builds[position].display());
            runs[position].push(run);
        }
    }
    for (name, of) in [
        ("messages/s", (|run| run.messages_per_second) as fn(&Run) -> f64),
        ("server CPU s per 1000", |run| run.server_seconds),
        ("end to end p50 ms", |run| run.end_to_end_ms),
    ] {
        let [before, after] = [summary(&runs[0], of), summary(&runs[1], of)];
        println!("{name}: {before} before, {after} after; ratio {:.3}", after.median / before.median);
    }
    Ok(())
}

async fn run(server: &Path, client: &Path, bench: &[String]) -> anyhow::Result<Run> {
    let directory = TempDir::with_prefix("dwell-compare-")?;
    let mut options = LocalClusterOptions::new(server.to_path_buf(), 3, directory.path());
    options.ready_timeout = READY_TIMEOUT;
    let cluster = LocalCluster::start(options).await?;
    let addresses = cluster.client_addresses().join(",");
    let before = server_seconds(&cluster)?;
    let output =
        Command::new(client).args(["--server", &addresses, "--output", "json", "bench"]).args(bench).output()?;
    ensure!(output.status.success(), "the bench failed: {}", String::from_utf8_lossy(&output.stderr));
    let used = server_seconds(&cluster)? - before;
    let text = String::from_utf8(output.stdout)?;
    let line = text.lines().rfind(|line| line.starts_with('{')).context("the bench printed no report")?;
    let report: serde_json::Value = serde_json::from_str(line)?;
    let number = |pointer: &str| {
        report.pointer(pointer).and_then(serde_json::Value::as_f64).with_context(|| format!("no {pointer} in {line}"))
    };
    cluster.stop_all().await?;
    Ok(Run {
        messages_per_second: number("/receive_rate")?,
        server_seconds: used / number("/confirmed")? * 1000.0,
        end_to_end_ms: number("/end_to_end_latency/p50_ms")?,
    })
}

/// CPU seconds that the servers have used so far.
fn server_seconds(cluster: &LocalCluster) -> anyhow::Result<f64> {
    // Linux counts in hundredths of a second for user programs, whatever the kernel's own clock.
    const TICKS_PER_SECOND: f64 = 100.0;
    let mut ticks = 0;
    for node in cluster.nodes() {
        let process = node.process_id().context("a server has ended")?;
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
        // The second field, the program's name, stands in parentheses and may hold spaces.
        let fields = stat.rsplit_once(')').context("/proc/PID/stat has another form")?.1.split_whitespace();
        let times = fields.skip(11).take(2).map(str::parse::<u64>).collect::<Result<Vec<_>, _>>()?;
        ticks += times.iter().sum::<u64>();
    }
    Ok(ticks as f64 / TICKS_PER_SECOND)
}

struct Summary {
    median: f64,
    smallest: f64,
    largest: f64,
}

impl std::fmt::Display for Summary {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Summary { median, smallest, largest } = self;
        // Three digits are more than such a machine means.
        let digits = if *median >= 100.0 { 0 } else { 4 };
        write!(formatter, "{median:.digits$} ({smallest:.digits$} to {largest:.digits$})")
    }
}

fn summary(runs: &[Run], of: fn(&Run) -> f64) -> Summary {
    let mut values: Vec<f64> = runs.iter().map(of).collect();
    values.sort_by(f64::total_cmp);
    let at = |position: usize| values.get(position).copied().unwrap_or(f64::NAN);
    let middle = values.len() / 2;
    let median =
        if values.len().is_multiple_of(2) { (at(middle.wrapping_sub(1)) + at(middle)) / 2.0 } else { at(middle) };
    Summary { median, smallest: at(0), largest: at(values.len().wrapping_sub(1)) }
}
