//! 7: a message has one lease at a time, and only that one ends it.
//!
//! Each return adds one to the delivery count, so that leases of a copy are in order by it.

use super::{Invariant, Violation, seconds};
use crate::facts::{CopyFacts, CopyName, Facts, LeaseFacts};
use crate::history::{Call, History, Settlement};

pub(super) fn check(_: &History, facts: &Facts<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (name, copy) in &facts.copies {
        let mut leases: Vec<&LeaseFacts<'_>> = copy.leases.values().collect();
        leases.sort_by_key(|lease| (lease.delivered.delivery_count, lease.received_ns));
        violations.extend(stale_acks(facts, *name, copy, &leases));
        for pair in leases.windows(2) {
            let reason = overlap(facts, copy, *name, pair[0], pair[1]);
            violations.extend(reason.map(|reason| violation(facts, *name, pair[0], pair[1], reason)));
        }
    }
    violations
}

fn violation(
    facts: &Facts<'_>,
    name: CopyName<'_>,
    first: &LeaseFacts<'_>,
    second: &LeaseFacts<'_>,
    reason: String,
) -> Violation {
    Violation {
        invariant: Invariant::Leases,
        messages: vec![first.delivered.message],
        events: vec![facts.calls[first.call].index, facts.calls[second.call].index],
        reason: format!(
            "{}/{}, leased as {} (received at {}) and {} (at {}): {reason}",
            name.0,
            name.1,
            first.delivered.token,
            seconds(first.received_ns),
            second.delivered.token,
            seconds(second.received_ns)
        ),
    }
}

/// Acknowledgements that were accepted although the message was leased anew before, or was so afterwards.
fn stale_acks(
    facts: &Facts<'_>,
    name: CopyName<'_>,
    copy: &CopyFacts<'_>,
    leases: &[&LeaseFacts<'_>],
) -> Vec<Violation> {
    let mut violations = Vec::new();
    let Some(last) = leases.last() else { return violations };
    for (position, token) in &copy.settlements {
        let call = &facts.calls[*position];
        let Some(lease) = copy.leases.get(token) else { continue };
        let done = call.is_ok() || is_seen_transaction(facts, call.call) && call.is_possible();
        if done && Facts::is_ack(call) && lease.delivered.delivery_count < last.delivered.delivery_count {
            let reason = format!("acknowledged by the first one at {}", seconds(call.ended_ns));
            let mut violation = violation(facts, name, lease, last, reason);
            violation.events.push(call.index);
            violations.push(violation);
        }
    }
    violations
}

/// A transaction of which no answer came, and whose messages are there.
fn is_seen_transaction(facts: &Facts<'_>, call: &Call) -> bool {
    matches!(call, Call::Transact { messages, .. } if messages.iter().any(|message| facts.is_seen(message.message)))
}

/// Why the second lease cannot have followed the first one.
fn overlap(
    facts: &Facts<'_>,
    copy: &CopyFacts<'_>,
    name: CopyName<'_>,
    first: &LeaseFacts<'_>,
    second: &LeaseFacts<'_>,
) -> Option<String> {
    let (before, after) = (first.delivered.delivery_count, second.delivered.delivery_count);
    if before == after {
        return Some(format!("both are number {before}"));
    }
    if second.leased_at_ms < first.leased_at_ms {
        return Some("the second one was given before the first one".to_owned());
    }
    if after > before + 1 || is_returned(facts, copy, first, second) {
        return None;
    }
    // An extension that came to pass moves the deadline further only.
    let mut end_ms = first.delivered.deadline_ms;
    if let Some(consumer) = first.consumer {
        let session_ms = facts.session_timeout_ms(consumer);
        end_ms = end_ms.min(first.leased_at_ms.saturating_add_unsigned(session_ms));
        if is_closed(facts, name.0, consumer, second.received_ns) {
            return None;
        }
    }
    let early_ms = end_ms - second.leased_at_ms;
    (early_ms > 0).then(|| format!("the first one had {early_ms} ms to go, by the leader's clock"))
}

/// True if the holder of the first lease may have given it up.
fn is_returned(facts: &Facts<'_>, copy: &CopyFacts<'_>, first: &LeaseFacts<'_>, second: &LeaseFacts<'_>) -> bool {
    copy.settlements.iter().any(|(position, token)| {
        let call = &facts.calls[*position];
        let gives_up = match call.call {
            Call::Settle { settlement: Settlement::Nack { .. }, .. } => true,
            // A shorter lease than before.
            Call::Settle { settlement: Settlement::Extend { timeout_ms }, lease } => {
                facts.queues.get(lease.queue.as_str()).is_some_and(|queue| *timeout_ms < queue.lease_timeout_ms)
            }
            _ => false,
        };
        *token == first.delivered.token && gives_up && call.is_possible() && call.invoked_ns <= second.received_ns
    })
}

/// True if the consumer may have been closed before this time.
fn is_closed(facts: &Facts<'_>, queue: &str, consumer: &str, before_ns: u64) -> bool {
    facts.closed(queue, consumer).is_some_and(|closed_ns| closed_ns <= before_ns)
}
