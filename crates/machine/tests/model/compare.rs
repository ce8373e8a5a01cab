//! Leads a machine and the reference through the same work and compares them after every entry.

use std::collections::BTreeSet;

use bytes::Bytes;
use dwell_machine::{
    Ack, Applied, Command, DeleteQueue, DetachAll, Effect, Lease, Machine, MemoryStore, Receive, Release, Reply, Store,
    StoreError, StoreRead, Table, read_message,
};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use crate::reference::{Counts, Outcome, Place, Reference, Totals};
use crate::workload::{Client, Clock, QUEUES, START_MS, Step};

type Checked = Result<(), TestCaseError>;

/// Release pulses after which a machine with so little to do must have come to rest.
const PULSES_MAX: usize = 100;

/// A store that insists that a row of a table written once is there when it is deleted: one deleted in vain
/// leaves a tombstone in a log-structured store, for nothing. That none is put twice, `MemoryStore` sees to.
struct StrictStore<'a>(&'a mut MemoryStore);

impl StoreRead for StrictStore<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.0.get(table, key)
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.0.scan(table, from, to, limit)
    }
}

impl Store for StrictStore<'_> {
    fn put(&mut self, table: Table, key: &[u8], value: Bytes) {
        self.0.put(table, key, value);
    }

    fn delete(&mut self, table: Table, key: &[u8]) {
        let is_there = matches!(self.0.get(table, key), Ok(Some(_)));
        assert!(is_there || !table.is_written_once(), "{table:?} row {key:02x?} was deleted without being there");
        self.0.delete(table, key);
    }
}

/// A machine beside its reference.
pub struct Pair {
    machine: Machine,
    store: MemoryStore,
    reference: Reference,
    client: Client,
    clock_ms: u64,
}

impl Pair {
    pub fn new() -> Result<Self, TestCaseError> {
        let store = MemoryStore::default();
        let machine = open(&store)?;
        let (reference, client) = (Reference::default(), Client::default());
        Ok(Self { machine, store, reference, client, clock_ms: START_MS })
    }

    /// Takes one generated step.
    pub fn step(&mut self, step: &Step) -> Checked {
        match step {
            Step::Entry { clock, ops } => {
                self.clock_ms = clock.after(self.clock_ms);
                let commands = ops.iter().map(|op| self.client.command(op, self.clock_ms)).collect();
                self.entry(commands).map(|_| ())
            }
            Step::Restart => {
                self.machine = open(&self.store)?;
                self.compare_views()
            }
            Step::Settle { clock } => self.settle(*clock),
        }
    }

    /// Applies one entry to both, compares, and hands out the replies.
    pub fn entry(&mut self, commands: Vec<Command>) -> Result<Vec<Reply>, TestCaseError> {
        let expected = self.reference.apply(self.clock_ms, &commands);
        let actual = self.apply(commands)?;
        self.compare_outcomes(&expected, &actual)?;
        self.compare_views()?;
        Ok(actual.replies)
    }

    fn apply(&mut self, commands: Vec<Command>) -> Result<Applied, TestCaseError> {
        let applied = self.machine.apply(&mut StrictStore(&mut self.store), self.clock_ms, commands.clone());
        let applied = applied.map_err(|error| TestCaseError::fail(error.to_string()))?;
        self.client.observe(&commands, &applied);
        Ok(applied)
    }

    /// Lets time pass, sends the machine pulses for as long as it wants them, and the reference one.
    pub fn settle(&mut self, clock: Clock) -> Checked {
        self.clock_ms = clock.after(self.clock_ms);
        let expected = self.reference.apply(self.clock_ms, &[]);
        let mut actual = self.apply(Vec::new())?;
        self.compare_outcomes(&expected, &actual)?;
        let mut expected = self.reference.apply(self.clock_ms, &[Command::Release(Release {})]);
        expected.replies.clear();
        for _ in 0..PULSES_MAX {
            if self.machine.next_wake_ms().is_none_or(|wake_ms| wake_ms > self.machine.now_ms()) {
                self.compare_outcomes(&expected, &actual)?;
                self.compare_views()?;
                return self.compare_rows();
            }
            let applied = self.apply(vec![Command::Release(Release {})])?;
            // Each pulse may wake a queue again; of the whole that is a matter of how it is split.
            let known = |effect: &Effect| matches!(effect, Effect::Wake { .. }) && actual.effects.contains(effect);
            let effects: Vec<Effect> = applied.effects.into_iter().filter(|effect| !known(effect)).collect();
            actual.effects.extend(effects);
            actual.released_due_ms.extend(applied.released_due_ms);
        }
        Err(TestCaseError::fail(format!("still wants pulses after {PULSES_MAX} of them")))
    }

    /// Consumes all that is left, deletes the queues, and looks for rows left behind.
    pub fn drain(&mut self) -> Checked {
        // Nobody but the receive calls below is to take anything.
        self.entry(vec![Command::DetachAll(DetachAll {})])?;
        for _ in 0..PULSES_MAX {
            self.settle(Clock::Forward(60_000))?;
            if self.reference.messages.is_empty() {
                break;
            }
            for queue in QUEUES {
                let receive = Receive { queue: queue.into(), messages_max: 1000, lease_timeout_ms: 0 };
                if let [Reply::Received { deliveries, .. }] = self.entry(vec![Command::Receive(receive)])?.as_slice() {
                    let leases = deliveries.iter().map(|of| Lease { sequence: of.sequence, token: of.token });
                    let ack = Ack { queue: queue.into(), leases: leases.collect() };
                    self.entry(vec![Command::Ack(ack)])?;
                }
            }
        }
        prop_assert!(self.reference.messages.is_empty(), "not drained: {:?}", self.reference.messages);
        let queues = QUEUES.map(|queue| DeleteQueue { queue: queue.into(), if_empty: true, if_unused: true });
        self.entry(queues.into_iter().map(Command::DeleteQueue).collect())?;
        self.settle(Clock::Forward(0))?;
        prop_assert_eq!(self.machine.next_wake_ms(), None, "nothing is pending any more");
        let kept = [Table::Meta, Table::Producers, Table::Outcomes];
        let left: Vec<_> = self.store.rows().filter(|(table, ..)| !kept.contains(table)).collect();
        prop_assert!(left.is_empty(), "rows left behind: {left:02x?}");
        Ok(())
    }

    fn compare_outcomes(&self, expected: &Outcome, actual: &Applied) -> Checked {
        prop_assert_eq!(&without_messages(&actual.replies, self)?, &expected.replies, "replies");
        let mut woken = BTreeSet::new();
        let mut effects = Vec::new();
        for effect in &actual.effects {
            match effect {
                Effect::Wake { queue } => prop_assert!(woken.insert(*queue), "queue {queue} was woken twice"),
                Effect::Deliver { consumer, attachment, delivery } => {
                    let delivery = self.without_message(delivery)?;
                    effects.push(Effect::Deliver { consumer: *consumer, attachment: *attachment, delivery });
                }
                Effect::CloseConsumer { .. } => effects.push(effect.clone()),
            }
        }
        prop_assert_eq!(&effects, &expected.effects, "effects");
        let required = &expected.wakes_required;
        prop_assert!(woken.is_superset(required), "queues {required:?} wait and only {woken:?} were woken");
        let allowed = &expected.wakes_allowed;
        prop_assert!(woken.is_subset(allowed), "only in queues {allowed:?} something waits and {woken:?} were woken");
        prop_assert_eq!(&actual.released_due_ms, &expected.released_due_ms, "released due times");
        Ok(())
    }

    /// Checks the message that a delivery carries, and takes it off.
    fn without_message(&self, delivery: &dwell_machine::Delivery) -> Result<dwell_machine::Delivery, TestCaseError> {
        if let (Some(carried), Some(message)) = (&delivery.message, self.reference.messages.get(&delivery.sequence)) {
            prop_assert_eq!(carried.as_ref(), &message.record, "message {} in its delivery", delivery.sequence);
        }
        Ok(dwell_machine::Delivery { message: None, ..delivery.clone() })
    }

    fn compare_views(&self) -> Checked {
        prop_assert_eq!(self.machine.now_ms(), self.reference.now_ms, "machine time");
        for name in QUEUES {
            self.compare_queue(name)?;
        }
        self.compare_listing()?;
        if let Some(due_ms) = self.reference.next_due_ms() {
            let wake_ms = self.machine.next_wake_ms();
            prop_assert!(
                wake_ms.is_some_and(|wake_ms| wake_ms <= due_ms),
                "something is due at {due_ms}, and the machine wants to be woken at {wake_ms:?}"
            );
        }
        for (sequence, message) in &self.reference.messages {
            let stored = read(&self.store, message.queue, *sequence)?;
            prop_assert_eq!(stored.as_ref(), Some(&message.record), "stored message {}", sequence);
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
        let counts = Counts {
            scheduled: view.counts.scheduled,
            ready: view.counts.ready,
            leased: view.counts.leased,
            bytes: view.counts.bytes,
        };
        prop_assert_eq!(counts, self.reference.counts(expected.id), "counts of {}", name);
        let totals = Totals {
            published: view.totals.published,
            delivered: view.totals.delivered,
            acknowledged: view.totals.acknowledged,
            returned: view.totals.returned,
            expired: view.totals.expired,
            exhausted: view.totals.exhausted,
        };
        prop_assert_eq!(totals, expected.totals, "totals of {}", name);
        prop_assert_eq!(view.consumers, self.reference.consumer_count(expected.id), "consumers of {}", name);
        Ok(())
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

    /// At rest, nothing is stored of what is gone.
    fn compare_rows(&self) -> Checked {
        let rows = |table: Table| self.store.rows().filter(|row| row.0 == table).count();
        let at = |place: fn(&Place) -> bool| {
            self.reference.messages.values().filter(|message| place(&message.place)).count()
        };
        prop_assert_eq!(rows(Table::Queues), self.reference.queues.len(), "rows of queues");
        prop_assert_eq!(rows(Table::Consumers), self.reference.consumers.len(), "rows of consumers");
        prop_assert_eq!(rows(Table::Messages), self.reference.messages.len(), "rows of messages");
        prop_assert_eq!(rows(Table::Ready), at(|place| *place == Place::Ready), "rows of ready messages");
        prop_assert_eq!(rows(Table::Leases), at(|place| matches!(place, Place::Leased { .. })), "rows of leases");
        Ok(())
    }
}

fn without_messages(replies: &[Reply], pair: &Pair) -> Result<Vec<Reply>, TestCaseError> {
    let strip = |reply: &Reply| match reply {
        Reply::Received { queue, deliveries } => {
            let deliveries = deliveries.iter().map(|delivery| pair.without_message(delivery)).collect::<Result<_, _>>();
            Ok(Reply::Received { queue: *queue, deliveries: deliveries? })
        }
        reply => Ok(reply.clone()),
    };
    replies.iter().map(strip).collect()
}

fn open(store: &MemoryStore) -> Result<Machine, TestCaseError> {
    Machine::open(store).map_err(|error| TestCaseError::fail(error.to_string()))
}

fn read(store: &MemoryStore, queue: u64, sequence: u64) -> Result<Option<dwell_machine::MessageRecord>, TestCaseError> {
    read_message(store, queue, sequence).map_err(|error| TestCaseError::fail(error.to_string()))
}
