//! Compares what can be seen of the machine with the reference.

use bytes::Bytes;
use dwell_machine::{
    Binding, Content, DeclareExchange, FiringRecord, MessageRecord, MessageState, MessageView, Table,
    limits::SCHEDULE_KEPT_MS, read_message,
};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use crate::compare::{Checked, Pair, fault, plain};
use crate::queues::lane_position;
use crate::reference::{Message, Place, Queue};
use crate::schedules::next_after;
use crate::workload::{EXCHANGES, QUEUES, SCHEDULES};

const HORIZONS_MS: [u64; 5] = [0, 1, 50, 120, 1_000_000];
/// Small, so that there are several.
const PAGE: usize = 2;
/// A browse that does not end is none.
const PAGES_MAX: usize = 10_000;

impl Pair {
    pub fn compare_views(&self) -> Checked {
        prop_assert_eq!(self.machine.now_ms(), self.reference.now_ms, "machine time");
        for name in QUEUES {
            self.compare_queue(name)?;
        }
        self.compare_listing()?;
        self.compare_exchanges()?;
        self.compare_schedules()?;
        if let Some(due_ms) = self.reference.next_due_ms() {
            let wake_ms = self.machine.next_wake_ms();
            prop_assert!(
                wake_ms.is_some_and(|wake_ms| wake_ms <= due_ms),
                "something is due at {due_ms}, and the machine wants to be woken at {wake_ms:?}"
            );
        }
        for (sequence, message) in &self.reference.messages {
            let stored = read_message(&self.store, message.queue, *sequence).map_err(fault)?.map(plain);
            prop_assert_eq!(stored.as_ref(), Some(&message.record), "stored message {}", sequence);
            let name = &self.reference.queue(message.queue).name;
            let view = self.machine.message(&self.store, name, *sequence).map_err(fault)?;
            let view = view.map(|view| MessageView { record: plain(view.record), ..view });
            prop_assert_eq!(view, Some(self.expected_view(*sequence)), "view of message {}", sequence);
        }
        Ok(())
    }

    fn compare_queue(&self, name: &str) -> Checked {
        let view = self.machine.queue(name);
        let expected = self.reference.queues.iter().find(|queue| queue.name == name);
        prop_assert_eq!(view.is_some(), expected.is_some(), "queue {} is in sight", name);
        let (Some(view), Some(expected)) = (view, expected) else { return Ok(()) };
        prop_assert_eq!(view.id, expected.id, "id of {}", name);
        prop_assert_eq!(&view.name[..], name);
        prop_assert_eq!(&view.settings, &expected.settings, "settings of {}", name);
        prop_assert_eq!(view.created_at_ms, expected.created_at_ms, "time of declaration of {}", name);
        prop_assert_eq!(self.machine.queue_name(view.id), Some(name));
        prop_assert_eq!(view.counts, self.reference.counts(expected.id), "counts of {}", name);
        prop_assert_eq!(view.totals, expected.totals, "totals of {}", name);
        prop_assert_eq!(view.consumers, self.reference.consumer_count(expected.id), "consumers of {}", name);
        self.compare_forecast(expected)?;
        for state in [MessageState::Scheduled, MessageState::Ready, MessageState::Leased] {
            self.compare_browse(expected, state)?;
        }
        Ok(())
    }

    fn compare_forecast(&self, queue: &Queue) -> Checked {
        let now_ms = self.reference.now_ms;
        let forecast = self.machine.forecast(&self.store, &queue.name, now_ms, &HORIZONS_MS).map_err(fault)?;
        let Some(forecast) = forecast else { return Err(TestCaseError::fail("no forecast")) };
        prop_assert_eq!(forecast.counts, self.reference.counts(queue.id), "counts in the forecast of {}", queue.name);
        let due = forecast.due.iter().map(|due| (due.horizon_ms, due.messages, due.exact));
        let scheduled = |message: &&Message| message.queue == queue.id && message.place == Place::Scheduled;
        let before = |due_ms: u64| {
            let scheduled = self.reference.messages.values().filter(scheduled);
            scheduled.filter(|message| message.ready_at_ms <= due_ms).count() as u64
        };
        let expected = HORIZONS_MS.iter().map(|&horizon_ms| (horizon_ms, before(now_ms + horizon_ms), true));
        prop_assert_eq!(due.collect::<Vec<_>>(), expected.collect::<Vec<_>>(), "forecast of {}", queue.name);
        Ok(())
    }

    fn compare_browse(&self, queue: &Queue, state: MessageState) -> Checked {
        let mut shown: Vec<MessageView> = Vec::new();
        let mut cursor = Bytes::new();
        // With bodies and without, by whatever page it is.
        for number in 0..PAGES_MAX {
            let with_bodies = number % 2 == 0;
            let page = self.machine.browse(&self.store, &queue.name, state, &cursor, PAGE, with_bodies);
            let page = page.map_err(fault)?.map_err(|refusal| TestCaseError::fail(refusal.to_string()))?;
            prop_assert!(page.messages.len() <= PAGE, "page {} is too long", number);
            for view in page.messages {
                let mut expected = match self.reference.messages.contains_key(&view.sequence) {
                    true => self.expected_view(view.sequence),
                    false => return Err(TestCaseError::fail(format!("message {} is gone", view.sequence))),
                };
                if !with_bodies {
                    let content = Content { body: Bytes::new(), ..expected.record.content };
                    expected.record = MessageRecord { content, ..expected.record };
                }
                let view = MessageView { record: plain(view.record), ..view };
                prop_assert_eq!(&view, &expected, "message in page {} of {}", number, queue.name);
                shown.push(view);
            }
            match page.next {
                Some(next) => cursor = next,
                None => break,
            }
        }
        let sequences: Vec<u64> = shown.iter().map(|view| view.sequence).collect();
        let (first, last) = self.expected_order(queue, state);
        let (front, rest) = sequences.split_at(first.len().min(sequences.len()));
        prop_assert_eq!(front, &first[..], "{:?} messages of {}", state, queue.name);
        let mut rest = rest.to_vec();
        rest.sort_unstable();
        prop_assert_eq!(rest, last, "messages of {} that wait for others of their group", queue.name);
        Ok(())
    }

    /// Sequences in their order, and those that come then in any order.
    fn expected_order(&self, queue: &Queue, state: MessageState) -> (Vec<u64>, Vec<u64>) {
        let messages = &self.reference.messages;
        let eligible = self.reference.eligible(queue.id);
        let in_state = messages.iter().filter(|(_, message)| message.queue == queue.id && state == state_of(message));
        let waits = |sequence: &u64| state == MessageState::Ready && !eligible.contains(sequence);
        let (last, mut first): (Vec<u64>, Vec<u64>) = in_state.map(|(sequence, _)| *sequence).partition(waits);
        match state {
            MessageState::Scheduled => first.sort_by_key(|sequence| (messages[sequence].ready_at_ms, *sequence)),
            MessageState::Ready => first.sort_by_key(|sequence| lane_position(*sequence, &messages[sequence])),
            MessageState::Leased => {}
        }
        (first, last)
    }

    fn expected_view(&self, sequence: u64) -> MessageView {
        let message = &self.reference.messages[&sequence];
        let (consumer, lease_deadline_ms) = match message.place {
            Place::Leased { consumer, deadline_ms, .. } => (consumer, deadline_ms),
            Place::Scheduled | Place::Ready => (0, 0),
        };
        let consumer = self.reference.consumers.get(&consumer);
        MessageView {
            sequence,
            state: state_of(message),
            record: message.record.clone(),
            body_bytes: message.record.content.body.len() as u64,
            delivery_count: message.delivery_count,
            ready_at_ms: message.ready_at_ms,
            expires_at_ms: message.expires_at_ms,
            lease_deadline_ms,
            consumer_id: consumer.map(|consumer| consumer.consumer_id.clone()).unwrap_or_default(),
        }
    }

    /// Listings of all queues in pages of two, and of those whose name begins with "b".
    fn compare_listing(&self) -> Checked {
        let names = |prefix: &str, after: Option<&str>, limit| -> Vec<String> {
            self.machine.queues(prefix, after, limit).iter().map(|view| view.name.to_string()).collect()
        };
        let mut expected: Vec<String> = self.reference.queues.iter().map(|queue| queue.name.clone()).collect();
        expected.sort();
        let mut listed = names("", None, 2);
        if let [_, last] = listed.as_slice() {
            let rest = names("", Some(last), 2);
            listed.extend(rest);
        }
        prop_assert_eq!(&listed, &expected, "queues in pages");
        expected.retain(|name| name.starts_with('b'));
        prop_assert_eq!(&names("b", None, 9), &expected, "queues with a prefix");
        Ok(())
    }

    fn compare_exchanges(&self) -> Checked {
        let there = self.machine.exchanges("", None, 9);
        let names: Vec<String> = there.iter().map(|view| view.name.clone()).collect();
        let expected: Vec<String> = self.reference.exchanges.keys().cloned().collect();
        prop_assert_eq!(names, expected, "exchanges");
        for view in there {
            let bindings = self.reference.bindings.values().filter(|binding| binding.exchange == view.name).count();
            prop_assert_eq!(view.bindings, bindings as u64, "bindings of {}", view.name);
            let declared =
                DeclareExchange { exchange: view.name.clone(), kind: view.kind.into(), alternate: view.alternate };
            prop_assert_eq!(&declared, &self.reference.exchanges[&view.name], "exchange");
        }
        let all: Vec<(u64, Binding)> = self.reference.bindings.iter().map(|(id, at)| (*id, at.clone())).collect();
        prop_assert_eq!(self.machine.bindings(None, 0, 1000), Some(all.clone()), "bindings");
        for exchange in EXCHANGES {
            let of_exchange = all.iter().filter(|(_, binding)| binding.exchange == exchange).cloned().collect();
            let is_there = self.reference.exchanges.contains_key(exchange);
            let expected: Option<Vec<(u64, Binding)>> = is_there.then_some(of_exchange);
            prop_assert_eq!(self.machine.bindings(Some(exchange), 0, 1000), expected, "bindings of {}", exchange);
        }
        Ok(())
    }

    fn compare_schedules(&self) -> Checked {
        for name in SCHEDULES {
            let view = self.machine.schedule(name, 3);
            let expected = self.reference.schedules.get(name);
            prop_assert_eq!(view.is_some(), expected.is_some(), "schedule {} is there", name);
            let (Some(view), Some(expected)) = (view, expected) else { continue };
            prop_assert_eq!(&view.definition, &expected.definition, "definition of {}", name);
            prop_assert_eq!(view.paused, expected.paused, "schedule {} is paused", name);
            prop_assert_eq!(view.next_due_ms, expected.next_due_ms.unwrap_or(0), "next due time of {}", name);
            let following = |due_ms: &u64| next_after(&expected.definition, *due_ms);
            let upcoming: Vec<u64> = std::iter::successors(expected.next_due_ms, following).take(3).collect();
            prop_assert_eq!(view.upcoming, upcoming, "due times of {}", name);
            prop_assert_eq!(view.fired, expected.fired, "firings of {}", name);
            prop_assert_eq!(view.skipped, expected.skipped, "skips of {}", name);
            let now_ms = self.reference.now_ms;
            let lasting = |firing: &&FiringRecord| firing.fired_ms + SCHEDULE_KEPT_MS > now_ms;
            let there: Vec<&FiringRecord> = view.history.iter().filter(lasting).collect();
            let expected: Vec<&FiringRecord> = expected.history.iter().filter(lasting).collect();
            prop_assert_eq!(there, expected, "history of {}", name);
        }
        Ok(())
    }

    /// At rest, nothing is stored of what is gone.
    pub fn compare_rows(&self) -> Checked {
        let rows = |table: Table| self.store.rows().filter(|row| row.0 == table).count();
        let with = |property: fn(&Message) -> bool| {
            self.reference.messages.values().filter(|message| property(message)).count()
        };
        let reference = &self.reference;
        let eligible: usize = reference.queues.iter().map(|queue| reference.eligible(queue.id).len()).sum();
        let ready = with(|message| message.place == Place::Ready);
        prop_assert_eq!(rows(Table::Queues), reference.queues.len(), "rows of queues");
        prop_assert_eq!(rows(Table::Consumers), reference.consumers.len(), "rows of consumers");
        prop_assert_eq!(rows(Table::Exchanges), reference.exchanges.len(), "rows of exchanges");
        prop_assert_eq!(rows(Table::Bindings), reference.bindings.len(), "rows of bindings");
        prop_assert_eq!(rows(Table::Schedules), reference.schedules.len(), "rows of schedules");
        prop_assert_eq!(rows(Table::Users), reference.users.len(), "rows of users");
        prop_assert_eq!(self.machine.users(None, 100), reference.users.values().cloned().collect::<Vec<_>>(), "users");
        prop_assert_eq!(rows(Table::Producers), reference.producers.len(), "rows of producers");
        // Those of a deleted queue may stay for the rest of their time.
        prop_assert!(rows(Table::Dedupe) >= reference.dedupe.len(), "rows of remembered ids");
        prop_assert_eq!(rows(Table::Messages), reference.messages.len(), "rows of messages");
        prop_assert_eq!(rows(Table::Due), with(|message| message.place == Place::Scheduled), "rows of due times");
        prop_assert_eq!(rows(Table::Ready), eligible, "rows of ready messages");
        prop_assert_eq!(rows(Table::Waiting), ready - eligible, "rows of messages that wait for others");
        prop_assert_eq!(rows(Table::Leases), with(|at| state_of(at) == MessageState::Leased), "rows of leases");
        let with_id = with(|message| !message.record.content.message_id.is_empty());
        prop_assert_eq!(rows(Table::MessageIds), with_id, "rows of message ids");
        Ok(())
    }
}

fn state_of(message: &Message) -> MessageState {
    match message.place {
        Place::Scheduled => MessageState::Scheduled,
        Place::Ready => MessageState::Ready,
        Place::Leased { .. } => MessageState::Leased,
    }
}
