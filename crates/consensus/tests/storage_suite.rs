//! openraft's own storage tests, on the real stores.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod state_support;

use dwell_consensus::log_store::LogStore;
use dwell_consensus::state_machine::StateMachine;
use dwell_consensus::types::TypeConfig;
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};
use state_support::{open_log, open_state};
use tempfile::TempDir;

struct OnDisk;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, TempDir> for OnDisk {
    async fn build(&self) -> Result<(TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        let directory = tempfile::tempdir().unwrap();
        let log = open_log(&directory.path().join("log"));
        let state = open_state(&directory.path().join("state")).unwrap();
        Ok((directory, log, state))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stores_pass_openrafts_suite() {
    Suite::test_all(OnDisk).await.unwrap();
}
