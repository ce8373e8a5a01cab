//! More work than the machine does in one step.

use dwell_machine::QueueSettings;
use proptest::prelude::*;

use super::domains::times;
use super::{CONSUMERS, Clock, LeasePick, LeasePicks, Op, Step, clocks};

/// Work with more messages than the machine keeps at hand of a queue, or releases in one step. Pulses come only
/// by [`Step::Settle`], because one that does not do all that is due leaves things open that it need not.
pub fn floods() -> impl Strategy<Value = Vec<Step>> {
    let settings = QueueSettings { lease_timeout_ms: 150, delivery_limit: 3, ..QueueSettings::default() };
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
        3 => (newest(), times(100))
            .prop_map(|(leases, delay_ms)| Op::Nack { leases, delay_ms, reject: false, immediate: false }),
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
