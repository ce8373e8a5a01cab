//! Looking at a state, and at the files it is kept in: for the tests of this crate and of those above it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use dwell_machine::{StoreRead, Table};

/// All rows, in order.
pub fn rows(store: &impl StoreRead) -> Vec<(Table, Bytes, Bytes)> {
    let mut all = Vec::new();
    for table in Table::ALL {
        let rows = store.scan(table, &[], &[0xff; 512], usize::MAX).unwrap();
        all.extend(rows.into_iter().map(|(key, value)| (table, key, value)));
    }
    all
}

/// A copy of a directory in use, as it would be found after the process was killed at this moment: what is held
/// in memory is not in it. Background work may change files while they are copied, so it is copied until nothing
/// has changed meanwhile.
pub fn copy_directory(from: &Path, to: &Path) {
    loop {
        let before = listing(from);
        if copy_files(from, to).is_ok() && listing(from) == before {
            return;
        }
        fs::remove_dir_all(to).unwrap();
    }
}

fn copy_files(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_files(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

/// All files with length and time of change, as far as they hold still.
fn listing(directory: &Path) -> BTreeMap<PathBuf, Option<(u64, SystemTime)>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(listing(&path));
        }
        let metadata = entry.metadata().ok();
        files.insert(path, metadata.and_then(|metadata| Some((metadata.len(), metadata.modified().ok()?))));
    }
    files
}
