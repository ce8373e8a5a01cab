//! The semantics, as few lines as possible of them: one call after the other, each with a commit between its invocation
//! and its answer.

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::history::*;

const EPOCH_MS: i64 = 1_000_000_000_000;
const LEASE_MS: i64 = 400;
const EVERY_MS: i64 = 150;
const SCHEDULE: u64 = 1 << 56;
const QUEUES: [&str; 7] = ["work", "groups", "fan-a", "fan-b", "in", "out", "fired"];

#[derive(Debug, Clone)]
struct Message {
    number: u64,
    queue: &'static str,
    priority: u8,
    group: Option<String>,
    published_ms: i64,
    ready_ms: i64,
    due_ms: Option<i64>,
    count: u32,
    lease: Option<(u64, i64)>,
    died: Option<(String, i64)>,
}

struct Broker {
    random: StdRng,
    events: Vec<Event>,
    now_ns: u64,
    /// By sequence.
    messages: BTreeMap<u64, Message>,
    current: BTreeMap<String, u64>,
    last_sequence: u64,
    last_token: u64,
    last_message: u64,
    last_due_ms: i64,
    fired: u64,
    dedupe: BTreeMap<String, u64>,
    /// Leases given to clients, stale ones too.
    leases: Vec<Lease>,
    /// Handles told to clients.
    known: Vec<(&'static str, u64)>,
}

/// What comes of a call: an answer, or none that certainly or perhaps means that nothing was done.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Answered,
    Unknown,
    Lost,
}

/// A history of some hundred calls.
pub(super) fn history(seed: u64) -> History {
    let mut broker = Broker {
        random: StdRng::seed_from_u64(seed),
        events: Vec::new(),
        now_ns: 0,
        messages: BTreeMap::new(),
        current: BTreeMap::new(),
        last_sequence: 0,
        last_token: 0,
        last_message: 0,
        last_due_ms: EPOCH_MS,
        fired: 0,
        dedupe: BTreeMap::new(),
        leases: Vec::new(),
        known: Vec::new(),
    };
    broker.declare();
    for step in 0..400 {
        broker.pass(20_000_000);
        broker.step();
        if step % 50 == 0 {
            broker.deed(Deed::Digest { node: "n1".into(), applied_index: step, digest: format!("d{step}") });
            broker.deed(Deed::Digest { node: "n2".into(), applied_index: step, digest: format!("d{step}") });
        }
    }
    broker.finish();
    History { events: broker.events }
}

impl Broker {
    fn declare(&mut self) {
        let queue = |name: &&str| QueueFacts {
            name: (*name).into(),
            lease_timeout_ms: LEASE_MS as u64,
            dead_letters: Some("grave".into()),
            ..QueueFacts::default()
        };
        let mut queues: Vec<QueueFacts> = QUEUES.iter().map(queue).collect();
        queues.push(QueueFacts { name: "grave".into(), lease_timeout_ms: 400, kept: true, ..QueueFacts::default() });
        let fan = ExchangeFacts { name: "fan".into(), queues: vec!["fan-a".into(), "fan-b".into()] };
        self.deed(Deed::Topology(Topology { queues, exchanges: vec![fan] }));
        let schedule = ScheduleFacts {
            schedule: "s".into(),
            queue: "fired".into(),
            message: SCHEDULE,
            every_ms: EVERY_MS as u64,
            misfire_after_ms: 1000,
            misfires_max: 0,
        };
        self.call(Call::DeclareSchedule(schedule), Fate::Answered, |_| Some(Answer::Done));
        let open = Call::OpenConsumer { queue: "work".into(), consumer: "c".into(), session_timeout_ms: 5000 };
        self.call(open, Fate::Answered, |_| Some(Answer::Done));
    }

    fn now_ms(&self) -> i64 {
        EPOCH_MS + (self.now_ns / 1_000_000) as i64
    }

    fn pass(&mut self, nanoseconds_max: u64) {
        self.now_ns += self.random.random_range(0..=nanoseconds_max);
        let now_ms = self.now_ms();
        while self.last_due_ms + EVERY_MS <= now_ms && self.events.len() > 2 && !self.is_over() {
            self.last_due_ms += EVERY_MS;
            self.fired += 1;
            self.store(SCHEDULE, "fired", 0, None, None, Some(self.last_due_ms));
        }
        let overdue: Vec<u64> = self
            .messages
            .iter()
            .filter_map(|(sequence, message)| {
                message.lease.filter(|(_, deadline_ms)| *deadline_ms <= now_ms).map(|_| *sequence)
            })
            .collect();
        for sequence in overdue {
            self.give_back(sequence, 0);
        }
    }

    fn is_over(&self) -> bool {
        self.events.iter().rev().take(400).any(|event| event.function == Function::StopSchedule)
    }

    fn deed(&mut self, deed: Deed) {
        self.push(Process::Nemesis, Kind::Info, deed.function(), Value::Deed(deed));
    }

    fn push(&mut self, process: Process, kind: Kind, function: Function, value: Value) -> u64 {
        let index = self.events.len() as u64;
        self.events.push(Event { index, process, kind, function, time_ns: self.now_ns, value });
        index
    }

    fn fate(&mut self) -> Fate {
        match self.random.random_range(0..12) {
            0 => Fate::Unknown,
            1 => Fate::Lost,
            _ => Fate::Answered,
        }
    }

    /// None from `commit` is a refusal.
    fn call(&mut self, call: Call, fate: Fate, commit: impl FnOnce(&mut Broker) -> Option<Answer>) -> Option<Answer> {
        let function = call.function();
        let index = self.push(Process::Client(0), Kind::Invoke, function, Value::Call(call));
        self.pass(2_000_000);
        let answer = if fate == Fate::Lost { None } else { commit(self) };
        self.pass(2_000_000);
        let (kind, told) = match (fate, &answer) {
            (Fate::Answered, Some(_)) => (Kind::Ok, answer.clone()),
            (Fate::Answered, None) => (Kind::Fail, None),
            _ => (Kind::Info, None),
        };
        let error = (kind != Kind::Ok).then(|| "no".to_owned());
        self.push(Process::Client(0), kind, function, Value::Answer { call: index, answer: told.clone(), error });
        told
    }

    fn store(
        &mut self,
        number: u64,
        queue: &'static str,
        priority: u8,
        group: Option<String>,
        delay_ms: Option<u64>,
        due_ms: Option<i64>,
    ) -> u64 {
        self.last_sequence += 1;
        let published_ms = self.now_ms();
        let ready_ms = published_ms + delay_ms.unwrap_or(0) as i64;
        let message = Message {
            number,
            queue,
            priority,
            group,
            published_ms,
            ready_ms,
            due_ms,
            count: 0,
            lease: None,
            died: None,
        };
        self.messages.insert(self.last_sequence, message);
        self.last_sequence
    }

    fn give_back(&mut self, sequence: u64, delay_ms: u64) {
        let now_ms = self.now_ms();
        let message = self.messages.get_mut(&sequence).unwrap();
        message.lease = None;
        message.count += 1;
        if delay_ms > 0 {
            message.ready_ms = now_ms + delay_ms as i64;
        }
    }

    fn end(&mut self, sequence: u64, dead: bool) {
        let now_ms = self.now_ms();
        let Some(mut message) = self.messages.remove(&sequence) else { return };
        self.current.retain(|_, current| *current != sequence);
        if dead {
            self.last_sequence += 1;
            message.died = Some((message.queue.to_owned(), now_ms));
            (message.queue, message.lease, message.count, message.ready_ms) = ("grave", None, 0, now_ms);
            self.messages.insert(self.last_sequence, message);
        }
    }

    fn step(&mut self) {
        match self.random.random_range(0..20) {
            0..8 => self.publish(),
            8..13 => {
                let queue = QUEUES[self.random.random_range(0..QUEUES.len())];
                let (most, fate) = (self.random.random_range(1..4), self.fate());
                self.receive(queue, most, fate);
            }
            13..17 => self.settle(),
            17..19 => self.revise(),
            _ => self.transact(),
        }
    }

    fn publication(&mut self, to: &str) -> Publication {
        self.last_message += 1;
        let delayed = self.random.random_range(0..2) == 0;
        let delay_ms = delayed.then(|| self.random.random_range(1..1000));
        let priority = self.random.random_range(0..3);
        Publication { message: self.last_message, to: to.into(), delay_ms, priority, ..Publication::default() }
    }

    fn publish(&mut self) {
        let to = ["work", "work", "groups", "groups", "fan", "in"][self.random.random_range(0..6)];
        let mut publications = vec![self.publication(to)];
        publications[0].through_exchange = to == "fan";
        let mut producer = None;
        match (to, self.random.random_range(0..4)) {
            ("work", 0) => producer = Some((format!("p{}", self.last_message), 1)),
            ("work", 1) => publications[0].dedupe_id = Some(format!("d{}", self.last_message)),
            ("work", _) => publications.push(self.publication("work")),
            ("groups", _) => {
                publications[0].priority = 0;
                publications[0].group = Some(format!("g{}", self.random.random_range(0..3)));
            }
            _ => {}
        }
        let again = producer.is_some() || publications[0].dedupe_id.is_some();
        let first = self.send(producer.clone(), publications.clone(), None);
        if again {
            if producer.is_none() {
                self.last_message += 1;
                publications[0].message = self.last_message;
            }
            self.send(producer, publications, first);
        }
    }

    /// The answer that was given, whether or not anybody was told; of a repetition, the first one's.
    fn send(
        &mut self,
        producer: Option<(String, u64)>,
        messages: Vec<Publication>,
        repeats: Option<Vec<Stored>>,
    ) -> Option<Vec<Stored>> {
        let fate = self.fate();
        let mut committed = None;
        let call = Call::Publish { producer: producer.clone(), messages: messages.clone() };
        let answer = self.call(call, fate, |broker| {
            let stored = match repeats.filter(|_| producer.is_some()) {
                Some(stored) => stored,
                None => messages.iter().map(|message| broker.store_all(message)).collect(),
            };
            committed = Some(stored.clone());
            Some(Answer::Published(stored))
        });
        if let Some(Answer::Published(stored)) = answer {
            for copy in stored.iter().flat_map(|stored| &stored.copies) {
                let queue = QUEUES.iter().find(|queue| **queue == copy.queue).unwrap();
                self.known.push((queue, copy.sequence));
            }
        }
        committed
    }

    fn store_all(&mut self, message: &Publication) -> Stored {
        let queues: Vec<&'static str> = match message.through_exchange {
            true => vec!["fan-a", "fan-b"],
            false => QUEUES.iter().copied().filter(|queue| *queue == message.to).collect(),
        };
        let mut copies = Vec::new();
        for queue in queues {
            let known = message.dedupe_id.as_ref().and_then(|dedupe_id| self.dedupe.get(dedupe_id)).copied();
            let sequence = known.unwrap_or_else(|| {
                self.store(message.message, queue, message.priority, message.group.clone(), message.delay_ms, None)
            });
            if let Some(dedupe_id) = &message.dedupe_id {
                self.dedupe.insert(dedupe_id.clone(), sequence);
            }
            copies.push(StoredCopy { queue: queue.into(), sequence, duplicate: known.is_some() });
        }
        Stored { copies, refused: None }
    }

    fn receive(&mut self, queue: &'static str, most: usize, fate: Fate) -> Vec<Lease> {
        let consumer = (queue == "work" && self.random.random_range(0..2) == 0).then(|| "c".to_owned());
        let call = Call::Receive { queue: queue.into(), consumer };
        let answer = self
            .call(call, fate, |broker| Some(Answer::Received((0..most).map_while(|_| broker.lease(queue)).collect())));
        let Some(Answer::Received(received)) = answer else { return Vec::new() };
        let lease =
            |delivered: &Delivered| Lease { queue: queue.into(), sequence: delivered.sequence, token: delivered.token };
        let leases: Vec<Lease> = received.iter().map(lease).collect();
        self.leases.extend(leases.clone());
        leases
    }

    fn lease(&mut self, queue: &'static str) -> Option<Delivered> {
        let now_ms = self.now_ms();
        let ready = self.messages.iter().filter(|(sequence, message)| {
            let in_turn = message.group.as_ref().and_then(|group| self.current.get(group));
            let ready = message.lease.is_none() && message.ready_ms <= now_ms;
            message.queue == queue && ready && in_turn.is_none_or(|current| current == *sequence)
        });
        let order = |(sequence, message): &(&u64, &Message)| {
            (std::cmp::Reverse(message.priority), message.ready_ms, **sequence)
        };
        let sequence = *ready.min_by_key(order)?.0;
        self.last_token += 1;
        let (token, deadline_ms) = (self.last_token, now_ms + LEASE_MS);
        let message = self.messages.get_mut(&sequence)?;
        message.lease = Some((token, deadline_ms));
        if let Some(group) = &message.group {
            self.current.insert(group.clone(), sequence);
        }
        Some(Delivered {
            message: message.number,
            sequence,
            token,
            delivery_count: message.count,
            published_at_ms: message.published_ms,
            ready_at_ms: message.ready_ms,
            deadline_ms,
            schedule_due_ms: message.due_ms,
            died: message.died.clone(),
        })
    }

    fn settle(&mut self) {
        if self.leases.is_empty() {
            return;
        }
        let from = self.leases.len().saturating_sub(12);
        let lease = self.leases[self.random.random_range(from..self.leases.len())].clone();
        let settlement = match self.random.random_range(0..10) {
            0..6 => Settlement::Ack,
            6 => Settlement::Nack { delay_ms: None },
            7 => Settlement::Nack { delay_ms: Some(self.random.random_range(1..300)) },
            8 => Settlement::Reject,
            _ => Settlement::Extend { timeout_ms: LEASE_MS as u64 + 100 },
        };
        let fate = self.fate();
        self.settle_as(lease, settlement, fate);
    }

    fn settle_as(&mut self, lease: Lease, settlement: Settlement, fate: Fate) {
        let call = Call::Settle { lease: lease.clone(), settlement };
        self.call(call, fate, |broker| {
            let now_ms = broker.now_ms();
            let message = broker.messages.get_mut(&lease.sequence)?;
            let held = message.lease.as_mut().filter(|held| held.0 == lease.token)?;
            match settlement {
                Settlement::Ack => broker.end(lease.sequence, false),
                Settlement::Reject => broker.end(lease.sequence, true),
                Settlement::Nack { delay_ms } => broker.give_back(lease.sequence, delay_ms.unwrap_or(0)),
                Settlement::Extend { timeout_ms } => held.1 = now_ms + timeout_ms as i64,
            }
            Some(Answer::Done)
        });
    }

    fn revise(&mut self) {
        if self.known.is_empty() {
            return;
        }
        let from = self.known.len().saturating_sub(20);
        let (queue, sequence) = self.known[self.random.random_range(from..self.known.len())];
        let revision = match self.random.random_range(0..4) {
            0..2 => Revision::Recall,
            2 => Revision::Expire,
            _ => Revision::Reschedule { delay_ms: self.random.random_range(0..500) },
        };
        let (revoke, fate) = (revision == Revision::Recall && self.random.random_range(0..4) == 0, self.fate());
        self.call(Call::Revise { queue: queue.into(), sequence, revision, revoke }, fate, |broker| {
            let now_ms = broker.now_ms();
            let revised = match broker.messages.get_mut(&sequence) {
                None => Revised::Gone,
                Some(message) if message.lease.is_some() && !revoke => Revised::Leased,
                Some(message) => {
                    if let Revision::Reschedule { delay_ms } = revision {
                        message.ready_ms = now_ms + delay_ms as i64;
                        broker.current.retain(|_, current| *current != sequence);
                    } else {
                        broker.end(sequence, revision == Revision::Expire);
                    }
                    Revised::Done
                }
            };
            Some(Answer::Revised(revised))
        });
    }

    fn transact(&mut self) {
        let Some(lease) = self.receive("in", 1, Fate::Answered).pop() else { return };
        if self.random.random_range(0..4) == 0 {
            self.pass(900_000_000);
        }
        let messages = vec![self.publication("out"), self.publication("out")];
        let call = Call::Transact { leases: vec![lease.clone()], messages: messages.clone() };
        let fate = self.fate();
        self.call(call, fate, |broker| {
            let held = broker.messages.get(&lease.sequence)?.lease.is_some_and(|held| held.0 == lease.token);
            if !held {
                return None;
            }
            broker.end(lease.sequence, false);
            Some(Answer::Published(messages.iter().map(|message| broker.store_all(message)).collect()))
        });
    }

    fn finish(&mut self) {
        self.deed(Deed::Healed);
        self.call(Call::StopSchedule { schedule: "s".into() }, Fate::Answered, |broker| {
            Some(Answer::Schedule { fired: broker.fired })
        });
        self.last_due_ms = i64::MAX / 2;
        // One queue is left as it is: something is to be found there.
        let left: BTreeSet<&str> = ["fan-b", "grave"].into();
        while self.messages.values().any(|message| !left.contains(message.queue)) {
            self.pass(200_000_000);
            for queue in QUEUES.iter().filter(|queue| !left.contains(*queue)) {
                for lease in self.receive(queue, 10, Fate::Answered) {
                    self.settle_as(lease, Settlement::Ack, Fate::Answered);
                }
            }
        }
        for queue in QUEUES.into_iter().chain(["grave"]) {
            self.call(Call::Browse { queue: queue.into() }, Fate::Answered, |broker| {
                let now_ms = broker.now_ms();
                let standing = broker.messages.iter().filter(|(_, message)| message.queue == queue);
                let found = standing.map(|(sequence, message)| Found {
                    message: message.number,
                    sequence: *sequence,
                    state: match message.lease {
                        Some(_) => State::Leased,
                        None if message.ready_ms > now_ms => State::Scheduled,
                        None => State::Ready,
                    },
                    ready_at_ms: message.ready_ms,
                    schedule_due_ms: message.due_ms,
                    died: message.died.clone(),
                });
                Some(Answer::Found(found.collect()))
            });
        }
    }
}
