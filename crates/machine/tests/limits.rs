//! What bounds the machine's memory.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its closures too")]

use dwell_machine::*;

#[test]
fn credit_that_was_lowered_below_what_is_held_does_not_make_room_for_more_leases() {
    const MAX: u32 = limits::LEASES_MAX as u32;
    let mut store = MemoryStore::default();
    let mut machine = Machine::open(&store).unwrap();
    let mut run = |command: Command| machine.apply(&mut store, 1, vec![command]).unwrap().replies.remove(0);
    run(Command::DeclareQueue(DeclareQueue { queue: "q".into(), settings: QueueSettings::default() }));
    let messages = vec![PublishMessage { routing_key: "q".into(), ..PublishMessage::default() }; 100];
    run(Command::Publish(Publish { messages, producer: None }));
    let attach = |consumer_id: &str, credit: u32, attachment: u64| {
        let (queue, consumer_id) = ("q".to_owned(), consumer_id.to_owned());
        Command::Attach(Attach { queue, consumer_id, credit, attachment, session_timeout_ms: 100, holding: vec![] })
    };
    run(attach("ann", MAX, 1));
    run(Command::SetCredit(SetCredit { consumer: 1, attachment: 1, credit: 1 }));
    let refused = Reply::Refused(Refusal::TooManyLeases { limit: limits::LEASES_MAX });
    assert_eq!(run(attach("bob", MAX - 99, 2)), refused);
    assert!(matches!(run(attach("bob", MAX - 100, 2)), Reply::Attached { .. }));
}
