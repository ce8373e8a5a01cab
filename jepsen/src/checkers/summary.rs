//! Counts and times of a history.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::facts::{Ending, Facts};
use crate::history::{Answer, Deed, Function, History, Kind, Value};

const NANOSECONDS_MS: f64 = 1e6;
/// From here on, the time between two confirmed writes is an outage.
const OUTAGE_NS: u64 = 1_000_000_000;

/// What happened how often, and how long it took.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Summary {
    /// Calls by name: ok, failed, unknown.
    pub calls: BTreeMap<&'static str, [u64; 3]>,
    /// Copies that answers named, dead letters included.
    pub copies: u64,
    /// Copies confirmed.
    pub confirmed: u64,
    /// Leases given to clients.
    pub delivered: u64,
    /// Of these, of messages that had come back.
    pub redelivered: u64,
    /// Certain endings: acknowledged, recalled, dead, still there.
    pub endings: [u64; 4],
    /// Firings of schedules that came.
    pub fired: u64,
    /// From due to leased, by the leaders' clocks, of first deliveries.
    pub lateness_ms: Distribution,
    /// From invocation to answer, of calls that are ok, by name.
    pub latency_ms: BTreeMap<&'static str, Distribution>,
    /// Publishes of a message that answered that it is stored already.
    pub duplicates: u64,
    /// The longest time in which no publish, revision or transaction was confirmed.
    pub longest_gap_ms: f64,
    /// All such times of a second or more.
    pub outages: Vec<Outage>,
    /// After each healing, when the next write was confirmed.
    pub recoveries: Vec<Recovery>,
}

/// A time in which no write was confirmed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outage {
    /// When the last one before it was confirmed.
    pub from_ns: u64,
    /// When the first one after it was.
    pub to_ns: u64,
    /// Faults under way at some time of it, by name.
    pub faults: Vec<String>,
}

/// A fault that was healed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Recovery {
    /// Its kind.
    pub fault: String,
    /// When it was healed.
    pub healed_ns: u64,
    /// From then until a publish that began afterwards was confirmed; none if none was.
    pub took_ms: Option<f64>,
}

/// Percentiles, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Distribution {
    /// Of how many.
    pub count: u64,
    /// The median.
    pub p50: f64,
    /// Exceeded by one in ten.
    pub p90: f64,
    /// Exceeded by one in a hundred.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

impl Distribution {
    /// Of these values, in any order.
    pub fn of(mut values: Vec<f64>) -> Distribution {
        values.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| {
            let position = (values.len() as f64 * share) as usize;
            values.get(position.min(values.len().saturating_sub(1))).copied().unwrap_or(0.0)
        };
        Distribution { count: values.len() as u64, p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1.0) }
    }
}

impl Summary {
    pub(super) fn of(history: &History, facts: &Facts<'_>) -> Summary {
        let mut summary = Summary { duplicates: duplicates(history), ..Summary::default() };
        let mut latency: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
        for call in &facts.calls {
            let name = call.call.function().name();
            let column = match call.kind {
                Kind::Ok => 0,
                Kind::Fail => 1,
                Kind::Info | Kind::Invoke => 2,
            };
            summary.calls.entry(name).or_default()[column] += 1;
            if call.is_ok() {
                let took_ns = call.ended_ns.saturating_sub(call.invoked_ns);
                latency.entry(name).or_default().push(took_ns as f64 / NANOSECONDS_MS);
            }
        }
        summary.latency_ms = latency.into_iter().map(|(name, values)| (name, Distribution::of(values))).collect();
        summary.count_copies(facts);
        summary.measure_gaps(history, facts);
        summary
    }

    fn count_copies(&mut self, facts: &Facts<'_>) {
        let mut lateness = Vec::new();
        for (name, copy) in &facts.copies {
            self.copies += 1;
            self.confirmed += u64::from(copy.confirmed_ns.is_some());
            for lease in copy.leases.values() {
                self.delivered += 1;
                self.redelivered += u64::from(lease.delivered.delivery_count > 0);
                self.fired +=
                    u64::from(lease.delivered.delivery_count == 0 && lease.delivered.schedule_due_ms.is_some());
                if lease.delivered.delivery_count == 0 {
                    lateness.push((lease.leased_at_ms - lease.delivered.ready_at_ms) as f64);
                }
            }
            for (ending, _) in facts.endings(*name, copy).certain {
                self.endings[match ending {
                    Ending::Acknowledged => 0,
                    Ending::Recalled => 1,
                    Ending::Dead => 2,
                    Ending::Present => 3,
                }] += 1;
            }
        }
        self.lateness_ms = Distribution::of(lateness);
    }

    fn measure_gaps(&mut self, history: &History, facts: &Facts<'_>) {
        let writes = facts.calls.iter().filter(|call| {
            let function = call.call.function();
            call.is_ok() && matches!(function, Function::Publish | Function::Revise | Function::Transact)
        });
        let mut writes: Vec<(u64, u64)> = writes.map(|call| (call.invoked_ns, call.ended_ns)).collect();
        // After the healing no more is published than the end needs.
        let mut ends: Vec<u64> = writes
            .iter()
            .map(|write| write.1)
            .filter(|end| facts.healed_ns.is_none_or(|healed| *end <= healed))
            .collect();
        ends.sort_unstable();
        let gap_ns = ends.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
        self.longest_gap_ms = gap_ns as f64 / NANOSECONDS_MS;
        let long = ends.windows(2).filter(|pair| pair[1] - pair[0] >= OUTAGE_NS);
        self.outages = long
            .map(|pair| Outage { from_ns: pair[0], to_ns: pair[1], faults: faults_within(history, pair[0], pair[1]) })
            .collect();
        writes.sort_unstable();
        for event in &history.events {
            let Value::Deed(Deed::StopFault { fault, .. }) = &event.value else { continue };
            let later = &writes[writes.partition_point(|write| write.0 < event.time_ns)..];
            let first = later.iter().map(|write| write.1).min();
            self.recoveries.push(Recovery {
                fault: fault.clone(),
                healed_ns: event.time_ns,
                took_ms: first.map(|end| (end - event.time_ns) as f64 / NANOSECONDS_MS),
            });
        }
    }
}

fn duplicates(history: &History) -> u64 {
    let answers = history.events.iter().filter_map(|event| match &event.value {
        Value::Answer { answer: Some(Answer::Published(stored)), .. } => Some(stored),
        _ => None,
    });
    let copies = answers.flatten().flat_map(|stored| &stored.copies);
    copies.filter(|copy| copy.duplicate).count() as u64
}

/// The faults that were under way at some time of a span.
fn faults_within(history: &History, from_ns: u64, to_ns: u64) -> Vec<String> {
    let mut faults = BTreeSet::new();
    let mut open = BTreeSet::new();
    for event in history.events.iter().take_while(|event| event.time_ns <= to_ns) {
        match &event.value {
            Value::Deed(Deed::StartFault { fault, .. }) => drop(open.insert(fault.clone())),
            Value::Deed(Deed::StopFault { fault, .. }) => {
                open.remove(fault);
                if event.time_ns >= from_ns {
                    faults.insert(fault.clone());
                }
            }
            _ => {}
        }
    }
    faults.append(&mut open);
    faults.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_sorted_values() {
        let distribution = Distribution::of((0..=100).rev().map(f64::from).collect());
        assert_eq!((distribution.p50, distribution.p90, distribution.p99, distribution.max), (50.0, 90.0, 99.0, 100.0));
        assert_eq!(Distribution::of(Vec::new()), Distribution::default());
    }
}
