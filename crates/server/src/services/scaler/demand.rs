//! How much work there is for the replicas of a scaled object.

use std::iter::Sum;
use std::ops::Add;

use dwell_machine::{Machine, StoreError, StoreRead};

use crate::validate::Scaling;

/// Messages that somebody has to work on, or does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Demand {
    /// Ready, or due within the lead time.
    pub waiting: u64,
    /// Held by consumers.
    pub leased: u64,
}

impl Demand {
    /// What a queue has for consumers now. `None`: there is no such queue.
    ///
    /// A paused queue delivers nothing, so that only those are needed who have something.
    pub fn at_hand(machine: &Machine, queue: &str) -> Option<Demand> {
        let view = machine.queue(queue)?;
        let waiting = if view.settings.paused { 0 } else { view.counts.ready };
        Some(Demand { waiting, leased: view.counts.leased })
    }

    /// The same, with what becomes due within the lead time. Reads some hundred rows, however many messages there are.
    ///
    /// What is due by `now_ms` and not released yet counts, too: without a leader nothing is.
    pub fn soon(
        machine: &Machine,
        store: &impl StoreRead,
        queue: &str,
        now_ms: u64,
        lead_time_ms: u64,
    ) -> Result<Option<Demand>, StoreError> {
        let (Some(view), Some(at_hand)) = (machine.queue(queue), Demand::at_hand(machine, queue)) else {
            return Ok(None);
        };
        if view.settings.paused || view.counts.scheduled == 0 {
            return Ok(Some(at_hand));
        }
        let forecast = machine.forecast(store, queue, now_ms, &[lead_time_ms])?;
        let due = forecast.into_iter().flat_map(|forecast| forecast.due).map(|due| due.messages).sum();
        Ok(Some(at_hand + Demand { waiting: due, leased: 0 }))
    }

    /// The metric.
    pub fn messages(&self, scaling: &Scaling) -> u64 {
        self.waiting.saturating_add(if scaling.counts_leased { self.leased } else { 0 })
    }

    /// True if there should be a replica at all. Few messages may not be worth the first one, but whoever has one keeps it.
    pub fn is_active(&self, scaling: &Scaling) -> bool {
        let is_held = scaling.counts_leased && self.leased > 0;
        is_held || self.messages(scaling) > scaling.activation_messages
    }
}

impl Add for Demand {
    type Output = Demand;

    fn add(self, other: Demand) -> Demand {
        Demand { waiting: self.waiting.saturating_add(other.waiting), leased: self.leased.saturating_add(other.leased) }
    }
}

impl Sum for Demand {
    fn sum<I: Iterator<Item = Demand>>(demands: I) -> Demand {
        demands.fold(Demand::default(), Add::add)
    }
}

#[cfg(test)]
mod tests {
    use dwell_machine::{Command, DeclareQueue, MemoryStore, QueueSettings, Receive};
    use dwell_proto::v1;

    use super::*;
    use crate::validate::{Limits, publish, queue_settings};

    const NOW_MS: u64 = 1_800_000_000_000;
    const LIMITS: Limits = Limits { body_bytes_max: 1024 };

    fn scaling(activation_messages: u64, counts_leased: bool) -> Scaling {
        Scaling {
            queues: vec!["q".to_owned()],
            lead_time_ms: 0,
            messages_per_replica: 1,
            activation_messages,
            counts_leased,
        }
    }

    /// Three messages of which one is leased, and one due in each of the next three minutes.
    fn with_a_queue(paused: bool) -> (Machine, MemoryStore) {
        let mut store = MemoryStore::default();
        let mut machine = Machine::open(&store).unwrap();
        let message = |delay_ms| {
            let visible = Some(v1::timing::Visible::DelayMs(delay_ms));
            let timing = Some(v1::Timing { visible, ..Default::default() });
            v1::PublishMessage { routing_key: "q".to_owned(), timing, ..Default::default() }
        };
        let messages = [0, 0, 0, 60_000, 120_000, 180_000].map(message).into();
        let published = v1::PublishRequest { messages, ..Default::default() };
        let declared = |settings| Command::DeclareQueue(DeclareQueue { queue: "q".to_owned(), settings });
        let received = Receive { queue: "q".to_owned(), messages_max: 1, lease_timeout_ms: 0 };
        let commands = vec![
            declared(queue_settings(None).unwrap()),
            Command::Publish(publish(published, &LIMITS, NOW_MS).unwrap()),
            Command::Receive(received),
        ];
        machine.apply(&mut store, NOW_MS, commands).unwrap();
        if paused {
            let settings = QueueSettings { paused: true, ..queue_settings(None).unwrap() };
            let update =
                dwell_machine::UpdateQueue { queue: "q".to_owned(), settings, fields: vec!["paused".to_owned()] };
            machine.apply(&mut store, NOW_MS, vec![Command::UpdateQueue(update)]).unwrap();
        }
        (machine, store)
    }

    #[test]
    fn what_becomes_due_within_the_lead_time_counts_as_if_it_were_ready() {
        let (machine, store) = with_a_queue(false);
        let soon = |now_ms, lead_time_ms| {
            Demand::soon(&machine, &store, "q", now_ms, lead_time_ms).unwrap().map(|demand| demand.waiting)
        };
        assert_eq!(Demand::at_hand(&machine, "q"), Some(Demand { waiting: 2, leased: 1 }));
        assert_eq!(soon(NOW_MS, 0), Some(2));
        assert_eq!(soon(NOW_MS, 59_999), Some(2));
        assert_eq!(soon(NOW_MS, 60_000), Some(3));
        assert_eq!(soon(NOW_MS, 150_000), Some(4));
        assert_eq!(soon(NOW_MS, 3_600_000), Some(5));
        // Nobody releases: no leader.
        assert_eq!(soon(NOW_MS + 120_000, 0), Some(4));
    }

    #[test]
    fn a_paused_queue_needs_only_those_who_have_something() {
        let (machine, store) = with_a_queue(true);
        let demand = Demand { waiting: 0, leased: 1 };
        assert_eq!(Demand::at_hand(&machine, "q"), Some(demand));
        assert_eq!(Demand::soon(&machine, &store, "q", NOW_MS, 3_600_000).unwrap(), Some(demand));
    }

    #[test]
    fn a_queue_that_is_not_there_has_no_demand() {
        let (machine, store) = with_a_queue(false);
        assert_eq!(Demand::at_hand(&machine, "r"), None);
        assert_eq!(Demand::soon(&machine, &store, "r", NOW_MS, 0).unwrap(), None);
    }

    #[test]
    fn the_metric_is_the_sum_and_leased_messages_can_be_left_out() {
        let demand = Demand { waiting: 7, leased: 2 } + Demand { waiting: 1, leased: 3 };
        assert_eq!(demand.messages(&scaling(0, true)), 13);
        assert_eq!(demand.messages(&scaling(0, false)), 8);
        let much = Demand { waiting: u64::MAX, leased: 1 };
        assert_eq!((much + much).messages(&scaling(0, true)), u64::MAX);
    }

    #[test]
    fn more_than_the_activation_is_needed_for_the_first_replica_but_none_that_has_a_message_is_taken_away() {
        let waiting = |waiting| Demand { waiting, leased: 0 };
        assert!(!waiting(0).is_active(&scaling(0, true)));
        assert!(waiting(1).is_active(&scaling(0, true)));
        assert!(!waiting(3).is_active(&scaling(3, true)));
        assert!(waiting(4).is_active(&scaling(3, true)));
        let held = Demand { waiting: 0, leased: 1 };
        assert!(held.is_active(&scaling(3, true)));
        assert!(!held.is_active(&scaling(0, false)));
    }
}
