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
    /// With a single active consumer: which; 0: none.
    pub active_consumer: u64,
    pub dedupe_entries: u64,
    /// When its idle timer fires; 0: it has none.
    pub idle_timer_ms: u64,
    /// Its row is to be written at the end of the entry.
    pub is_changed: bool,
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
            active_consumer: record.active_consumer,
            dedupe_entries: record.dedupe_entries,
            idle_timer_ms: record.idle_timer_ms,
            is_changed: false,
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
            active_consumer: self.active_consumer,
            dedupe_entries: self.dedupe_entries,
            idle_timer_ms: self.idle_timer_ms,
        }
    }

    /// A priority, lowered to the queue's highest.
    pub fn clamped(&self, priority: u32) -> u8 {
        let highest = self.settings.priority_max.unwrap_or(u8::MAX.into()).min(u8::MAX.into());
        u8::try_from(priority.min(highest)).unwrap_or(u8::MAX)
    }

    /// True if a message stands ready that may be delivered.
    pub fn has_deliverable(&self) -> bool {
        !self.settings.paused && !self.lanes.is_empty()
    }

    /// The lowest priority of the deliverable messages.
    pub fn lowest_lane(&self) -> Option<Reverse<u8>> {
        self.lanes.last_key_value().map(|(priority, _)| *priority)
    }

    /// The lanes' priorities and where their rows begin, in the order of delivery.
    pub fn lane_heads(&self) -> impl Iterator<Item = (u8, Position)> {
        self.lanes.iter().map(|(priority, lane)| (priority.0, lane.head()))
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

    /// Takes the ready message whose turn it is.
    pub fn take_ready(
        &mut self,
        store: &mut impl Store,
        now_ms: u64,
    ) -> Result<Option<(Position, Ticket)>, StoreError> {
        let next = match self.settings.aging_ms {
            0 => self.lanes.first_key_value().map(|(priority, _)| *priority),
            aging_ms => self.first_by_age(store, now_ms, aging_ms)?,
        };
        self.take_from(store, next)
    }

    /// Takes the first ready message of the lowest priority.
    pub fn take_lowest(&mut self, store: &mut impl Store) -> Result<Option<(Position, Ticket)>, StoreError> {
        let lowest = self.lowest_lane();
        self.take_from(store, lowest)
    }

    fn take_from(
        &mut self,
        store: &mut impl Store,
        priority: Option<Reverse<u8>>,
    ) -> Result<Option<(Position, Ticket)>, StoreError> {
        let Some(lane) = priority.and_then(|priority| self.lanes.get_mut(&priority)) else { return Ok(None) };
        let first = lane.take_first(store)?;
        if lane.is_empty()
            && let Some(priority) = priority
        {
            self.lanes.remove(&priority);
        }
        if first.is_some() {
            self.counts.ready -= 1;
        }
        Ok(first)
    }

    /// The lane whose first message has, with what it gained by waiting, the highest priority.
    fn first_by_age(
        &mut self,
        store: &impl Store,
        now_ms: u64,
        aging_ms: u64,
    ) -> Result<Option<Reverse<u8>>, StoreError> {
        let mut best = None;
        for (priority, lane) in &mut self.lanes {
            let Some(first) = lane.first(store)? else { continue };
            let gained = now_ms.saturating_sub(first.ready_at_ms) / aging_ms;
            let effective = u64::from(priority.0).saturating_add(gained).min(u8::MAX.into());
            best = best.max(Some((effective, Reverse(first), *priority)));
        }
        Ok(best.map(|(_, _, priority)| priority))
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

    /// True if a consumer may be given a message.
    pub fn has_available(&self) -> bool {
        if self.settings.paused {
            return false;
        }
        if self.settings.single_active_consumer {
            return self.available.contains(&self.active_consumer);
        }
        !self.available.is_empty()
    }

    /// The next consumer in turn that can take a message.
    pub fn next_consumer(&mut self) -> Option<u64> {
        if !self.has_available() {
            return None;
        }
        if self.settings.single_active_consumer {
            return Some(self.active_consumer);
        }
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
