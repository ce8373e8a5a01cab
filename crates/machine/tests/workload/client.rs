//! What a client learns from the machine's answers, and the commands that it makes of it.

use std::collections::{BTreeMap, BTreeSet};

use dwell_machine::{
    Ack, Applied, Attach, Command, ControlSchedule, DeclareQueue, DeclareSchedule, DeleteExchange, DeleteQueue,
    DeleteSchedule, Detach, DetachAll, Effect, Extend, Lease, Nack, ProducerSequence, Publish, PublishResult, Receive,
    Release, Reply, Revise, ReviseById, ReviseMatching, SetCredit, Transact, Unbind, UpdateQueue,
};

use super::message::{definition, filter, flood_message, publish_message, revision};
use super::{
    CONSUMERS, EXCHANGES, LeasePick, LeasePicks, MessagePick, NewMessage, Op, PRODUCERS, QUEUES, SCHEDULES,
    SequencePick,
};

/// Remembers what a client learns from the machine's answers, and makes commands of it.
#[derive(Debug, Default)]
pub struct Client {
    open: Vec<(String, Lease)>,
    settled: Vec<(String, Lease)>,
    /// Queue and sequence of the messages that it knows to be, or to have been, there.
    stored: Vec<(String, u64)>,
    /// The last stream that attached.
    last_attachment: u64,
    /// Consumer id to key and attachment.
    consumers: BTreeMap<String, (u64, u64)>,
    /// Consumer key to its queue's name.
    queue_of: BTreeMap<u64, String>,
    /// Last sequence that each producer used.
    producers: BTreeMap<String, u64>,
}

impl Client {
    /// The command that an op stands for now.
    pub fn command(&mut self, op: &Op, clock_ms: u64) -> Command {
        match op {
            Op::Declare { queue, settings } => {
                Command::DeclareQueue(DeclareQueue { queue: QUEUES[*queue].into(), settings: settings.clone() })
            }
            Op::Delete { queue, if_empty, if_unused } => Command::DeleteQueue(DeleteQueue {
                queue: QUEUES[*queue].into(),
                if_empty: *if_empty,
                if_unused: *if_unused,
            }),
            Op::Update { queue, settings, fields } => Command::UpdateQueue(UpdateQueue {
                queue: QUEUES[*queue].into(),
                settings: settings.clone(),
                fields: fields.iter().map(|field| (*field).to_owned()).collect(),
            }),
            Op::Publish { messages, producer } => Command::Publish(self.publish(messages, *producer, clock_ms)),
            Op::Transact { acks, messages, producer } => {
                let acks = acks.iter().map(|picks| self.leases(picks));
                let acks: Vec<Ack> = acks.map(|(queue, leases)| Ack { queue, leases }).collect();
                // If it is refused, that is noticed: the client does not settle twice on purpose.
                acks.iter().for_each(|ack| self.forget(&ack.leases));
                Command::Transact(Transact { acks, publish: self.publish(messages, *producer, clock_ms) })
            }
            Op::Flood { queue, messages, spread_ms, ttl_ms } => Command::Publish(Publish {
                messages: (0..*messages).map(|number| flood_message(*queue, number, *spread_ms, *ttl_ms)).collect(),
                producer: None,
            }),
            Op::Attach { queue, consumer, credit, session_timeout_ms, holding } => {
                self.last_attachment += 1;
                Command::Attach(Attach {
                    queue: QUEUES[*queue].into(),
                    consumer_id: CONSUMERS[*consumer].into(),
                    credit: *credit,
                    session_timeout_ms: *session_timeout_ms,
                    holding: holding.iter().flat_map(|pick| self.picked(*pick)).map(|(_, lease)| lease).collect(),
                    attachment: self.last_attachment,
                })
            }
            Op::Detach { consumer, stale, close } => {
                let (consumer, attachment) = self.session(*consumer, *stale);
                Command::Detach(Detach { consumer, attachment, close: *close })
            }
            Op::SetCredit { consumer, stale, credit } => {
                let (consumer, attachment) = self.session(*consumer, *stale);
                Command::SetCredit(SetCredit { consumer, attachment, credit: *credit })
            }
            Op::Receive { queue, messages_max, lease_timeout_ms } => Command::Receive(Receive {
                queue: QUEUES[*queue].into(),
                messages_max: *messages_max,
                lease_timeout_ms: *lease_timeout_ms,
            }),
            Op::Ack { leases } => {
                let (queue, leases) = self.leases(leases);
                self.forget(&leases);
                Command::Ack(Ack { queue, leases })
            }
            Op::Nack { leases, delay_ms, reject, immediate } => {
                let (queue, leases) = self.leases(leases);
                self.forget(&leases);
                Command::Nack(Nack { queue, leases, delay_ms: *delay_ms, reject: *reject, immediate: *immediate })
            }
            Op::Extend { leases, lease_timeout_ms } => {
                let (queue, leases) = self.leases(leases);
                Command::Extend(Extend { queue, leases, lease_timeout_ms: *lease_timeout_ms })
            }
            Op::Release => Command::Release(Release {}),
            Op::DetachAll => Command::DetachAll(DetachAll {}),
            op => self.plan(op, clock_ms),
        }
    }

    /// Commands that deal with no messages, or with messages that nobody was asked for.
    fn plan(&mut self, op: &Op, clock_ms: u64) -> Command {
        let queue_name = |queue: &usize| QUEUES[*queue].to_owned();
        let schedule_name = |schedule: &usize| SCHEDULES[*schedule].to_owned();
        match op {
            Op::DeclareExchange(declare) => Command::DeclareExchange(declare.clone()),
            Op::DeleteExchange { exchange, if_unused } => {
                Command::DeleteExchange(DeleteExchange { exchange: EXCHANGES[*exchange].into(), if_unused: *if_unused })
            }
            Op::Bind(binding) => Command::Bind(binding.clone()),
            Op::Unbind(binding) => Command::Unbind(Unbind { binding: binding.clone() }),
            Op::Revise { messages, revision: new, revoke } => {
                let picked: Vec<(String, u64)> = messages.iter().map(|pick| self.message(*pick)).collect();
                let queue = picked[0].0.clone();
                let sequences = picked.into_iter().map(|(_, sequence)| sequence).collect();
                Command::Revise(Revise { queue, sequences, revoke: *revoke, revision: revision(*new, clock_ms) })
            }
            Op::ReviseById { queue, message_id, after, revision: new, revoke } => Command::ReviseById(ReviseById {
                queue: queue_name(queue),
                message_id: (*message_id).into(),
                revoke: *revoke,
                after: *after,
                revision: revision(*new, clock_ms),
            }),
            Op::ReviseMatching { queue, filter: new_filter, revision: new, revoke } => {
                Command::ReviseMatching(ReviseMatching {
                    queue: queue_name(queue),
                    filter: filter(new_filter, clock_ms),
                    revoke: *revoke,
                    cursor: Default::default(),
                    revision: revision(*new, clock_ms),
                })
            }
            Op::DeclareSchedule { schedule, definition: new, replace } => Command::DeclareSchedule(DeclareSchedule {
                schedule: schedule_name(schedule),
                definition: definition(new, clock_ms),
                replace: *replace,
            }),
            Op::DeleteSchedule { schedule } => {
                Command::DeleteSchedule(DeleteSchedule { schedule: schedule_name(schedule) })
            }
            Op::ControlSchedule { schedule, control } => {
                let control = (*control).into();
                Command::ControlSchedule(ControlSchedule { schedule: schedule_name(schedule), control })
            }
            Op::PutUser(put) => Command::PutUser(put.clone()),
            Op::RemoveUser(remove) => Command::RemoveUser(remove.clone()),
            op => unreachable!("{op:?} deals with messages"),
        }
    }

    fn publish(&mut self, messages: &[NewMessage], producer: Option<(usize, SequencePick)>, clock_ms: u64) -> Publish {
        Publish {
            messages: messages.iter().map(|message| publish_message(message, clock_ms)).collect(),
            producer: producer.map(|(producer, pick)| self.producer_sequence(PRODUCERS[producer], pick)),
        }
    }

    /// Learns from an entry's outcome.
    pub fn observe(&mut self, commands: &[Command], applied: &Applied) {
        for (command, reply) in commands.iter().zip(&applied.replies) {
            match (command, reply) {
                (Command::Attach(attach), Reply::Attached { consumer, .. }) => {
                    self.consumers.insert(attach.consumer_id.clone(), (*consumer, attach.attachment));
                    self.queue_of.insert(*consumer, attach.queue.clone());
                }
                (Command::Receive(receive), Reply::Received { deliveries, .. }) => {
                    let leases = deliveries.iter().map(|of| Lease { sequence: of.sequence, token: of.token });
                    self.open.extend(leases.map(|lease| (receive.queue.clone(), lease)));
                }
                (Command::Publish(publish), Reply::Published { results, .. }) => self.learn(publish, results),
                (Command::Transact(transact), Reply::Published { results, .. }) => {
                    self.learn(&transact.publish, results);
                }
                _ => {}
            }
        }
        for effect in &applied.effects {
            if let Effect::Deliver { consumer, delivery, .. } = effect {
                let lease = Lease { sequence: delivery.sequence, token: delivery.token };
                let queue = self.queue_of.get(consumer).cloned().unwrap_or_default();
                self.stored.push((queue.clone(), lease.sequence));
                if !self.open.contains(&(queue.clone(), lease)) {
                    self.open.push((queue, lease));
                }
            }
        }
    }

    fn learn(&mut self, publish: &Publish, results: &[PublishResult]) {
        for (message, result) in publish.messages.iter().zip(results) {
            match result {
                PublishResult::Stored { sequence } => self.stored.push((message.routing_key.clone(), *sequence)),
                PublishResult::Routed(copies) => {
                    self.stored.extend(copies.iter().map(|copy| (copy.queue.clone(), copy.sequence)));
                }
                PublishResult::Unroutable | PublishResult::Rejected { .. } => {}
            }
        }
    }

    fn message(&self, pick: MessagePick) -> (String, u64) {
        let stored = match pick {
            MessagePick::Stored(back) => self.stored.iter().rev().nth(back).cloned(),
            MessagePick::Forged(sequence) => Some((QUEUES[0].into(), sequence)),
        };
        stored.unwrap_or_else(|| (QUEUES[0].into(), 1))
    }

    fn producer_sequence(&mut self, producer_id: &str, pick: SequencePick) -> ProducerSequence {
        let last = self.producers.entry(producer_id.into()).or_default();
        let sequence = match pick {
            SequencePick::Next => {
                *last += 1;
                *last
            }
            SequencePick::Repeated(back) => last.saturating_sub(back).max(1),
            SequencePick::Gap => *last + 2,
            SequencePick::Zero => 0,
        };
        // The repeated first command of a producer that sent none is its first one.
        *last = (*last).max(if matches!(pick, SequencePick::Gap) { 0 } else { sequence });
        ProducerSequence { producer_id: producer_id.into(), sequence }
    }

    fn session(&self, consumer: usize, stale: bool) -> (u64, u64) {
        let (key, attachment) = self.consumers.get(CONSUMERS[consumer]).copied().unwrap_or((77, 77));
        (key, if stale { attachment.saturating_sub(1) } else { attachment })
    }

    /// At least one lease, with the name of its queue.
    fn picked(&self, pick: LeasePick) -> Vec<(String, Lease)> {
        let nth = |leases: &[(String, Lease)], back: usize| {
            let last = leases.len().checked_sub(1)?;
            leases.get(last - back % leases.len()).cloned()
        };
        let (picked, unseen) = match pick {
            LeasePick::Open(back) => (Vec::from_iter(nth(&self.open, back)), Lease { sequence: 1, token: 1 }),
            LeasePick::Settled(back) => (Vec::from_iter(nth(&self.settled, back)), Lease { sequence: 1, token: 1 }),
            LeasePick::Newest(count) => {
                (self.open.iter().rev().take(count).cloned().collect(), Lease { sequence: 1, token: 1 })
            }
            LeasePick::Forged(lease) => (Vec::new(), lease),
        };
        if picked.is_empty() { vec![(QUEUES[0].into(), unseen)] } else { picked }
    }

    fn leases(&self, picks: &LeasePicks) -> (String, Vec<Lease>) {
        let leases: Vec<(String, Lease)> = picks.picks.iter().flat_map(|pick| self.picked(*pick)).collect();
        let queue = picks.queue.map_or_else(|| leases[0].0.clone(), |queue| QUEUES[queue].into());
        (queue, leases.into_iter().map(|(_, lease)| lease).collect())
    }

    fn forget(&mut self, leases: &[Lease]) {
        let leases: BTreeSet<&Lease> = leases.iter().collect();
        let (settled, open) = std::mem::take(&mut self.open).into_iter().partition(|(_, lease)| leases.contains(lease));
        self.open = open;
        self.settled.extend::<Vec<_>>(settled);
    }
}
