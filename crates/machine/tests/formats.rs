//! What earlier versions wrote stays readable: logs and the rows they led to, as files.
//!
//! A change that makes this test fail breaks the data of running clusters: add fields, or a format version that
//! is read besides the old one, and leave these files alone. New formats get files of their own, written by
//! running the test with `WRITE_GOLDEN=1`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod golden;

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
    PublishMessage { routing_key: "orders".into(), content, ..PublishMessage::default() }
}

/// One entry for each command of version 1, leaving a row in each of its tables.
fn log_v1() -> Vec<(u64, Vec<Command>)> {
    let queue = || "orders".to_owned();
    let settings = QueueSettings { lease_timeout_ms: 30_000, delivery_limit: 3, ..QueueSettings::default() };
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
        (
            START_MS + 6,
            vec![Command::Nack(Nack { queue: queue(), leases: second, delay_ms: 7_000, ..Nack::default() })],
        ),
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

fn orders() -> String {
    "orders".to_owned()
}

fn settings_v2() -> QueueSettings {
    QueueSettings {
        lease_timeout_ms: 30_000,
        delivery_limit: 3,
        default_delay_ms: 0,
        message_ttl_ms: 3_600_000,
        idle_ttl_ms: 7_200_000,
        messages_max: 1_000,
        bytes_max: 1_000_000,
        overflow: Overflow::DeadLetterHead.into(),
        dead_letter: Some(DeadLetter { exchange: "events".into(), routing_key: Some("dead.orders".into()) }),
        priority_max: Some(10),
        dedupe_window_ms: 60_000,
        single_active_consumer: false,
        paused: false,
        backoff: Some(Backoff {
            kind: BackoffKind::Exponential.into(),
            base_ms: 100,
            cap_ms: 10_000,
            jitter_percent: 10,
        }),
        aging_ms: 5_000,
    }
}

fn declarations_v2() -> Vec<Command> {
    let queue = |queue: &str, settings| DeclareQueue { queue: queue.into(), settings };
    let plain = QueueSettings { lease_timeout_ms: 30_000, ..QueueSettings::default() };
    let exchange = |exchange: &str, kind: ExchangeKind, alternate: &str| {
        let (exchange, alternate) = (exchange.into(), alternate.into());
        Command::DeclareExchange(DeclareExchange { exchange, kind: kind.into(), alternate })
    };
    let bind = |exchange: &str, destination: &str, routing_key: &str, kind: DestinationKind| Binding {
        exchange: exchange.into(),
        destination_kind: kind.into(),
        destination: destination.into(),
        routing_key: routing_key.into(),
        headers: [("region".to_owned(), "eu".to_owned())].into(),
        match_any: true,
    };
    let unbound = bind("events", "copies", "x", DestinationKind::Queue);
    vec![
        Command::DeclareQueue(queue("orders", settings_v2())),
        Command::DeclareQueue(queue("copies", plain)),
        exchange("events", ExchangeKind::Topic, "rest"),
        exchange("rest", ExchangeKind::Headers, ""),
        exchange("gone", ExchangeKind::Fanout, ""),
        Command::Bind(bind("events", "orders", "order.#", DestinationKind::Queue)),
        Command::Bind(bind("events", "copies", "#", DestinationKind::Queue)),
        Command::Bind(bind("events", "rest", "rest.*", DestinationKind::Exchange)),
        Command::Bind(unbound.clone()),
        Command::Unbind(Unbind { binding: unbound }),
        Command::DeleteExchange(DeleteExchange { exchange: "gone".into(), if_unused: true }),
    ]
}

fn schedules_v2() -> Vec<Command> {
    let declare = |schedule: &str, pattern| {
        let definition = ScheduleDefinition {
            recurrence: Recurrence { pattern: Some(pattern) },
            start_at_ms: START_MS,
            end_at_ms: START_MS + 86_400_000,
            jitter_ms: 1_000,
            misfire_after_ms: 60_000,
            misfires_max: 2,
            message: PublishMessage { immediate: true, ..message("scheduled") },
        };
        Command::DeclareSchedule(DeclareSchedule { schedule: schedule.into(), definition, replace: true })
    };
    let cron = Cron { expression: "*/5 * * * *".into(), time_zone: "Europe/Vienna".into() };
    let control = |control: ScheduleControl| {
        Command::ControlSchedule(ControlSchedule { schedule: "cron".into(), control: control.into() })
    };
    vec![
        declare("cron", Pattern::Cron(cron)),
        declare("interval", Pattern::Interval(Interval { every_ms: 60_000, anchor_ms: START_MS })),
        declare("dates", Pattern::Dates(Dates { at_ms: vec![START_MS + 1_000_000] })),
        control(ScheduleControl::Trigger),
        control(ScheduleControl::Pause),
        control(ScheduleControl::Resume),
        Command::DeleteSchedule(DeleteSchedule { schedule: "dates".into() }),
    ]
}

/// One entry for each command that came with version 2, leaving a row in every table.
fn log_v2() -> Vec<(u64, Vec<Command>)> {
    let producer = |sequence| Some(ProducerSequence { producer_id: "p".into(), sequence });
    let grouped = |body| PublishMessage { group: "customer-7".into(), ..message(body) };
    let routed = PublishMessage {
        exchange: "events".into(),
        routing_key: "order.new".into(),
        mandatory: true,
        dedupe_id: "order-17".into(),
        ..message("routed")
    };
    let unroutable = PublishMessage { exchange: "rest".into(), ..message("unroutable") };
    let messages = vec![
        routed,
        unroutable,
        grouped("first"),
        grouped("second"),
        grouped("third"),
        PublishMessage { delay_ms: 60_000, ..message("delayed") },
        PublishMessage { delay_ms: 70_000, ..message("later") },
        PublishMessage { delay_ms: 80_000, ..message("recalled") },
    ];
    let reschedule = Revision::Reschedule(Reschedule { delay_ms: 90_000, deliver_at_ms: 0 });
    let update = QueueSettings { paused: true, ..settings_v2() };
    let filter = Filter {
        scheduled: true,
        headers: [("trace".to_owned(), "1".to_owned())].into(),
        due_from_ms: START_MS,
        due_before_ms: START_MS + 75_000,
        priority_min: 0,
        priority_max: Some(9),
        ..Filter::default()
    };
    let expire = Some(Revision::ExpireNow(ExpireNow {}));
    let attach = Attach {
        queue: "copies".into(),
        consumer_id: "worker".into(),
        credit: 1,
        session_timeout_ms: 10_000,
        holding: Vec::new(),
        attachment: 7,
    };
    let receive = Receive { queue: orders(), messages_max: 2, lease_timeout_ms: 0 };
    // Of the routed message and of the first of the group, as the tokens were given out.
    let (routed, first) = (Lease { sequence: 1, token: 2 }, Lease { sequence: 3, token: 3 });
    let transact = Transact {
        acks: vec![Ack { queue: orders(), leases: vec![first] }],
        publish: Publish { messages: vec![message("answer")], producer: producer(2) },
    };
    let reject = Nack { queue: orders(), leases: vec![routed], delay_ms: 0, reject: true, immediate: false };
    vec![
        (START_MS, declarations_v2()),
        (START_MS + 1, vec![Command::Attach(attach)]),
        (START_MS + 2, vec![Command::Publish(Publish { messages, producer: producer(1) })]),
        (START_MS + 3, vec![Command::Receive(receive)]),
        (START_MS + 4, vec![Command::Transact(transact)]),
        (START_MS + 5, vec![Command::Nack(reject)]),
        (START_MS + 6, schedules_v2()),
        (
            START_MS + 7,
            vec![
                Command::Revise(Revise {
                    queue: orders(),
                    sequences: vec![6, 99],
                    revoke: true,
                    revision: Some(reschedule),
                }),
                Command::ReviseById(ReviseById {
                    queue: orders(),
                    message_id: "recalled".into(),
                    revoke: false,
                    after: 0,
                    revision: Some(Revision::Recall(Recall {})),
                }),
                Command::ReviseMatching(ReviseMatching {
                    queue: orders(),
                    filter,
                    revoke: false,
                    cursor: Bytes::new(),
                    revision: expire,
                }),
            ],
        ),
        (
            START_MS + 8,
            vec![Command::UpdateQueue(UpdateQueue {
                queue: orders(),
                settings: update,
                fields: vec!["paused".into(), "aging_ms".into()],
            })],
        ),
    ]
}

/// The commands that came with version 3, which has a table more.
fn log_v3() -> Vec<(u64, Vec<Command>)> {
    let put = |user: &str, when: PutUserWhen| PutUser { user: user.into(), when: when.into(), ..PutUser::default() };
    let permission = |read: &str| Permission { configure: "^own-".into(), write: ".*".into(), read: read.into() };
    let root = PutUser { password_hash: Some("$argon2id$1".into()), ..put("root", PutUserWhen::First) };
    let reader = PutUser { permission: Some(permission("orders")), ..put("reader", PutUserWhen::New) };
    let other = PutUser { administrator: Some(true), ..put("other", PutUserWhen::New) };
    let changed = PutUser {
        password_hash: Some("$argon2id$2".into()),
        permission: Some(permission("")),
        ..put("reader", PutUserWhen::Existing)
    };
    vec![
        (START_MS, vec![Command::PutUser(root), Command::PutUser(reader), Command::PutUser(other)]),
        (START_MS + 1, vec![Command::PutUser(changed), Command::RemoveUser(RemoveUser { user: "other".into() })]),
    ]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn golden(name: &str, current: impl FnOnce() -> String) -> String {
    let path = golden::path(name);
    // What an earlier version wrote is never written again.
    if std::env::var_os("WRITE_GOLDEN").is_some() && !std::fs::exists(&path).unwrap() {
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

/// Checks that a log still says what it said, and leads to the rows that it led to.
fn check_log(log_name: &str, rows_name: &str, log: Vec<(u64, Vec<Command>)>) {
    let write =
        || log.clone().into_iter().map(|(at_ms, commands)| hex(&Batch::encode(at_ms, commands)) + "\n").collect();
    let text = golden(log_name, write);
    let entries: Vec<Bytes> = golden::entries(&text);
    assert_eq!(entries.len(), log.len());
    for (entry, (at_ms, commands)) in entries.iter().zip(log) {
        assert_eq!(Batch::decode(entry.clone()).unwrap(), (at_ms, commands));
    }
    let store = apply_all(&entries);
    assert_eq!(rows_of(&store), golden(rows_name, || rows_of(&store)));
}

fn tables_of(store: &MemoryStore) -> Vec<Table> {
    let tables: std::collections::BTreeSet<Table> = store.rows().map(|(table, ..)| table).collect();
    tables.into_iter().collect()
}

/// Two minutes on, all that was scheduled, leased or to expire has come back or gone.
fn let_two_minutes_pass(machine: &mut Machine, store: &mut MemoryStore) {
    for _ in 0..4 {
        machine.apply(store, START_MS + 120_000, vec![Command::Release(Release {})]).unwrap();
    }
}

#[test]
fn a_log_of_version_1_is_read_and_leads_to_the_rows_of_this_version() {
    check_log("log-v1.txt", "rows-v2-of-log-v1.txt", log_v1());
}

#[test]
fn a_log_of_version_2_is_read_and_leads_to_the_rows_of_version_2() {
    check_log("log-v2.txt", "rows-v2.txt", log_v2());
}

#[test]
fn a_log_of_version_3_is_read_and_leads_to_the_rows_of_version_3() {
    check_log("log-v3.txt", "rows-v3.txt", log_v3());
    let machine = Machine::open(&golden::rows("rows-v3.txt")).unwrap();
    let users: Vec<_> = machine.users(None, 10).into_iter().map(|user| (user.name, user.administrator)).collect();
    assert_eq!(users, [("reader".to_owned(), false), ("root".to_owned(), true)]);
}

#[test]
fn rows_of_version_1_are_brought_up_to_date_and_worked_with() {
    let mut store = golden::rows("rows-v1.txt");
    assert_eq!(tables_of(&store), Table::ALL[..10], "a table without a row is not held to its format");

    let mut machine = Machine::open(&store).unwrap();
    let counts = machine.queue("orders").unwrap().counts;
    assert!(counts.scheduled > 0 && counts.leased > 0 && counts.ready > 0, "{counts:?}");
    machine.apply(&mut store, START_MS, Vec::new()).unwrap();
    let forecast = machine.forecast(&store, "orders", START_MS, &[120_000]).unwrap().unwrap();
    assert_eq!(forecast.due[0].messages, counts.scheduled, "the index was made up for");
    let scheduled = machine.browse(&store, "orders", MessageState::Scheduled, &Bytes::new(), 100, true);
    assert_eq!(scheduled.unwrap().unwrap().messages.len() as u64, counts.scheduled);

    let_two_minutes_pass(&mut machine, &mut store);
    let counts = machine.queue("orders").unwrap().counts;
    assert_eq!((counts.scheduled, counts.leased), (0, 0));
    assert!(counts.ready > 0);
    assert!(!tables_of(&store).contains(&Table::Due), "nothing is due any more");
    // The producer that version 1 remembered for ever is forgotten after a day.
    machine.apply(&mut store, START_MS + 2 * 86_400_000, vec![Command::Release(Release {})]).unwrap();
    assert!(!tables_of(&store).contains(&Table::Producers));
}

#[test]
fn rows_of_version_2_are_opened_and_worked_with() {
    let mut store = golden::rows("rows-v2.txt");
    assert_eq!(tables_of(&store), Table::ALL[..21], "a table without a row is not held to its format");
    let mut machine = Machine::open(&store).unwrap();
    assert_eq!(machine.exchanges("", None, 10).len(), 2);
    assert_eq!(machine.schedules("", None, 10).len(), 2);
    assert_eq!(machine.bindings(Some("events"), 0, 10).unwrap().len(), 3);
    let_two_minutes_pass(&mut machine, &mut store);
    let counts = machine.queue("orders").unwrap().counts;
    assert_eq!((counts.scheduled, counts.leased), (0, 0));
    // The second due time has passed, and its jitter not.
    assert_eq!(machine.schedule("interval", 0).unwrap().fired, 1);
}

#[test]
fn an_entry_of_a_newer_version_is_refused() {
    let mut entry = Batch::encode(START_MS, [Command::Release(Release {})]).to_vec();
    entry[0] = 2;
    assert!(matches!(Batch::decode(entry.into()), Err(BatchError::Version(2))));
}
