//! 9: each due time of a schedule fires once; if it was missed, as its misfire policy says.

use std::collections::{BTreeMap, BTreeSet};

use super::{Invariant, Violation};
use crate::facts::Facts;
use crate::history::{History, ScheduleFacts};

pub(super) fn check(_: &History, facts: &Facts<'_>) -> Vec<Violation> {
    let mut fired: BTreeMap<u64, BTreeMap<i64, BTreeSet<u64>>> = BTreeMap::new();
    let mut unread = BTreeSet::new();
    for ((_, sequence), copy) in &facts.copies {
        let Some(message) = copy.message.filter(|message| !facts.messages.contains_key(message)) else { continue };
        // What nobody was delivered does not say when it was due.
        if copy.leases.is_empty() && copy.died.is_none() {
            unread.insert(message);
        }
        if copy.died.is_some() {
            continue;
        }
        for due_ms in copy.leases.values().filter_map(|lease| lease.delivered.schedule_due_ms) {
            fired.entry(message).or_default().entry(due_ms).or_default().insert(*sequence);
        }
    }
    let mut violations = Vec::new();
    for (schedule, counted) in &facts.schedules {
        let empty = BTreeMap::new();
        let fired = fired.get(&schedule.message).unwrap_or(&empty);
        violations.extend(twice(schedule, fired));
        if facts.is_read(&schedule.queue) && !unread.contains(&schedule.message) {
            violations.extend(missing(facts, schedule, fired));
            violations.extend(counted.filter(|counted| *counted != fired.len() as u64).map(|counted| {
                violation(schedule, format!("it says that it fired {counted} times; {} came", fired.len()))
            }));
        }
    }
    violations
}

fn violation(schedule: &ScheduleFacts, reason: String) -> Violation {
    Violation {
        invariant: Invariant::Schedules,
        messages: vec![schedule.message],
        events: Vec::new(),
        reason: format!("{}: {reason}", schedule.schedule),
    }
}

fn twice(schedule: &ScheduleFacts, fired: &BTreeMap<i64, BTreeSet<u64>>) -> Vec<Violation> {
    let twice = fired.iter().filter(|(_, sequences)| sequences.len() > 1);
    twice.map(|(due_ms, sequences)| violation(schedule, format!("{due_ms} fired as {sequences:?}"))).collect()
}

/// Due times between the first and the last one that should have fired, and such that are none.
fn missing(facts: &Facts<'_>, schedule: &ScheduleFacts, fired: &BTreeMap<i64, BTreeSet<u64>>) -> Vec<Violation> {
    let mut violations = Vec::new();
    let every_ms = i64::try_from(schedule.every_ms.max(1)).unwrap_or(i64::MAX);
    let due: Vec<i64> = fired.keys().copied().collect();
    for pair in due.windows(2) {
        if (pair[1] - pair[0]) % every_ms != 0 {
            violations.push(violation(schedule, format!("{} and {} are not both due times", pair[0], pair[1])));
            continue;
        }
        let mut skipped_ms = pair[0] + every_ms;
        while skipped_ms < pair[1] {
            if schedule.misfires_max > 0 || was_on_time(facts, schedule, skipped_ms) {
                violations.push(violation(schedule, format!("{skipped_ms} did not fire")));
            }
            skipped_ms += every_ms;
        }
    }
    violations
}

/// True if the servers certainly handled this due time before it counted as missed: something that was due later, and
/// timers go in the order of time, was out by then.
fn was_on_time(facts: &Facts<'_>, schedule: &ScheduleFacts, due_ms: i64) -> bool {
    let missed_ms = due_ms.saturating_add_unsigned(schedule.misfire_after_ms);
    let released = &facts.machine.released;
    let later = released.partition_point(|(ready_ms, _)| *ready_ms <= due_ms);
    let later = released[later..].iter().take_while(|(ready_ms, _)| *ready_ms < missed_ms);
    later.into_iter().any(|(_, leased_ms)| *leased_ms < missed_ms)
}
