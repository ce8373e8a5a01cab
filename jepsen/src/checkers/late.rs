//! 3: when everything is healed, everything that is due comes out within seconds, and what else takes its time to
//! consume.

use std::collections::BTreeMap;

use super::{Invariant, Violation, seconds};
use crate::facts::{CopyFacts, Facts};
use crate::history::{Call, History};

const SECOND_NS: u64 = 1_000_000_000;
const NANOSECONDS: u64 = 1_000_000;
/// Whatever has to be elected, attached and caught up with.
const RECOVERY_NS: u64 = 5 * SECOND_NS;

pub(super) fn check(_: &History, facts: &Facts<'_>) -> Vec<Violation> {
    let Some(healed_ns) = facts.healed_ns else { return Vec::new() };
    let mut violations = unreadable(facts);
    let backlogs = backlogs_ns(facts, healed_ns);
    for (name, copy) in &facts.copies {
        let Some(queue) = facts.queues.get(name.0).filter(|queue| !queue.kept) else { continue };
        let Some(due_ns) = due_ns(facts, copy) else { continue };
        let first = copy.leases.values().min_by_key(|lease| lease.received_ns);
        let out_ns = match (first, copy.found, facts.read.get(name.0)) {
            (Some(lease), ..) => lease.received_ns,
            (None, Some(_), Some(read_ns)) => *read_ns,
            _ => continue,
        };
        // Somebody had it before whom no answer reached, or its group waits for one that somebody had.
        let returns = u64::from(first.map_or(1, |lease| lease.delivered.delivery_count));
        let grouped = facts.publication(copy).is_some_and(|message| message.publication.group.is_some());
        let held_ms = (returns + 2 * u64::from(grouped)) * (queue.lease_timeout_ms + queue.backoff_ms + 2000);
        let backlog_ns = backlogs.get(name.0).copied().unwrap_or(0);
        let expected_ns = due_ns.max(healed_ns) + RECOVERY_NS + held_ms * NANOSECONDS + backlog_ns;
        if out_ns > expected_ns {
            violations.push(Violation {
                invariant: Invariant::Late,
                messages: copy.message.into_iter().collect(),
                events: first.map(|lease| facts.calls[lease.call].index).into_iter().collect(),
                reason: format!(
                    "{}/{} was due at {}, healed was {}, and it was not out before {}; expected by {}",
                    name.0,
                    name.1,
                    seconds(due_ns),
                    seconds(healed_ns),
                    seconds(out_ns),
                    seconds(expected_ns)
                ),
            });
        }
    }
    violations
}

/// Queues that were tried to be read at the end, and could not.
fn unreadable(facts: &Facts<'_>) -> Vec<Violation> {
    let tried = facts.calls.iter().filter_map(|call| match call.call {
        Call::Browse { queue } => Some((queue.as_str(), call.index)),
        _ => None,
    });
    let unread: BTreeMap<&str, u64> = tried.filter(|(queue, _)| !facts.read.contains_key(queue)).collect();
    let violation = |(queue, index)| Violation {
        invariant: Invariant::Late,
        messages: Vec::new(),
        events: vec![index],
        reason: format!("queue {queue} could not be read although everything was healed"),
    };
    unread.into_iter().map(violation).collect()
}

/// The latest true time at which a confirmed copy may fall due. None if that is not known.
fn due_ns(facts: &Facts<'_>, copy: &CopyFacts<'_>) -> Option<u64> {
    let message = facts.publication(copy)?;
    if message.publication.deliver_at_ms.is_some() {
        return None;
    }
    let confirmed_ns = copy.confirmed_ns?;
    let delay_ms = message.publication.delay_ms.unwrap_or(0);
    let due = |from_ns: u64, delay_ms| from_ns + (delay_ms + facts.clocks.ahead_ms(from_ns)) * NANOSECONDS;
    // A revision that never ended may take effect at any time.
    let mut latest_ns = due(confirmed_ns, delay_ms);
    for (call, delay_ms) in facts.reschedulings(copy) {
        call.answer?;
        latest_ns = latest_ns.max(due(call.ended_ns, delay_ms));
    }
    Some(latest_ns)
}

/// How long what came out of each queue after the healing takes at the best rate seen, twice.
fn backlogs_ns<'h>(facts: &Facts<'h>, healed_ns: u64) -> BTreeMap<&'h str, u64> {
    let mut by_second: BTreeMap<&str, BTreeMap<u64, u64>> = BTreeMap::new();
    for (name, copy) in &facts.copies {
        for lease in copy.leases.values().filter(|lease| lease.received_ns >= healed_ns) {
            let second = (lease.received_ns - healed_ns) / SECOND_NS;
            *by_second.entry(name.0).or_default().entry(second).or_default() += 1;
        }
    }
    let backlog = |seconds: BTreeMap<u64, u64>| {
        let (all, best) = (seconds.values().sum::<u64>(), seconds.values().max().copied().unwrap_or(1));
        2 * all * SECOND_NS / best.max(1)
    };
    by_second.into_iter().map(|(queue, seconds)| (queue, backlog(seconds))).collect()
}
