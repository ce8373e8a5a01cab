//! Log entries and rows that are not what was written: an error that says so, never a panic, nor memory beyond what
//! the bytes themselves allow.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod hostile;

use std::cell::Cell;

use bytes::Bytes;
use dwell_machine::{Batch, Machine, MemoryStore, Store, Table};
use hostile::{bounded, hostile};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

fn golden(name: &str) -> String {
    std::fs::read_to_string(format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn unhex(text: &str) -> Bytes {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn log() -> Vec<Bytes> {
    golden("log-v2.txt").lines().map(unhex).collect()
}

fn rows() -> Vec<(Table, Bytes, Bytes)> {
    let text = golden("rows-v2.txt");
    let row = |line: &str| {
        let [name, key, value] = line.splitn(3, ' ').collect::<Vec<_>>().try_into().unwrap();
        let table = Table::ALL.into_iter().find(|table| format!("{table:?}") == name).unwrap();
        (table, unhex(key), unhex(value))
    };
    text.lines().map(row).collect()
}

/// More than most tests have: a case takes microseconds.
fn runner() -> TestRunner {
    let cases = std::env::var("PROPTEST_CASES").map_or(20_000, |cases| cases.parse().unwrap());
    TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() })
}

/// One test, because it measures what is allocated.
#[test]
fn hostile_bytes_are_refused_or_mean_something() {
    // The check itself: memory for what a length field says is too much.
    let aborts = std::panic::catch_unwind(|| bounded(4, || Vec::<u8>::new().try_reserve_exact(1 << 20).is_err()));
    assert!(aborts.unwrap(), "an allocation beyond the limit is refused");

    let understood = Cell::new(0);
    runner()
        .run(&hostile(log()), |bytes| {
            let decoded = bounded(bytes.len(), || Batch::decode(bytes.clone()));
            if let Ok((at_ms, commands)) = decoded {
                understood.set(understood.get() + 1);
                let again = Batch::encode(at_ms, commands.clone());
                prop_assert_eq!(Batch::decode(again).unwrap(), (at_ms, commands));
            }
            Ok(())
        })
        .unwrap();
    let understood = understood.get();
    assert!(understood > 100, "only {understood} of the damaged entries still meant something");
    runner().run(&rows_with_a_hostile_one(), open).unwrap();
}

/// All rows but one are sound.
fn rows_with_a_hostile_one() -> impl Strategy<Value = (usize, Bytes, Bytes)> {
    let rows = rows();
    let keys = rows.iter().map(|(_, key, _)| key.clone()).collect();
    let values = rows.iter().map(|(_, _, value)| value.clone()).collect();
    (0..rows.len(), hostile(keys), hostile(values))
}

fn open((victim, key, value): (usize, Bytes, Bytes)) -> Result<(), TestCaseError> {
    // Of the hostile parts, the key in about every fourth case.
    let mut store = MemoryStore::default();
    let mut bytes = 0;
    for (index, (table, sound_key, sound_value)) in rows().into_iter().enumerate() {
        bytes += sound_key.len() + sound_value.len();
        match index == victim {
            false => store.put(table, &sound_key, sound_value),
            // A key that another row has already would stand for two rows, which no store has.
            true if value.len() % 4 == 0 && !rows().iter().any(|row| row.1 == key) => {
                store.put(table, &key, sound_value)
            }
            true => store.put(table, &sound_key, value.clone()),
        }
    }
    // What opens may contradict itself still: checksums keep the disk from that, and the machine trusts its own rows.
    let _ = bounded(bytes + key.len() + value.len(), || Machine::open(&store));
    Ok(())
}
