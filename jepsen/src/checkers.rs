//! What must hold, one module for each invariant.
//!
//! A call whose outcome is unknown happened or did not: whatever fits either is no violation. What the servers say of
//! themselves (the due times, deadlines and counts that come with deliveries) is held against what clients asked for and
//! saw, and against itself.

mod atomic;
mod digests;
mod early;
mod endings;
mod late;
mod leases;
mod loss;
mod order;
mod recall;
mod schedules;
mod stored_once;
mod summary;

use std::fmt;

use serde::Serialize;

use crate::facts::Facts;
use crate::history::History;

pub use self::summary::{Distribution, Outage, Recovery, Summary};

/// An invariant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Invariant {
    /// 1: no confirmed message is lost.
    Loss,
    /// 2: nothing is delivered before it is due.
    Early,
    /// 3: when everything is healed, everything that is due comes out.
    Late,
    /// 4: answers to recalls are true.
    Recall,
    /// 5: a copy ends in one way.
    Endings,
    /// 6: what is published again is stored once.
    StoredOnce,
    /// 7: one lease at a time, and no stale one acknowledges.
    Leases,
    /// 8: ordering groups and priorities.
    Order,
    /// 9: each due time of a schedule fires once.
    Schedules,
    /// 10: fan-out, dead-lettering and transactions are done as a whole.
    Atomic,
    /// 11: replicas agree.
    Digests,
}

impl Invariant {
    /// All of them.
    pub const ALL: [Invariant; 11] = [
        Invariant::Loss,
        Invariant::Early,
        Invariant::Late,
        Invariant::Recall,
        Invariant::Endings,
        Invariant::StoredOnce,
        Invariant::Leases,
        Invariant::Order,
        Invariant::Schedules,
        Invariant::Atomic,
        Invariant::Digests,
    ];

    /// From 1.
    pub fn number(self) -> usize {
        self as usize + 1
    }

    /// What it promises.
    pub fn promise(self) -> &'static str {
        match self {
            Invariant::Loss => "no confirmed message is lost",
            Invariant::Early => "nothing is delivered before it is due",
            Invariant::Late => "after the last fault, everything due comes out",
            Invariant::Recall => "answers to recalls are true",
            Invariant::Endings => "a copy ends in one way",
            Invariant::StoredOnce => "what is published again is stored once",
            Invariant::Leases => "one lease at a time, and no stale one acknowledges",
            Invariant::Order => "groups and priorities are in order",
            Invariant::Schedules => "each due time of a schedule fires once",
            Invariant::Atomic => "fan-out, dead letters and transactions are done as a whole",
            Invariant::Digests => "replicas agree",
        }
    }

    fn check(self, history: &History, facts: &Facts<'_>) -> Vec<Violation> {
        let check = match self {
            Invariant::Loss => loss::check,
            Invariant::Early => early::check,
            Invariant::Late => late::check,
            Invariant::Recall => recall::check,
            Invariant::Endings => endings::check,
            Invariant::StoredOnce => stored_once::check,
            Invariant::Leases => leases::check,
            Invariant::Order => order::check,
            Invariant::Schedules => schedules::check,
            Invariant::Atomic => atomic::check,
            Invariant::Digests => digests::check,
        };
        check(history, facts)
    }
}

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// The messages concerned, by their numbers.
    pub messages: Vec<u64>,
    /// Indexes of events that contradict each other, as far as they are known.
    pub events: Vec<u64>,
    /// What is wrong, with the times.
    pub reason: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Violation { invariant, messages, events, reason } = self;
        write!(formatter, "{} {}: {reason}", invariant.number(), invariant.promise())?;
        write!(formatter, " (messages {messages:x?}, events {events:?})")
    }
}

/// What a history comes to.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Everything that must not be.
    pub violations: Vec<Violation>,
    /// What could not be judged, and why.
    pub unchecked: Vec<String>,
    /// Counts and times.
    pub summary: Summary,
}

impl Report {
    /// True if nothing is wrong.
    pub fn is_valid(&self) -> bool {
        self.violations.is_empty()
    }
}

/// Judges a history.
pub fn check_all(history: &History) -> Report {
    let facts = Facts::of(history);
    let violations = Invariant::ALL.iter().flat_map(|invariant| invariant.check(history, &facts)).collect();
    Report { violations, unchecked: unchecked(&facts), summary: Summary::of(history, &facts) }
}

fn unchecked(facts: &Facts<'_>) -> Vec<String> {
    let mut unchecked = Vec::new();
    if facts.queues.is_empty() {
        unchecked.push("nothing was declared: the history begins in the middle".to_owned());
    }
    if facts.healed_ns.is_none() {
        unchecked
            .push("the run was not finished: loss, lateness and what is done as a whole are not judged".to_owned());
    }
    for queue in facts.queues.keys().filter(|queue| !facts.read.contains_key(*queue)) {
        unchecked.push(format!("queue {queue} was not read at the end: losses in it are not judged"));
    }
    unchecked
}

/// A true time, for people.
fn seconds(at_ns: u64) -> String {
    if at_ns == u64::MAX { "never".to_owned() } else { format!("{:.3} s", at_ns as f64 / 1e9) }
}

#[cfg(test)]
mod tests;
