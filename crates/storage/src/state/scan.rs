//! Rows in order, from the database and from what is not yet in it.

use std::cmp::Ordering;

use bytes::Bytes;
use dwell_machine::{StoreError, Table};

use super::database::Database;
use super::overlay::{Key, Pending};
use crate::damage::{DamageSignal, DamagedPart, is_database_damage};

/// A table's rows.
type RowList = Vec<(Bytes, Bytes)>;

pub(super) fn read_error(table: Table) -> impl FnOnce(rocksdb::Error) -> StoreError {
    move |error| {
        let reason = error.to_string();
        if is_database_damage(&error) {
            StoreError::Damaged { table, reason }
        } else {
            StoreError::Read { table, reason }
        }
    }
}

/// Reports damage that a read met.
pub(super) fn reported<T>(read: Result<T, StoreError>, damage: &DamageSignal) -> Result<T, StoreError> {
    read.inspect_err(|error| {
        if matches!(error, StoreError::Damaged { .. }) {
            damage.report(DamagedPart::State, error);
        }
    })
}

/// Up to `limit` rows of the database as they will be when what is pending, in order of its keys, is written.
pub(super) fn merged<'a>(
    database: &Database,
    pending: impl Iterator<Item = (&'a Key, &'a Pending)>,
    table: Table,
    from: &[u8],
    to: &[u8],
    limit: usize,
) -> Result<RowList, StoreError> {
    let mut found = Vec::new();
    let mut pending = pending.peekable();
    let mut rows = database.rows(table, from, to);
    while found.len() < limit {
        // Which of the two heads is the smaller key; an equal one is overruled by what is pending.
        let order = match (pending.peek(), rows.current()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((pending_key, _)), Some((key, _))) => pending_key[..].cmp(key),
        };
        if order == Ordering::Greater {
            found.extend(
                rows.current().map(|(key, value)| (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value))),
            );
        } else if let Some((key, write)) = pending.next() {
            found.extend(write.value.as_ref().map(|value| (Bytes::copy_from_slice(key), value.clone())));
        }
        if order != Ordering::Less {
            rows.advance();
        }
    }
    // A cursor that failed looks like one at its end.
    rows.status().map_err(read_error(table))?;
    Ok(found)
}
