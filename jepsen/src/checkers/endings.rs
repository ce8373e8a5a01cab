//! 5: a stored copy is acknowledged, recalled or dead, once, or still there.

use std::collections::BTreeSet;

use super::{Invariant, Violation};
use crate::facts::{Ending, Facts};
use crate::history::History;

pub(super) fn check(_: &History, facts: &Facts<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (name, copy) in &facts.copies {
        let certain = facts.endings(*name, copy).certain;
        let kinds: BTreeSet<Ending> = certain.iter().map(|(ending, _)| *ending).collect();
        if certain.len() > 1 {
            violations.push(Violation {
                invariant: Invariant::Endings,
                messages: copy.message.into_iter().collect(),
                events: certain.iter().filter_map(|(_, event)| *event).collect(),
                reason: format!("{}/{} ended {} times, as {kinds:?}", name.0, name.1, certain.len()),
            });
        }
    }
    for ((message, _, queue), letters) in &facts.dead {
        if letters.len() > 1 {
            violations.push(Violation {
                invariant: Invariant::Endings,
                messages: vec![*message],
                events: Vec::new(),
                reason: format!("it died in {queue} once and has {} dead letters: {letters:?}", letters.len()),
            });
        }
    }
    violations
}
