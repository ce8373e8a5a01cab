//! The machine: its state, and the way one log entry goes through it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

use bytes::Bytes;

use crate::command::{Binding, Command};
use crate::death::PendingDeath;
use crate::key::{self, Timer};
use crate::migrate::LAYOUT;
use crate::record::{
    self, ConsumerRecord, LeaseRecord, MetaRecord, ProducerRecord, QueueRecord, ScheduleRecord, UserRecord,
};
use crate::reply::{Applied, Effect, Refusal, Reply};
use crate::schedule::Schedule;
use crate::state::{Consumer, Queue};
use crate::store::{Store, StoreError, StoreRead, Table};
use crate::topology::Topology;
use crate::view::QueueView;

/// How many rows are read at once when a machine is opened.
const OPEN_PAGE: usize = 1000;

/// The queue semantics of one namespace.
///
/// To ensure correctness:
/// - entries are applied in log order, each exactly once, to a store that holds precisely the entries before;
/// - a [`StoreError`] leaves the machine unusable: it must be opened again from what the store has kept.
#[derive(Debug)]
pub struct Machine {
    pub(crate) meta: MetaRecord,
    pub(crate) queues: BTreeMap<u64, Queue>,
    pub(crate) queue_names: BTreeMap<String, u64>,
    pub(crate) consumers: BTreeMap<u64, Consumer>,
    pub(crate) consumer_ids: BTreeMap<String, u64>,
    /// How many leases all consumers hold or may come to hold.
    pub(crate) leases_of_consumers: usize,
    /// Leases held by receive calls.
    pub(crate) leases_received: usize,
    /// Deadline, queue, sequence.
    pub(crate) lease_deadlines: BTreeSet<(u64, u64, u64)>,
    /// Deadline, consumer.
    pub(crate) session_deadlines: BTreeSet<(u64, u64)>,
    /// Deleted queues that still have rows.
    pub(crate) sweeps: BTreeSet<u64>,
    /// Not later than the first row of `Timers`.
    pub(crate) next_timer_ms: Option<u64>,
    /// Queues whose row is to be written at the end of the entry, once each.
    pub(crate) changed_queues: Vec<u64>,
    /// Producers whose row is to be written at the end of the entry, as it will be.
    pub(crate) changed_producers: BTreeMap<String, ProducerRecord>,
    /// Queue, level and stretch of time: by how much its count of due messages is to be changed at the end of the
    /// entry.
    pub(crate) due_changes: BTreeMap<(u64, u8, u64), i64>,
    pub(crate) topology: Topology,
    pub(crate) schedules: BTreeMap<u64, Schedule>,
    pub(crate) schedule_names: BTreeMap<String, u64>,
    pub(crate) users: BTreeMap<String, UserRecord>,
}

impl Machine {
    /// Opens the machine on what the store holds; an empty store is a new namespace.
    pub fn open(store: &impl StoreRead) -> Result<Machine, StoreError> {
        let meta: MetaRecord = match store.get(Table::Meta, key::META)? {
            Some(value) => record::decode(Table::Meta, value)?,
            None => MetaRecord { layout: LAYOUT, ..MetaRecord::default() },
        };
        let mut machine = Machine {
            meta,
            queues: BTreeMap::new(),
            queue_names: BTreeMap::new(),
            consumers: BTreeMap::new(),
            consumer_ids: BTreeMap::new(),
            leases_of_consumers: 0,
            leases_received: 0,
            lease_deadlines: BTreeSet::new(),
            session_deadlines: BTreeSet::new(),
            sweeps: BTreeSet::new(),
            next_timer_ms: None,
            changed_queues: Vec::new(),
            changed_producers: BTreeMap::new(),
            due_changes: BTreeMap::new(),
            topology: Topology::default(),
            schedules: BTreeMap::new(),
            schedule_names: BTreeMap::new(),
            users: BTreeMap::new(),
        };
        for_each_row(store, Table::Queues, |row_key, value| {
            machine.restore_queue(id_of(Table::Queues, row_key)?, record::decode(Table::Queues, value)?);
            Ok(())
        })?;
        for_each_row(store, Table::Consumers, |row_key, value| {
            machine.restore_consumer(id_of(Table::Consumers, row_key)?, record::decode(Table::Consumers, value)?);
            Ok(())
        })?;
        for_each_row(store, Table::Leases, |row_key, value| {
            let (queue, sequence) = key::parse_message(row_key).ok_or_else(|| malformed(Table::Leases, row_key))?;
            machine.restore_lease(queue, sequence, record::decode(Table::Leases, value)?);
            Ok(())
        })?;
        machine.restore_topology(store)?;
        for_each_row(store, Table::Schedules, |row_key, value| {
            let id = id_of(Table::Schedules, row_key)?;
            machine.restore_schedule(id, record::decode(Table::Schedules, value)?);
            Ok(())
        })?;
        for_each_row(store, Table::Users, |_, value| {
            let user: UserRecord = record::decode(Table::Users, value)?;
            machine.users.insert(user.name.clone(), user);
            Ok(())
        })?;
        machine.leases_of_consumers = machine.consumers.values().map(Consumer::promised).sum();
        for (id, queue) in &mut machine.queues {
            for consumer_key in queue.consumers.clone() {
                if let Some(consumer) = machine.consumers.get(&consumer_key) {
                    debug_assert_eq!(consumer.queue, *id);
                    queue.set_available(consumer_key, consumer);
                }
            }
        }
        machine.find_next_timer(store)?;
        Ok(machine)
    }

    fn restore_topology(&mut self, store: &impl StoreRead) -> Result<(), StoreError> {
        for_each_row(store, Table::Exchanges, |row_key, value| {
            let id = id_of(Table::Exchanges, row_key)?;
            self.topology.add_exchange(id, record::decode(Table::Exchanges, value)?);
            Ok(())
        })?;
        for_each_row(store, Table::Bindings, |row_key, value| {
            let id = id_of(Table::Bindings, row_key)?;
            let bound = self.resolve_binding(record::decode::<Binding>(Table::Bindings, value)?);
            let corrupt =
                |refusal: Refusal| StoreError::Corrupt { table: Table::Bindings, reason: refusal.to_string() };
            self.topology.add_binding(id, bound.map_err(corrupt)?);
            Ok(())
        })
    }

    fn restore_schedule(&mut self, id: u64, row: ScheduleRecord) {
        self.schedule_names.insert(row.name.clone(), id);
        self.schedules.insert(id, Schedule::new(row));
    }

    fn restore_queue(&mut self, id: u64, record: QueueRecord) {
        let queue = Queue::restore(id, record);
        if queue.deleted {
            self.sweeps.insert(id);
        } else {
            self.queue_names.insert(queue.name.clone(), id);
        }
        self.queues.insert(id, queue);
    }

    fn restore_consumer(&mut self, consumer_key: u64, record: ConsumerRecord) {
        let consumer = Consumer::restore(record);
        self.consumer_ids.insert(consumer.consumer_id.clone(), consumer_key);
        if !consumer.is_attached() {
            self.session_deadlines.insert((consumer.session_deadline_ms, consumer_key));
        }
        if let Some(queue) = self.queues.get_mut(&consumer.queue) {
            queue.consumers.insert(consumer_key);
        }
        self.consumers.insert(consumer_key, consumer);
    }

    fn restore_lease(&mut self, queue: u64, sequence: u64, lease: LeaseRecord) {
        self.lease_deadlines.insert((lease.deadline_ms, queue, sequence));
        match self.consumers.get_mut(&lease.consumer) {
            Some(consumer) => {
                consumer.held.insert(sequence);
            }
            None => self.leases_received += 1,
        }
        if let Some(queue) = self.queues.get_mut(&queue) {
            queue.leases.insert(sequence, lease);
        }
    }

    /// Applies one log entry: its commands in order, at the leader's time `at_ms`. All rows are in the store
    /// when it returns.
    pub fn apply(&mut self, store: &mut impl Store, at_ms: u64, commands: Vec<Command>) -> Result<Applied, StoreError> {
        self.meta.now_ms = self.meta.now_ms.max(at_ms);
        let mut step = Step {
            machine: self,
            store,
            applied: Applied::default(),
            woken: BTreeSet::new(),
            deaths: VecDeque::new(),
            unsettled: BTreeSet::new(),
            in_transaction: false,
        };
        step.migrate()?;
        step.applied.replies.reserve(commands.len());
        for command in commands {
            let reply = step.command(command)?;
            step.settle()?;
            step.applied.replies.push(reply);
        }
        let applied = step.applied;
        self.write_changed(store)?;
        Ok(applied)
    }

    fn write_changed(&mut self, store: &mut impl Store) -> Result<(), StoreError> {
        for id in self.changed_queues.drain(..) {
            if let Some(queue) = self.queues.get_mut(&id) {
                queue.is_changed = false;
                store.put(Table::Queues, &key::id(id), record::encode(&queue.record()));
            }
        }
        for (producer_id, row) in std::mem::take(&mut self.changed_producers) {
            store.put(Table::Producers, producer_id.as_bytes(), record::encode(&row));
        }
        self.write_due_changes(store)?;
        store.put(Table::Meta, key::META, record::encode(&self.meta));
        Ok(())
    }

    /// Machine time, in milliseconds since the Unix epoch.
    pub fn now_ms(&self) -> u64 {
        self.meta.now_ms
    }

    /// When the next [`crate::Release`] is wanted: never later than the next thing falls due, sometimes
    /// earlier. `None`: nothing is pending.
    pub fn next_wake_ms(&self) -> Option<u64> {
        let sweep = (!self.sweeps.is_empty()).then_some(self.meta.now_ms);
        let lease = self.lease_deadlines.first().map(|(deadline, ..)| *deadline);
        let session = self.session_deadlines.first().map(|(deadline, _)| *deadline);
        [sweep, lease, session, self.next_timer_ms].into_iter().flatten().min()
    }

    /// A queue by name.
    pub fn queue(&self, name: &str) -> Option<QueueView> {
        self.queue_names.get(name).and_then(|id| self.queues.get(id)).map(QueueView::of)
    }

    /// A queue's name, by the id that effects carry. `None` if it was deleted.
    pub fn queue_name(&self, id: u64) -> Option<&str> {
        self.queues.get(&id).filter(|queue| !queue.deleted).map(|queue| queue.name.as_str())
    }

    /// Up to `limit` queues whose names begin with `prefix`, by name, after the name `after`.
    pub fn queues(&self, prefix: &str, after: Option<&str>, limit: usize) -> Vec<QueueView> {
        let ids = named(&self.queue_names, prefix, after);
        ids.filter_map(|id| self.queues.get(&id).map(QueueView::of)).take(limit).collect()
    }

    /// The queue with this id, for changing: its row will be written.
    pub(crate) fn changing(&mut self, id: u64) -> Option<&mut Queue> {
        let queue = self.queues.get_mut(&id)?;
        if !std::mem::replace(&mut queue.is_changed, true) {
            self.changed_queues.push(id);
        }
        Some(queue)
    }

    /// How many leases there are or may come to be.
    pub(crate) fn leases_promised(&self) -> usize {
        self.leases_of_consumers + self.leases_received
    }

    /// Puts `next_timer_ms` at the first timer there is.
    pub(crate) fn find_next_timer(&mut self, store: &impl StoreRead) -> Result<(), StoreError> {
        let rows = store.scan(Table::Timers, &self.meta.timer_floor, &key::TIMERS_END, 1)?;
        self.next_timer_ms = match rows.first() {
            Some((row_key, _)) => Some(Timer::parse(row_key).ok_or_else(|| malformed(Table::Timers, row_key))?.at_ms),
            None => None,
        };
        Ok(())
    }
}

/// Ids of the things whose names begin with `prefix`, by name, after the name `after`.
pub(crate) fn named<'a>(
    names: &'a BTreeMap<String, u64>,
    prefix: &'a str,
    after: Option<&'a str>,
) -> impl Iterator<Item = u64> + 'a {
    let from = after.map_or(prefix, |after| after.max(prefix));
    names
        .range::<str, _>((Bound::Included(from), Bound::Unbounded))
        .filter(move |(name, _)| after.is_none_or(|after| name.as_str() > after))
        .take_while(move |(name, _)| name.starts_with(prefix))
        .map(|(_, id)| *id)
}

/// One log entry on its way through the machine. The command families add their methods, each in its file.
pub(crate) struct Step<'a, S> {
    pub machine: &'a mut Machine,
    pub store: &'a mut S,
    pub applied: Applied,
    /// Queues whose wake-up is among the effects already.
    pub woken: BTreeSet<u64>,
    /// Messages that ended in this command and may become dead letters, in order.
    pub deaths: VecDeque<PendingDeath>,
    /// Queues in which others may be delivered because of this command.
    pub unsettled: BTreeSet<u64>,
    /// The messages that are being published have been promised a place.
    pub in_transaction: bool,
}

impl<S: Store> Step<'_, S> {
    fn command(&mut self, command: Command) -> Result<Reply, StoreError> {
        match command {
            Command::DeclareQueue(command) => Ok(self.declare_queue(command)),
            Command::DeleteQueue(command) => Ok(self.delete_queue(&command)),
            Command::Publish(command) => self.publish(command),
            Command::Attach(command) => self.attach(command),
            Command::Detach(command) => self.detach(&command),
            Command::SetCredit(command) => self.set_credit(&command),
            Command::Receive(command) => self.receive(&command),
            Command::Ack(command) => self.ack(&command),
            Command::Nack(command) => self.nack(&command),
            Command::Extend(command) => Ok(self.extend(&command)),
            Command::Release(_) => self.release(),
            Command::DetachAll(_) => self.detach_all(),
            Command::UpdateQueue(command) => Ok(self.update_queue(&command)),
            Command::DeclareExchange(command) => Ok(self.declare_exchange(command)),
            Command::DeleteExchange(command) => Ok(self.delete_exchange(&command)),
            Command::Bind(binding) => Ok(self.bind(binding)),
            Command::Unbind(command) => Ok(self.unbind(command)),
            Command::Revise(command) => self.revise(&command),
            Command::ReviseById(command) => self.revise_by_id(&command),
            Command::ReviseMatching(command) => self.revise_matching(&command),
            Command::Transact(command) => self.transact(command),
            Command::DeclareSchedule(command) => Ok(self.declare_schedule(command)),
            Command::DeleteSchedule(command) => Ok(self.delete_schedule(&command)),
            Command::ControlSchedule(command) => self.control_schedule(&command),
            Command::Identify(command) => Ok(self.identify(&command)),
            Command::PutUser(command) => Ok(self.put_user(command)),
            Command::RemoveUser(command) => Ok(self.remove_user(&command)),
        }
    }

    pub fn now_ms(&self) -> u64 {
        self.machine.meta.now_ms
    }

    pub fn effect(&mut self, effect: Effect) {
        self.applied.effects.push(effect);
    }

    /// The queue with this id, for changing: its row will be written.
    ///
    /// Panics if there is none: ids come from the machine's own tables, where a consumer, lease or name never
    /// outlives its queue.
    pub fn queue(&mut self, id: u64) -> &mut Queue {
        self.machine.changing(id).expect("an id taken from the machine's own tables names a queue")
    }
}

/// Goes through all rows of a table, a page at a time.
fn for_each_row(
    store: &impl StoreRead,
    table: Table,
    mut visit: impl FnMut(&Bytes, Bytes) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let mut from = Vec::new();
    // Above every key: ids are eight bytes, and none is all ones; names are text, in which no such byte occurs.
    let to = [0xff; 17];
    loop {
        let rows = store.scan(table, &from, &to, OPEN_PAGE)?;
        let Some((last, _)) = rows.last() else { return Ok(()) };
        from = last.to_vec();
        from.push(0);
        for (row_key, value) in rows {
            visit(&row_key, value)?;
        }
    }
}

fn id_of(table: Table, row_key: &Bytes) -> Result<u64, StoreError> {
    row_key.as_ref().try_into().map(u64::from_be_bytes).map_err(|_| malformed(table, row_key))
}

pub(crate) fn malformed(table: Table, row_key: &Bytes) -> StoreError {
    StoreError::Corrupt { table, reason: format!("key {row_key:02x?} is malformed") }
}
