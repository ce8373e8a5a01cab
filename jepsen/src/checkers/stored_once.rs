//! 6: a request that is sent again is stored once, and so are messages with one `dedupe_id`.

use std::collections::{BTreeMap, BTreeSet};

use super::{Invariant, Violation};
use crate::facts::{CopyName, Facts};
use crate::history::{Answer, Call, History};

pub(super) fn check(_: &History, facts: &Facts<'_>) -> Vec<Violation> {
    let mut violations = copies(facts);
    violations.extend(answers(facts));
    violations
}

/// What has one `dedupe_id` in one queue.
#[derive(Default)]
struct Alike {
    sequences: BTreeSet<u64>,
    messages: BTreeSet<u64>,
}

/// The first answer to a request: the index of its call, and the copies it named.
type FirstAnswer<'h> = (u64, Vec<CopyName<'h>>);

/// Of each message, and of each `dedupe_id`, one copy in a queue.
fn copies(facts: &Facts<'_>) -> Vec<Violation> {
    let mut by_message: BTreeMap<(&str, u64), BTreeSet<u64>> = BTreeMap::new();
    let mut by_dedupe_id: BTreeMap<(&str, &str), Alike> = BTreeMap::new();
    for ((queue, sequence), copy) in &facts.copies {
        let Some(message) = facts.publication(copy) else { continue };
        let number = message.publication.message;
        by_message.entry((queue, number)).or_default().insert(*sequence);
        if let Some(dedupe_id) = &message.publication.dedupe_id {
            let alike = by_dedupe_id.entry((queue, dedupe_id)).or_default();
            alike.sequences.insert(*sequence);
            alike.messages.insert(number);
        }
    }
    let twice = by_message.into_iter().filter(|(_, sequences)| sequences.len() > 1);
    let twice = twice.map(|((queue, message), sequences)| violation(facts, &[message], queue, &sequences));
    // One message that is stored twice is in the other list.
    let alike = by_dedupe_id.into_iter().filter(|(_, alike)| alike.sequences.len() > 1 && alike.messages.len() > 1);
    let alike = alike.map(|((queue, _), alike)| {
        let messages: Vec<u64> = alike.messages.into_iter().collect();
        violation(facts, &messages, queue, &alike.sequences)
    });
    twice.chain(alike).collect()
}

fn violation(facts: &Facts<'_>, messages: &[u64], queue: &str, sequences: &BTreeSet<u64>) -> Violation {
    let calls = messages.iter().filter_map(|message| facts.messages.get(message)).flat_map(|message| &message.calls);
    Violation {
        invariant: Invariant::StoredOnce,
        messages: messages.to_vec(),
        events: calls.map(|position| facts.calls[*position].index).collect(),
        reason: format!("stored in {queue} {} times, as {sequences:?}", sequences.len()),
    }
}

/// Each answer to a request of one number is the first one's.
fn answers(facts: &Facts<'_>) -> Vec<Violation> {
    let mut first: BTreeMap<&(String, u64), FirstAnswer<'_>> = BTreeMap::new();
    let mut violations = Vec::new();
    for call in &facts.calls {
        let (Call::Publish { producer: Some(producer), messages }, Some(Answer::Published(stored))) =
            (call.call, call.answer)
        else {
            continue;
        };
        let copies = stored.iter().flat_map(|stored| &stored.copies);
        let copies: Vec<_> = copies.map(|copy| (copy.queue.as_str(), copy.sequence)).collect();
        let (index, known) = first.entry(producer).or_insert_with(|| (call.index, copies.clone()));
        if *known != copies {
            violations.push(Violation {
                invariant: Invariant::StoredOnce,
                messages: messages.iter().map(|message| message.message).collect(),
                events: vec![*index, call.index],
                reason: format!("request {} of {} was answered {known:?}, then {copies:?}", producer.1, producer.0),
            });
        }
    }
    violations
}
