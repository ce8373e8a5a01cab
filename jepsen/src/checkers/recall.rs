//! 4: what a revision answers is true at some moment between its call and its return.

use super::{Invariant, Violation, seconds};
use crate::facts::{CallFacts, CopyFacts, CopyName, Facts};
use crate::history::{Answer, Call, History, Kind, Revised, Revision, Settlement};

const NANOSECONDS: u64 = 1_000_000;

pub(super) fn check(_: &History, facts: &Facts<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for (name, copy) in &facts.copies {
        for position in &copy.revisions {
            let call = &facts.calls[*position];
            if let Some((event, reason)) = contradiction(facts, copy, call) {
                violations.push(violation(*name, copy, call, event, &reason));
            }
        }
    }
    violations
}

fn violation(name: CopyName<'_>, copy: &CopyFacts<'_>, call: &CallFacts<'_>, event: u64, reason: &str) -> Violation {
    Violation {
        invariant: Invariant::Recall,
        messages: copy.message.into_iter().collect(),
        events: vec![call.index, event],
        reason: format!(
            "{}/{}, revised from {} to {}: {reason}",
            name.0,
            name.1,
            seconds(call.invoked_ns),
            seconds(call.ended_ns)
        ),
    }
}

/// What contradicts the answer, if anything does.
fn contradiction(facts: &Facts<'_>, copy: &CopyFacts<'_>, call: &CallFacts<'_>) -> Option<(u64, String)> {
    let Call::Revise { revision, revoke, .. } = call.call else { return None };
    let Some(Answer::Revised(revised)) = call.answer else { return None };
    match revised {
        Revised::Done => {
            let ended = ended_before(facts, copy, call).map(|event| (event, "done, and ended before".to_owned()));
            let seen = || alive_after(facts, copy, call).map(|event| (event, "done, and seen afterwards".to_owned()));
            ended.or_else(|| if matches!(revision, Revision::Reschedule { .. }) { None } else { seen() })
        }
        Revised::Gone => alive_after(facts, copy, call).map(|event| (event, "gone, and seen afterwards".to_owned())),
        Revised::DoneOrGone => {
            let seen = alive_after(facts, copy, call).filter(|_| !matches!(revision, Revision::Reschedule { .. }));
            seen.map(|event| (event, "done or gone, and seen afterwards".to_owned()))
        }
        Revised::Leased if *revoke => Some((call.index, "leased, though it was to be revoked".to_owned())),
        Revised::Leased => {
            let ended = ended_before(facts, copy, call).map(|event| (event, "leased, and ended before".to_owned()));
            ended.or_else(|| {
                not_due(facts, copy, call).map(|event| (event, "leased, and not due until after".to_owned()))
            })
        }
        Revised::Unknown => {
            let known = copy.confirmed_ns.is_some_and(|confirmed_ns| confirmed_ns < call.invoked_ns);
            known.then(|| (call.index, "unknown, and confirmed before".to_owned()))
        }
    }
}

/// The event that ended the copy before the call began.
fn ended_before(facts: &Facts<'_>, copy: &CopyFacts<'_>, call: &CallFacts<'_>) -> Option<u64> {
    let settled = copy.settlements.iter().map(|(position, _)| &facts.calls[*position]).filter(|call| {
        let ends = matches!(call.call, Call::Settle { settlement: Settlement::Reject, .. });
        call.is_ok() && (ends || Facts::is_ack(call))
    });
    let revised = copy.revisions.iter().map(|position| &facts.calls[*position]).filter(|call| ends(call));
    settled.chain(revised).find(|other| other.ended_ns < call.invoked_ns).map(|other| other.index)
}

/// True of a recall or expiry that was done.
fn ends(call: &CallFacts<'_>) -> bool {
    matches!(call.call, Call::Revise { revision: Revision::Recall | Revision::Expire, .. })
        && matches!(call.answer, Some(Answer::Revised(Revised::Done)))
}

/// The event that shows the copy alive after the call ended.
fn alive_after(facts: &Facts<'_>, copy: &CopyFacts<'_>, call: &CallFacts<'_>) -> Option<u64> {
    let latest_ms = facts.machine.latest_ms(call.ended_ns);
    let leased = copy.leases.values().find(|lease| {
        let received = &facts.calls[lease.call];
        // What a stream brings may have been on the way for long; what a call brings was leased for this call.
        let asked_after = lease.consumer.is_none() && received.invoked_ns > call.ended_ns;
        asked_after || lease.leased_at_ms > latest_ms
    });
    let settled = copy.settlements.iter().map(|(position, _)| &facts.calls[*position]);
    let settled = settled.filter(|other| other.kind == Kind::Ok && other.invoked_ns > call.ended_ns);
    let revised = copy.revisions.iter().map(|position| &facts.calls[*position]).filter(|other| {
        let alive = matches!(other.answer, Some(Answer::Revised(Revised::Done | Revised::Leased)));
        alive && other.invoked_ns > call.ended_ns
    });
    let found = copy.found.map(|_| call.index);
    leased
        .map(|lease| facts.calls[lease.call].index)
        .or_else(|| settled.chain(revised).next().map(|other| other.index))
        .or(found)
}

/// The publish after which the copy cannot have been due when the call ended.
fn not_due(facts: &Facts<'_>, copy: &CopyFacts<'_>, call: &CallFacts<'_>) -> Option<u64> {
    let message = facts.publication(copy)?;
    let delay_ms = message.publication.delay_ms?;
    if facts.reschedulings(copy).next().is_some() {
        return None;
    }
    let published = message.calls.iter().map(|position| &facts.calls[*position]).min_by_key(|call| call.invoked_ns)?;
    let shortening_ms =
        facts.clocks.shortening_ms(published.invoked_ns, published.ended_ns.min(call.ended_ns), call.ended_ns);
    let due_ns = published.invoked_ns + delay_ms.saturating_sub(shortening_ms + 2) * NANOSECONDS;
    (call.ended_ns < due_ns).then_some(published.index)
}
