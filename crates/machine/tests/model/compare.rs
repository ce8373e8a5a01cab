//! Leads a machine and the reference through the same work and compares them after every entry.

use std::collections::BTreeSet;

use dwell_machine::{
    Ack, Applied, Command, DeleteExchange, DeleteQueue, DeleteSchedule, DetachAll, Effect, Lease, Machine, MemoryStore,
    MessageRecord, QueueSettings, Recall, Receive, Release, Reply, ReviseMatching, Revision, StoreError, Table,
    UpdateQueue,
};
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;

use crate::reference::{Outcome, Reference};
use crate::store::StrictStore;
use crate::workload::{Client, Clock, EXCHANGES, QUEUES, SCHEDULES, START_MS, Step};

pub type Checked = Result<(), TestCaseError>;

/// Release pulses after which a machine with so little to do must have come to rest.
const PULSES_MAX: usize = 100;
/// Rounds of receiving after which everything must be consumed: of an ordering group each gives out one message.
const ROUNDS_MAX: usize = 1000;
/// Longer than anything is remembered that was not declared.
const FORGOTTEN_AFTER_MS: u64 = 8 * 24 * 60 * 60 * 1000;

/// A machine beside its reference.
pub struct Pair {
    pub machine: Machine,
    pub store: MemoryStore,
    pub reference: Reference,
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
                let mut entry = Vec::new();
                for op in ops {
                    match self.client.command(op, self.clock_ms) {
                        Command::ReviseMatching(revise) => {
                            self.entry(std::mem::take(&mut entry))?;
                            self.revise_matching(revise)?;
                        }
                        command => entry.push(command),
                    }
                }
                self.entry(entry).map(|_| ())
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
        let applied = applied.map_err(fault)?;
        self.client.observe(&commands, &applied);
        Ok(applied)
    }

    /// Revises by filter, step by step, each an entry; and the reference in one.
    pub fn revise_matching(&mut self, mut revise: ReviseMatching) -> Checked {
        let queue = self.reference.find(&revise.queue);
        if let (Ok(queue), Some(Revision::ExpireNow(_))) = (queue, revise.revision)
            && (self.reference.eligible(queue).len() as u64) < self.reference.counts(queue).ready
        {
            // In which order the groups' waiting messages come is not said, and dead letters would show it.
            revise.revision = Some(Revision::Recall(Recall {}));
        }
        let expected = self.reference.apply(self.clock_ms, &[Command::ReviseMatching(revise.clone())]);
        let mut actual = Applied::default();
        let mut sums = (0, 0);
        for _ in 0..PULSES_MAX {
            let applied = self.apply(vec![Command::ReviseMatching(revise.clone())])?;
            actual.effects.extend(unknown(applied.effects, &actual.effects));
            let Some(Reply::RevisedMatching { examined, revised, leased, next }) = applied.replies.first() else {
                actual.replies = applied.replies;
                break;
            };
            prop_assert!(revised + leased <= *examined, "more matched than were looked at: {:?}", applied.replies);
            sums = (sums.0 + revised, sums.1 + leased);
            match next.clone() {
                Some(next) => revise.cursor = next,
                None => {
                    let (revised, leased) = sums;
                    actual.replies = vec![Reply::RevisedMatching { examined: 0, revised, leased, next: None }];
                    break;
                }
            }
        }
        self.compare_outcomes(&expected, &actual)?;
        self.compare_views()
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
            actual.effects.extend(unknown(applied.effects, &actual.effects));
            actual.released_due_ms.extend(applied.released_due_ms);
        }
        Err(TestCaseError::fail(format!("still wants pulses after {PULSES_MAX} of them")))
    }

    /// Consumes all that is left, deletes all that was declared, and looks for rows left behind.
    pub fn drain(&mut self) -> Checked {
        // Nobody but the receive calls below is to take anything, nothing is to come, and nothing to come back.
        let fields = ["paused", "dead_letter", "backoff", "default_delay_ms"];
        let calm = |queue: &str| UpdateQueue {
            queue: queue.into(),
            settings: QueueSettings::default(),
            fields: fields.map(str::to_owned).into(),
        };
        let mut commands = vec![Command::DetachAll(DetachAll {})];
        let schedules = SCHEDULES.map(|schedule| DeleteSchedule { schedule: schedule.into() });
        commands.extend(schedules.map(Command::DeleteSchedule));
        commands.extend(QUEUES.map(calm).map(Command::UpdateQueue));
        self.entry(commands)?;
        for _ in 0..ROUNDS_MAX {
            self.settle(Clock::Forward(60_000))?;
            if self.reference.messages.is_empty() {
                break;
            }
            for queue in QUEUES {
                self.take_all(queue)?;
            }
        }
        prop_assert!(self.reference.messages.is_empty(), "not drained: {:?}", self.reference.messages);
        let queues = QUEUES.map(|queue| DeleteQueue { queue: queue.into(), if_empty: true, if_unused: true });
        let mut commands: Vec<Command> = queues.map(Command::DeleteQueue).into();
        let exchanges = EXCHANGES.map(|exchange| DeleteExchange { exchange: exchange.into(), if_unused: false });
        commands.extend(exchanges.map(Command::DeleteExchange));
        self.entry(commands)?;
        self.settle(Clock::Forward(FORGOTTEN_AFTER_MS))?;
        prop_assert_eq!(self.machine.next_wake_ms(), None, "nothing is pending any more");
        let left: Vec<_> =
            self.store.rows().filter(|(table, ..)| !matches!(table, Table::Meta | Table::Users)).collect();
        prop_assert!(left.is_empty(), "rows left behind: {left:02x?}");
        Ok(())
    }

    /// Takes what is ready in a queue, or recalls it where only consumers may take it.
    fn take_all(&mut self, queue: &str) -> Checked {
        let receive = Receive { queue: queue.into(), messages_max: 1000, lease_timeout_ms: 0 };
        let recall = ReviseMatching {
            queue: queue.into(),
            revoke: true,
            revision: Some(Revision::Recall(Recall {})),
            ..ReviseMatching::default()
        };
        match self.entry(vec![Command::Receive(receive)])?.as_slice() {
            [Reply::Received { deliveries, .. }] => {
                let leases = deliveries.iter().map(|of| Lease { sequence: of.sequence, token: of.token });
                let ack = Ack { queue: queue.into(), leases: leases.collect() };
                self.entry(vec![Command::Ack(ack)]).map(|_| ())
            }
            _ => self.revise_matching(recall),
        }
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
                Effect::CloseConsumer { .. } | Effect::UsersChanged => effects.push(effect.clone()),
            }
        }
        prop_assert_eq!(&effects, &expected.effects, "effects");
        let required = &expected.wakes_required;
        prop_assert!(woken.is_superset(required), "queues {required:?} wait and only {woken:?} were woken");
        let allowed = &expected.wakes_allowed;
        prop_assert!(
            woken.is_subset(allowed),
            "only in queues {allowed:?} something waits and {woken:?} were woken at {}",
            self.reference.now_ms
        );
        prop_assert_eq!(&actual.released_due_ms, &expected.released_due_ms, "released due times");
        Ok(())
    }

    /// Checks the message that a delivery carries, and takes it off.
    fn without_message(&self, delivery: &dwell_machine::Delivery) -> Result<dwell_machine::Delivery, TestCaseError> {
        if let (Some(carried), Some(message)) = (&delivery.message, self.reference.messages.get(&delivery.sequence)) {
            let carried = plain(MessageRecord::clone(carried));
            prop_assert_eq!(&carried, &message.record, "message {} in its delivery", delivery.sequence);
        }
        Ok(dwell_machine::Delivery { message: None, ..delivery.clone() })
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

/// A record without the number that its body is kept under: that is the machine's own affair.
pub fn plain(record: MessageRecord) -> MessageRecord {
    MessageRecord { shared_body: 0, ..record }
}

/// Without the wakes that are known: of one thing done in steps, each may wake a queue again.
fn unknown(effects: Vec<Effect>, known: &[Effect]) -> Vec<Effect> {
    let is_known = |effect: &Effect| matches!(effect, Effect::Wake { .. }) && known.contains(effect);
    effects.into_iter().filter(|effect| !is_known(effect)).collect()
}

fn open(store: &MemoryStore) -> Result<Machine, TestCaseError> {
    Machine::open(store).map_err(fault)
}

pub fn fault(error: StoreError) -> TestCaseError {
    TestCaseError::fail(error.to_string())
}
