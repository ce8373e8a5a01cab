//! Random work for a machine, from domains so small that everything collides.
//!
//! A generated [`Op`] names leases, messages and consumers by position in what a [`Client`] has seen of the
//! machine's answers, so that any subsequence of a failing case is a case too, and shrinks.

mod client;
mod domains;
mod flood;
mod message;
mod ops;

use dwell_machine::{Binding, DeclareExchange, Filter, Lease, PutUser, QueueSettings, RemoveUser, ScheduleControl};
use proptest::prelude::*;

pub use client::Client;
pub use flood::floods;

/// The names in use. The last one is declared less often than it is named.
pub const QUEUES: [&str; 3] = ["alpha", "beta", "gamma"];
/// The last one is never declared.
pub const EXCHANGES: [&str; 3] = ["east", "west", "nowhere"];
pub const SCHEDULES: [&str; 2] = ["daily", "yearly"];
const CONSUMERS: [&str; 3] = ["ann", "bob", "cy"];
const PRODUCERS: [&str; 2] = ["press", "quill"];
/// The clock's first reading.
pub const START_MS: u64 = 10_000;

/// One thing that happens to a machine.
#[derive(Debug, Clone)]
pub enum Step {
    /// One log entry.
    Entry { clock: Clock, ops: Vec<Op> },
    /// The machine is opened anew from its store.
    Restart,
    /// Time passes, and the timer service does its work.
    Settle { clock: Clock },
}

/// What the proposing node's clock did since the last entry.
#[derive(Debug, Clone, Copy)]
pub enum Clock {
    Forward(u64),
    /// Another node leads whose clock is behind by so much; its next entries continue from there.
    Back(u64),
}

impl Clock {
    /// The clock after this.
    pub fn after(self, clock_ms: u64) -> u64 {
        match self {
            Clock::Forward(by_ms) => clock_ms + by_ms,
            Clock::Back(by_ms) => clock_ms.saturating_sub(by_ms).max(START_MS),
        }
    }
}

/// A command before its names are known.
#[derive(Debug, Clone)]
pub enum Op {
    Declare {
        queue: usize,
        settings: QueueSettings,
    },
    Update {
        queue: usize,
        settings: QueueSettings,
        fields: Vec<&'static str>,
    },
    Delete {
        queue: usize,
        if_empty: bool,
        if_unused: bool,
    },
    Publish {
        messages: Vec<NewMessage>,
        producer: Option<(usize, SequencePick)>,
    },
    Transact {
        acks: Vec<LeasePicks>,
        messages: Vec<NewMessage>,
        producer: Option<(usize, SequencePick)>,
    },
    /// So many messages whose due times and priorities go up and down.
    Flood {
        queue: usize,
        messages: u64,
        spread_ms: u64,
        ttl_ms: u64,
    },
    Attach {
        queue: usize,
        consumer: usize,
        credit: u32,
        session_timeout_ms: u64,
        holding: Vec<LeasePick>,
    },
    Detach {
        consumer: usize,
        stale: bool,
        close: bool,
    },
    SetCredit {
        consumer: usize,
        stale: bool,
        credit: u32,
    },
    Receive {
        queue: usize,
        messages_max: u32,
        lease_timeout_ms: u64,
    },
    Ack {
        leases: LeasePicks,
    },
    Nack {
        leases: LeasePicks,
        delay_ms: u64,
        reject: bool,
        immediate: bool,
    },
    Extend {
        leases: LeasePicks,
        lease_timeout_ms: u64,
    },
    Release,
    DetachAll,
    DeclareExchange(DeclareExchange),
    DeleteExchange {
        exchange: usize,
        if_unused: bool,
    },
    Bind(Binding),
    Unbind(Binding),
    Revise {
        messages: Vec<MessagePick>,
        revision: NewRevision,
        revoke: bool,
    },
    ReviseById {
        queue: usize,
        message_id: &'static str,
        after: u64,
        revision: NewRevision,
        revoke: bool,
    },
    ReviseMatching {
        queue: usize,
        filter: NewFilter,
        revision: NewRevision,
        revoke: bool,
    },
    DeclareSchedule {
        schedule: usize,
        definition: NewSchedule,
        replace: bool,
    },
    DeleteSchedule {
        schedule: usize,
    },
    ControlSchedule {
        schedule: usize,
        control: ScheduleControl,
    },
    PutUser(PutUser),
    RemoveUser(RemoveUser),
}

/// A message whose absolute times are relative to the clock.
#[derive(Debug, Clone)]
pub struct NewMessage {
    pub exchange: &'static str,
    pub routing_key: &'static str,
    pub mandatory: bool,
    pub bytes: usize,
    /// Value of a header; 0: it has none.
    pub kind: usize,
    pub priority: u32,
    pub delay_ms: u64,
    pub immediate: bool,
    pub deliver_in_ms: Option<i64>,
    pub ttl_ms: u64,
    pub expire_in_ms: Option<i64>,
    pub dedupe_id: &'static str,
    pub group: &'static str,
    pub message_id: &'static str,
}

/// A sequence for a producer's next command.
#[derive(Debug, Clone, Copy)]
pub enum SequencePick {
    Next,
    Repeated(u64),
    Gap,
    Zero,
}

/// A lease that the client has seen, or has not.
#[derive(Debug, Clone, Copy)]
pub enum LeasePick {
    /// One that it did not settle, counted from the newest.
    Open(usize),
    /// One that it settled.
    Settled(usize),
    /// So many that it did not settle, from the newest on.
    Newest(usize),
    Forged(Lease),
}

/// Leases for one settling command.
#[derive(Debug, Clone)]
pub struct LeasePicks {
    /// None: the queue of the first lease.
    pub queue: Option<usize>,
    pub picks: Vec<LeasePick>,
}

/// A message that the client has seen, or has not.
#[derive(Debug, Clone, Copy)]
pub enum MessagePick {
    /// Counted from the newest.
    Stored(usize),
    Forged(u64),
}

/// A revision whose absolute times are relative to the clock.
#[derive(Debug, Clone, Copy)]
pub enum NewRevision {
    Nothing,
    Recall,
    ExpireNow,
    Delay(u64),
    DeliverIn(i64),
}

/// A filter whose absolute times are relative to the clock.
#[derive(Debug, Clone)]
pub struct NewFilter {
    pub filter: Filter,
    pub due_from_in_ms: Option<i64>,
    pub due_before_in_ms: Option<i64>,
}

/// A schedule whose absolute times are relative to the clock.
#[derive(Debug, Clone)]
pub struct NewSchedule {
    /// 0: at dates.
    pub every_ms: u64,
    pub anchor_ms: u64,
    pub dates_in_ms: Vec<u64>,
    pub start_in_ms: Option<i64>,
    pub end_in_ms: Option<i64>,
    pub jitter_ms: u64,
    pub misfire_after_ms: u64,
    pub misfires_max: u32,
    pub message: NewMessage,
}

fn clocks() -> impl Strategy<Value = Clock> {
    const DAY_MS: u64 = 24 * 60 * 60 * 1000;
    prop_oneof![
        40 => (0_u64..4).prop_map(Clock::Forward),
        40 => (0_u64..120).prop_map(Clock::Forward),
        10 => (100_u64..600).prop_map(Clock::Forward),
        10 => (1_u64..100).prop_map(Clock::Back),
        1 => prop_oneof![Just(DAY_MS), Just(DAY_MS - 50), Just(8 * DAY_MS)].prop_map(Clock::Forward),
    ]
}

/// Work that begins with two of the three queues and two exchanges declared.
pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    let bindings = prop::collection::vec(domains::bindings(), 2..5);
    let declared = (domains::settings(), domains::settings(), domains::exchanges(), domains::exchanges(), bindings);
    let begin = declared.prop_map(|(first, second, mut east, mut west, bindings)| {
        east.exchange = EXCHANGES[0].into();
        west.exchange = EXCHANGES[1].into();
        let mut ops = vec![
            Op::Declare { queue: 0, settings: first },
            Op::Declare { queue: 1, settings: second },
            Op::DeclareExchange(east),
            Op::DeclareExchange(west),
        ];
        ops.extend(bindings.into_iter().map(Op::Bind));
        Step::Entry { clock: Clock::Forward(0), ops }
    });
    let step = prop_oneof![
        14 => (clocks(), prop::collection::vec(ops::ops(), 1..5)).prop_map(|(clock, ops)| Step::Entry { clock, ops }),
        1 => Just(Step::Restart),
        3 => clocks().prop_map(|clock| Step::Settle { clock }),
    ];
    (begin, prop::collection::vec(step, 1..60)).prop_map(|(begin, mut steps)| {
        steps.insert(0, begin);
        steps
    })
}
