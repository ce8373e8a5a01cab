//! What must not cost more, or come later, because there is much of it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::cell::Cell;

use bytes::Bytes;
use dwell_machine::*;

const START_MS: u64 = 1_800_000_000_000;
const HOUR_MS: u64 = 60 * 60 * 1000;

/// Counts the rows that are read.
struct CountingStore<'a> {
    inner: &'a MemoryStore,
    rows: Cell<usize>,
}

impl StoreRead for CountingStore<'_> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.rows.set(self.rows.get() + 1);
        self.inner.get(table, key)
    }

    fn scan(&self, table: Table, from: &[u8], to: &[u8], limit: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let rows = self.inner.scan(table, from, to, limit)?;
        self.rows.set(self.rows.get() + rows.len());
        Ok(rows)
    }
}

/// A machine with its store.
struct Node {
    machine: Machine,
    store: MemoryStore,
}

impl Node {
    fn with_queues(names: &[&str], settings: &QueueSettings) -> Node {
        let store = MemoryStore::default();
        let machine = Machine::open(&store).unwrap();
        let mut node = Node { machine, store };
        for name in names {
            let declare = DeclareQueue { queue: (*name).into(), settings: settings.clone() };
            node.apply(START_MS, Command::DeclareQueue(declare));
        }
        node
    }

    fn apply(&mut self, at_ms: u64, command: Command) -> Reply {
        self.machine.apply(&mut self.store, at_ms, vec![command]).unwrap().replies.remove(0)
    }

    /// Publishes so many messages with the times that `timing` gives them.
    fn fill(&mut self, count: u64, timing: impl Fn(u64, &mut PublishMessage)) {
        for first in (0..count).step_by(1000) {
            let messages = (first..count.min(first + 1000)).map(|number| {
                let mut message = message("q", b"x");
                timing(number, &mut message);
                message
            });
            let publish = Publish { messages: messages.collect(), producer: None };
            assert!(matches!(self.apply(START_MS, Command::Publish(publish)), Reply::Published { .. }));
        }
    }

    fn counts(&self) -> Counts {
        self.machine.queue("q").unwrap().counts
    }
}

fn settings() -> QueueSettings {
    QueueSettings { lease_timeout_ms: 30_000, ..QueueSettings::default() }
}

fn message(queue: &str, body: &'static [u8]) -> PublishMessage {
    let content = Content { body: Bytes::from_static(body), ..Content::default() };
    PublishMessage { routing_key: queue.into(), content, ..PublishMessage::default() }
}

#[test]
fn a_message_of_3_s_behind_a_million_of_an_hour_expires_at_3_s() {
    let mut node = Node::with_queues(&["q"], &settings());
    node.fill(1_000_000, |_, message| message.ttl_ms = HOUR_MS);
    node.fill(1, |_, message| message.ttl_ms = 3_000);
    node.apply(START_MS + 2_999, Command::Release(Release {}));
    assert_eq!(node.counts().ready, 1_000_001);
    assert_eq!(node.machine.next_wake_ms(), Some(START_MS + 3_000));
    node.apply(START_MS + 3_000, Command::Release(Release {}));
    assert_eq!(node.counts().ready, 1_000_000);
    assert_eq!(node.machine.queue("q").unwrap().totals.expired, 1);
}

#[test]
fn a_message_of_3_s_before_one_of_5_s_or_behind_it_is_due_at_3_s() {
    for delays_ms in [[3_000, 5_000], [5_000, 3_000]] {
        let mut node = Node::with_queues(&["q"], &settings());
        node.fill(2, |number, message| message.delay_ms = delays_ms[number as usize]);
        node.apply(START_MS + 3_000, Command::Release(Release {}));
        assert_eq!((node.counts().ready, node.counts().scheduled), (1, 1));
    }
}

#[test]
fn a_forecast_reads_some_hundred_rows_however_many_messages_there_are() {
    let horizons_ms = [60_000, 7 * 60_000 + 17, HOUR_MS, 30 * HOUR_MS];
    let mut read = Vec::new();
    for count in [2_000, 400_000] {
        let mut node = Node::with_queues(&["q"], &settings());
        let delay_of = |number: u64| number * 7_919 * 7_919 % (40 * HOUR_MS) + 1;
        node.fill(count, |number, message| message.delay_ms = delay_of(number));
        let store = CountingStore { inner: &node.store, rows: Cell::new(0) };
        let forecast = node.machine.forecast(&store, "q", START_MS, &horizons_ms).unwrap().unwrap();
        for due in forecast.due {
            let expected = (0..count).filter(|number| delay_of(*number) <= due.horizon_ms).count() as u64;
            assert_eq!((due.messages, due.exact), (expected, true), "within {} ms", due.horizon_ms);
        }
        assert_eq!(forecast.counts.scheduled, count);
        read.push(store.rows.get());
    }
    assert!(read[1] < 4_000, "{read:?} rows were read");
}

#[test]
fn a_forecast_of_a_million_messages_due_in_one_second_estimates_their_share() {
    let mut node = Node::with_queues(&["q"], &settings());
    node.fill(100_000, |number, message| message.delay_ms = HOUR_MS + number % 1000);
    let store = CountingStore { inner: &node.store, rows: Cell::new(0) };
    let horizons_ms = [HOUR_MS - 10_000, HOUR_MS + 500, HOUR_MS + 10_000];
    let due = node.machine.forecast(&store, "q", START_MS, &horizons_ms).unwrap().unwrap().due;
    assert_eq!((due[0].messages, due[0].exact), (0, true));
    assert!(!due[1].exact && due[1].messages <= 100_000, "{:?}", due[1]);
    assert_eq!((due[2].messages, due[2].exact), (100_000, true));
    assert!(store.rows.get() < 4_000, "{} rows were read", store.rows.get());
}

#[test]
fn a_message_to_a_hundred_queues_is_stored_with_one_body() {
    let names: Vec<String> = (0..100).map(|number| format!("q{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut node = Node::with_queues(&names, &settings());
    let kind = ExchangeKind::Fanout.into();
    node.apply(
        START_MS,
        Command::DeclareExchange(DeclareExchange { exchange: "all".into(), kind, ..Default::default() }),
    );
    for name in &names {
        let binding = Binding { exchange: "all".into(), destination: (*name).into(), ..Binding::default() };
        assert_eq!(node.apply(START_MS, Command::Bind(binding)), Reply::Bound { created: true });
    }
    let bytes = |node: &Node| node.store.rows().map(|(_, key, value)| key.len() + value.len()).sum::<usize>();
    let before = bytes(&node);
    static BODY: [u8; 100_000] = [7; 100_000];
    let routed = PublishMessage { exchange: "all".into(), ..message("", &BODY) };
    node.apply(START_MS, Command::Publish(Publish { messages: vec![routed], producer: None }));
    let added = bytes(&node) - before;
    assert!((100_000..130_000).contains(&added), "{added} bytes for a body of 100000 in 100 queues");

    // The last one to go takes the body along.
    for (position, name) in names.iter().enumerate() {
        let queue = (*name).to_owned();
        let receive = Receive { queue: queue.clone(), messages_max: 1, lease_timeout_ms: 0 };
        let Reply::Received { deliveries, queue: id } = node.apply(START_MS, Command::Receive(receive)) else {
            panic!()
        };
        let delivery = &deliveries[0];
        let stored = read_message(&node.store, id, delivery.sequence).unwrap().unwrap();
        assert_eq!(stored.content.body.len(), BODY.len());
        let leases = vec![Lease { sequence: delivery.sequence, token: delivery.token }];
        node.apply(START_MS, Command::Ack(Ack { queue, leases }));
        let bodies = node.store.rows().filter(|(table, ..)| *table == Table::Bodies).count();
        assert_eq!(bodies, usize::from(position + 1 < names.len()));
    }
}

#[test]
fn recalling_half_a_million_by_filter_goes_in_bounded_steps_between_other_commands() {
    let mut node = Node::with_queues(&["q", "other"], &settings());
    node.fill(500_000, |number, message| {
        message.delay_ms = HOUR_MS + number % 1_000;
        message.priority = (number % 2) as u32;
    });
    let mut cursor = Bytes::new();
    let (mut revised, mut steps) = (0, 0);
    loop {
        let filter = Filter { scheduled: true, priority_min: 1, ..Filter::default() };
        let revision = Some(Revision::Recall(Recall {}));
        let step = ReviseMatching { queue: "q".into(), filter, revoke: false, cursor, revision };
        let Reply::RevisedMatching { examined, revised: now, next, .. } =
            node.apply(START_MS, Command::ReviseMatching(step))
        else {
            panic!("a step was refused")
        };
        assert!(examined <= 2 * limits::REVISE_STEP_MAX as u64, "{examined} messages in one step");
        (revised, steps) = (revised + now, steps + 1);
        let publish = Publish { messages: vec![message("other", b"x")], producer: None };
        assert!(matches!(node.apply(START_MS, Command::Publish(publish)), Reply::Published { .. }));
        let Some(next) = next else { break };
        cursor = next;
    }
    assert_eq!((revised, node.counts().scheduled), (250_000, 250_000));
    assert_eq!(node.machine.queue("other").unwrap().counts.ready, steps);
    assert_eq!(node.machine.queue("q").unwrap().totals.recalled, 250_000);
}
