//! A log with a bit of everything, the same for the same seed.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use dwell_consensus::codec::log_id_of;
use dwell_consensus::types::{Entry, NodeAddress, Proposal};
use dwell_machine::{
    Ack, Attach, Batch, Command, Content, DeclareQueue, DeleteQueue, Detach, DetachAll, Effect, Extend, Lease, Machine,
    MemoryStore, Nack, ProducerSequence, Publish, PublishMessage, QueueSettings, Receive, Release, Reply, SetCredit,
};
use openraft::{EntryPayload, Membership};

const QUEUES: [&str; 3] = ["alpha", "beta", "gamma"];
const CONSUMERS: [&str; 3] = ["ann", "bob", "cy"];

/// A log, and what a machine in memory makes of it.
pub struct Workload {
    pub entries: Vec<Entry>,
    /// After each entry.
    pub stores: Vec<MemoryStore>,
    /// Of all entries.
    pub effects: Vec<Effect>,
}

/// Writes the log while a machine in memory applies it, so that leases are settled that were given.
struct Writer {
    random: Random,
    machine: Machine,
    store: MemoryStore,
    clock_ms: u64,
    sequences: BTreeMap<&'static str, u64>,
    leases: Vec<(usize, Lease)>,
    last_attachment: u64,
    /// Consumers with their last attachment.
    consumers: BTreeMap<u64, u64>,
    queue_ids: BTreeMap<u64, usize>,
}

impl Workload {
    pub fn new(seed: u64, entries: usize) -> Workload {
        let mut writer = Writer::new(seed);
        let mut workload = Workload { entries: Vec::new(), stores: Vec::new(), effects: Vec::new() };
        for index in 0..entries as u64 {
            let payload = match index {
                0 => EntryPayload::Membership(membership(&[1])),
                index if index % 97 == 0 => EntryPayload::Membership(membership(&[1, index])),
                index if index % 13 == 0 => EntryPayload::Blank,
                _ => EntryPayload::Normal(writer.proposal(&mut workload.effects)),
            };
            workload.entries.push(Entry { log_id: log_id_of(1 + index / 50, 1, index), payload });
            workload.stores.push(writer.store.clone());
        }
        workload
    }
}

pub fn membership(voters: &[u64]) -> Membership<u64, NodeAddress> {
    let voters: BTreeSet<u64> = voters.iter().copied().collect();
    let nodes =
        voters.iter().map(|id| (*id, NodeAddress { peer: format!("peer:{id}"), client: format!("client:{id}") }));
    let nodes = nodes.collect::<BTreeMap<_, _>>();
    Membership::new(vec![voters], nodes).unwrap()
}

impl Writer {
    fn new(seed: u64) -> Writer {
        let store = MemoryStore::default();
        Writer {
            random: Random(seed | 1),
            machine: Machine::open(&store).unwrap(),
            store,
            clock_ms: 1_000_000,
            sequences: BTreeMap::new(),
            leases: Vec::new(),
            last_attachment: 0,
            consumers: BTreeMap::new(),
            queue_ids: BTreeMap::new(),
        }
    }

    fn proposal(&mut self, effects: &mut Vec<Effect>) -> Proposal {
        self.clock_ms += self.random.below(40);
        let commands: Vec<Command> = (0..1 + self.random.below(6)).map(|_| self.command()).collect();
        let encoded = Batch::encode(self.clock_ms, commands.clone());
        let applied = self.machine.apply(&mut self.store, self.clock_ms, commands.clone()).unwrap();
        self.learn(&commands, &applied.replies, &applied.effects);
        effects.extend(applied.effects);
        Proposal(encoded)
    }

    fn learn(&mut self, commands: &[Command], replies: &[Reply], effects: &[Effect]) {
        for (position, name) in QUEUES.iter().enumerate() {
            self.queue_ids.extend(self.machine.queue(name).map(|queue| (queue.id, position)));
        }
        for (command, reply) in commands.iter().zip(replies) {
            match (command, reply) {
                (Command::Attach(attach), Reply::Attached { consumer, .. }) => {
                    self.consumers.insert(*consumer, attach.attachment);
                }
                (_, Reply::Received { deliveries, .. }) => deliveries
                    .iter()
                    .for_each(|delivery| self.remember(delivery.queue, delivery.sequence, delivery.token)),
                _ => {}
            }
        }
        for effect in effects {
            if let Effect::Deliver { delivery, .. } = effect {
                self.remember(delivery.queue, delivery.sequence, delivery.token);
            }
        }
    }

    fn remember(&mut self, queue: u64, sequence: u64, token: u64) {
        if let Some(position) = self.queue_ids.get(&queue) {
            self.leases.push((*position, Lease { sequence, token }));
        }
    }

    fn command(&mut self) -> Command {
        let queue = QUEUES[self.random.below(3) as usize].to_owned();
        match self.random.below(100) {
            0..10 => Command::DeclareQueue(DeclareQueue {
                queue,
                settings: QueueSettings { lease_timeout_ms: 200, delivery_limit: 3, ..QueueSettings::default() },
            }),
            10 => Command::DeleteQueue(DeleteQueue { queue, if_empty: false, if_unused: false }),
            11..50 => self.publish(),
            50..56 => self.attach(queue),
            56..60 => self.detach_or_credit(),
            60 => Command::DetachAll(DetachAll {}),
            61..66 => Command::Receive(Receive { queue, messages_max: 3, lease_timeout_ms: 0 }),
            66..88 => self.settle(),
            _ => Command::Release(Release {}),
        }
    }

    fn publish(&mut self) -> Command {
        let messages = (0..1 + self.random.below(3)).map(|_| self.message()).collect();
        let producer_id = ["press", "quill"][self.random.below(2) as usize];
        let repeated = self.random.below(8) == 0;
        let sequence = self.sequences.entry(producer_id).or_default();
        if !repeated || *sequence == 0 {
            *sequence += 1;
        }
        let producer = ProducerSequence { producer_id: producer_id.to_owned(), sequence: *sequence };
        Command::Publish(Publish { messages, producer: Some(producer).filter(|_| self.random.below(2) == 0) })
    }

    fn message(&mut self) -> PublishMessage {
        // Some go to blob files.
        let length = if self.random.below(10) == 0 { 6000 } else { self.random.below(50) as usize };
        let body = Bytes::from(vec![self.random.below(256) as u8; length]);
        let or_zero = |chance: u64, value: u64| if chance == 0 { value } else { 0 };
        PublishMessage {
            routing_key: QUEUES[self.random.below(3) as usize].to_owned(),
            content: Content { body, ..Content::default() },
            priority: or_zero(self.random.below(3), 9) as u32,
            delay_ms: or_zero(self.random.below(2), self.random.below(500)),
            deliver_at_ms: or_zero(self.random.below(6), self.clock_ms + self.random.below(300)),
            ttl_ms: or_zero(self.random.below(3), 1 + self.random.below(300)),
            expire_at_ms: or_zero(self.random.below(6), self.clock_ms + self.random.below(600)),
            ..PublishMessage::default()
        }
    }

    fn attach(&mut self, queue: String) -> Command {
        self.last_attachment += 1;
        Command::Attach(Attach {
            queue,
            consumer_id: CONSUMERS[self.random.below(3) as usize].to_owned(),
            credit: 1 + self.random.below(4) as u32,
            session_timeout_ms: 150,
            holding: Vec::new(),
            attachment: self.last_attachment,
        })
    }

    fn detach_or_credit(&mut self) -> Command {
        let position = self.random.below(self.consumers.len().max(1) as u64) as usize;
        let Some((consumer, attachment)) = self.consumers.iter().nth(position).map(|(key, last)| (*key, *last)) else {
            return Command::Release(Release {});
        };
        match self.random.below(2) {
            0 => Command::Detach(Detach { consumer, attachment, close: self.random.below(2) == 0 }),
            _ => Command::SetCredit(SetCredit { consumer, attachment, credit: 1 + self.random.below(5) as u32 }),
        }
    }

    fn settle(&mut self) -> Command {
        if self.leases.is_empty() {
            return Command::Release(Release {});
        }
        let position = self.random.below(self.leases.len() as u64) as usize;
        let (queue, lease) = self.leases.swap_remove(position);
        let (queue, leases) = (QUEUES[queue].to_owned(), vec![lease]);
        match self.random.below(4) {
            0 => Command::Nack(Nack { queue, leases, delay_ms: self.random.below(2) * 100, ..Nack::default() }),
            1 => Command::Extend(Extend { queue, leases, lease_timeout_ms: 400 }),
            _ => Command::Ack(Ack { queue, leases }),
        }
    }
}

/// A small generator, so that a seed means the same everywhere and always.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}
