//! Random work for a machine, from domains so small that everything collides.
//!
//! A generated [`Op`] names leases and consumers by position in what a [`Client`] has seen of the machine's
//! answers, so that any subsequence of a failing case is a case too, and shrinks.

mod client;

use dwell_machine::{Lease, QueueSettings};
use proptest::prelude::*;

pub use client::Client;

/// The names in use. The last one is declared less often than it is named.
pub const QUEUES: [&str; 3] = ["alpha", "beta", "gamma"];
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
    Delete {
        queue: usize,
        if_empty: bool,
        if_unused: bool,
    },
    Publish {
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
    },
    Extend {
        leases: LeasePicks,
        lease_timeout_ms: u64,
    },
    Release,
    DetachAll,
}

/// A message whose absolute times are relative to the clock.
#[derive(Debug, Clone)]
pub struct NewMessage {
    queue: usize,
    bytes: usize,
    priority: u32,
    delay_ms: u64,
    deliver_in_ms: Option<i64>,
    ttl_ms: u64,
    expire_in_ms: Option<i64>,
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
    queue: Option<usize>,
    picks: Vec<LeasePick>,
}

fn times(upto_ms: u64) -> impl Strategy<Value = u64> + Clone {
    prop_oneof![2 => Just(0), 3 => 1..upto_ms]
}

fn offsets() -> impl Strategy<Value = Option<i64>> {
    prop_oneof![5 => Just(None), 3 => (-150_i64..150).prop_map(Some)]
}

fn messages() -> impl Strategy<Value = NewMessage> {
    let priority = prop_oneof![4 => Just(0_u32), 2 => Just(1), 1 => Just(255)];
    (0..QUEUES.len(), 0_usize..4, priority, times(200), offsets(), times(150), offsets()).prop_map(
        |(queue, bytes, priority, delay_ms, deliver_in_ms, ttl_ms, expire_in_ms)| NewMessage {
            queue,
            bytes,
            priority,
            delay_ms,
            deliver_in_ms,
            ttl_ms,
            expire_in_ms,
        },
    )
}

fn settings() -> impl Strategy<Value = QueueSettings> {
    (prop_oneof![Just(100_u64), Just(150)], 0_u32..3)
        .prop_map(|(lease_timeout_ms, delivery_limit)| QueueSettings { lease_timeout_ms, delivery_limit })
}

fn producers() -> impl Strategy<Value = Option<(usize, SequencePick)>> {
    let sequence = prop_oneof![
        6 => Just(SequencePick::Next),
        3 => (0_u64..4).prop_map(SequencePick::Repeated),
        1 => Just(SequencePick::Gap),
        1 => Just(SequencePick::Zero),
    ];
    proptest::option::of((0..PRODUCERS.len(), sequence))
}

fn lease_pick() -> impl Strategy<Value = LeasePick> {
    prop_oneof![
        12 => (0_usize..6).prop_map(LeasePick::Open),
        2 => (0_usize..6).prop_map(LeasePick::Settled),
        1 => (0_u64..8, 0_u64..8).prop_map(|(sequence, token)| LeasePick::Forged(Lease { sequence, token })),
    ]
}

fn lease_picks() -> impl Strategy<Value = LeasePicks> {
    let queue = prop_oneof![8 => Just(None), 1 => (0..QUEUES.len()).prop_map(Some)];
    (queue, prop::collection::vec(lease_pick(), 1..4)).prop_map(|(queue, picks)| LeasePicks { queue, picks })
}

fn ops() -> impl Strategy<Value = Op> {
    let queue = 0..QUEUES.len();
    let consumer = 0..CONSUMERS.len();
    let credit = prop_oneof![Just(1_u32), Just(2), Just(5)];
    let rarely = || prop::bool::weighted(0.15);
    prop_oneof![
        3 => (queue.clone(), settings()).prop_map(|(queue, settings)| Op::Declare { queue, settings }),
        1 => (queue.clone(), any::<bool>(), any::<bool>())
            .prop_map(|(queue, if_empty, if_unused)| Op::Delete { queue, if_empty, if_unused }),
        12 => (prop::collection::vec(messages(), 1..4), producers())
            .prop_map(|(messages, producer)| Op::Publish { messages, producer }),
        5 => (queue.clone(), consumer.clone(), credit.clone(), 100_u64..250, prop::collection::vec(lease_pick(), 0..4))
            .prop_map(|(queue, consumer, credit, session_timeout_ms, holding)| {
                Op::Attach { queue, consumer, credit, session_timeout_ms, holding }
            }),
        3 => (consumer.clone(), rarely(), any::<bool>())
            .prop_map(|(consumer, stale, close)| Op::Detach { consumer, stale, close }),
        2 => (consumer, rarely(), credit).prop_map(|(consumer, stale, credit)| Op::SetCredit { consumer, stale, credit }),
        4 => (queue, 1_u32..4, times(200)).prop_map(|(queue, messages_max, lease_timeout_ms)| {
            Op::Receive { queue, messages_max, lease_timeout_ms }
        }),
        5 => lease_picks().prop_map(|leases| Op::Ack { leases }),
        5 => (lease_picks(), times(150)).prop_map(|(leases, delay_ms)| Op::Nack { leases, delay_ms }),
        2 => (lease_picks(), times(300)).prop_map(|(leases, lease_timeout_ms)| Op::Extend { leases, lease_timeout_ms }),
        6 => Just(Op::Release),
        1 => Just(Op::DetachAll),
    ]
}

fn clocks() -> impl Strategy<Value = Clock> {
    prop_oneof![
        4 => (0_u64..4).prop_map(Clock::Forward),
        4 => (0_u64..120).prop_map(Clock::Forward),
        1 => (100_u64..600).prop_map(Clock::Forward),
        1 => (1_u64..100).prop_map(Clock::Back),
    ]
}

/// Work that begins with two of the three queues declared.
pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    let begin = (settings(), settings()).prop_map(|(first, second)| Step::Entry {
        clock: Clock::Forward(0),
        ops: vec![Op::Declare { queue: 0, settings: first }, Op::Declare { queue: 1, settings: second }],
    });
    let step = prop_oneof![
        14 => (clocks(), prop::collection::vec(ops(), 1..5)).prop_map(|(clock, ops)| Step::Entry { clock, ops }),
        1 => Just(Step::Restart),
        3 => clocks().prop_map(|clock| Step::Settle { clock }),
    ];
    (begin, prop::collection::vec(step, 1..60)).prop_map(|(begin, mut steps)| {
        steps.insert(0, begin);
        steps
    })
}

/// Work with more messages than the machine keeps at hand of a queue, or releases in one step. Pulses come only
/// by [`Step::Settle`], because one that does not do all that is due leaves things open that it need not.
pub fn floods() -> impl Strategy<Value = Vec<Step>> {
    let settings = QueueSettings { lease_timeout_ms: 150, delivery_limit: 3 };
    let declare = move |queue| Op::Declare { queue, settings: settings.clone() };
    let begin = Step::Entry { clock: Clock::Forward(0), ops: vec![declare(0), declare(1)] };
    let newest = || (1_usize..200).prop_map(|count| LeasePicks { queue: None, picks: vec![LeasePick::Newest(count)] });
    let op = prop_oneof![
        5 => (0_usize..2, 40_u64..250, 0_u64..60, prop_oneof![Just(0_u64), 20_u64..300])
            .prop_map(|(queue, messages, spread_ms, ttl_ms)| Op::Flood { queue, messages, spread_ms, ttl_ms }),
        4 => (0_usize..2, 1_u32..300, times(200)).prop_map(|(queue, messages_max, lease_timeout_ms)| {
            Op::Receive { queue, messages_max, lease_timeout_ms }
        }),
        2 => (0_usize..2, 0..CONSUMERS.len(), 1_u32..200).prop_map(|(queue, consumer, credit)| {
            Op::Attach { queue, consumer, credit, session_timeout_ms: 150, holding: vec![LeasePick::Newest(20)] }
        }),
        1 => (0..CONSUMERS.len(), any::<bool>())
            .prop_map(|(consumer, close)| Op::Detach { consumer, stale: false, close }),
        3 => newest().prop_map(|leases| Op::Ack { leases }),
        3 => (newest(), times(100)).prop_map(|(leases, delay_ms)| Op::Nack { leases, delay_ms }),
        1 => (0_usize..2).prop_map(|queue| Op::Delete { queue, if_empty: false, if_unused: false }),
        1 => (0_usize..2).prop_map(declare),
    ];
    let step = prop_oneof![
        5 => (clocks(), prop::collection::vec(op, 1..3)).prop_map(|(clock, ops)| Step::Entry { clock, ops }),
        1 => Just(Step::Restart),
        3 => clocks().prop_map(|clock| Step::Settle { clock }),
    ];
    prop::collection::vec(step, 1..16).prop_map(move |mut steps| {
        steps.insert(0, begin.clone());
        steps
    })
}
