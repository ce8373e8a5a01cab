//! Which commands come, and how often.

use dwell_machine::{Permission, PutUser, PutUserWhen, RemoveUser, ScheduleControl};
use proptest::prelude::*;

use super::domains::{
    MESSAGE_IDS, bindings, exchanges, fields, filters, lease_pick, lease_picks, message_picks, messages, producers,
    revisions, schedules, settings, times,
};
use super::{CONSUMERS, EXCHANGES, Op, QUEUES, SCHEDULES};

fn rarely() -> impl Strategy<Value = bool> {
    prop::bool::weighted(0.15)
}

fn queues() -> impl Strategy<Value = usize> {
    0..QUEUES.len()
}

pub fn ops() -> impl Strategy<Value = Op> {
    // Boxed, because a choice among so many takes more stack than a test has.
    prop_oneof![
        7 => about_queues().boxed(),
        20 => about_messages().boxed(),
        24 => about_consumers().boxed(),
        7 => about_exchanges().boxed(),
        10 => about_revisions().boxed(),
        5 => about_schedules().boxed(),
        2 => about_users().boxed(),
    ]
}

fn about_queues() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (queues(), settings()).prop_map(|(queue, settings)| Op::Declare { queue, settings }),
        3 => (queues(), settings(), fields())
            .prop_map(|(queue, settings, fields)| Op::Update { queue, settings, fields }),
        1 => (queues(), any::<bool>(), any::<bool>())
            .prop_map(|(queue, if_empty, if_unused)| Op::Delete { queue, if_empty, if_unused }),
    ]
}

fn about_messages() -> impl Strategy<Value = Op> {
    prop_oneof![
        14 => (prop::collection::vec(messages(), 1..4), producers())
            .prop_map(|(messages, producer)| Op::Publish { messages, producer }),
        5 => (prop::collection::vec(lease_picks(), 0..3), prop::collection::vec(messages(), 0..3), producers())
            .prop_map(|(acks, messages, producer)| Op::Transact { acks, messages, producer }),
        6 => Just(Op::Release),
    ]
}

fn about_consumers() -> impl Strategy<Value = Op> {
    let consumers = || 0..CONSUMERS.len();
    let credit = prop_oneof![Just(1_u32), Just(2), Just(5)];
    let settling = prop_oneof![
        6 => lease_picks().prop_map(|leases| Op::Ack { leases }),
        6 => (lease_picks(), times(150), rarely(), any::<bool>()).prop_map(|(leases, delay_ms, reject, immediate)| {
            Op::Nack { leases, delay_ms, reject, immediate }
        }),
        2 => (lease_picks(), times(300)).prop_map(|(leases, lease_timeout_ms)| Op::Extend { leases, lease_timeout_ms }),
    ];
    prop_oneof![
        5 => (queues(), consumers(), credit.clone(), 100_u64..250, prop::collection::vec(lease_pick(), 0..4))
            .prop_map(|(queue, consumer, credit, session_timeout_ms, holding)| {
                Op::Attach { queue, consumer, credit, session_timeout_ms, holding }
            }),
        3 => (consumers(), rarely(), any::<bool>())
            .prop_map(|(consumer, stale, close)| Op::Detach { consumer, stale, close }),
        2 => (consumers(), rarely(), credit).prop_map(|(consumer, stale, credit)| Op::SetCredit { consumer, stale, credit }),
        4 => (queues(), 1_u32..4, times(200)).prop_map(|(queue, messages_max, lease_timeout_ms)| {
            Op::Receive { queue, messages_max, lease_timeout_ms }
        }),
        12 => settling,
        1 => Just(Op::DetachAll),
    ]
}

fn about_exchanges() -> impl Strategy<Value = Op> {
    prop_oneof![
        2 => exchanges().prop_map(Op::DeclareExchange),
        1 => (0..EXCHANGES.len(), any::<bool>())
            .prop_map(|(exchange, if_unused)| Op::DeleteExchange { exchange, if_unused }),
        6 => bindings().prop_map(Op::Bind),
        1 => bindings().prop_map(Op::Unbind),
    ]
}

fn about_revisions() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (message_picks(), revisions(), any::<bool>())
            .prop_map(|(messages, revision, revoke)| Op::Revise { messages, revision, revoke }),
        2 => (queues(), prop::sample::select(&MESSAGE_IDS[1..]), times(20), revisions(), any::<bool>()).prop_map(
            |(queue, message_id, after, revision, revoke)| Op::ReviseById { queue, message_id, after, revision, revoke }
        ),
        2 => (queues(), filters(), revisions(), any::<bool>())
            .prop_map(|(queue, filter, revision, revoke)| Op::ReviseMatching { queue, filter, revision, revoke }),
    ]
}

fn about_schedules() -> impl Strategy<Value = Op> {
    let names = || 0..SCHEDULES.len();
    let control = prop::sample::select(vec![ScheduleControl::Pause, ScheduleControl::Resume, ScheduleControl::Trigger]);
    prop_oneof![
        3 => (names(), schedules(), any::<bool>())
            .prop_map(|(schedule, definition, replace)| Op::DeclareSchedule { schedule, definition, replace }),
        1 => names().prop_map(|schedule| Op::DeleteSchedule { schedule }),
        3 => (names(), control).prop_map(|(schedule, control)| Op::ControlSchedule { schedule, control }),
    ]
}

fn about_users() -> impl Strategy<Value = Op> {
    let names = || prop::sample::select(vec!["ada", "ben", "cleo"]);
    let when = prop::sample::select(vec![PutUserWhen::New, PutUserWhen::Existing, PutUserWhen::First]);
    let hashes = prop::option::of(prop::sample::select(vec!["", "hash", "another hash"]));
    let patterns = || prop::sample::select(vec!["", ".*", "q-[0-9]+"]);
    let permissions = prop::option::of((patterns(), patterns(), patterns()));
    let put = (names(), when, hashes, prop::option::of(any::<bool>()), permissions);
    prop_oneof![
        3 => put.prop_map(|(user, when, hash, administrator, permission)| {
            let permission = permission.map(|(configure, write, read)| Permission {
                configure: configure.into(),
                write: write.into(),
                read: read.into(),
            });
            let password_hash = hash.map(str::to_owned);
            Op::PutUser(PutUser { user: user.into(), when: when.into(), password_hash, administrator, permission })
        }),
        1 => names().prop_map(|user| Op::RemoveUser(RemoveUser { user: user.into() })),
    ]
}
