//! What the machine is to do, said as plainly as it can be: plain structs, and every question answered by
//! looking at everything. It shares nothing with the machine but the types of commands and replies.

use std::collections::{BTreeMap, BTreeSet};

use dwell_machine::{
    CloseReason, Command, DeclareQueue, DeleteQueue, Delivery, Effect, MessageRecord, QueueSettings, Receive, Refusal,
    Reply,
};

/// A queue in sight.
#[derive(Debug, Clone)]
pub struct Queue {
    pub id: u64,
    pub name: String,
    pub settings: QueueSettings,
    pub created_at_ms: u64,
    pub totals: Totals,
    /// The consumer that got the last lease.
    pub last_served: u64,
}

/// What happened in a queue since it was declared.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    pub published: u64,
    pub delivered: u64,
    pub acknowledged: u64,
    pub returned: u64,
    pub expired: u64,
    pub exhausted: u64,
}

/// A queue's messages by state.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    pub scheduled: u64,
    pub ready: u64,
    pub leased: u64,
    pub bytes: u64,
}

/// Where a message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Scheduled,
    Ready,
    Leased { token: u64, consumer: u64, deadline_ms: u64 },
}

/// A message that is not gone.
#[derive(Debug, Clone)]
pub struct Message {
    pub queue: u64,
    pub record: MessageRecord,
    /// Its position among the ready ones; moved by a nack with delay, while the record's stays.
    pub ready_at_ms: u64,
    pub delivery_count: u32,
    pub place: Place,
}

/// A consumer, attached or within its session timeout.
#[derive(Debug, Clone)]
pub struct Consumer {
    pub consumer_id: String,
    pub queue: u64,
    pub attachment: u64,
    pub credit: u64,
    pub session_timeout_ms: u64,
    /// None while a stream is attached.
    pub session_deadline_ms: Option<u64>,
}

/// What came of one entry.
#[derive(Debug, Default)]
pub struct Outcome {
    pub replies: Vec<Reply>,
    /// Deliveries and closed consumers, in order; deliveries without their message.
    pub effects: Vec<Effect>,
    /// Queues that have messages which became ready in this entry and still wait: they must be woken.
    pub wakes_required: BTreeSet<u64>,
    /// Queues in which messages waited when others had come or come back in this entry: they may be.
    pub wakes_allowed: BTreeSet<u64>,
    pub released_due_ms: Vec<u64>,
}

/// The naive machine.
#[derive(Debug, Default, Clone)]
pub struct Reference {
    pub now_ms: u64,
    pub queues: Vec<Queue>,
    /// By sequence.
    pub messages: BTreeMap<u64, Message>,
    /// By key.
    pub consumers: BTreeMap<u64, Consumer>,
    /// Every outcome that each producer ever got.
    pub producers: BTreeMap<String, Vec<Reply>>,
    pub last_queue: u64,
    pub last_sequence: u64,
    pub last_token: u64,
    pub last_consumer: u64,
    pub effects: Vec<Effect>,
    pub released_due_ms: Vec<u64>,
    /// Sequences that became ready in this entry.
    pub fresh: BTreeSet<u64>,
    pub wakes_allowed: BTreeSet<u64>,
}

impl Reference {
    /// Does what the commands say at the given time.
    pub fn apply(&mut self, at_ms: u64, commands: &[Command]) -> Outcome {
        self.now_ms = self.now_ms.max(at_ms);
        self.fresh.clear();
        let replies = commands.iter().map(|command| self.command(command)).collect();
        let waits = |sequence: &&u64| self.messages.get(sequence).is_some_and(|message| message.place == Place::Ready);
        Outcome {
            replies,
            wakes_required: self.fresh.iter().filter(waits).map(|sequence| self.messages[sequence].queue).collect(),
            wakes_allowed: std::mem::take(&mut self.wakes_allowed),
            effects: std::mem::take(&mut self.effects),
            released_due_ms: std::mem::take(&mut self.released_due_ms),
        }
    }

    fn command(&mut self, command: &Command) -> Reply {
        match command {
            Command::DeclareQueue(declare) => self.declare(declare),
            Command::DeleteQueue(delete) => self.delete(delete),
            Command::Publish(publish) => self.publish(publish),
            Command::Attach(attach) => self.attach(attach),
            Command::Detach(detach) => self.detach(detach),
            Command::SetCredit(credit) => self.set_credit(credit),
            Command::Receive(receive) => self.receive(receive),
            Command::Ack(ack) => self.ack(ack),
            Command::Nack(nack) => self.nack(nack),
            Command::Extend(extend) => self.extend(extend),
            Command::Release(_) => self.release(),
            Command::DetachAll(_) => self.detach_all(),
        }
    }

    /// The id of the queue of this name.
    pub fn find(&self, name: &str) -> Result<u64, Reply> {
        let queue = self.queues.iter().find(|queue| queue.name == name);
        queue.map(|queue| queue.id).ok_or_else(|| Reply::Refused(Refusal::QueueNotFound { queue: name.into() }))
    }

    pub fn queue(&mut self, id: u64) -> &mut Queue {
        self.queues.iter_mut().find(|queue| queue.id == id).expect("messages and consumers go with their queue")
    }

    pub fn message(&mut self, sequence: u64) -> &mut Message {
        self.messages.get_mut(&sequence).expect("asked only for messages that are there")
    }

    /// A queue's messages by state.
    pub fn counts(&self, queue: u64) -> Counts {
        let mut counts = Counts::default();
        for message in self.messages.values().filter(|message| message.queue == queue) {
            counts.bytes += message.record.content.body.len() as u64;
            match message.place {
                Place::Scheduled => counts.scheduled += 1,
                Place::Ready => counts.ready += 1,
                Place::Leased { .. } => counts.leased += 1,
            }
        }
        counts
    }

    /// How many consumers a queue has.
    pub fn consumer_count(&self, queue: u64) -> u64 {
        self.consumers.values().filter(|consumer| consumer.queue == queue).count() as u64
    }

    /// Messages leased to a consumer, by sequence.
    pub fn held_by(&self, consumer: u64) -> Vec<u64> {
        let held = |message: &Message| matches!(message.place, Place::Leased { consumer: by, .. } if by == consumer);
        self.messages.iter().filter(|(_, message)| held(message)).map(|(sequence, _)| *sequence).collect()
    }

    fn declare(&mut self, declare: &DeclareQueue) -> Reply {
        if let Some(queue) = self.queues.iter().find(|queue| queue.name == declare.queue) {
            let differs = |field| Reply::Refused(Refusal::QueueDiffers { queue: declare.queue.clone(), field });
            if queue.settings.lease_timeout_ms != declare.settings.lease_timeout_ms {
                return differs("lease_timeout_ms");
            }
            if queue.settings.delivery_limit != declare.settings.delivery_limit {
                return differs("delivery_limit");
            }
            return Reply::QueueDeclared { created: false };
        }
        self.last_queue += 1;
        self.queues.push(Queue {
            id: self.last_queue,
            name: declare.queue.clone(),
            settings: declare.settings.clone(),
            created_at_ms: self.now_ms,
            totals: Totals::default(),
            last_served: 0,
        });
        Reply::QueueDeclared { created: true }
    }

    fn delete(&mut self, delete: &DeleteQueue) -> Reply {
        let id = match self.find(&delete.queue) {
            Ok(id) => id,
            Err(refusal) => return refusal,
        };
        let counts = self.counts(id);
        let messages = counts.scheduled + counts.ready + counts.leased;
        let consumers = self.consumer_count(id);
        if delete.if_empty && messages > 0 {
            return Reply::Refused(Refusal::QueueNotEmpty { queue: delete.queue.clone(), messages });
        }
        if delete.if_unused && consumers > 0 {
            return Reply::Refused(Refusal::QueueInUse { queue: delete.queue.clone(), consumers });
        }
        for (&consumer, session) in self.consumers.iter().filter(|(_, session)| session.queue == id) {
            if session.session_deadline_ms.is_none() {
                let (attachment, reason) = (session.attachment, CloseReason::QueueDeleted);
                self.effects.push(Effect::CloseConsumer { consumer, attachment, reason });
            }
        }
        self.consumers.retain(|_, consumer| consumer.queue != id);
        self.messages.retain(|_, message| message.queue != id);
        self.queues.retain(|queue| queue.id != id);
        Reply::QueueDeleted { messages }
    }

    fn receive(&mut self, receive: &Receive) -> Reply {
        let queue = match self.find(&receive.queue) {
            Ok(id) => id,
            Err(refusal) => return refusal,
        };
        let mut deliveries = Vec::new();
        while deliveries.len() < receive.messages_max as usize {
            let Some(sequence) = self.first_lasting(queue) else { break };
            deliveries.push(self.lease(sequence, 0, receive.lease_timeout_ms));
        }
        Reply::Received { queue, deliveries }
    }

    /// The ready message that is to be delivered next.
    pub fn first_ready(&self, queue: u64) -> Option<u64> {
        let ready = |message: &Message| message.queue == queue && message.place == Place::Ready;
        let position = |sequence: u64, message: &Message| {
            (std::cmp::Reverse(message.record.priority), message.ready_at_ms, sequence)
        };
        let first = self.messages.iter().filter(|(_, message)| ready(message));
        first.min_by_key(|(sequence, message)| position(**sequence, message)).map(|(sequence, _)| *sequence)
    }

    /// The same, once those before it are dropped whose time is over: a pulse need not have come for them.
    fn first_lasting(&mut self, queue: u64) -> Option<u64> {
        while let Some(sequence) = self.first_ready(queue) {
            if !self.is_over(sequence) {
                return Some(sequence);
            }
            self.expire(sequence);
        }
        None
    }

    /// Leases a message to a consumer, or to nobody (0); a timeout of 0 is the queue's.
    pub fn lease(&mut self, sequence: u64, consumer: u64, timeout_ms: u64) -> Delivery {
        self.last_token += 1;
        let (now_ms, token) = (self.now_ms, self.last_token);
        let queue = self.messages[&sequence].queue;
        self.queue(queue).totals.delivered += 1;
        let timeout_ms = if timeout_ms == 0 { self.queue(queue).settings.lease_timeout_ms } else { timeout_ms };
        self.message(sequence).place = Place::Leased { token, consumer, deadline_ms: now_ms + timeout_ms };
        self.delivery(sequence)
    }

    /// A leased message as its consumer is told of it.
    pub fn delivery(&self, sequence: u64) -> Delivery {
        let message = &self.messages[&sequence];
        let Place::Leased { token, deadline_ms, .. } = message.place else {
            panic!("message {sequence} is not leased: {message:?}");
        };
        Delivery {
            queue: message.queue,
            sequence,
            token,
            delivery_count: message.delivery_count,
            ready_at_ms: message.ready_at_ms,
            deadline_ms,
            message: None,
        }
    }

    /// Leases ready messages while anybody can take one.
    pub fn dispatch(&mut self, queue: u64) {
        while let Some(consumer) = self.next_taker(queue) {
            let Some(sequence) = self.first_lasting(queue) else { break };
            self.queue(queue).last_served = consumer;
            let (attachment, delivery) = (self.consumers[&consumer].attachment, self.lease(sequence, consumer, 0));
            self.effects.push(Effect::Deliver { consumer, attachment, delivery });
        }
    }

    /// The consumer whose turn it is, of those that may hold one more.
    fn next_taker(&self, queue: u64) -> Option<u64> {
        let last_served = self.queues.iter().find(|at| at.id == queue)?.last_served;
        let takes = |key: u64, consumer: &Consumer| {
            consumer.queue == queue
                && consumer.session_deadline_ms.is_none()
                && (self.held_by(key).len() as u64) < consumer.credit
        };
        let takers = self.consumers.iter().filter(|(key, consumer)| takes(**key, consumer)).map(|(key, _)| *key);
        takers.min_by_key(|key| (*key <= last_served, *key))
    }

    /// Dispatches after messages came, or came back, which is when waiting receive calls may have to be woken.
    pub fn dispatch_returned(&mut self, queue: u64) {
        self.dispatch(queue);
        if self.messages.values().any(|message| message.queue == queue && message.place == Place::Ready) {
            self.wakes_allowed.insert(queue);
        }
    }
}
