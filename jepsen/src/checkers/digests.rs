//! 11: nodes that have applied the same entries have the same state.

use std::collections::BTreeMap;

use super::{Invariant, Violation, seconds};
use crate::facts::Facts;
use crate::history::{Deed, History, Value};

pub(super) fn check(history: &History, _: &Facts<'_>) -> Vec<Violation> {
    let mut first: BTreeMap<u64, (u64, &str, &str)> = BTreeMap::new();
    let mut violations = Vec::new();
    for event in &history.events {
        let Value::Deed(Deed::Digest { node, applied_index, digest }) = &event.value else { continue };
        let (index, other, known) = *first.entry(*applied_index).or_insert((event.index, node, digest));
        if known != digest {
            violations.push(Violation {
                invariant: Invariant::Digests,
                messages: Vec::new(),
                events: vec![index, event.index],
                reason: format!(
                    "after entry {applied_index}, {other} had {known} and {node} has {digest} at {}",
                    seconds(event.time_ns)
                ),
            });
        }
    }
    violations
}
