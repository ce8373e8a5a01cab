//! Runs `dwell bench` against three servers on this machine; its arguments are those of `dwell bench`.

use std::process::{Command, ExitCode};

use anyhow::Context as _;
use dwell_tests::environment::{TestCluster, binary};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let cluster = TestCluster::start(&[]).await.context("the cluster did not start")?;
    let addresses = cluster.client_addresses().join(",");
    let mut bench = Command::new(binary()?);
    bench.args(["--server", &addresses, "bench"]).args(std::env::args_os().skip(1));
    let status = bench.status().context("`dwell bench` did not start")?;
    for node in cluster.nodes() {
        let peak = node.memory_peak_bytes()?;
        println!("node {}: at most {} MiB resident", node.id(), peak >> 20);
    }
    cluster.stop_all().await?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
