//! The checker itself: histories that keep the promises pass, and each broken promise is found.

use super::*;

const MS: u64 = 1000;
const SECOND: u64 = 1_000_000;
const KILL: u64 = 100 * SECOND;

/// Confirmed 2 ms after it was sent.
fn published(due: Due, sent_at_us: u64) -> Published {
    Published { due, sent_at_us, confirmed_at_us: Some(sent_at_us + 2 * MS) }
}

/// Received 3 ms after it was ready, acknowledged 2 ms later.
fn delivered(id: u64, ready_at_ms: u64) -> Delivered {
    let received_at_us = ready_at_ms * MS + 3 * MS;
    let acknowledged_at_us = Some(received_at_us + 2 * MS);
    Delivered { id, consumer: 0, received_at_us, ready_at_ms, delivery_count: 0, acknowledged_at_us }
}

fn history(published: Vec<Published>, delivered: Vec<Delivered>) -> History {
    History { published: (1..).zip(published).collect(), delivered, kills_us: vec![KILL] }
}

/// Message 1, sent at 90 s and due at 99.99 s; received first at 99.993 s, and again at `again_at_us`.
fn delivered_twice(acknowledged_at_us: Option<u64>, again_at_us: u64) -> History {
    let first = Delivered { acknowledged_at_us, ..delivered(1, 99_990) };
    let second = Delivered { received_at_us: again_at_us, consumer: 1, delivery_count: 1, ..delivered(1, 99_990) };
    history(vec![published(Due::AtMs(99_990), 90 * SECOND)], vec![first, second])
}

#[test]
fn a_good_history_has_no_violation_and_its_numbers() {
    let history = history(
        vec![published(Due::AfterMs(500), SECOND), published(Due::AtMs(1_700), SECOND + 400 * MS)],
        vec![delivered(1, 1_501), delivered(2, 1_700)],
    );
    let verdict = history.check(&[]);
    assert_eq!(verdict.violations, []);
    assert_eq!((verdict.sent, verdict.confirmed, verdict.deliveries, verdict.allowed_duplicates), (2, 2, 2, 0));
    assert_eq!(verdict.longest_confirm_gap_us, 400 * MS);
    assert_eq!(verdict.lateness.max_us(), 3 * MS);
}

#[test]
fn a_confirmed_message_that_nobody_received_is_lost() {
    let history = history(vec![published(Due::AfterMs(0), SECOND)], vec![]);
    assert_eq!(history.check(&[]).violations, [Violation::Lost(1)]);
}

#[test]
fn an_unconfirmed_message_may_be_delivered_or_not() {
    let unconfirmed = Published { confirmed_at_us: None, ..published(Due::AfterMs(0), SECOND) };
    assert_eq!(history(vec![unconfirmed.clone()], vec![]).check(&[]).violations, []);
    assert_eq!(history(vec![unconfirmed], vec![delivered(1, 1_001)]).check(&[]).violations, []);
}

#[test]
fn a_message_that_nobody_sent_is_reported() {
    assert_eq!(history(vec![], vec![delivered(7, 1_000)]).check(&[]).violations, [Violation::NeverSent(7)]);
}

#[test]
fn a_message_before_its_absolute_time_is_early_by_any_margin() {
    let one_us_early = Delivered { received_at_us: 5 * SECOND - 1, ..delivered(1, 5_000) };
    let history = history(vec![published(Due::AtMs(5_000), SECOND)], vec![one_us_early]);
    assert_eq!(history.check(&[]).violations, [Violation::Early { id: 1, by_us: 1 }]);
}

#[test]
fn a_message_before_its_delay_is_early_whatever_the_server_says_of_its_due_time() {
    // Asked for 2 s, delivered after 1 s, and the server says that it was due then.
    let history = history(vec![published(Due::AfterMs(2_000), SECOND)], vec![delivered(1, 2_000)]);
    let violations = history.check(&[]).violations;
    assert!(violations.contains(&Violation::Early { id: 1, by_us: SECOND - 3 * MS }), "{violations:?}");
    assert!(violations.contains(&Violation::WrongDue { id: 1, ready_at_ms: 2_000 }), "{violations:?}");
}

#[test]
fn a_repeated_delivery_is_checked_for_being_early_too() {
    let mut history = delivered_twice(None, KILL + SECOND);
    history.delivered[0].received_at_us = 99_000 * MS;
    let early = Violation::Early { id: 1, by_us: 990 * MS };
    assert_eq!(history.check(&[]).violations, [early]);
}

#[test]
fn a_due_time_moved_by_the_server_to_hide_its_lateness_is_found() {
    // Due at 5 s, delivered at 7 s, and said to have been ready only then.
    let history = history(vec![published(Due::AtMs(5_000), SECOND)], vec![delivered(1, 7_000)]);
    assert_eq!(history.check(&[]).violations, [Violation::WrongDue { id: 1, ready_at_ms: 7_000 }]);
}

#[test]
fn a_time_that_passed_before_the_message_was_stored_counts_from_being_stored() {
    let sent_at_us = 10 * SECOND;
    let late = Published { confirmed_at_us: Some(10_300 * MS), ..published(Due::AtMs(9_999), sent_at_us) };
    let history = history(vec![late], vec![delivered(1, 10_250)]);
    let verdict = history.check(&[]);
    assert_eq!(verdict.violations, []);
    assert_eq!(verdict.lateness.max_us(), 3 * MS);
}

#[test]
fn lateness_is_counted_outside_the_unmeasured_spans_only() {
    let mut late = delivered(1, 100_500);
    late.received_at_us = 100_900 * MS;
    let history = history(
        vec![published(Due::AtMs(100_500), SECOND), published(Due::AtMs(200_000), SECOND)],
        vec![late, delivered(2, 200_000)],
    );
    let verdict = history.check(&[]);
    assert_eq!(verdict.lateness.max_us(), 400 * MS);
    assert_eq!(verdict.worst_lateness_by_second, [(99, 400 * MS), (199, 3 * MS)].into());
    let second_after_kill = KILL..KILL + SECOND;
    let verdict = history.check(std::slice::from_ref(&second_after_kill));
    assert_eq!((verdict.lateness.count(), verdict.lateness.max_us()), (1, 3 * MS));
}

#[test]
fn a_lease_that_was_out_at_the_kill_may_come_again() {
    let verdict = delivered_twice(None, KILL + SECOND).check(&[]);
    assert_eq!((verdict.violations.len(), verdict.allowed_duplicates), (0, 1));
    // Also when the first consumer's acknowledgement was confirmed after the kill, at about the same time.
    let verdict = delivered_twice(Some(KILL + SECOND), KILL + SECOND).check(&[]);
    assert_eq!((verdict.violations.len(), verdict.allowed_duplicates), (0, 1));
}

#[test]
fn an_acknowledgement_confirmed_before_the_kill_is_final() {
    let again_at = KILL + SECOND;
    let verdict = delivered_twice(Some(KILL - 1), again_at).check(&[]);
    assert_eq!(verdict.violations, [Violation::Duplicate { id: 1, at_us: again_at }]);
}

#[test]
fn an_acknowledgement_confirmed_after_the_kill_is_final_from_then_on() {
    let again_at = KILL + 5 * SECOND;
    let verdict = delivered_twice(Some(KILL + SECOND), again_at).check(&[]);
    assert_eq!(verdict.violations, [Violation::Duplicate { id: 1, at_us: again_at }]);
}

#[test]
fn a_duplicate_before_the_kill_or_without_any_is_a_violation() {
    let again_at = KILL - 2 * MS;
    let verdict = delivered_twice(None, again_at).check(&[]);
    assert_eq!(verdict.violations, [Violation::Duplicate { id: 1, at_us: again_at }]);
    let mut without_kill = delivered_twice(None, KILL + SECOND);
    without_kill.kills_us.clear();
    assert_eq!(without_kill.check(&[]).violations.len(), 1);
}

#[test]
fn a_message_first_delivered_after_the_kill_may_not_come_twice() {
    let first = delivered(1, 101_000);
    let second = Delivered { received_at_us: 102 * SECOND, acknowledged_at_us: None, ..delivered(1, 101_000) };
    let history = history(vec![published(Due::AtMs(101_000), 90 * SECOND)], vec![first, second]);
    assert_eq!(history.check(&[]).violations, [Violation::Duplicate { id: 1, at_us: 102 * SECOND }]);
}

#[test]
fn one_kill_explains_one_repetition_and_not_the_next() {
    let mut history = delivered_twice(None, KILL + SECOND);
    let third = Delivered { received_at_us: KILL + 9 * SECOND, ..delivered(1, 99_990) };
    history.delivered.push(third);
    let verdict = history.check(&[]);
    assert_eq!(verdict.allowed_duplicates, 1);
    assert_eq!(verdict.violations, [Violation::Duplicate { id: 1, at_us: KILL + 9 * SECOND }]);
}

#[test]
fn the_recorder_writes_down_what_its_clones_saw() {
    let recorder = Recorder::default();
    let due = Due::AtMs(now_us() / 1000);
    recorder.sent(1, due);
    recorder.clone().sent(2, due);
    recorder.confirmed(1);
    assert_eq!(recorder.missing(), [1]);
    let delivery = recorder.received(Delivered { acknowledged_at_us: None, ..delivered(1, now_us() / 1000) });
    recorder.acknowledged(delivery);
    assert_eq!((recorder.missing().len(), recorder.progress()), (0, (1, 1)));
    assert!(recorder.history().delivered[0].acknowledged_at_us.is_some());
}
