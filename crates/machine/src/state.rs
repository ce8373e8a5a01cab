//! What the machine holds in memory: queues, consumers and leases, each also a row in the store.
//!
//! All of it is a function of the rows: a machine opened from them goes on exactly as the one that wrote them.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::command::QueueSettings;
use crate::key::Position;
use crate::ready::Lane;
use crate::record::{ConsumerRecord, Counts, LeaseRecord, QueueRecord, Ticket, Totals};
use crate::store::{Store, StoreError};

/// A queue.
#[derive(Debug)]
pub(crate) struct Queue {
    pub id: u64,
    pub name: String,
    pub settings: QueueSettings,
    pub created_at_ms: u64,
    pub counts: Counts,
    pub totals: Totals,
    lanes: BTreeMap<Reverse<u8>, Lane>,
    pub leases: BTreeMap<u64, LeaseRecord>,
    /// All consumers, attached or not.
    pub consumers: BTreeSet<u64>,
    /// Those attached and with credit left.
    available: BTreeSet<u64>,
    last_served: u64,
    pub deleted: bool,
    pub swept_below: u64,
}

impl Queue {
    pub fn new(id: u64, name: String, settings: QueueSettings, created_at_ms: u64) -> Queue {
        let record = QueueRecord { name, settings, created_at_ms, ..QueueRecord::default() };
        Queue::restore(id, record)
    }

    /// A queue as it was stored; leases and consumers are added by the caller.
    pub fn restore(id: u64, record: QueueRecord) -> Queue {
        let lanes = record
            .lanes
            .iter()
            .map(|lane| (Reverse(u8::try_from(lane.priority).unwrap_or(u8::MAX)), Lane::restore(id, lane)));
        Queue {
            id,
            lanes: lanes.collect(),
            name: record.name,
            settings: record.settings,
            created_at_ms: record.created_at_ms,
            counts: record.counts,
            totals: record.totals,
            leases: BTreeMap::new(),
            consumers: BTreeSet::new(),
            available: BTreeSet::new(),
            last_served: record.last_served,
            deleted: record.deleted,
            swept_below: record.swept_below,
        }
    }

    pub fn record(&self) -> QueueRecord {
        QueueRecord {
            name: self.name.clone(),
            settings: self.settings.clone(),
            created_at_ms: self.created_at_ms,
            counts: self.counts,
            totals: self.totals,
            lanes: self.lanes.values().map(Lane::record).collect(),
            last_served: self.last_served,
            deleted: self.deleted,
            swept_below: self.swept_below,
        }
    }

    /// Adds a ready message.
    pub fn put_ready(&mut self, store: &mut impl Store, position: Position, ticket: Ticket) {
        let priority = priority_of(&ticket);
        self.lanes
            .entry(Reverse(priority))
            .or_insert_with(|| Lane::new(self.id, priority, position))
            .put(store, position, ticket);
        self.counts.ready += 1;
    }

    /// Takes the first ready message of the highest priority.
    pub fn take_ready(&mut self, store: &mut impl Store) -> Result<Option<(Position, Ticket)>, StoreError> {
        let Some(mut entry) = self.lanes.first_entry() else { return Ok(None) };
        let first = entry.get_mut().take_first(store)?;
        if entry.get().is_empty() {
            entry.remove();
        }
        if first.is_some() {
            self.counts.ready -= 1;
        }
        Ok(first)
    }

    /// Takes one certain ready message.
    pub fn remove_ready(&mut self, store: &mut impl Store, position: Position, ticket: &Ticket) {
        let priority = Reverse(priority_of(ticket));
        if let Some(lane) = self.lanes.get_mut(&priority) {
            lane.remove(store, position);
            self.counts.ready -= 1;
            if lane.is_empty() {
                self.lanes.remove(&priority);
            }
        }
    }

    /// Notes whether this consumer can take another message.
    pub fn set_available(&mut self, key: u64, consumer: &Consumer) {
        if consumer.is_attached() && consumer.held.len() < consumer.credit as usize {
            self.available.insert(key);
        } else {
            self.available.remove(&key);
        }
    }

    pub fn remove_consumer(&mut self, key: u64) {
        self.consumers.remove(&key);
        self.available.remove(&key);
    }

    pub fn has_available(&self) -> bool {
        !self.available.is_empty()
    }

    /// The next consumer in turn that can take a message.
    pub fn next_consumer(&mut self) -> Option<u64> {
        let next = self.available.range(self.last_served.saturating_add(1)..).next().or(self.available.first());
        let next = next.copied();
        if let Some(key) = next {
            self.last_served = key;
        }
        next
    }
}

/// A consumer's session.
#[derive(Debug)]
pub(crate) struct Consumer {
    pub consumer_id: String,
    pub queue: u64,
    pub attachment: u64,
    pub credit: u32,
    pub session_timeout_ms: u64,
    /// 0 while a stream is attached.
    pub session_deadline_ms: u64,
    /// Sequences of what it holds.
    pub held: BTreeSet<u64>,
}

impl Consumer {
    pub fn restore(record: ConsumerRecord) -> Consumer {
        Consumer {
            consumer_id: record.consumer_id,
            queue: record.queue,
            attachment: record.attachment,
            credit: record.credit,
            session_timeout_ms: record.session_timeout_ms,
            session_deadline_ms: record.session_deadline_ms,
            held: BTreeSet::new(),
        }
    }

    pub fn record(&self) -> ConsumerRecord {
        ConsumerRecord {
            consumer_id: self.consumer_id.clone(),
            queue: self.queue,
            attachment: self.attachment,
            credit: self.credit,
            session_timeout_ms: self.session_timeout_ms,
            session_deadline_ms: self.session_deadline_ms,
        }
    }

    /// How many leases it holds or may come to hold. Lowering the credit takes none back.
    pub fn promised(&self) -> usize {
        self.held.len().max(self.credit as usize)
    }

    pub fn is_attached(&self) -> bool {
        self.session_deadline_ms == 0
    }
}

fn priority_of(ticket: &Ticket) -> u8 {
    u8::try_from(ticket.priority).unwrap_or(u8::MAX)
}
