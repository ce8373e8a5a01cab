//! The state against a sorted map, under random writes, commits, flushes, restarts and crashes.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;

use bytes::Bytes;
use dwell_machine::{Store, StoreRead, Table};
use dwell_storage::state::StateStore;
use proptest::prelude::*;
use support::looking::{copy_directory, rows};
use support::open;
use tempfile::TempDir;

#[derive(Debug, Clone)]
enum Step {
    Put { table: Table, key: Vec<u8>, value: Vec<u8> },
    Delete { table: Table, key: Vec<u8> },
    Scan { table: Table, from: Vec<u8>, to: Vec<u8>, limit: usize },
    Commit,
    Flush,
    Restart,
    Crash,
}

fn tables() -> impl Strategy<Value = Table> {
    prop::sample::select(vec![Table::Queues, Table::Leases, Table::Messages, Table::Ready, Table::Timers])
}

/// Few keys, so that they meet again, of different lengths, and one too long for the stack buffer.
fn keys() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => prop::collection::vec(prop::sample::select(vec![0_u8, 1, 0xff]), 0..3),
        1 => Just(vec![1; 200]),
    ]
}

/// Some go to blob files.
fn values() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![6 => prop::collection::vec(any::<u8>(), 0..4), 1 => any::<u8>().prop_map(|byte| vec![byte; 5000])]
}

fn steps() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (tables(), keys(), values()).prop_map(|(table, key, value)| Step::Put { table, key, value }),
        8 => (tables(), keys()).prop_map(|(table, key)| Step::Delete { table, key }),
        6 => (tables(), keys(), keys(), 0_usize..5)
            .prop_map(|(table, from, to, limit)| Step::Scan { table, from, to, limit }),
        6 => Just(Step::Commit),
        2 => Just(Step::Flush),
        1 => Just(Step::Restart),
        1 => Just(Step::Crash),
    ]
}

type Model = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// A store and what should be in it.
struct Pair {
    store: StateStore,
    model: Model,
    /// What was committed, by commit: the applied record is the position in this list.
    commits: Vec<Model>,
    /// The last one: removed when the store is closed.
    directory: TempDir,
}

impl Pair {
    fn new() -> Pair {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path());
        Pair { store, model: Model::new(), commits: vec![Model::new()], directory }
    }

    fn run(mut self, step: Step) -> Pair {
        match step {
            Step::Put { table, key, value } => {
                if table.is_written_once() && self.model.contains_key(&(table, key.clone())) {
                    self.store.delete(table, &key);
                }
                self.store.put(table, &key, Bytes::from(value.clone()));
                self.model.insert((table, key), value);
            }
            Step::Delete { table, key } => {
                self.store.delete(table, &key);
                self.model.remove(&(table, key));
            }
            Step::Scan { table, from, to, limit } => self.check_scan(table, &from, &to, limit),
            Step::Commit => {
                self.check_rows();
                self.commit();
                self.check_rows();
            }
            Step::Flush => {
                self.store.flush().unwrap();
                self.check_rows();
            }
            Step::Restart => return self.restart(),
            Step::Crash => return self.crash(),
        }
        self
    }

    fn commit(&mut self) {
        self.store.commit(&self.commits.len().to_be_bytes()).unwrap();
        self.commits.push(self.model.clone());
    }

    /// Closes in order: everything committed stays.
    fn restart(self) -> Pair {
        let Pair { directory, store, commits, .. } = self;
        drop(store);
        let store = open(directory.path());
        let model = commits.last().unwrap().clone();
        let pair = Pair { store, model, commits, directory };
        assert_eq!(pair.position(), pair.commits.len() - 1);
        pair.check_rows();
        pair
    }

    /// Goes on with what would be found after a kill: the state of some commit, and its record.
    fn crash(mut self) -> Pair {
        let directory = tempfile::tempdir().unwrap();
        copy_directory(self.directory.path(), directory.path());
        let store = open(directory.path());
        let mut pair = Pair { store, model: Model::new(), commits: Vec::new(), directory };
        let position = pair.position();
        self.commits.truncate(position + 1);
        pair.model = self.commits.last().unwrap().clone();
        pair.commits = std::mem::take(&mut self.commits);
        assert_eq!(pair.commits.len(), position + 1);
        pair.check_rows();
        pair
    }

    fn position(&self) -> usize {
        let applied = self.store.applied().unwrap();
        applied.map_or(0, |applied| usize::from_be_bytes(applied[..].try_into().unwrap()))
    }

    fn check_scan(&self, table: Table, from: &[u8], to: &[u8], limit: usize) {
        let expected: Vec<_> = self
            .model
            .iter()
            .filter(|((of, key), _)| *of == table && from <= &key[..] && &key[..] < to)
            .map(|((_, key), value)| (Bytes::from(key.clone()), Bytes::from(value.clone())))
            .take(limit)
            .collect();
        assert_eq!(self.store.scan(table, from, to, limit).unwrap(), expected);
    }

    fn check_rows(&self) {
        let expected: Vec<_> = self
            .model
            .iter()
            .map(|((table, key), value)| (*table, Bytes::from(key.clone()), Bytes::from(value.clone())))
            .collect();
        assert_eq!(rows(&self.store), expected);
        for ((table, key), value) in &self.model {
            assert_eq!(self.store.get(*table, key).unwrap().as_deref(), Some(&value[..]));
        }
    }
}

/// Every case opens databases and waits for the disk: few by default.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(16)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_state_is_a_sorted_map_through_commits_flushes_restarts_and_crashes(
        steps in prop::collection::vec(steps(), 1..120)
    ) {
        let mut pair = Pair::new();
        for step in steps {
            pair = pair.run(step);
        }
        pair.commit();
        let committed = rows(&pair.store.reader());
        prop_assert_eq!(committed, rows(&pair.store));
        pair.restart();
    }
}
