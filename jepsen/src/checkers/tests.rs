//! A small broker of our own makes histories in which nothing is wrong; then something is put wrong in them, and the
//! checker whose affair it is must see it.

mod broker;
mod mutations;

use std::collections::BTreeSet;

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

const SEEDS: u64 = 40;

#[test]
fn a_history_in_which_nothing_is_wrong_has_no_violations() {
    for seed in 0..SEEDS {
        let history = broker::history(seed);
        let report = check_all(&history);
        assert!(report.unchecked.is_empty(), "{:?}", report.unchecked);
        let reasons: Vec<String> = report.violations.iter().map(Violation::to_string).collect();
        assert!(reasons.is_empty(), "seed {seed}: {reasons:#?}");
    }
}

#[test]
fn histories_hold_what_the_checkers_look_at() {
    let mut summary = Summary::default();
    for seed in 0..SEEDS {
        let one = check_all(&broker::history(seed)).summary;
        summary.redelivered += one.redelivered;
        summary.fired += one.fired;
        one.endings.iter().zip(&mut summary.endings).for_each(|(one, all)| *all += one);
        for (name, counts) in one.calls {
            let all = summary.calls.entry(name).or_default();
            counts.iter().zip(all).for_each(|(one, all)| *all += one);
        }
    }
    assert!(summary.redelivered > 100 && summary.fired > 100, "{summary:?}");
    assert!(summary.endings.iter().all(|count| *count > 100), "{summary:?}");
    for name in ["publish", "settle", "revise", "transact"] {
        let unknown = summary.calls.get(name).map_or(0, |counts| counts[2]);
        assert!(unknown > 10, "{name}: {summary:?}");
    }
}

#[test]
fn whatever_is_put_wrong_is_seen_by_the_checker_whose_affair_it_is() {
    let mut changed = BTreeSet::new();
    for seed in 0..SEEDS {
        let history = broker::history(seed);
        for (name, invariant, mutate) in mutations::ALL {
            let mut history = history.clone();
            if mutate(&mut history, &mut StdRng::seed_from_u64(seed)) {
                changed.insert(*name);
                let violations = check_all(&history).violations;
                let seen = violations.iter().any(|violation| violation.invariant == *invariant);
                assert!(seen, "seed {seed}: {name} is not seen; {violations:?}");
            }
        }
    }
    let never: Vec<_> = mutations::ALL.iter().filter(|mutation| !changed.contains(mutation.0)).collect();
    assert!(
        never.is_empty(),
        "no history allowed for {:?}",
        never.iter().map(|mutation| mutation.0).collect::<Vec<_>>()
    );
    for invariant in Invariant::ALL {
        assert!(mutations::ALL.iter().filter(|mutation| mutation.1 == invariant).count() >= 2, "{invariant:?}");
    }
}

#[test]
fn a_stored_history_comes_to_the_same_when_it_is_checked_again() {
    let history = broker::history(3);
    let mut written = Vec::new();
    history.write_json(&mut written).unwrap();
    assert_eq!(History::read_json(written.as_slice()).unwrap(), history);
}
