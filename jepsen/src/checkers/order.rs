//! 8: ready messages go by priority, then by the time of becoming ready, then by sequence; and of an ordering group one
//! after the other.
//!
//! All of it in machine time, so that nothing depends on when clients saw what. A message that was published to be ready
//! at once is ready from its commit; one that a timer released is known to be so only when a later one is.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::{Invariant, Violation, seconds};
use crate::facts::{CopyName, Facts, LeaseFacts};
use crate::history::History;

/// Smaller goes first.
type Position = (Reverse<u8>, i64, u64);

/// A lease of a message that stands in an order.
#[derive(Debug, Clone, Copy)]
struct Turn<'f, 'h> {
    name: CopyName<'h>,
    lease: &'f LeaseFacts<'h>,
    position: Position,
    /// It was ready at once when it was published.
    at_once: bool,
}

pub(super) fn check(_: &History, facts: &Facts<'_>) -> Vec<Violation> {
    let mut single: BTreeMap<&str, Vec<Turn<'_, '_>>> = BTreeMap::new();
    let mut groups: BTreeMap<(&str, &str), Vec<Turn<'_, '_>>> = BTreeMap::new();
    for (name, copy) in &facts.copies {
        let Some(message) = facts.publication(copy) else { continue };
        // Rescheduling gives up the turn, and changes the position.
        if facts.reschedulings(copy).next().is_some() {
            continue;
        }
        for lease in copy.leases.values() {
            let delivered = lease.delivered;
            let position = (Reverse(message.publication.priority), delivered.ready_at_ms, delivered.sequence);
            let at_once = delivered.ready_at_ms == delivered.published_at_ms;
            let turn = Turn { name: *name, lease, position, at_once };
            match &message.publication.group {
                Some(group) => groups.entry((name.0, group)).or_default().push(turn),
                None => single.entry(name.0).or_default().push(turn),
            }
        }
    }
    let mut violations = Vec::new();
    for turns in single.values() {
        violations.extend(overtaken(facts, turns));
    }
    for turns in groups.values_mut() {
        // Leases of one millisecond are in the order of their tokens, which only grow.
        turns.sort_by_key(|turn| (turn.lease.leased_at_ms, turn.lease.delivered.token));
        violations.extend(interrupted(facts, turns));
        // Once it has begun, a message is no more in its group's order.
        let mut begun = BTreeSet::new();
        turns.retain(|turn| begun.insert(turn.name));
        violations.extend(overtaken(facts, turns));
    }
    violations
}

fn violation(facts: &Facts<'_>, first: &Turn<'_, '_>, second: &Turn<'_, '_>, reason: &str) -> Violation {
    let describe = |turn: &Turn<'_, '_>| {
        format!(
            "{}/{} (priority {}, ready at {}, leased at {}, received at {})",
            turn.name.0,
            turn.name.1,
            turn.position.0.0,
            turn.position.1,
            turn.lease.leased_at_ms,
            seconds(turn.lease.received_ns)
        )
    };
    Violation {
        invariant: Invariant::Order,
        messages: vec![first.lease.delivered.message, second.lease.delivered.message],
        events: vec![facts.calls[first.lease.call].index, facts.calls[second.lease.call].index],
        reason: format!("{} {reason} {}", describe(first), describe(second)),
    }
}

/// Messages of a group that came again after another one of the group had begun.
fn interrupted(facts: &Facts<'_>, turns: &[Turn<'_, '_>]) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut done = BTreeSet::new();
    for pair in turns.windows(2) {
        if pair[0].name != pair[1].name {
            done.insert(pair[0].name);
            if done.contains(&pair[1].name) {
                violations.push(violation(
                    facts,
                    &pair[0],
                    &pair[1],
                    "was delivered between deliveries of its group's",
                ));
            }
        }
    }
    violations
}

/// Messages that were delivered while one that goes before them was ready.
fn overtaken(facts: &Facts<'_>, turns: &[Turn<'_, '_>]) -> Vec<Violation> {
    let at_once: Vec<&Turn<'_, '_>> = turns.iter().filter(|turn| turn.at_once && is_first(turn)).collect();
    let mut violations = sweep(facts, &at_once, turns.iter().collect(), |turn| turn.lease.delivered.published_at_ms);
    // Timers release in the order of time: with one, all of the same priority that were due before it.
    let mut released: BTreeMap<Reverse<u8>, Vec<&Turn<'_, '_>>> = BTreeMap::new();
    for turn in turns.iter().filter(|turn| !turn.at_once && is_first(turn)) {
        released.entry(turn.position.0).or_default().push(turn);
    }
    for turns in released.into_values() {
        violations.extend(sweep(facts, &turns, turns.clone(), |turn| turn.position.1));
    }
    violations
}

/// Its first delivery: before it, it was ready without a break.
fn is_first(turn: &Turn<'_, '_>) -> bool {
    turn.lease.delivered.delivery_count == 0
}

/// Of `waiting`, each is known to be ready after `ready_ms`, until it is leased. None of `leased` may be given in that
/// time that goes after it.
fn sweep<'f, 'h>(
    facts: &Facts<'h>,
    waiting: &[&'f Turn<'f, 'h>],
    mut leased: Vec<&'f Turn<'f, 'h>>,
    ready_ms: impl Fn(&Turn<'_, '_>) -> i64,
) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut coming: Vec<(i64, usize)> = waiting.iter().enumerate().map(|(at, turn)| (ready_ms(turn), at)).collect();
    coming.sort_unstable();
    let mut going: Vec<(i64, usize)> =
        waiting.iter().enumerate().map(|(at, turn)| (turn.lease.leased_at_ms, at)).collect();
    going.sort_unstable();
    leased.sort_by_key(|turn| turn.lease.leased_at_ms);
    let (mut coming, mut going) = (coming.into_iter().peekable(), going.into_iter().peekable());
    let mut ready: BTreeSet<(Position, usize)> = BTreeSet::new();
    for turn in leased {
        let now_ms = turn.lease.leased_at_ms;
        while let Some((_, at)) = coming.next_if(|(ready_ms, _)| *ready_ms < now_ms) {
            // Leased in the millisecond in which it became ready, or this one, it never waited long enough.
            if waiting[at].lease.leased_at_ms > now_ms {
                ready.insert((waiting[at].position, at));
            }
        }
        while let Some((_, at)) = going.next_if(|(leased_ms, _)| *leased_ms <= now_ms) {
            ready.remove(&(waiting[at].position, at));
        }
        if let Some((position, at)) = ready.first()
            && *position < turn.position
        {
            violations.push(violation(facts, turn, waiting[*at], "was delivered before"));
        }
    }
    violations
}
