//! The digest of all rows on disk.

use std::sync::Arc;

use dwell_machine::{DigestBuilder, StateDigest, Table};

use super::StateError;
use super::committed::Committed;

/// After so many rows it is asked whether the digest is still wanted.
const ROWS_BETWEEN_QUESTIONS: u64 = 10_000;

/// Makes one digest of all rows. It holds the database open.
pub struct Digester {
    committed: Arc<Committed>,
}

impl Digester {
    pub(super) fn new(committed: Arc<Committed>) -> Digester {
        Digester { committed }
    }

    /// Hashes all rows that are committed when this is called, which takes as long as reading them. `begun` is called as
    /// soon as what is committed from then on is not among them. None if `is_wanted` says no meanwhile.
    pub fn digest(self, begun: impl FnOnce(), is_wanted: impl Fn() -> bool) -> Result<Option<StateDigest>, StateError> {
        let database = self.committed.write_out()?;
        let view = database.view();
        begun();
        let mut digest = DigestBuilder::default();
        let mut rows_until_question = ROWS_BETWEEN_QUESTIONS;
        for table in Table::ALL {
            let mut rows = view.rows(table);
            while let Some((key, value)) = rows.current() {
                digest.add(table, key, value);
                rows.advance();
                rows_until_question -= 1;
                if rows_until_question == 0 {
                    rows_until_question = ROWS_BETWEEN_QUESTIONS;
                    if !is_wanted() {
                        return Ok(None);
                    }
                }
            }
            // A cursor that failed looks like one at its end.
            rows.status()?;
        }
        Ok(Some(digest.finish()))
    }
}
