//! The machine against a naive reference of it, over random work.
//!
//! `PROPTEST_CASES` sets how many cases are tried.

mod compare;
mod deaths;
mod lifecycle;
mod publish;
mod queues;
mod reference;
mod revise;
mod routing;
mod schedules;
mod sessions;
mod store;
mod users;
mod views;
#[path = "../workload/mod.rs"]
mod workload;

use compare::Pair;
use dwell_machine::{Command, DeclareQueue, ProducerSequence, Publish, PublishMessage, QueueSettings};
use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, TestCaseError};
use workload::{Clock, QUEUES, Step};

/// One `share`th of the usual number of cases.
fn config(share: u32) -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig {
        cases: usual.cases.div_ceil(share),
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..usual
    }
}

fn compare(steps: &[Step]) -> Result<(), TestCaseError> {
    let mut pair = Pair::new()?;
    for step in steps {
        pair.step(step)?;
    }
    pair.drain()
}

proptest! {
    #![proptest_config(config(1))]

    #[test]
    fn the_machine_does_what_the_reference_does(steps in workload::steps()) {
        compare(&steps)?;
    }
}

proptest! {
    #![proptest_config(config(16))]

    #[test]
    fn the_machine_does_so_with_more_messages_than_it_keeps_at_hand(steps in workload::floods()) {
        compare(&steps)?;
    }
}

fn declare(queue: &str) -> Command {
    let settings = QueueSettings { lease_timeout_ms: 1000, ..QueueSettings::default() };
    Command::DeclareQueue(DeclareQueue { queue: queue.into(), settings })
}

fn publish(queue: &str, delay_ms: u64, producer: Option<(&str, u64)>) -> Command {
    let message = PublishMessage { routing_key: queue.into(), delay_ms, ..PublishMessage::default() };
    let producer = producer.map(|(id, sequence)| ProducerSequence { producer_id: id.into(), sequence });
    Command::Publish(Publish { messages: vec![message], producer })
}

#[test]
fn a_producer_is_answered_alike_within_its_window_and_refused_beyond_it() -> Result<(), TestCaseError> {
    let mut pair = Pair::new()?;
    pair.entry(vec![declare(QUEUES[0])])?;
    for sequence in 1..=600_u64 {
        // Every seventh is refused, and is so again when it is repeated.
        let queue = if sequence % 7 == 0 { "missing" } else { QUEUES[0] };
        let repeated = [sequence.saturating_sub(255), sequence.saturating_sub(256), sequence + 1];
        let again = repeated.into_iter().map(|sequence| publish(QUEUES[0], 0, Some(("press", sequence))));
        let first = publish(queue, 0, Some(("press", sequence)));
        // The gap is asked for before the sequence that would fill it, so that it stays one.
        pair.entry(std::iter::once(first).chain(again.take(2)).collect())?;
        pair.entry(vec![publish(queue, 0, Some(("press", sequence + 2)))])?;
    }
    pair.drain()
}

#[test]
fn a_release_of_several_steps_does_what_one_of_a_single_step_would() -> Result<(), TestCaseError> {
    let mut pair = Pair::new()?;
    pair.entry(vec![declare(QUEUES[0]), declare(QUEUES[1])])?;
    for delay_ms in [30, 10, 20] {
        pair.entry((0..500).map(|_| publish(QUEUES[0], delay_ms, None)).collect())?;
    }
    pair.step(&Step::Settle { clock: Clock::Forward(15) })?;
    pair.entry(vec![publish(QUEUES[1], 0, None)])?;
    pair.step(&Step::Settle { clock: Clock::Forward(15) })?;
    pair.drain()
}
