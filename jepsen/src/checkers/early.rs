//! 2: no delivery before the message is due, by the servers' own clocks and by the true one.

use super::{Invariant, Violation, seconds};
use crate::facts::{CopyFacts, CopyName, Facts, LeaseFacts};
use crate::history::{Call, History, Settlement};

const NANOSECONDS: u64 = 1_000_000;
/// Machine time counts whole milliseconds.
const ROUNDING_MS: u64 = 2;

pub(super) fn check(_: &History, facts: &Facts<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (name, copy) in &facts.copies {
        for lease in copy.leases.values() {
            let reasons = [
                by_machine_time(lease),
                not_as_asked(facts, copy, lease),
                by_true_time(facts, copy, lease),
                after_return(facts, copy, lease),
            ];
            violations.extend(reasons.into_iter().flatten().map(|reason| violation(facts, *name, lease, reason)));
        }
    }
    violations
}

fn violation(facts: &Facts<'_>, name: CopyName<'_>, lease: &LeaseFacts<'_>, reason: String) -> Violation {
    Violation {
        invariant: Invariant::Early,
        messages: vec![lease.delivered.message],
        events: vec![facts.calls[lease.call].index],
        reason: format!("{}/{} came at {}: {reason}", name.0, name.1, seconds(lease.received_ns)),
    }
}

fn by_machine_time(lease: &LeaseFacts<'_>) -> Option<String> {
    let early_ms = lease.delivered.ready_at_ms - lease.leased_at_ms;
    (early_ms > 0).then(|| format!("leased {early_ms} ms before it was ready, by the leader's clock"))
}

/// The servers took another due time than what was asked for.
fn not_as_asked(facts: &Facts<'_>, copy: &CopyFacts<'_>, lease: &LeaseFacts<'_>) -> Option<String> {
    let publication = facts.publication(copy)?.publication;
    let delivered = lease.delivered;
    if delivered.delivery_count > 0 || facts.reschedulings(copy).next().is_some() {
        return None;
    }
    let asked_ms = match (publication.deliver_at_ms, publication.delay_ms) {
        (Some(at_ms), _) => at_ms,
        (None, Some(delay_ms)) => delivered.published_at_ms.saturating_add_unsigned(delay_ms),
        (None, None) => return None,
    };
    let early_ms = asked_ms - lease.leased_at_ms;
    (early_ms > 0).then(|| format!("leased {early_ms} ms before what was asked for, by the leader's clock"))
}

fn by_true_time(facts: &Facts<'_>, copy: &CopyFacts<'_>, lease: &LeaseFacts<'_>) -> Option<String> {
    let message = facts.publication(copy)?;
    let delay_ms = message.publication.delay_ms?;
    let invoked = message.calls.iter().map(|position| &facts.calls[*position]);
    let due = invoked.map(|call| (call, delay_ms)).chain(facts.reschedulings(copy)).map(|(call, delay_ms)| {
        let shortening_ms =
            facts.clocks.shortening_ms(call.invoked_ns, call.ended_ns.min(lease.received_ns), lease.received_ns);
        call.invoked_ns + delay_ms.saturating_sub(shortening_ms + ROUNDING_MS) * NANOSECONDS
    });
    let due_ns = due.min()?;
    (lease.received_ns < due_ns).then(|| format!("it cannot be due before {}", seconds(due_ns)))
}

/// It came back for so long, and was out again before.
fn after_return(facts: &Facts<'_>, copy: &CopyFacts<'_>, lease: &LeaseFacts<'_>) -> Option<String> {
    if facts.reschedulings(copy).next().is_some() {
        return None;
    }
    copy.settlements.iter().find_map(|(position, token)| {
        let call = &facts.calls[*position];
        let Call::Settle { settlement: Settlement::Nack { delay_ms: Some(delay_ms) }, .. } = call.call else {
            return None;
        };
        let before = copy.leases.get(token)?;
        if !call.is_ok() || lease.delivered.delivery_count != before.delivered.delivery_count + 1 {
            return None;
        }
        let shortening_ms = facts.clocks.shortening_ms(call.invoked_ns, call.ended_ns, lease.received_ns);
        let due_ns = call.invoked_ns + delay_ms.saturating_sub(shortening_ms + ROUNDING_MS) * NANOSECONDS;
        (lease.received_ns < due_ns).then(|| format!("it was returned until {} at least", seconds(due_ns)))
    })
}
