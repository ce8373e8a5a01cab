//! 1: a message that was confirmed, or seen, ends in a way that is known, or is still there.

use super::{Invariant, Violation, seconds};
use crate::facts::Facts;
use crate::history::History;

pub(super) fn check(_: &History, facts: &Facts<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (name, copy) in &facts.copies {
        let first_seen = copy.leases.values().map(|lease| lease.received_ns).min();
        let Some(stored_ns) = copy.confirmed_ns.into_iter().chain(first_seen).min() else { continue };
        if !facts.is_read(name.0) {
            continue;
        }
        let endings = facts.endings(*name, copy);
        if endings.certain.is_empty() && endings.possible.is_empty() {
            let (queue, sequence) = name;
            violations.push(Violation {
                invariant: Invariant::Loss,
                messages: copy.message.into_iter().collect(),
                events: copy.leases.values().map(|lease| facts.calls[lease.call].index).collect(),
                reason: format!(
                    "{queue}/{sequence} was stored by {}, delivered {} times, and is nowhere at the end",
                    seconds(stored_ns),
                    copy.leases.len()
                ),
            });
        }
    }
    violations
}
