//! Things that must not be, put into a history in which they are not. Each says whether the history allowed for it.

use rand::RngExt;
use rand::rngs::StdRng;

use crate::checkers::Invariant;
use crate::facts::{Ending, Facts};
use crate::history::*;

type Mutation = fn(&mut History, &mut StdRng) -> bool;

pub(super) const ALL: &[(&str, Invariant, Mutation)] = &[
    ("an acknowledged message was not acknowledged, and is nowhere", Invariant::Loss, unacknowledged),
    ("a recalled message was not recalled, and is nowhere", Invariant::Loss, unrecalled),
    ("a message came before what was asked for", Invariant::Early, asked_for_later),
    ("a message was leased before it was ready", Invariant::Early, leased_early),
    ("a message came a minute after the healing", Invariant::Late, a_minute_late),
    ("a queue could not be read", Invariant::Late, unreadable),
    ("a recalled message was delivered", Invariant::Recall, recalled_and_delivered),
    ("a message that was gone was delivered", Invariant::Recall, gone_and_delivered),
    ("a stored message was unknown", Invariant::Recall, unknown),
    ("an acknowledged message is still there", Invariant::Endings, acknowledged_and_there),
    ("a message was acknowledged twice", Invariant::Endings, acknowledged_twice),
    ("a repeated request was stored again", Invariant::StoredOnce, repeated_and_stored),
    ("two messages of one dedupe id were stored", Invariant::StoredOnce, both_stored),
    ("a stale token acknowledged", Invariant::Leases, stale_ack),
    ("two leases of one message at a time", Invariant::Leases, leased_twice),
    ("a lease was given while one had time to go", Invariant::Leases, leased_too_soon),
    ("a group was delivered out of order", Invariant::Order, group_swapped),
    ("a lower priority went first", Invariant::Order, priorities_swapped),
    ("a due time did not fire", Invariant::Schedules, not_fired),
    ("a due time fired twice", Invariant::Schedules, fired_twice),
    ("a copy of a fan-out is missing", Invariant::Atomic, copy_missing),
    ("a refused transaction published", Invariant::Atomic, refused_and_published),
    ("a dead letter is missing", Invariant::Atomic, no_dead_letter),
    ("a digest differs", Invariant::Digests, digest_differs),
    ("a third node differs", Invariant::Digests, third_digest_differs),
];

/// A position chosen among those that fit.
fn choose<T: Clone>(random: &mut StdRng, fitting: Vec<T>) -> Option<T> {
    if fitting.is_empty() { None } else { Some(fitting[random.random_range(0..fitting.len())].clone()) }
}

/// Changes the completion of a call.
fn complete(history: &mut History, call_index: u64, kind: Kind, changed: Option<Answer>) {
    for event in &mut history.events {
        if let Value::Answer { call, answer, .. } = &mut event.value
            && *call == call_index
        {
            (event.kind, *answer) = (kind, changed.clone());
        }
    }
}

/// Makes a call and its answer, just before another event.
fn insert(history: &mut History, before: u64, call: Call, answer: Answer) {
    let at = before as usize;
    let (time_ns, function) = (history.events[at].time_ns, call.function());
    for event in &mut history.events {
        event.index += if event.index >= before { 2 } else { 0 };
        if let Value::Answer { call, .. } = &mut event.value
            && *call >= before
        {
            *call += 2;
        }
    }
    // Nothing else happens at that very moment.
    for event in &mut history.events[at..] {
        event.time_ns += 2;
    }
    let process = Process::Client(9);
    let invoke = Event { index: before, process, kind: Kind::Invoke, function, time_ns, value: Value::Call(call) };
    let value = Value::Answer { call: before, answer: Some(answer), error: None };
    let ok = Event { index: before + 1, process, kind: Kind::Ok, function, time_ns: time_ns + 1, value };
    history.events.splice(at..at, [invoke, ok]);
}

/// Every delivery, to be changed.
fn deliveries(history: &mut History) -> impl Iterator<Item = &mut Delivered> {
    history.events.iter_mut().flat_map(|event| match &mut event.value {
        Value::Answer { answer: Some(Answer::Received(deliveries)), .. } => deliveries.iter_mut(),
        _ => [].iter_mut(),
    })
}

/// Calls that settled a copy, of which exactly this is known.
fn ended(history: &History, wanted: Ending) -> Vec<(u64, u64)> {
    let facts = Facts::of(history);
    let ended = facts.copies.iter().filter_map(|(name, copy)| {
        let endings = facts.endings(*name, copy);
        let [(ending, Some(index))] = endings.certain[..] else { return None };
        let seen = copy.confirmed_ns.is_some() || !copy.leases.is_empty();
        (ending == wanted && endings.possible.is_empty() && seen).then_some((name.1, index))
    });
    ended.collect()
}

fn unacknowledged(history: &mut History, random: &mut StdRng) -> bool {
    let acks = ended(history, Ending::Acknowledged);
    let alone = |index: u64| matches!(&history.events[index as usize].value, Value::Call(Call::Settle { .. }));
    let chosen = choose(random, acks.into_iter().filter(|(_, index)| alone(*index)).collect());
    chosen.inspect(|(_, index)| complete(history, *index, Kind::Fail, None)).is_some()
}

fn unrecalled(history: &mut History, random: &mut StdRng) -> bool {
    let recalls = ended(history, Ending::Recalled);
    let gone = Some(Answer::Revised(Revised::Gone));
    choose(random, recalls).inspect(|(_, index)| complete(history, *index, Kind::Ok, gone.clone())).is_some()
}

fn asked_for_later(history: &mut History, random: &mut StdRng) -> bool {
    let facts = Facts::of(history);
    let fitting =
        facts.copies.values().filter(|copy| copy.leases.values().any(|lease| lease.delivered.delivery_count == 0));
    let fitting = fitting.filter(|copy| copy.revisions.is_empty() && facts.publication(copy).is_some());
    let Some(chosen) = choose(random, fitting.filter_map(|copy| copy.message).collect()) else { return false };
    for event in &mut history.events {
        if let Value::Call(Call::Publish { messages, .. } | Call::Transact { messages, .. }) = &mut event.value {
            for message in messages.iter_mut().filter(|message| message.message == chosen) {
                message.delay_ms = Some(60_000);
            }
        }
    }
    true
}

fn leased_early(history: &mut History, random: &mut StdRng) -> bool {
    let count = deliveries(history).count();
    let Some(chosen) = choose(random, (0..count).collect()) else { return false };
    deliveries(history).nth(chosen).unwrap().deadline_ms -= 20_000;
    true
}

fn a_minute_late(history: &mut History, random: &mut StdRng) -> bool {
    let facts = Facts::of(history);
    let healed_ns = facts.healed_ns.unwrap();
    let late = facts.copies.values().filter(|copy| copy.confirmed_ns.is_some() && facts.publication(copy).is_some());
    let late = late.filter(|copy| facts.reschedulings(copy).next().is_none());
    let late = late.filter_map(|copy| copy.leases.values().min_by_key(|lease| lease.received_ns));
    let late = late.filter(|lease| lease.received_ns > healed_ns && lease.delivered.delivery_count == 0);
    let Some(index) = choose(random, late.map(|lease| facts.calls[lease.call].index).collect()) else { return false };
    for event in history.events.iter_mut().skip(index as usize) {
        event.time_ns += 60_000_000_000;
    }
    true
}

fn unreadable(history: &mut History, random: &mut StdRng) -> bool {
    let browses = history.events.iter().filter(|event| matches!(event.value, Value::Call(Call::Browse { .. })));
    let chosen = choose(random, browses.map(|event| event.index).collect());
    chosen.inspect(|index| complete(history, *index, Kind::Info, None)).is_some()
}

fn revised_before_delivery(history: &mut History, random: &mut StdRng, revised: Revised) -> bool {
    let facts = Facts::of(history);
    let polled = facts.copies.iter().flat_map(|(name, copy)| copy.leases.values().map(move |lease| (name, lease)));
    let polled = polled.filter(|(_, lease)| lease.consumer.is_none());
    let polled = polled.map(|(name, lease)| (name.0.to_owned(), name.1, facts.calls[lease.call].index));
    let Some((queue, sequence, before)) = choose(random, polled.collect()) else { return false };
    let call = Call::Revise { queue, sequence, revision: Revision::Recall, revoke: false };
    insert(history, before, call, Answer::Revised(revised));
    true
}

fn recalled_and_delivered(history: &mut History, random: &mut StdRng) -> bool {
    revised_before_delivery(history, random, Revised::Done)
}

fn gone_and_delivered(history: &mut History, random: &mut StdRng) -> bool {
    revised_before_delivery(history, random, Revised::Gone)
}

fn unknown(history: &mut History, random: &mut StdRng) -> bool {
    let facts = Facts::of(history);
    let revised = facts.calls.iter().filter(|call| call.is_ok() && matches!(call.call, Call::Revise { .. }));
    let Some(index) = choose(random, revised.map(|call| call.index).collect()) else { return false };
    complete(history, index, Kind::Ok, Some(Answer::Revised(Revised::Unknown)));
    true
}

fn acknowledged_and_there(history: &mut History, random: &mut StdRng) -> bool {
    let acks = ended(history, Ending::Acknowledged);
    let Some((sequence, index)) = choose(random, acks) else { return false };
    let Value::Call(Call::Settle { lease, .. }) = &history.events[index as usize].value else { return false };
    let lease = lease.clone();
    let browse = history.events.iter().find_map(|event| match &event.value {
        Value::Call(Call::Browse { queue }) if *queue == lease.queue => Some(event.index),
        _ => None,
    });
    let found = Found { message: 1, sequence, state: State::Ready, ready_at_ms: 0, schedule_due_ms: None, died: None };
    complete(history, browse.unwrap(), Kind::Ok, Some(Answer::Found(vec![found])));
    true
}

fn acknowledged_twice(history: &mut History, random: &mut StdRng) -> bool {
    let acks = ended(history, Ending::Acknowledged);
    let Some((_, index)) = choose(random, acks) else { return false };
    let Value::Call(call @ Call::Settle { .. }) = history.events[index as usize].value.clone() else { return false };
    let before = history.events.len() as u64 - 1;
    insert(history, before, call, Answer::Done);
    true
}

/// The last of several requests, whose one message becomes another copy.
fn stored_elsewhere(
    history: &mut History,
    fits: impl Fn(&Option<(String, u64)>, &Publication) -> Option<String>,
) -> bool {
    let mut seen = std::collections::BTreeSet::new();
    let facts = Facts::of(history);
    let mut chosen = None;
    for call in facts.calls.iter().filter(|call| call.is_ok()) {
        if let Call::Publish { producer, messages } = call.call
            && let Some(key) = fits(producer, &messages[0])
            && !seen.insert(key)
        {
            chosen = Some((call.index, messages[0].to.clone()));
        }
    }
    let Some((index, queue)) = chosen else { return false };
    let copies = vec![StoredCopy { queue, sequence: 1_000_000, duplicate: false }];
    complete(history, index, Kind::Ok, Some(Answer::Published(vec![Stored { copies, refused: None }])));
    true
}

fn repeated_and_stored(history: &mut History, _: &mut StdRng) -> bool {
    stored_elsewhere(history, |producer, _| producer.as_ref().map(|producer| producer.0.clone()))
}

fn both_stored(history: &mut History, _: &mut StdRng) -> bool {
    stored_elsewhere(history, |_, message| message.dedupe_id.clone())
}

fn stale_ack(history: &mut History, random: &mut StdRng) -> bool {
    let facts = Facts::of(history);
    let stale = facts.copies.values().flat_map(|copy| {
        let last = copy.leases.values().map(|lease| lease.delivered.delivery_count).max().unwrap_or(0);
        let refused = copy.settlements.iter().filter(|(position, _)| {
            let call = &facts.calls[*position];
            call.kind == Kind::Fail && matches!(call.call, Call::Settle { settlement: Settlement::Ack, .. })
        });
        let facts = &facts;
        refused.filter_map(move |(position, token)| {
            let lease = copy.leases.get(token)?;
            (lease.delivered.delivery_count < last).then_some(facts.calls[*position].index)
        })
    });
    let chosen = choose(random, stale.collect());
    chosen.inspect(|index| complete(history, *index, Kind::Ok, Some(Answer::Done))).is_some()
}

fn leased_twice(history: &mut History, random: &mut StdRng) -> bool {
    let received = history.events.iter().enumerate().filter_map(|(at, event)| match &event.value {
        Value::Answer { answer: Some(Answer::Received(received)), .. } if !received.is_empty() => Some(at),
        _ => None,
    });
    let Some(at) = choose(random, received.collect()) else { return false };
    let Value::Answer { answer: Some(Answer::Received(received)), .. } = &mut history.events[at].value else {
        return false;
    };
    let second = Delivered { token: 1_000_000, ..received[0].clone() };
    received.push(second);
    true
}

fn leased_too_soon(history: &mut History, random: &mut StdRng) -> bool {
    let facts = Facts::of(history);
    let timed_out = facts.copies.values().filter_map(|copy| {
        let mut leases: Vec<_> = copy.leases.values().collect();
        leases.sort_by_key(|lease| lease.delivered.delivery_count);
        let pair = leases.windows(2).find(|pair| {
            let next = pair[1].delivered.delivery_count == pair[0].delivered.delivery_count + 1;
            let given_up = copy.settlements.iter().any(|(_, token)| *token == pair[0].delivered.token);
            next && !given_up && pair[0].consumer.is_none()
        })?;
        Some((pair[0].delivered.token, pair[1].leased_at_ms))
    });
    let Some((chosen, leased_ms)) = choose(random, timed_out.collect()) else { return false };
    // It was given later than it was, just before the next one.
    for delivered in deliveries(history).filter(|delivered| delivered.token == chosen) {
        delivered.deadline_ms = leased_ms + 300;
    }
    true
}

/// Exchanges when two messages were first leased, if the first must have gone first.
fn swapped(history: &mut History, random: &mut StdRng, grouped: bool) -> bool {
    let facts = Facts::of(history);
    let mut first = Vec::new();
    for (name, copy) in &facts.copies {
        let Some(message) = facts.publication(copy).map(|message| message.publication) else { continue };
        let simple = copy.leases.len() == 1 && copy.revisions.is_empty() && message.delay_ms.is_none();
        let Some(lease) = copy.leases.values().next().filter(|lease| simple && lease.delivered.delivery_count == 0)
        else {
            continue;
        };
        if message.group.is_some() == grouped && (grouped || name.0 == "work" || name.0 == "in") {
            let lane = (name.0, message.group.as_deref());
            first.push((lane, std::cmp::Reverse(message.priority), lease.delivered, lease.leased_at_ms));
        }
    }
    let mut pairs = Vec::new();
    for one in &first {
        for other in &first {
            let both_there = other.2.published_at_ms < one.3 && one.2.published_at_ms < one.3;
            let ahead = (one.1, one.2.ready_at_ms, one.2.sequence) < (other.1, other.2.ready_at_ms, other.2.sequence);
            if one.0 == other.0 && both_there && ahead && one.3 < other.3 {
                pairs.push((one.2.token, one.2.deadline_ms, other.2.token, other.2.deadline_ms));
            }
        }
    }
    let Some((one, one_ms, other, other_ms)) = choose(random, pairs) else { return false };
    for delivered in deliveries(history) {
        if delivered.token == one {
            delivered.deadline_ms = other_ms;
        } else if delivered.token == other {
            delivered.deadline_ms = one_ms;
        }
    }
    true
}

fn group_swapped(history: &mut History, random: &mut StdRng) -> bool {
    swapped(history, random, true)
}

fn priorities_swapped(history: &mut History, random: &mut StdRng) -> bool {
    swapped(history, random, false)
}

/// A firing that is neither the first nor the last.
fn firing(history: &mut History, random: &mut StdRng) -> Option<(i64, i64)> {
    let mut due: Vec<i64> = deliveries(history).filter_map(|delivered| delivered.schedule_due_ms).collect();
    due.sort_unstable();
    due.dedup();
    choose(random, due.windows(3).map(|due| (due[0], due[1])).collect())
}

fn not_fired(history: &mut History, random: &mut StdRng) -> bool {
    let Some((_, due_ms)) = firing(history, random) else { return false };
    for event in &mut history.events {
        match &mut event.value {
            Value::Answer { answer: Some(Answer::Received(received)), .. } => {
                received.retain(|delivered| delivered.schedule_due_ms != Some(due_ms));
            }
            Value::Answer { answer: Some(Answer::Found(found)), .. } => {
                found.retain(|found| found.schedule_due_ms != Some(due_ms));
            }
            _ => {}
        }
    }
    true
}

fn fired_twice(history: &mut History, random: &mut StdRng) -> bool {
    let Some((before_ms, due_ms)) = firing(history, random) else { return false };
    for delivered in deliveries(history).filter(|delivered| delivered.schedule_due_ms == Some(due_ms)) {
        delivered.schedule_due_ms = Some(before_ms);
    }
    true
}

fn copy_missing(history: &mut History, random: &mut StdRng) -> bool {
    let facts = Facts::of(history);
    let fanned = facts.calls.iter().filter(|call| match call.call {
        Call::Publish { messages, .. } => call.is_ok() && messages[0].through_exchange,
        _ => false,
    });
    let fanned = fanned.filter_map(|call| Some((call.index, call.answer?.clone())));
    let Some((index, Answer::Published(mut stored))) = choose(random, fanned.collect()) else { return false };
    stored[0].copies.pop();
    complete(history, index, Kind::Ok, Some(Answer::Published(stored)));
    true
}

fn refused_and_published(history: &mut History, random: &mut StdRng) -> bool {
    let facts = Facts::of(history);
    let done = facts.calls.iter().filter(|call| match call.call {
        Call::Transact { messages, .. } => {
            // Seen by other ways than by this answer.
            let delivered = |message: &Publication| {
                let mut copies = facts.copies.values().filter(|copy| copy.message == Some(message.message));
                copies.any(|copy| !copy.leases.is_empty() || copy.found.is_some())
            };
            call.is_ok() && messages.iter().any(delivered)
        }
        _ => false,
    });
    let Some(index) = choose(random, done.map(|call| call.index).collect()) else { return false };
    complete(history, index, Kind::Fail, None);
    true
}

fn no_dead_letter(history: &mut History, random: &mut StdRng) -> bool {
    let dead: Vec<u64> = ended(history, Ending::Dead).into_iter().map(|(sequence, _)| sequence).collect();
    let facts = Facts::of(history);
    let letters = facts.copies.iter().filter(|(name, _)| dead.contains(&name.1));
    let letters = letters.filter_map(|(name, copy)| facts.dead_letters(*name, copy)?.first().map(|letter| letter.1));
    let Some(chosen) = choose(random, letters.collect()) else { return false };
    for event in &mut history.events {
        if let Value::Answer { answer: Some(Answer::Found(found)), .. } = &mut event.value {
            found.retain(|found| found.sequence != chosen);
        }
    }
    true
}

fn digest_differs(history: &mut History, random: &mut StdRng) -> bool {
    let digests = history.events.iter().filter(|event| event.function == Function::Digest).map(|event| event.index);
    let Some(chosen) = choose(random, digests.collect()) else { return false };
    if let Value::Deed(Deed::Digest { digest, .. }) = &mut history.events[chosen as usize].value {
        digest.push('x');
    }
    true
}

fn third_digest_differs(history: &mut History, _: &mut StdRng) -> bool {
    let Some(last) = history.events.last().cloned() else { return false };
    let deed = Deed::Digest { node: "n3".into(), applied_index: 50, digest: "other".into() };
    history.events.push(Event {
        index: last.index + 1,
        process: Process::Nemesis,
        kind: Kind::Info,
        function: Function::Digest,
        time_ns: last.time_ns,
        value: Value::Deed(deed),
    });
    true
}
