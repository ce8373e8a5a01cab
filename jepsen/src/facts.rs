//! A history by copies, leases and calls, as the checkers look at it.
//!
//! Two clocks run through it. *True* times, in nanoseconds since the run began, are when clients sent and received.
//! *Machine* times, in milliseconds since the epoch, are the servers' own, which deliveries bring along. They are tied
//! together by calls alone: what was invoked after an answer came is later by both.

mod clocks;
mod machine;

use std::collections::{BTreeMap, BTreeSet};

use crate::history::{
    Answer, Call, Deed, Delivered, ExchangeFacts, Found, History, Kind, Lease, Process, Publication, QueueFacts,
    Revised, Revision, ScheduleFacts, Settlement, Stored, Value,
};

pub use self::clocks::ClockErrors;
pub use self::machine::MachineTimes;

/// Names a copy: its queue and sequence.
pub type CopyName<'h> = (&'h str, u64);

/// A copy that died, as its dead letter tells: the message, a schedule's due time, and the queue where it died.
pub type Deceased<'h> = (u64, Option<i64>, &'h str);

/// What is known from a history.
#[derive(Debug, Default)]
pub struct Facts<'h> {
    /// All calls, in the order of being made.
    pub calls: Vec<CallFacts<'h>>,
    /// Every copy that an answer named.
    pub copies: BTreeMap<CopyName<'h>, CopyFacts<'h>>,
    /// Every message that was published, by its number; not those of schedules.
    pub messages: BTreeMap<u64, MessageFacts<'h>>,
    /// Dead letters, by what died.
    pub dead: BTreeMap<Deceased<'h>, BTreeSet<CopyName<'h>>>,
    /// The declared queues.
    pub queues: BTreeMap<&'h str, &'h QueueFacts>,
    /// The declared exchanges.
    pub exchanges: BTreeMap<&'h str, &'h ExchangeFacts>,
    /// Schedules whose declaration was tried, and how often they had fired when they were stopped, if that is known.
    pub schedules: Vec<(&'h ScheduleFacts, Option<u64>)>,
    /// Queues that were read after everything was healed.
    pub read: BTreeMap<&'h str, u64>,
    /// When everything was healed.
    pub healed_ns: Option<u64>,
    /// How wrong clocks were.
    pub clocks: ClockErrors,
    /// What is known of machine time.
    pub machine: MachineTimes,
    /// Session timeouts of consumers, in milliseconds, the shortest.
    sessions: BTreeMap<&'h str, u64>,
    /// When consumers were first closed, perhaps.
    closed: BTreeMap<(&'h str, &'h str), u64>,
}

/// A call.
#[derive(Debug, Clone)]
pub struct CallFacts<'h> {
    /// Index of its invocation.
    pub index: u64,
    /// Whose.
    pub process: Process,
    /// What was asked.
    pub call: &'h Call,
    /// When it began.
    pub invoked_ns: u64,
    /// When it ended; `u64::MAX` if it did not.
    pub ended_ns: u64,
    /// How; `Info` if it did not.
    pub kind: Kind,
    /// What came back.
    pub answer: Option<&'h Answer>,
}

impl CallFacts<'_> {
    /// True if it certainly took effect.
    pub fn is_ok(&self) -> bool {
        self.kind == Kind::Ok
    }

    /// True if it may have taken effect.
    pub fn is_possible(&self) -> bool {
        self.kind != Kind::Fail
    }
}

/// A copy of a message in a queue. Calls are positions in [`Facts::calls`].
#[derive(Debug, Clone, Default)]
pub struct CopyFacts<'h> {
    /// Its message; none if no answer said.
    pub message: Option<u64>,
    /// When the first answer said that it is stored.
    pub confirmed_ns: Option<u64>,
    /// Leases seen, by token.
    pub leases: BTreeMap<u64, LeaseFacts<'h>>,
    /// Calls that settle a lease of it, with the token; transactions too.
    pub settlements: Vec<(usize, u64)>,
    /// Calls that revise it.
    pub revisions: Vec<usize>,
    /// Where it stood at the end.
    pub found: Option<&'h Found>,
    /// Of a schedule's message: the due time.
    pub schedule_due_ms: Option<i64>,
    /// Of a dead letter: where and when it died.
    pub died: Option<(&'h str, i64)>,
}

/// A lease that a client was given.
#[derive(Debug, Clone, Copy)]
pub struct LeaseFacts<'h> {
    /// What came.
    pub delivered: &'h Delivered,
    /// Which call brought it, the first time.
    pub call: usize,
    /// When.
    pub received_ns: u64,
    /// The stream's consumer.
    pub consumer: Option<&'h str>,
    /// Machine time when it was given.
    pub leased_at_ms: i64,
}

/// A published message.
#[derive(Debug, Clone)]
pub struct MessageFacts<'h> {
    /// As it was asked for.
    pub publication: &'h Publication,
    /// The calls that published it.
    pub calls: Vec<usize>,
}

/// How a copy can end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// Acknowledged, by itself or in a transaction.
    Acknowledged,
    /// Recalled.
    Recalled,
    /// Expired or rejected: dead-lettered, or dropped.
    Dead,
    /// Not ended: it was still there.
    Present,
}

/// How a copy ended, as far as clients know.
#[derive(Debug, Clone, Default)]
pub struct Endings {
    /// Certain ones, with the index of the call that tells; none if a reading at the end did.
    pub certain: Vec<(Ending, Option<u64>)>,
    /// Others that may have happened.
    pub possible: BTreeSet<Ending>,
}

impl<'h> Facts<'h> {
    /// Reads a history.
    pub fn of(history: &'h History) -> Facts<'h> {
        let mut facts = Facts::default();
        facts.read_deeds(history);
        facts.read_calls(history);
        for position in 0..facts.calls.len() {
            facts.take_call(position);
        }
        facts.clocks.close();
        facts.machine = MachineTimes::of(&facts);
        facts
    }

    fn read_deeds(&mut self, history: &'h History) {
        for event in &history.events {
            match &event.value {
                Value::Deed(Deed::Topology(topology)) => {
                    self.queues.extend(topology.queues.iter().map(|queue| (queue.name.as_str(), queue)));
                    self.exchanges.extend(topology.exchanges.iter().map(|exchange| (exchange.name.as_str(), exchange)));
                }
                Value::Deed(Deed::Clock { node, error_ms }) => self.clocks.set(node, event.time_ns, *error_ms),
                Value::Deed(Deed::Healed) => self.healed_ns = Some(event.time_ns),
                _ => {}
            }
        }
    }

    fn read_calls(&mut self, history: &'h History) {
        let mut open = BTreeMap::new();
        for event in &history.events {
            match &event.value {
                Value::Call(call) => {
                    open.insert(event.index, self.calls.len());
                    self.calls.push(CallFacts {
                        index: event.index,
                        process: event.process,
                        call,
                        invoked_ns: event.time_ns,
                        ended_ns: u64::MAX,
                        kind: Kind::Info,
                        answer: None,
                    });
                }
                Value::Answer { call, answer, .. } => {
                    if let Some(position) = open.remove(call) {
                        let call = &mut self.calls[position];
                        (call.ended_ns, call.kind, call.answer) = (event.time_ns, event.kind, answer.as_ref());
                    }
                }
                Value::Deed(_) => {}
            }
        }
    }

    fn take_call(&mut self, position: usize) {
        let CallFacts { call, answer, ended_ns, .. } = self.calls[position].clone();
        match (call, answer) {
            (Call::Publish { messages, .. }, answer) => self.take_publish(position, messages, answer),
            (Call::Transact { leases, messages }, answer) => {
                self.take_publish(position, messages, answer);
                leases.iter().for_each(|lease| self.take_settlement(position, lease));
            }
            (Call::Settle { lease, .. }, _) => self.take_settlement(position, lease),
            (Call::Revise { queue, sequence, .. }, _) => {
                self.copies.entry((queue, *sequence)).or_default().revisions.push(position);
            }
            (Call::Receive { queue, consumer }, Some(Answer::Received(deliveries))) => {
                for delivered in deliveries {
                    self.take_delivery(position, queue, consumer.as_deref(), delivered);
                }
            }
            (Call::OpenConsumer { consumer, session_timeout_ms, .. }, _) => {
                let shortest = self.sessions.entry(consumer).or_insert(*session_timeout_ms);
                *shortest = (*shortest).min(*session_timeout_ms);
            }
            (Call::CloseConsumer { queue, consumer }, _) => {
                let invoked_ns = self.calls[position].invoked_ns;
                self.closed.entry((queue, consumer)).or_insert(invoked_ns);
            }
            (Call::DeclareSchedule(schedule), _) => self.schedules.push((schedule, None)),
            (Call::StopSchedule { schedule: stopped }, Some(Answer::Schedule { fired })) => {
                for (schedule, known) in &mut self.schedules {
                    if schedule.schedule == *stopped {
                        *known = Some(*fired);
                    }
                }
            }
            (Call::Browse { queue }, Some(Answer::Found(found)))
                if self.healed_ns.is_some_and(|healed_ns| healed_ns <= ended_ns) =>
            {
                self.read.insert(queue, ended_ns);
                found.iter().for_each(|found| self.take_found(queue, found));
            }
            _ => {}
        }
    }

    fn take_publish(&mut self, position: usize, messages: &'h [Publication], answer: Option<&'h Answer>) {
        for publication in messages {
            let facts = MessageFacts { publication, calls: Vec::new() };
            self.messages.entry(publication.message).or_insert(facts).calls.push(position);
        }
        let Some(Answer::Published(stored)) = answer else { return };
        let ended_ns = self.calls[position].ended_ns;
        for (publication, Stored { copies, .. }) in messages.iter().zip(stored) {
            for stored in copies {
                let copy = self.copies.entry((&stored.queue, stored.sequence)).or_default();
                copy.confirmed_ns = Some(copy.confirmed_ns.map_or(ended_ns, |before| before.min(ended_ns)));
                // A duplicate of another message with its `dedupe_id` is not this one.
                if copy.message.is_none() && (!stored.duplicate || publication.dedupe_id.is_none()) {
                    copy.message = Some(publication.message);
                }
            }
        }
    }

    fn take_settlement(&mut self, position: usize, lease: &'h Lease) {
        let copy = self.copies.entry((&lease.queue, lease.sequence)).or_default();
        copy.settlements.push((position, lease.token));
    }

    fn take_delivery(&mut self, call: usize, queue: &'h str, consumer: Option<&'h str>, delivered: &'h Delivered) {
        let timeout_ms = self.queues.get(queue).map_or(0, |queue| queue.lease_timeout_ms);
        let lease = LeaseFacts {
            delivered,
            call,
            received_ns: self.calls[call].ended_ns,
            consumer,
            // The first time that a token comes, nobody can have extended its lease.
            leased_at_ms: delivered.deadline_ms.saturating_sub_unsigned(timeout_ms),
        };
        let copy = self.copies.entry((queue, delivered.sequence)).or_default();
        copy.message = Some(delivered.message);
        copy.schedule_due_ms = delivered.schedule_due_ms;
        copy.died = delivered.died.as_ref().map(|(queue, at_ms)| (queue.as_str(), *at_ms));
        // A consumer that attaches again is sent the same lease again.
        copy.leases
            .entry(delivered.token)
            .and_modify(|known| {
                if lease.received_ns < known.received_ns {
                    *known = lease;
                }
            })
            .or_insert(lease);
        if let Some((died_in, _)) = &delivered.died {
            self.dead
                .entry((delivered.message, delivered.schedule_due_ms, died_in))
                .or_default()
                .insert((queue, delivered.sequence));
        }
    }

    fn take_found(&mut self, queue: &'h str, found: &'h Found) {
        let copy = self.copies.entry((queue, found.sequence)).or_default();
        copy.message = Some(found.message);
        copy.found = Some(found);
        copy.schedule_due_ms = found.schedule_due_ms;
        copy.died = found.died.as_ref().map(|(queue, at_ms)| (queue.as_str(), *at_ms));
        if let Some((died_in, _)) = &found.died {
            self.dead
                .entry((found.message, found.schedule_due_ms, died_in))
                .or_default()
                .insert((queue, found.sequence));
        }
    }

    /// What a copy was published as; none of dead letters and of messages of schedules.
    pub fn publication(&self, copy: &CopyFacts<'h>) -> Option<&MessageFacts<'h>> {
        if copy.died.is_some() {
            return None;
        }
        copy.message.and_then(|message| self.messages.get(&message))
    }

    /// True if a queue was read at the end, and so was where its dead letters go: nothing in them escaped.
    pub fn is_read(&self, queue: &str) -> bool {
        let dead_letters = self.queues.get(queue).and_then(|queue| queue.dead_letters.as_deref());
        self.read.contains_key(queue) && dead_letters.is_none_or(|queue| self.read.contains_key(queue))
    }

    /// True if everything was.
    pub fn all_is_read(&self) -> bool {
        !self.queues.is_empty() && self.queues.keys().all(|queue| self.read.contains_key(queue))
    }

    /// The shortest session timeout of a consumer, in milliseconds.
    pub fn session_timeout_ms(&self, consumer: &str) -> u64 {
        self.sessions.get(consumer).copied().unwrap_or(0)
    }

    /// The dead letters of a copy; one, if all is well.
    pub fn dead_letters(&self, name: CopyName<'h>, copy: &CopyFacts<'h>) -> Option<&BTreeSet<CopyName<'h>>> {
        let message = copy.message.filter(|_| copy.died.is_none())?;
        self.dead.get(&(message, copy.schedule_due_ms, name.0))
    }

    /// When a consumer was first asked to close.
    pub fn closed(&self, queue: &str, consumer: &str) -> Option<u64> {
        self.closed.get(&(queue, consumer)).copied()
    }

    /// True if some copy or dead letter of the message was seen: it was certainly stored.
    pub fn is_seen(&self, message: u64) -> bool {
        self.machine.seen.contains(&message)
    }

    /// The times at which a copy was perhaps given another due time: the call, and the delay.
    pub fn reschedulings(&self, copy: &CopyFacts<'h>) -> impl Iterator<Item = (&CallFacts<'h>, u64)> {
        copy.revisions.iter().filter_map(|position| {
            let call = &self.calls[*position];
            match call.call {
                Call::Revise { revision: Revision::Reschedule { delay_ms }, .. } if call.is_possible() => {
                    Some((call, *delay_ms))
                }
                _ => None,
            }
        })
    }

    /// Whether a settlement acknowledged; none if it was something else.
    pub fn is_ack(call: &CallFacts<'_>) -> bool {
        matches!(call.call, Call::Settle { settlement: Settlement::Ack, .. } | Call::Transact { .. })
    }

    /// How a copy ended.
    pub fn endings(&self, name: CopyName<'h>, copy: &CopyFacts<'h>) -> Endings {
        let mut endings = Endings::default();
        for (position, _) in &copy.settlements {
            self.settlement_ends(&self.calls[*position], &mut endings);
        }
        for position in &copy.revisions {
            self.revision_ends(&self.calls[*position], &mut endings);
        }
        if let Some(message) = self.publication(copy)
            && let Some(batch) = message.publication.batch
            && self.machine.recalled_batches.contains(&(name.0.to_owned(), batch))
        {
            endings.possible.insert(Ending::Recalled);
        }
        let is_known = endings.certain.iter().any(|(ending, _)| *ending == Ending::Dead);
        if self.dead_letters(name, copy).is_some() && !is_known {
            endings.certain.push((Ending::Dead, None));
        }
        if self.queues.get(name.0).is_some_and(|queue| queue.dead_letters.is_none()) {
            // What dies there leaves no trace.
            endings.possible.insert(Ending::Dead);
        }
        if copy.found.is_some() {
            endings.certain.push((Ending::Present, None));
        }
        endings
    }

    fn settlement_ends(&self, call: &CallFacts<'h>, endings: &mut Endings) {
        match call.call {
            Call::Settle { settlement: Settlement::Ack, .. } if call.is_ok() => {
                endings.certain.push((Ending::Acknowledged, Some(call.index)));
            }
            Call::Settle { settlement: Settlement::Ack, .. } if call.is_possible() => {
                endings.possible.insert(Ending::Acknowledged);
            }
            Call::Settle { settlement: Settlement::Reject, .. } if call.is_ok() => {
                endings.certain.push((Ending::Dead, Some(call.index)));
            }
            Call::Transact { messages, .. } if call.is_possible() => {
                let seen = messages.iter().any(|message| self.is_seen(message.message));
                if call.is_ok() || seen {
                    endings.certain.push((Ending::Acknowledged, Some(call.index)));
                } else if messages.is_empty() || !self.all_is_read() {
                    // What it publishes could not have escaped; without it, it is not done either.
                    endings.possible.insert(Ending::Acknowledged);
                }
            }
            _ => {}
        }
    }

    fn revision_ends(&self, call: &CallFacts<'h>, endings: &mut Endings) {
        let Call::Revise { revision, .. } = call.call else { return };
        let ending = match revision {
            Revision::Recall => Ending::Recalled,
            Revision::Expire => Ending::Dead,
            Revision::Reschedule { .. } => return,
        };
        match call.answer {
            Some(Answer::Revised(Revised::Done)) => endings.certain.push((ending, Some(call.index))),
            Some(Answer::Revised(Revised::DoneOrGone)) => drop(endings.possible.insert(ending)),
            // An expiry leaves a dead letter, wherever those are kept: it needs no excuse.
            None if call.is_possible() && ending == Ending::Recalled => drop(endings.possible.insert(ending)),
            _ => {}
        }
    }
}
