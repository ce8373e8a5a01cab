//! The main job, to watch: three servers, delayed messages, and the leader killed in the middle.
//!
//! Exits with an error if a promise is not kept.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use dwell_tests::environment::TestCluster;
use dwell_tests::history::{Verdict, Violation};
use dwell_tests::report::milliseconds;
use dwell_tests::scenario::{Happening, LeaderKill};

const MESSAGES: u64 = 6_000;
const LATENESS_P99_US_MAX: u64 = 50_000;
const CONFIRM_GAP_US_MAX: u64 = 1_000_000;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> anyhow::Result<ExitCode> {
    let job = LeaderKill {
        messages: MESSAGES,
        producers: 3,
        consumers: 3,
        publish_for: Duration::from_secs(12),
        delay_ms_max: 8_000,
        kill_after: Duration::from_secs(5),
        restart_after: Duration::from_secs(10),
    };
    println!("Starting three servers on this machine ...");
    let cluster = TestCluster::start(&[]).await.context("the cluster did not start")?;
    for node in cluster.nodes() {
        println!(
            "  node {}  clients {}  metrics http://{}/metrics",
            node.id(),
            node.client_address(),
            node.http_address()
        );
    }
    println!(
        "{} producers publish {MESSAGES} messages over {:?}, delayed by 0 to {} s; {} consumers take them.",
        job.producers,
        job.publish_for,
        job.delay_ms_max / 1000,
        job.consumers
    );
    let verdict = job.run(&cluster, tell).await?;
    println!();
    let kept = print_promises(&verdict);
    cluster.stop_all().await?;
    Ok(if kept { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn tell(happening: Happening) {
    match happening {
        Happening::Started => println!(),
        Happening::Progress { elapsed, confirmed, deliveries } => {
            println!("{:>4} s  confirmed {confirmed:>5}  delivered {deliveries:>5}", elapsed.as_secs());
        }
        Happening::Killed { node } => println!("        node {node}, the leader, is killed (SIGKILL)"),
        Happening::Elected { node, after } => {
            println!("        node {node} leads, {} ms after the kill", after.as_millis());
        }
        Happening::Restarted { node } => println!("        node {node} is started again"),
        Happening::CaughtUp { node } => println!("        node {node} has caught up"),
    }
}

/// Prints each promise with what was measured, and answers whether all were kept.
fn print_promises(verdict: &Verdict) -> bool {
    let count = |kind: fn(&Violation) -> bool| verdict.violations.iter().filter(|found| kind(found)).count();
    let lost = count(|found| matches!(found, Violation::Lost(_)));
    let early = count(|found| matches!(found, Violation::Early { .. }));
    let repeated = count(|found| matches!(found, Violation::Duplicate { .. }));
    let other = verdict.violations.len() - lost - early - repeated;
    let p99 = verdict.lateness.per_mille_us(990);
    let gap = verdict.longest_confirm_gap_us;
    let all_confirmed = verdict.confirmed == verdict.sent;
    let rows = [
        ("every message confirmed", format!("{} of {}", verdict.confirmed, verdict.sent), all_confirmed),
        ("every confirmed message delivered", format!("{lost} lost"), lost == 0),
        ("none before its time", format!("{early} early"), early == 0),
        ("on time: p99 within 50 ms *", milliseconds(p99), p99 <= LATENESS_P99_US_MAX),
        ("confirms resume within 1 s", milliseconds(gap), gap <= CONFIRM_GAP_US_MAX),
        (
            "none repeated, except for the kill",
            format!("{repeated} ({} for it)", verdict.allowed_duplicates),
            repeated == 0,
        ),
        ("nothing else amiss", format!("{other} violations"), other == 0),
    ];
    for (promise, measured, kept) in &rows {
        println!("{promise:<36}{measured:>18}   {}", if *kept { "kept" } else { "BROKEN" });
    }
    println!("* outside the second after the kill; lateness {}", verdict.lateness);
    for violation in verdict.violations.iter().take(20) {
        println!("  {violation:?}");
    }
    rows.iter().all(|(_, _, kept)| *kept)
}
