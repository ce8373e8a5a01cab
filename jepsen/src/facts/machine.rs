//! What clients can know of machine time.

use std::collections::BTreeSet;

use super::Facts;
use crate::history::Call;

/// Bounds of machine time at true times.
#[derive(Debug, Default)]
pub struct MachineTimes {
    /// Something invoked at this true time was applied at this machine time: by time, each with the least of what comes
    /// later.
    upper: Vec<(u64, i64)>,
    /// Of messages that a timer released, when they were due and when they were first leased, by due time.
    pub released: Vec<(i64, i64)>,
    /// Messages of which a copy, or dead letter, was seen.
    pub(super) seen: BTreeSet<u64>,
    /// Batches of a queue that were perhaps recalled as a whole.
    pub(super) recalled_batches: BTreeSet<(String, u64)>,
}

impl MachineTimes {
    pub(super) fn of(facts: &Facts<'_>) -> MachineTimes {
        let mut times = MachineTimes::default();
        for (name, copy) in &facts.copies {
            if let Some(message) = copy.message {
                times.seen.insert(message);
            }
            let published = facts.publication(copy).and_then(|message| message.calls.first());
            for lease in copy.leases.values() {
                let call = &facts.calls[lease.call];
                if lease.consumer.is_none() {
                    times.upper.push((call.invoked_ns, lease.leased_at_ms));
                }
                let delivered = lease.delivered;
                if let Some(first) = published {
                    times.upper.push((facts.calls[*first].invoked_ns, delivered.published_at_ms));
                }
                let released = delivered.delivery_count == 0 && delivered.ready_at_ms > delivered.published_at_ms;
                if released && facts.queues.contains_key(name.0) {
                    times.released.push((delivered.ready_at_ms, lease.leased_at_ms));
                }
            }
        }
        for call in &facts.calls {
            if let Call::ReviseMatching { queue, batch } = call.call
                && call.is_possible()
            {
                times.recalled_batches.insert((queue.clone(), *batch));
            }
        }
        times.released.sort_unstable();
        times.upper.sort_unstable();
        let mut least = i64::MAX;
        for (_, at_ms) in times.upper.iter_mut().rev() {
            least = least.min(*at_ms);
            *at_ms = least;
        }
        times
    }

    /// Machine time at this true time, or before, was no later than this. `i64::MAX` if nothing is known.
    pub fn latest_ms(&self, at_ns: u64) -> i64 {
        let position = self.upper.partition_point(|(invoked_ns, _)| *invoked_ns < at_ns);
        self.upper.get(position).map_or(i64::MAX, |(_, at_ms)| *at_ms)
    }
}
