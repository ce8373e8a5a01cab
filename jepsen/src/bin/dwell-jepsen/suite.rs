//! Each fault alone, in turn, then several at a time.

use std::time::{Duration, Instant};

use dwell_jepsen::harness::{Fault, Pace, Sandbox, Selection};

use crate::arguments::SuiteArguments;
use crate::outcome::table;
use crate::run::{PlannedRun, once};

/// Time for one fault alone, with the quiet before and the recovery after it, and in the short suite.
const FAULT_ALONE: Duration = Duration::from_secs(13);
const FAULT_ALONE_SHORT: Duration = Duration::from_secs(8);
/// What each run needs besides: no fault begins shortly before its end.
const END: Duration = Duration::from_secs(8);
/// Time for one run with several faults at a time, and in the short suite.
const MIXED: Duration = Duration::from_secs(90);
const MIXED_SHORT: Duration = Duration::from_secs(45);
/// About what a run takes beyond its time: starting, emptying the queues, checking.
const OVERHEAD: Duration = Duration::from_secs(15);

/// Faults that share a run, in turn. Those that destroy what was stored come in one of their own: they may leave nodes
/// behind that do not come back.
const GROUPS: [(&str, &[Fault]); 5] = [
    (
        "processes",
        &[Fault::KillOne, Fault::KillMinority, Fault::KillAll, Fault::Pause, Fault::RollingRestart, Fault::Membership],
    ),
    (
        "partitions",
        &[
            Fault::PartitionLeader,
            Fault::PartitionHalves,
            Fault::PartitionRing,
            Fault::PartitionBridge,
            Fault::PartitionOneWay,
        ],
    ),
    ("network-clocks", &[Fault::Latency, Fault::Loss, Fault::ClockSkew, Fault::ClockJump]),
    ("power-disks", &[Fault::PowerOne, Fault::PowerMinority, Fault::PowerAll, Fault::DiskFull]),
    ("corruption", &[Fault::CorruptLog, Fault::CorruptState]),
];

/// Runs them all, and says whether nothing was found.
pub async fn suite(arguments: &SuiteArguments, sandbox: &Sandbox) -> anyhow::Result<bool> {
    let start = Instant::now();
    let first_seed = arguments.common.seed.unwrap_or_else(|| rand::random::<u64>() >> 32);
    let budget = if arguments.short { Duration::ZERO } else { Duration::from_secs(arguments.minutes * 60) };
    let mut outcomes = Vec::new();
    for round in 0.. {
        for (name, selection, time_limit) in round_of_runs(arguments.short) {
            // The first round is whole in any case: each fault comes at least once.
            if round > 0 && start.elapsed() + time_limit + OVERHEAD > budget {
                continue;
            }
            let seed = first_seed.wrapping_add(outcomes.len() as u64);
            let directory = arguments.common.directory.join(format!("{:02}-{name}", outcomes.len() + 1));
            let pace = if arguments.short { Pace::FAST } else { Pace::USUAL };
            let planned = PlannedRun { name, selection, pace, seed, time_limit, directory };
            let outcome = once(&arguments.common, &planned, sandbox).await?;
            print!("{}", outcome.text());
            outcomes.push(outcome);
        }
        if start.elapsed() + MIXED + OVERHEAD > budget {
            break;
        }
    }
    for outcome in &outcomes {
        print!("{}", outcome.text());
    }
    println!("{}", table(&outcomes));
    println!(
        "{} runs in {:.0?}; histories and logs in {}",
        outcomes.len(),
        start.elapsed(),
        arguments.common.directory.display()
    );
    Ok(outcomes.iter().all(|outcome| outcome.passed()))
}

fn round_of_runs(short: bool) -> Vec<(String, Selection, Duration)> {
    let one = if short { FAULT_ALONE_SHORT } else { FAULT_ALONE };
    let alone = GROUPS.iter().map(|(name, faults)| {
        let time_limit = one * u32::try_from(faults.len()).unwrap_or(1) + END;
        ((*name).to_owned(), Selection::Alone(faults.to_vec()), time_limit)
    });
    let mixed = |time_limit| ("mixed".to_owned(), Selection::Mixed(Fault::all().to_vec()), time_limit);
    let several = if short { vec![mixed(MIXED_SHORT)] } else { vec![mixed(MIXED), mixed(MIXED)] };
    alone.chain(several).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_is_in_one_group() {
        let mut grouped: Vec<Fault> = GROUPS.iter().flat_map(|(_, faults)| faults.to_vec()).collect();
        grouped.sort_unstable();
        assert_eq!(grouped, Fault::all());
    }
}
