//! What a client learns from the machine's answers, and the commands that it makes of it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use dwell_machine::{
    Ack, Applied, Attach, Command, Content, DeclareQueue, DeleteQueue, Detach, DetachAll, Effect, Extend, Lease, Nack,
    ProducerSequence, Publish, PublishMessage, Receive, Release, Reply, SetCredit,
};

use super::{CONSUMERS, LeasePick, LeasePicks, NewMessage, Op, PRODUCERS, QUEUES, SequencePick};

/// Remembers what a client learns from the machine's answers, and makes commands of it.
#[derive(Debug, Default)]
pub struct Client {
    open: Vec<(String, Lease)>,
    settled: Vec<(String, Lease)>,
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
            Op::Publish { messages, producer } => Command::Publish(Publish {
                messages: messages.iter().map(|message| publish_message(message, clock_ms)).collect(),
                producer: producer.map(|(producer, pick)| self.producer_sequence(PRODUCERS[producer], pick)),
            }),
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
            Op::Nack { leases, delay_ms } => {
                let (queue, leases) = self.leases(leases);
                self.forget(&leases);
                Command::Nack(Nack { queue, leases, delay_ms: *delay_ms })
            }
            Op::Extend { leases, lease_timeout_ms } => {
                let (queue, leases) = self.leases(leases);
                Command::Extend(Extend { queue, leases, lease_timeout_ms: *lease_timeout_ms })
            }
            Op::Release => Command::Release(Release {}),
            Op::DetachAll => Command::DetachAll(DetachAll {}),
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
                _ => {}
            }
        }
        for effect in &applied.effects {
            if let Effect::Deliver { consumer, delivery, .. } = effect {
                let lease = Lease { sequence: delivery.sequence, token: delivery.token };
                let queue = self.queue_of.get(consumer).cloned().unwrap_or_default();
                if !self.open.contains(&(queue.clone(), lease)) {
                    self.open.push((queue, lease));
                }
            }
        }
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

fn flood_message(queue: usize, number: u64, spread_ms: u64, ttl_ms: u64) -> PublishMessage {
    PublishMessage {
        queue: QUEUES[queue].into(),
        content: Content { body: Bytes::from_static(b"flood"), ..Content::default() },
        priority: if number.is_multiple_of(5) { 1 } else { 0 },
        // The primes only stir.
        delay_ms: if spread_ms == 0 { 0 } else { number * 7919 % spread_ms },
        ttl_ms: if number.is_multiple_of(3) { ttl_ms } else { 0 },
        ..PublishMessage::default()
    }
}

fn publish_message(message: &NewMessage, clock_ms: u64) -> PublishMessage {
    let absolute = |offset_ms: Option<i64>| offset_ms.map_or(0, |offset_ms| clock_ms.saturating_add_signed(offset_ms));
    PublishMessage {
        queue: QUEUES[message.queue].into(),
        content: Content {
            body: Bytes::from(vec![b'x'; message.bytes]),
            headers: BTreeMap::from([("size".into(), message.bytes.to_string())]),
            content_type: "text/plain".into(),
            message_id: format!("{} in {}", message.bytes, message.delay_ms),
            ..Content::default()
        },
        priority: message.priority,
        delay_ms: message.delay_ms,
        deliver_at_ms: absolute(message.deliver_in_ms),
        ttl_ms: message.ttl_ms,
        expire_at_ms: absolute(message.expire_in_ms),
    }
}
