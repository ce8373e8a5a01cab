//! A run follows from its seed, and what is broken on purpose is noticed.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::process::{Command, Output};

/// Within so many seeds a broken cluster is found out. Of lying disks, most seeds tell.
const SEEDS: u64 = 40;

fn simulate(seed: u64, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_simulate"));
    command.arg("--seed").arg(seed.to_string()).args(more).output().unwrap()
}

/// The report of the first seed that fails.
fn first_report(sabotage: &str) -> String {
    let failed = (1..=SEEDS).map(|seed| simulate(seed, &["--sabotage", sabotage])).find(|run| !run.status.success());
    let report = String::from_utf8(failed.expect("no seed tells").stderr).unwrap();
    println!("{report}");
    report
}

#[test]
fn a_seed_gives_the_same_run_each_time() {
    for seed in 1..=4 {
        let [first, second] = [(); 2].map(|()| simulate(seed, &[]));
        let line = String::from_utf8(first.stdout).unwrap();
        assert!(line.contains("fingerprint"), "seed {seed}: {line}{}", String::from_utf8_lossy(&first.stderr));
        assert_eq!(line, String::from_utf8(second.stdout).unwrap());
    }
    let other = simulate(1, &["--without-faults"]);
    assert_ne!(other.stdout, simulate(1, &[]).stdout, "the fingerprint tells different runs apart");
}

#[test]
fn a_log_that_is_not_synced_loses_messages_and_that_is_noticed() {
    let report = first_report("lying-disks");
    assert!(report.contains("VIOLATION") || report.contains("UNFINISHED"), "{report}");
}

#[test]
fn a_clock_that_nobody_knows_to_be_wrong_delivers_early_and_that_is_noticed() {
    let report = first_report("hidden-clocks");
    assert!(report.contains("nothing is delivered before it is due"), "{report}");
}
