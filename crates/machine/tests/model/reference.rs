//! What the machine is to do, said as plainly as it can be: plain structs, and every question answered by
//! looking at everything. It shares nothing with the machine but the types of commands and replies.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use dwell_machine::{
    Binding, Command, Counts, Death, DeathReason, DeclareExchange, Effect, FiringRecord, MessageRecord, QueueSettings,
    Refusal, Reply, ScheduleDefinition, Totals, UserRecord,
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
    /// When it was last declared, updated, received from, or left by its last consumer.
    pub last_used_ms: u64,
    /// With a single active consumer: which; 0: none.
    pub active_consumer: u64,
    /// Of each ordering group that has one: the message whose turn it is.
    pub current: BTreeMap<String, u64>,
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
    /// Its position among the ready ones; moved by a delay or a new due time, while the record's stays.
    pub ready_at_ms: u64,
    /// 0: never. Moved by a new due time, while the record's stays.
    pub expires_at_ms: u64,
    pub delivery_count: u32,
    pub place: Place,
    /// Where, why and by which exchange it died for the first time.
    pub first_death: Option<Death>,
}

/// A message that died and is to become a dead letter.
#[derive(Debug, Clone)]
pub struct Dead {
    pub message: Message,
    pub reason: DeathReason,
    /// Its queue's, which may be gone when the death is worked off.
    pub name: String,
    pub settings: QueueSettings,
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

/// A producer that was not forgotten.
#[derive(Debug, Default, Clone)]
pub struct Producer {
    /// Every outcome that it ever got.
    pub outcomes: Vec<Reply>,
    pub last_seen_ms: u64,
}

/// A schedule.
#[derive(Debug, Clone)]
pub struct Schedule {
    pub id: u64,
    pub definition: ScheduleDefinition,
    pub paused: bool,
    pub next_due_ms: Option<u64>,
    /// When it had no due time any more.
    pub finished_at_ms: u64,
    pub misfires: u32,
    /// How often it fired, and how often it skipped what was missed.
    pub fired: u64,
    pub skipped: u64,
    pub history: Vec<FiringRecord>,
}

/// What came of one entry.
#[derive(Debug, Default)]
pub struct Outcome {
    pub replies: Vec<Reply>,
    /// Deliveries and closed consumers, in order; deliveries without their message.
    pub effects: Vec<Effect>,
    /// Queues that have messages which came to their turn in this entry and still wait: they must be woken.
    pub wakes_required: BTreeSet<u64>,
    /// Queues in which messages waited when others had come or come back in this entry: they may be.
    pub wakes_allowed: BTreeSet<u64>,
    pub released_due_ms: Vec<u64>,
}

/// The naive machine.
#[derive(Debug, Default, Clone)]
pub struct Reference {
    pub now_ms: u64,
    /// Ascending by id.
    pub queues: Vec<Queue>,
    /// By sequence.
    pub messages: BTreeMap<u64, Message>,
    /// By key.
    pub consumers: BTreeMap<u64, Consumer>,
    pub producers: BTreeMap<String, Producer>,
    pub exchanges: BTreeMap<String, DeclareExchange>,
    /// By number, in the order in which they were bound.
    pub bindings: BTreeMap<u64, Binding>,
    pub schedules: BTreeMap<String, Schedule>,
    pub users: BTreeMap<String, UserRecord>,
    /// Queue and `dedupe_id` to the first message and the time until which it is remembered.
    pub dedupe: BTreeMap<(u64, String), (u64, u64)>,
    pub last_queue: u64,
    pub last_sequence: u64,
    pub last_token: u64,
    pub last_consumer: u64,
    pub last_binding: u64,
    pub last_schedule: u64,
    pub deaths: VecDeque<Dead>,
    pub effects: Vec<Effect>,
    pub released_due_ms: Vec<u64>,
    /// Sequences that became ready in this entry.
    pub fresh: BTreeSet<u64>,
    /// Those that could have been delivered before this entry.
    waited_before: BTreeSet<u64>,
    /// Queues in which a message of a group ended in this command: another one's turn may have come, and passed.
    pub turns_ended: BTreeSet<u64>,
    pub wakes_allowed: BTreeSet<u64>,
}

impl Reference {
    /// Does what the commands say at the given time.
    pub fn apply(&mut self, at_ms: u64, commands: &[Command]) -> Outcome {
        self.now_ms = self.now_ms.max(at_ms);
        self.fresh.clear();
        self.waited_before = self.waiting();
        let mut replies = Vec::new();
        for command in commands {
            replies.push(self.command(command).unwrap_or_else(Reply::Refused));
            self.work_off();
        }
        // A queue with a single active consumer has no receive calls that could be woken.
        let lasting = |sequence: &u64| {
            let single = self.queue(self.messages[sequence].queue).settings.single_active_consumer;
            !single && !self.is_over(*sequence)
        };
        let come = self.come_to_turn().into_iter().filter(lasting);
        Outcome {
            replies,
            wakes_required: come.map(|sequence| self.messages[&sequence].queue).collect(),
            wakes_allowed: std::mem::take(&mut self.wakes_allowed),
            effects: std::mem::take(&mut self.effects),
            released_due_ms: std::mem::take(&mut self.released_due_ms),
        }
    }

    fn command(&mut self, command: &Command) -> Result<Reply, Refusal> {
        match command {
            Command::DeclareQueue(declare) => self.declare(declare),
            Command::UpdateQueue(update) => self.update(update),
            Command::DeleteQueue(delete) => self.delete(delete),
            Command::Publish(publish) => self.publish(publish),
            Command::Transact(transact) => self.transact(transact),
            Command::Attach(attach) => self.attach(attach),
            Command::Detach(detach) => Ok(self.detach(detach)),
            Command::SetCredit(credit) => Ok(self.set_credit(credit)),
            Command::Receive(receive) => self.receive(receive),
            Command::Ack(ack) => self.ack(ack),
            Command::Nack(nack) => self.nack(nack),
            Command::Extend(extend) => self.extend(extend),
            Command::Release(_) => Ok(self.release()),
            Command::DetachAll(_) => Ok(self.detach_all()),
            Command::DeclareExchange(declare) => self.declare_exchange(declare),
            Command::DeleteExchange(delete) => self.delete_exchange(delete),
            Command::Bind(binding) => self.bind(binding),
            Command::Unbind(unbind) => self.unbind(&unbind.binding),
            Command::Revise(revise) => self.revise(revise),
            Command::ReviseById(revise) => self.revise_by_id(revise),
            Command::ReviseMatching(revise) => self.revise_matching(revise),
            Command::DeclareSchedule(declare) => self.declare_schedule(declare),
            Command::DeleteSchedule(delete) => self.delete_schedule(delete),
            Command::ControlSchedule(control) => self.control_schedule(control),
            // Of no meaning to queues.
            Command::Identify(_) => Ok(Reply::Done),
            Command::PutUser(put) => self.put_user(put),
            Command::RemoveUser(remove) => self.remove_user(remove),
        }
    }

    /// Works off the deaths and lets the queues deliver, until neither is left to do.
    fn work_off(&mut self) {
        loop {
            while let Some(dead) = self.deaths.pop_front() {
                self.bury(&dead);
            }
            let queues: Vec<u64> = self.queues.iter().map(|queue| queue.id).collect();
            for queue in queues {
                self.dispatch(queue);
            }
            let come: Vec<u64> = self.come_to_turn().iter().map(|sequence| self.messages[sequence].queue).collect();
            self.wakes_allowed.extend(come);
            for queue in std::mem::take(&mut self.turns_ended) {
                if self.queues.iter().any(|at| at.id == queue) {
                    self.allow_wake(queue);
                }
            }
            if self.deaths.is_empty() {
                return;
            }
        }
    }

    /// Messages that could be delivered if anybody asked.
    fn waiting(&self) -> BTreeSet<u64> {
        let open = self.queues.iter().filter(|queue| !queue.settings.paused);
        open.flat_map(|queue| self.eligible(queue.id)).collect()
    }

    /// Of those: the ones that could not before this entry, or came back in it.
    fn come_to_turn(&self) -> Vec<u64> {
        let is_new = |sequence: &u64| self.fresh.contains(sequence) || !self.waited_before.contains(sequence);
        self.waiting().into_iter().filter(is_new).collect()
    }

    /// The id of the queue of this name.
    pub fn find(&self, name: &str) -> Result<u64, Refusal> {
        let queue = self.queues.iter().find(|queue| queue.name == name);
        queue.map(|queue| queue.id).ok_or_else(|| Refusal::QueueNotFound { queue: name.into() })
    }

    pub fn queue(&self, id: u64) -> &Queue {
        self.queues.iter().find(|queue| queue.id == id).expect("messages and consumers go with their queue")
    }

    pub fn queue_mut(&mut self, id: u64) -> &mut Queue {
        self.queues.iter_mut().find(|queue| queue.id == id).expect("messages and consumers go with their queue")
    }

    pub fn totals(&mut self, queue: u64) -> &mut Totals {
        &mut self.queue_mut(queue).totals
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

    /// How many messages a queue has, in any state.
    pub fn total(&self, queue: u64) -> u64 {
        self.messages.values().filter(|message| message.queue == queue).count() as u64
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

    /// Takes a message away: its group's turn is over.
    pub fn take_away(&mut self, sequence: u64) -> Message {
        self.give_up_turn(sequence);
        self.messages.remove(&sequence).expect("asked only for messages that are there")
    }

    /// Another message of the group may be delivered.
    pub fn give_up_turn(&mut self, sequence: u64) {
        let queue = self.messages[&sequence].queue;
        self.queue_mut(queue).current.retain(|_, current| *current != sequence);
        if !self.messages[&sequence].record.group.is_empty() {
            self.turns_ended.insert(queue);
        }
    }
}
