//! What version 1 wrote stays readable: a log and the rows it led to, as files.
//!
//! A change that makes this test fail breaks the data of running clusters: add fields, or a format version that
//! is read besides the old one, and leave these files alone. New formats get files of their own, written by
//! running the test with `WRITE_GOLDEN=1`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use bytes::Bytes;
use dwell_machine::*;

const START_MS: u64 = 1_800_000_000_000;

fn message(body: &'static str) -> PublishMessage {
    let content = Content {
        body: Bytes::from_static(body.as_bytes()),
        headers: [("trace".to_owned(), "1".to_owned())].into(),
        content_type: "text/plain".into(),
        correlation_id: "c".into(),
        reply_to: "answers".into(),
        message_id: body.into(),
    };
    PublishMessage { queue: "orders".into(), content, ..PublishMessage::default() }
}

/// One entry for each command there is, leaving a row in every table.
fn log() -> Vec<(u64, Vec<Command>)> {
    let queue = || "orders".to_owned();
    let settings = QueueSettings { lease_timeout_ms: 30_000, delivery_limit: 3 };
    let producer = Some(ProducerSequence { producer_id: "p".into(), sequence: 1 });
    let messages = vec![
        message("first"),
        message("second"),
        PublishMessage { delay_ms: 5_000, ttl_ms: 1_000, ..message("delayed") },
        PublishMessage { deliver_at_ms: START_MS + 60_000, priority: 9, ..message("dated") },
        PublishMessage { expire_at_ms: START_MS + 90_000, ..message("expiring") },
        message("last"),
    ];
    let attach = Attach {
        queue: queue(),
        consumer_id: "worker".into(),
        credit: 1,
        session_timeout_ms: 10_000,
        holding: vec![Lease { sequence: 99, token: 99 }],
        attachment: 7,
    };
    let first = vec![Lease { sequence: 1, token: 1 }];
    let second = vec![Lease { sequence: 2, token: 2 }];
    let third = vec![Lease { sequence: 5, token: 3 }];
    vec![
        (START_MS, vec![Command::DeclareQueue(DeclareQueue { queue: queue(), settings: settings.clone() })]),
        (START_MS, vec![Command::DeclareQueue(DeclareQueue { queue: "gone".into(), settings })]),
        (START_MS + 1, vec![Command::Publish(Publish { messages, producer })]),
        (START_MS + 2, vec![Command::Attach(attach)]),
        (START_MS + 3, vec![Command::Extend(Extend { queue: queue(), leases: first.clone(), lease_timeout_ms: 400 })]),
        (START_MS + 4, vec![Command::Ack(Ack { queue: queue(), leases: first })]),
        (START_MS + 5, vec![Command::SetCredit(SetCredit { consumer: 1, attachment: 7, credit: 2 })]),
        (START_MS + 6, vec![Command::Nack(Nack { queue: queue(), leases: second, delay_ms: 7_000 })]),
        (START_MS + 7, vec![Command::Ack(Ack { queue: queue(), leases: third })]),
        (START_MS + 8, vec![Command::Receive(Receive { queue: queue(), messages_max: 1, lease_timeout_ms: 900 })]),
        (START_MS + 9, vec![Command::DetachAll(DetachAll {})]),
        (START_MS + 10, vec![Command::Detach(Detach { consumer: 1, attachment: 7, close: false })]),
        (
            START_MS + 11,
            vec![Command::DeleteQueue(DeleteQueue { queue: "gone".into(), if_empty: true, if_unused: true })],
        ),
        (
            START_MS + 5_500,
            vec![
                Command::Release(Release {}),
                Command::Publish(Publish { messages: vec![message("x")], producer: None }),
            ],
        ),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Bytes {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn golden_path(name: &str) -> String {
    format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn golden(name: &str, current: impl FnOnce() -> String) -> String {
    let path = golden_path(name);
    if std::env::var_os("WRITE_GOLDEN").is_some() {
        std::fs::write(&path, current()).unwrap();
    }
    std::fs::read_to_string(&path).unwrap()
}

fn rows_of(store: &MemoryStore) -> String {
    store.rows().map(|(table, key, value)| format!("{table:?} {} {}\n", hex(key), hex(value))).collect()
}

fn apply_all(entries: &[Bytes]) -> MemoryStore {
    let mut store = MemoryStore::default();
    let mut machine = Machine::open(&store).unwrap();
    for entry in entries {
        let (at_ms, commands) = Batch::decode(entry.clone()).unwrap();
        machine.apply(&mut store, at_ms, commands).unwrap();
    }
    store
}

#[test]
fn a_log_of_version_1_is_read_and_leads_to_the_rows_of_version_1() {
    let write = || log().into_iter().map(|(at_ms, commands)| hex(&Batch::encode(at_ms, commands)) + "\n").collect();
    let text = golden("log-v1.txt", write);
    let entries: Vec<Bytes> = text.lines().map(unhex).collect();
    for (entry, (at_ms, commands)) in entries.iter().zip(log()) {
        assert_eq!(Batch::decode(entry.clone()).unwrap(), (at_ms, commands));
    }
    assert_eq!(entries.len(), log().len());
    let store = apply_all(&entries);
    assert_eq!(rows_of(&store), golden("rows-v1.txt", || rows_of(&store)));
}

#[test]
fn rows_of_version_1_are_opened_and_worked_with() {
    let text = std::fs::read_to_string(golden_path("rows-v1.txt")).unwrap();
    let mut store = MemoryStore::default();
    for line in text.lines() {
        let [name, key, value] = line.splitn(3, ' ').collect::<Vec<_>>().try_into().unwrap();
        let table = Table::ALL.into_iter().find(|table| format!("{table:?}") == name).unwrap();
        store.put(table, &unhex(key), unhex(value));
    }
    let tables: std::collections::BTreeSet<Table> = store.rows().map(|(table, ..)| table).collect();
    assert_eq!(tables.len(), Table::ALL.len(), "a table without a row is not held to its format");

    let mut machine = Machine::open(&store).unwrap();
    let counts = machine.queue("orders").unwrap().counts;
    assert!(counts.scheduled > 0 && counts.leased > 0 && counts.ready > 0, "{counts:?}");
    // Two minutes on, all that was scheduled, leased or to expire has come back or gone.
    for _ in 0..4 {
        machine.apply(&mut store, START_MS + 120_000, vec![Command::Release(Release {})]).unwrap();
    }
    let counts = machine.queue("orders").unwrap().counts;
    assert_eq!((counts.scheduled, counts.leased), (0, 0));
    assert!(counts.ready > 0);
}

#[test]
fn an_entry_of_a_newer_version_is_refused() {
    let mut entry = Batch::encode(START_MS, [Command::Release(Release {})]).to_vec();
    entry[0] = 2;
    assert!(matches!(Batch::decode(entry.into()), Err(BatchError::Version(2))));
}
