//! What earlier versions wrote, as files beside this one.

use bytes::Bytes;
use dwell_machine::{MemoryStore, Store, Table};

pub fn path(name: &str) -> String {
    format!("{}/tests/golden/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// A log's entries.
pub fn entries(text: &str) -> Vec<Bytes> {
    text.lines().map(unhex).collect()
}

/// All rows of a store.
pub fn rows(name: &str) -> MemoryStore {
    let text = std::fs::read_to_string(path(name)).unwrap();
    let mut store = MemoryStore::default();
    for line in text.lines() {
        let [name, key, value] = line.splitn(3, ' ').collect::<Vec<_>>().try_into().unwrap();
        let table = Table::ALL.into_iter().find(|table| format!("{table:?}") == name).unwrap();
        store.put(table, &unhex(key), unhex(value));
    }
    store
}

fn unhex(text: &str) -> Bytes {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}
