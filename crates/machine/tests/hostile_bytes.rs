//! Log entries, rows, cursors and definitions that somebody tampered with: refused, or worked with, and never a panic.
//!
//! `PROPTEST_CASES` says how many are tried.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod golden;

use std::sync::LazyLock;

use bytes::Bytes;
use dwell_hostile_bytes::{Bound, cases, decode_within, must, tampered, unharmed};
use dwell_machine::*;
use proptest::prelude::*;
use proptest::sample::select;
use prost::Message as _;

const START_MS: u64 = 1_800_000_000_000;
/// An entry's payload begins with its version, and so does a row's value.
const VERSION_BYTES: usize = 1;
const STATES: [MessageState; 3] = [MessageState::Scheduled, MessageState::Ready, MessageState::Leased];

type Row = (Table, Bytes, Bytes);

static ENTRIES: LazyLock<Vec<Bytes>> = LazyLock::new(|| {
    let log = |name| golden::entries(&std::fs::read_to_string(golden::path(name)).unwrap());
    [log("log-v1.txt"), log("log-v2.txt")].concat()
});
static STORES: LazyLock<Vec<MemoryStore>> =
    LazyLock::new(|| ["rows-v1.txt", "rows-v2-of-log-v1.txt", "rows-v2.txt"].map(golden::rows).into());
/// All rows of the stores, by table.
static ROWS: LazyLock<Vec<Vec<Row>>> = LazyLock::new(|| {
    let rows = STORES.iter().flat_map(MemoryStore::rows);
    let rows: Vec<Row> = rows.map(|(table, key, value)| (table, key.clone(), value.clone())).collect();
    let of = |table| rows.iter().filter(|row| row.0 == table).cloned().collect::<Vec<_>>();
    Table::ALL.map(of).into_iter().filter(|rows| !rows.is_empty()).collect()
});

fn stores() -> impl Strategy<Value = MemoryStore> {
    select(STORES.as_slice())
}

/// A message takes the most room of what may be repeated in an entry.
fn entry_bound() -> Bound {
    Bound::elements(size_of::<PublishMessage>().max(size_of::<Envelope>() + size_of::<Command>()))
}

/// A row whose key or value is not what it was.
fn tampered_row() -> impl Strategy<Value = Row> {
    select(ROWS.as_slice()).prop_flat_map(|rows| {
        let table = rows[0].0;
        let (keys, values): (Vec<Bytes>, Vec<Bytes>) = rows.into_iter().map(|(_, key, value)| (key, value)).unzip();
        let (key, value) = (select(keys), select(values));
        prop_oneof![
            4 => (Just(table), key.clone(), tampered(value.clone(), VERSION_BYTES)),
            1 => (Just(table), tampered(key, 0), value),
        ]
    })
}

/// Page tokens and cursors, as the machine makes them.
fn cursors(store: &MemoryStore) -> Vec<Bytes> {
    let machine = Machine::open(store).unwrap();
    let mut cursors = vec![Bytes::new()];
    for queue in machine.queues("", None, 100) {
        for state in STATES {
            let page = machine.browse(store, &queue.name, state, &Bytes::new(), 1, false).unwrap().unwrap();
            cursors.extend(page.next);
        }
        for phase in 1..=4 {
            let run =
                [&[phase][..], &START_MS.to_be_bytes(), &100_u64.to_be_bytes(), &queue.id.to_be_bytes(), &[0; 17]];
            cursors.push(run.concat().into());
        }
    }
    cursors
}

static CURSORS: LazyLock<Vec<Bytes>> = LazyLock::new(|| STORES.iter().flat_map(cursors).collect());

fn definitions() -> Vec<Bytes> {
    let of = |expression: &str, time_zone: &str| {
        let cron = Cron { expression: expression.to_owned(), time_zone: time_zone.to_owned() };
        let recurrence = Recurrence { pattern: Some(Pattern::Cron(cron)) };
        ScheduleDefinition { recurrence, start_at_ms: START_MS, jitter_ms: 7, ..Default::default() }
    };
    let mut definitions = vec![
        of("*/5 0-23/2 1,15 JAN-DEC *", "Europe/Vienna"),
        of("30 1 2 L * 5#2", "America/New_York"),
        of("0 0 15W * ?", "UTC"),
        of("0 0 * * 5L", "Asia/Kathmandu"),
        of("0 0 29 2 MON", "Africa/Casablanca"),
    ];
    for pattern in [
        Pattern::Interval(Interval { every_ms: 60_000, anchor_ms: START_MS }),
        Pattern::Dates(Dates { at_ms: vec![START_MS, START_MS + 1, START_MS + 60_000] }),
    ] {
        let recurrence = Recurrence { pattern: Some(pattern) };
        definitions.push(ScheduleDefinition { recurrence, end_at_ms: START_MS + 100_000, ..Default::default() });
    }
    definitions.iter().map(|definition| definition.encode_to_vec().into()).collect()
}

static DEFINITIONS: LazyLock<Vec<Bytes>> = LazyLock::new(definitions);

/// Asks for everything that people are shown.
fn look_around(machine: &Machine, store: &MemoryStore) -> Result<(), StoreError> {
    machine.exchanges("", None, 100);
    machine.bindings(None, 0, 100);
    for schedule in machine.schedules("", None, 100) {
        machine.schedule(&schedule.name, 10);
    }
    for queue in machine.queues("", None, 100) {
        for state in STATES {
            if let Ok(page) = machine.browse(store, &queue.name, state, &Bytes::new(), 100, true)? {
                for message in page.messages {
                    machine.message(store, &queue.name, message.sequence)?;
                }
            }
        }
        machine.forecast(store, &queue.name, machine.now_ms(), &[0, 60_000, u64::MAX])?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases(3000))]

    #[test]
    fn an_entry_is_refused_or_means_the_same_when_it_is_encoded_again(
        entry in tampered(select(ENTRIES.as_slice()), VERSION_BYTES),
    ) {
        let decoded = decode_within(entry.len(), entry_bound(), || Batch::decode(entry.clone()))?;
        if let Ok((at_ms, commands)) = decoded {
            let again = must(Batch::decode(Batch::encode(at_ms, commands.clone())))?;
            prop_assert_eq!(again, (at_ms, commands));
        }
    }

    #[test]
    fn an_entry_that_decodes_can_be_applied_and_the_machine_be_opened_again(
        entry in tampered(select(ENTRIES.as_slice()), VERSION_BYTES),
        mut store in stores(),
    ) {
        let Ok((at_ms, commands)) = Batch::decode(entry) else { return Ok(()) };
        let mut machine = must(Machine::open(&store))?;
        must(unharmed(|| machine.apply(&mut store, at_ms, commands))?)?;
        let reopened = must(unharmed(|| Machine::open(&store))?)?;
        must(unharmed(|| look_around(&reopened, &store))?)?;
    }

    #[test]
    fn rows_that_were_tampered_with_are_refused_or_shown(
        mut store in stores(),
        rows in prop::collection::vec(tampered_row(), 1..3),
    ) {
        for (table, key, value) in rows {
            store.delete(table, &key);
            store.put(table, &key, value);
        }
        let Ok(machine) = unharmed(|| Machine::open(&store))? else { return Ok(()) };
        let _ = unharmed(|| look_around(&machine, &store))?;
    }
}

proptest! {
    #![proptest_config(cases(3000))]

    #[test]
    fn a_page_token_of_no_page_shows_some_page_or_is_refused(
        cursor in tampered(select(CURSORS.as_slice()), 1 + 8),
        store in stores(),
        state in select(&STATES[..]),
    ) {
        let machine = must(Machine::open(&store))?;
        for queue in machine.queues("", None, 100) {
            let _ = must(unharmed(|| machine.browse(&store, &queue.name, state, &cursor, 3, true))?)?;
        }
    }

    #[test]
    fn a_cursor_of_no_run_continues_some_run_or_is_refused(
        cursor in tampered(select(CURSORS.as_slice()), 0),
        mut store in stores(),
        revision in select(vec![
            Revision::Recall(Recall {}),
            Revision::ExpireNow(ExpireNow {}),
            Revision::Reschedule(Reschedule { delay_ms: 1000, deliver_at_ms: 0 }),
            Revision::Reschedule(Reschedule { delay_ms: u64::MAX, deliver_at_ms: 0 }),
            Revision::Reschedule(Reschedule { delay_ms: 0, deliver_at_ms: u64::MAX }),
        ]),
    ) {
        let mut machine = must(Machine::open(&store))?;
        for queue in machine.queues("", None, 100) {
            let (queue, cursor, revision) = (queue.name, cursor.clone(), Some(revision));
            let command = ReviseMatching { queue, cursor, revision, revoke: true, ..ReviseMatching::default() };
            must(unharmed(|| machine.apply(&mut store, START_MS, vec![Command::ReviseMatching(command)]))?)?;
        }
        must(Machine::open(&store))?;
    }

    #[test]
    fn a_definition_that_is_understood_has_due_times(
        definition in tampered(select(DEFINITIONS.as_slice()), 0),
        after_ms in prop_oneof![Just(START_MS), Just(0), Just(u64::MAX), any::<u64>()],
    ) {
        let Ok(definition) = ScheduleDefinition::decode(definition) else { return Ok(()) };
        if let Ok(due_ms) = unharmed(|| preview(&definition, after_ms, 5))? {
            prop_assert!(due_ms.iter().all(|due_ms| *due_ms > after_ms), "{due_ms:?}");
        }
    }

    #[test]
    fn an_expression_of_any_text_is_refused_or_followed(
        expression in "([-0-9*/,?LW#+A-Za-z@ ]|[0-9*]|MON|FEB|\\PC){0,14} [-0-9*/,?LW#]{1,4} [-0-9*/,?LW#]{1,4} \\* [-0-9*/,?L#]{1,4}",
        zone in prop_oneof![3 => Just("UTC".to_owned()), 1 => "[A-Z][a-z]{2,8}/[A-Z][a-z_]{2,8}", 1 => "\\PC{0,5}"],
        after_ms in prop_oneof![Just(START_MS), Just(0), any::<u64>()],
    ) {
        let pattern = Some(Pattern::Cron(Cron { expression, time_zone: zone }));
        let definition = ScheduleDefinition { recurrence: Recurrence { pattern }, ..Default::default() };
        if let Ok(due_ms) = unharmed(|| preview(&definition, after_ms, 5))? {
            prop_assert!(due_ms.iter().all(|due_ms| *due_ms > after_ms), "{due_ms:?}");
        }
    }
}

/// The end of time has no moment after it.
#[test]
fn every_command_can_be_applied_at_the_end_of_time() {
    for log in ["log-v1.txt", "log-v2.txt"] {
        let mut store = MemoryStore::default();
        let mut machine = Machine::open(&store).unwrap();
        for entry in golden::entries(&std::fs::read_to_string(golden::path(log)).unwrap()) {
            let (_, commands) = Batch::decode(entry).unwrap();
            machine.apply(&mut store, u64::MAX, commands).unwrap();
        }
        look_around(&machine, &store).unwrap();
    }
}

#[test]
fn counts_that_add_up_to_too_much_are_shown_as_the_most_there_is() {
    let mut store = golden::rows("rows-v2.txt");
    // A version byte, and a field of the largest number.
    let count = [&[1, 8][..], &[0xff; 9], &[1]].concat();
    let keys: Vec<Bytes> =
        store.rows().filter(|(table, ..)| *table == Table::DueCounts).map(|(_, key, _)| key.clone()).collect();
    for key in &keys {
        store.put(Table::DueCounts, key, count.clone().into());
    }
    let machine = Machine::open(&store).unwrap();
    let due = |queue: &str| {
        machine.forecast(&store, queue, START_MS, &[limits::HORIZON_MS]).unwrap().unwrap().due[0].messages
    };
    assert!(machine.queues("", None, 9).iter().any(|queue| due(&queue.name) == u64::MAX));
}
