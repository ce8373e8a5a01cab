//! The leader is killed while delayed messages are published and consumed.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use dwell_tests::environment::{TestCluster, hold_in_time};
use dwell_tests::scenario::LeaderKill;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delayed_messages_survive_the_kill_of_the_leader() {
    hold_in_time(kill_the_leader).await;
}

async fn kill_the_leader() -> Result<(), String> {
    let cluster = TestCluster::start(&[]).await.unwrap();
    let job = LeaderKill {
        messages: 10_000,
        producers: 4,
        consumers: 4,
        publish_for: Duration::from_secs(15),
        delay_ms_max: 20_000,
        kill_after: Duration::from_secs(5),
        restart_after: Duration::from_secs(10),
    };
    let verdict = job.run(&cluster, |happening| println!("{happening:?}")).await.unwrap();
    println!("{verdict}");

    assert_eq!(verdict.violations, [], "lost, early or unexplained repeated messages");
    assert_eq!(verdict.confirmed, 10_000);
    let p99 = Duration::from_micros(verdict.lateness.per_mille_us(990));
    let gap = Duration::from_micros(verdict.longest_confirm_gap_us);
    // Where confirms take long the machine is slow, and a release is an entry of the log like any other.
    let confirm_p90 = Duration::from_micros(verdict.confirm_latency.per_mille_us(900));
    if p99 > Duration::from_millis(50).max(3 * confirm_p90) {
        return Err(format!("release lateness p99 is {p99:?}, confirms took {confirm_p90:?} at p90"));
    }
    if gap > Duration::from_secs(1) {
        return Err(format!("no confirm came for {gap:?}"));
    }
    Ok(())
}
