//! What commands are made of.

use dwell_machine::{
    Backoff, Binding, DeadLetter, DeclareExchange, DestinationKind, ExchangeKind, Filter, Lease, QueueSettings,
};
use proptest::prelude::*;

use super::{
    EXCHANGES, LeasePick, LeasePicks, MessagePick, NewFilter, NewMessage, NewRevision, NewSchedule, PRODUCERS, QUEUES,
    SequencePick,
};

/// Words and patterns; messages come with the patterns as keys, too.
const KEYS: [&str; 6] = ["a", "a.b", "b.a.b", "a.*", "#.b", "#"];
pub const MESSAGE_IDS: [&str; 3] = ["", "order", "offer"];
/// Names of settings, a few fixed or wrong.
const FIELDS: [&str; 16] = [
    "lease_timeout_ms",
    "delivery_limit",
    "default_delay_ms",
    "message_ttl_ms",
    "idle_ttl_ms",
    "messages_max",
    "bytes_max",
    "overflow",
    "dead_letter",
    "priority_max",
    "dedupe_window_ms",
    "single_active_consumer",
    "paused",
    "backoff",
    "aging_ms",
    "colour",
];

pub fn times(upto_ms: u64) -> impl Strategy<Value = u64> + Clone {
    prop_oneof![2 => Just(0), 3 => 1..upto_ms]
}

fn offsets() -> impl Strategy<Value = Option<i64>> {
    prop_oneof![5 => Just(None), 3 => (-150_i64..150).prop_map(Some)]
}

/// Nothing, more often than one of the values.
fn rarely(values: &'static [u64]) -> impl Strategy<Value = u64> {
    prop_oneof![3 => Just(0), 2 => prop::sample::select(values)]
}

fn destinations() -> impl Strategy<Value = (&'static str, &'static str)> {
    prop_oneof![
        5 => prop::sample::select(&QUEUES[..]).prop_map(|queue| ("", queue)),
        4 => (prop::sample::select(&EXCHANGES[..2]), prop::sample::select(&KEYS[..])),
        1 => prop::sample::select(&KEYS[..]).prop_map(|key| (EXCHANGES[2], key)),
    ]
}

pub fn messages() -> impl Strategy<Value = NewMessage> {
    let priority = prop_oneof![4 => Just(0_u32), 2 => Just(1), 1 => Just(255)];
    let when = (times(200), any::<bool>(), offsets(), times(150), offsets());
    let names = (
        prop::sample::select(&["", "", "", "once", "twice"][..]),
        prop::sample::select(&["", "", "line", "row"][..]),
        prop::sample::select(&MESSAGE_IDS[..]),
    );
    (destinations(), prop::bool::weighted(0.1), (0_usize..4, 0_usize..3), priority, when, names).prop_map(
        |((exchange, routing_key), mandatory, (bytes, kind), priority, when, names)| {
            let (delay_ms, immediate, deliver_in_ms, ttl_ms, expire_in_ms) = when;
            let (dedupe_id, group, message_id) = names;
            let immediate = immediate && delay_ms == 0 && deliver_in_ms.is_none();
            NewMessage {
                exchange,
                routing_key,
                mandatory,
                bytes,
                kind,
                priority,
                delay_ms,
                immediate,
                deliver_in_ms,
                ttl_ms,
                expire_in_ms,
                dedupe_id,
                group,
                message_id,
            }
        },
    )
}

fn dead_letters() -> impl Strategy<Value = Option<DeadLetter>> {
    let exchange = prop_oneof![3 => Just(""), 2 => prop::sample::select(&EXCHANGES[..])];
    let key =
        prop_oneof![1 => Just(None), 3 => prop::sample::select(&["alpha", "beta", "gamma", "a"][..]).prop_map(Some)];
    let letter = (exchange, key).prop_map(|(exchange, key): (&str, Option<&str>)| DeadLetter {
        exchange: exchange.into(),
        routing_key: key.map(str::to_owned),
    });
    prop::option::weighted(0.7, letter)
}

fn backoffs() -> impl Strategy<Value = Option<Backoff>> {
    let backoff = (0_i32..3, 1_u64..60, prop_oneof![Just(0_u64), Just(70)])
        .prop_map(|(kind, base_ms, cap_ms)| Backoff { kind, base_ms, cap_ms, jitter_percent: 0 });
    prop::option::weighted(0.3, backoff)
}

pub fn settings() -> impl Strategy<Value = QueueSettings> {
    let times = (prop_oneof![Just(100_u64), Just(150)], rarely(&[20]), rarely(&[60]), rarely(&[300]), rarely(&[100]));
    let limits = (0_u32..3, rarely(&[1, 2, 4]), rarely(&[2, 5]), 0_i32..3);
    let priorities = (prop_oneof![3 => Just(None), 1 => Just(Some(0_u32)), 1 => Just(Some(10))], rarely(&[30]));
    let letters = (dead_letters(), backoffs());
    let delivery = (prop::bool::weighted(0.15), prop::bool::weighted(0.05));
    (times, limits, priorities, letters, delivery).prop_map(|(times, limits, priorities, letters, delivery)| {
        let (lease_timeout_ms, default_delay_ms, message_ttl_ms, idle_ttl_ms, dedupe_window_ms) = times;
        let (delivery_limit, messages_max, bytes_max, overflow) = limits;
        QueueSettings {
            lease_timeout_ms,
            delivery_limit,
            default_delay_ms,
            message_ttl_ms,
            idle_ttl_ms,
            messages_max,
            bytes_max,
            overflow,
            dead_letter: letters.0,
            priority_max: priorities.0,
            dedupe_window_ms,
            single_active_consumer: delivery.0,
            paused: delivery.1,
            backoff: letters.1,
            aging_ms: priorities.1,
        }
    })
}

pub fn fields() -> impl Strategy<Value = Vec<&'static str>> {
    let allowed = |field: &&str| !["priority_max", "single_active_consumer", "colour"].contains(field);
    let known: Vec<&str> = FIELDS.iter().copied().filter(allowed).collect();
    prop_oneof![
        4 => Just(vec!["paused"]),
        4 => prop::collection::vec(prop::sample::select(known), 1..5),
        1 => prop::collection::vec(prop::sample::select(&FIELDS[..]), 1..3),
    ]
}

pub fn exchanges() -> impl Strategy<Value = DeclareExchange> {
    let kinds = [ExchangeKind::Direct, ExchangeKind::Topic, ExchangeKind::Fanout, ExchangeKind::Headers];
    let alternate = prop::sample::select(&["", "", "east", "west", "nowhere"][..]);
    (0_usize..2, prop::sample::select(kinds.to_vec()), alternate).prop_map(|(exchange, kind, alternate)| {
        DeclareExchange { exchange: EXCHANGES[exchange].into(), kind: kind.into(), alternate: alternate.into() }
    })
}

pub fn bindings() -> impl Strategy<Value = Binding> {
    let exchange = prop_oneof![9 => prop::sample::select(&EXCHANGES[..2]), 1 => Just(EXCHANGES[2])];
    let destination = prop_oneof![
        4 => prop::sample::select(&QUEUES[..]).prop_map(|queue| (DestinationKind::Queue, queue)),
        2 => prop::sample::select(&EXCHANGES[..2]).prop_map(|exchange| (DestinationKind::Exchange, exchange)),
    ];
    let headers = prop::sample::select(vec![vec![], vec![("kind", "1")], vec![("kind", "1"), ("size", "2")]]);
    (exchange, destination, prop::sample::select(&KEYS[..]), headers, any::<bool>()).prop_map(
        |(exchange, (destination_kind, destination), routing_key, headers, match_any)| Binding {
            exchange: exchange.into(),
            destination_kind: destination_kind.into(),
            destination: destination.into(),
            routing_key: routing_key.into(),
            headers: headers.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
            match_any,
        },
    )
}

pub fn producers() -> impl Strategy<Value = Option<(usize, SequencePick)>> {
    let sequence = prop_oneof![
        6 => Just(SequencePick::Next),
        3 => (0_u64..4).prop_map(SequencePick::Repeated),
        1 => Just(SequencePick::Gap),
        1 => Just(SequencePick::Zero),
    ];
    proptest::option::of((0..PRODUCERS.len(), sequence))
}

pub fn lease_pick() -> impl Strategy<Value = LeasePick> {
    prop_oneof![
        12 => (0_usize..6).prop_map(LeasePick::Open),
        2 => (0_usize..6).prop_map(LeasePick::Settled),
        1 => (0_u64..8, 0_u64..8).prop_map(|(sequence, token)| LeasePick::Forged(Lease { sequence, token })),
    ]
}

pub fn lease_picks() -> impl Strategy<Value = LeasePicks> {
    let queue = prop_oneof![8 => Just(None), 1 => (0..QUEUES.len()).prop_map(Some)];
    (queue, prop::collection::vec(lease_pick(), 1..4)).prop_map(|(queue, picks)| LeasePicks { queue, picks })
}

pub fn message_picks() -> impl Strategy<Value = Vec<MessagePick>> {
    let sequence = prop_oneof![0_u64..8, Just(u64::MAX)];
    let pick = prop_oneof![
        9 => (0_usize..8).prop_map(MessagePick::Stored),
        1 => sequence.prop_map(MessagePick::Forged),
    ];
    prop::collection::vec(pick, 1..4)
}

pub fn revisions() -> impl Strategy<Value = NewRevision> {
    prop_oneof![
        6 => Just(NewRevision::Recall),
        6 => Just(NewRevision::ExpireNow),
        4 => times(150).prop_map(NewRevision::Delay),
        4 => (-150_i64..150).prop_map(NewRevision::DeliverIn),
        1 => Just(NewRevision::Nothing),
    ]
}

pub fn filters() -> impl Strategy<Value = NewFilter> {
    let states = (any::<bool>(), any::<bool>(), any::<bool>());
    let headers = prop::sample::select(vec![vec![], vec![], vec![("kind", "1")]]);
    let priorities =
        (prop_oneof![3 => Just(0_u32), 1 => Just(1)], prop_oneof![3 => Just(None), 1 => Just(Some(1_u32))]);
    (states, headers, priorities, offsets(), offsets()).prop_map(|(states, headers, priorities, from, before)| {
        NewFilter {
            filter: Filter {
                scheduled: states.0,
                ready: states.1,
                leased: states.2,
                headers: headers.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
                priority_min: priorities.0,
                priority_max: priorities.1,
                ..Filter::default()
            },
            due_from_in_ms: from,
            due_before_in_ms: before,
        }
    })
}

pub fn schedules() -> impl Strategy<Value = NewSchedule> {
    let every_ms = prop_oneof![3 => 100_u64..250, 1 => Just(0)];
    let recurrence = (every_ms, 0_u64..30_000, prop::collection::vec(1_u64..300, 1..4));
    let misfires = (prop_oneof![Just(0_u64), Just(50), Just(250)], 0_u32..4);
    (recurrence, offsets(), offsets(), misfires, messages()).prop_map(|(recurrence, start, end, misfires, message)| {
        let (every_ms, anchor_ms, mut dates_in_ms) = recurrence;
        dates_in_ms.sort_unstable();
        dates_in_ms.dedup();
        NewSchedule {
            every_ms,
            anchor_ms,
            dates_in_ms,
            start_in_ms: start,
            end_in_ms: end.map(|end_in_ms| end_in_ms.saturating_add(400)),
            jitter_ms: 0,
            misfire_after_ms: misfires.0,
            misfires_max: misfires.1,
            message,
        }
    })
}
