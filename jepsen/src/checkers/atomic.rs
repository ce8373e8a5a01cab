//! 10: a request, a fan-out, a dead-lettering and a transaction are done as a whole or not at all.

use std::collections::{BTreeMap, BTreeSet};

use super::{Invariant, Violation, seconds};
use crate::facts::{CallFacts, CopyFacts, CopyName, Facts};
use crate::history::{Answer, Call, History, Publication, Revised, Revision, Settlement};

pub(super) fn check(_: &History, facts: &Facts<'_>) -> Vec<Violation> {
    let seen_in = seen_in(facts);
    let mut violations = Vec::new();
    for call in &facts.calls {
        if let Call::Publish { messages, .. } | Call::Transact { messages, .. } = call.call {
            violations.extend(refused_and_stored(facts, call, messages));
            violations.extend(in_part(facts, call, messages));
            for message in messages.iter().filter(|message| message.through_exchange) {
                violations.extend(fan_out(facts, call, message, seen_in.get(&message.message)));
            }
        }
    }
    for (name, copy) in &facts.copies {
        violations.extend(not_dead_lettered(facts, *name, copy));
        violations.extend(delivered_after_death(facts, *name, copy));
    }
    violations
}

fn violation(call: &CallFacts<'_>, messages: Vec<u64>, reason: String) -> Violation {
    Violation { invariant: Invariant::Atomic, messages, events: vec![call.index], reason }
}

/// The queues where copies of each message were seen, alive or dead.
fn seen_in<'h>(facts: &Facts<'h>) -> BTreeMap<u64, BTreeSet<&'h str>> {
    let mut seen_in: BTreeMap<u64, BTreeSet<&str>> = BTreeMap::new();
    for (name, copy) in &facts.copies {
        if let Some(message) = copy.message {
            // A dead letter stands for the copy that died.
            let queue = copy.died.map_or(name.0, |(queue, _)| queue);
            seen_in.entry(message).or_default().insert(queue);
        }
    }
    seen_in
}

/// What every attempt was refused for must not be there.
fn refused_and_stored(facts: &Facts<'_>, call: &CallFacts<'_>, messages: &[Publication]) -> Vec<Violation> {
    if call.is_possible() {
        return Vec::new();
    }
    let stored = messages.iter().filter(|message| facts.is_seen(message.message)).filter(|message| {
        let calls = facts.messages.get(&message.message).map_or(&[][..], |message| &message.calls);
        calls.iter().all(|position| !facts.calls[*position].is_possible())
    });
    let stored: Vec<u64> = stored.map(|message| message.message).collect();
    let reason = format!("refused at {}, and stored all the same", seconds(call.ended_ns));
    if stored.is_empty() { Vec::new() } else { vec![violation(call, stored, reason)] }
}

/// Of a request of which no answer came, everything is there or nothing.
fn in_part(facts: &Facts<'_>, call: &CallFacts<'_>, messages: &[Publication]) -> Option<Violation> {
    if call.answer.is_some() || !call.is_possible() || !facts.all_is_read() {
        return None;
    }
    // What was recalled by its batch leaves no trace, nor does one of two with the same `dedupe_id`.
    let traced = messages.iter().filter(|message| message.batch.is_none() && message.dedupe_id.is_none());
    let (seen, unseen): (Vec<u64>, Vec<u64>) =
        traced.map(|message| message.message).partition(|message| facts.is_seen(*message));
    let reason = || format!("of one request {seen:x?} are stored, and {unseen:x?} are not");
    (!seen.is_empty() && !unseen.is_empty()).then(|| violation(call, unseen.clone(), reason()))
}

/// A message goes to all queues of an exchange or to none.
fn fan_out(
    facts: &Facts<'_>,
    call: &CallFacts<'_>,
    message: &Publication,
    seen_in: Option<&BTreeSet<&str>>,
) -> Option<Violation> {
    let exchange = facts.exchanges.get(message.to.as_str())?;
    let expected: BTreeSet<&str> = exchange.queues.iter().map(String::as_str).collect();
    if let (Some(Answer::Published(stored)), Call::Publish { messages, .. } | Call::Transact { messages, .. }) =
        (call.answer, call.call)
    {
        let position = messages.iter().position(|other| other.message == message.message)?;
        let answered: BTreeSet<&str> = stored.get(position)?.copies.iter().map(|copy| copy.queue.as_str()).collect();
        if answered != expected {
            let reason = format!("stored in {answered:?}, and should be in {expected:?}");
            return Some(violation(call, vec![message.message], reason));
        }
    }
    let seen_in = seen_in?;
    // Copies whose handles nobody was told cannot be recalled: they are seen in the end.
    let told = call.answer.is_some() || message.batch.is_some();
    if told || !facts.all_is_read() || *seen_in == expected {
        return None;
    }
    let reason = format!("seen in {seen_in:?} only, and should be in {expected:?}");
    Some(violation(call, vec![message.message], reason))
}

/// What was rejected, or let expire, is a dead letter.
fn not_dead_lettered<'h>(facts: &Facts<'h>, name: CopyName<'h>, copy: &CopyFacts<'h>) -> Option<Violation> {
    let queue = facts.queues.get(name.0)?;
    let message = copy.message?;
    if queue.dead_letters.is_none() || !facts.is_read(name.0) || facts.dead_letters(name, copy).is_some() {
        return None;
    }
    let rejected = copy.settlements.iter().map(|(position, _)| &facts.calls[*position]);
    let rejected = rejected
        .filter(|call| call.is_ok() && matches!(call.call, Call::Settle { settlement: Settlement::Reject, .. }));
    let expired = copy.revisions.iter().map(|position| &facts.calls[*position]).filter(|call| {
        matches!(call.call, Call::Revise { revision: Revision::Expire, .. })
            && matches!(call.answer, Some(Answer::Revised(Revised::Done)))
    });
    let call = rejected.chain(expired).next()?;
    let reason = format!("{}/{} died at {} and is no dead letter", name.0, name.1, seconds(call.ended_ns));
    Some(violation(call, vec![message], reason))
}

/// A copy whose dead letter was made is gone.
fn delivered_after_death<'h>(facts: &Facts<'h>, name: CopyName<'h>, copy: &CopyFacts<'h>) -> Option<Violation> {
    let letters = facts.dead_letters(name, copy)?;
    let died_ms = letters.iter().filter_map(|letter| facts.copies.get(letter)?.died).map(|(_, at_ms)| at_ms).min()?;
    let lease = copy.leases.values().find(|lease| lease.leased_at_ms > died_ms)?;
    let reason = format!(
        "{}/{} died at {died_ms} by machine time, and was leased at {} (received at {})",
        name.0,
        name.1,
        lease.leased_at_ms,
        seconds(lease.received_ns)
    );
    Some(violation(&facts.calls[lease.call], copy.message.into_iter().collect(), reason))
}
