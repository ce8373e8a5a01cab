//! Backups on disk: written, damaged in every way, and taken over by a new state.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use dwell_machine::{Store, StoreRead, Table};
use dwell_storage::backup::{Backup, BackupDescription, BackupError, BackupWriter};
use dwell_storage::snapshot::Snapshot;
use dwell_storage::state::StateStore;
use support::looking::rows;
use support::{open, resources};
use tempfile::TempDir;

/// Bytes of a large file that are flipped one by one, spread over it.
const SAMPLES: usize = 40;

/// A state with rows in several column families, a blob among them, and its snapshot.
fn state_in(directory: &Path) -> (StateStore, Snapshot) {
    let mut store = open(directory);
    for number in 0..300_u64 {
        let key = number.to_be_bytes();
        store.put(Table::Queues, &key, Bytes::from_static(b"a queue"));
        store.put(Table::Messages, &key, Bytes::from(vec![number as u8; 100 + (number as usize % 7) * 3000]));
        store.put(Table::Ready, &key, Bytes::from_static(b"a ticket"));
    }
    store.commit(b"applied").unwrap();
    let snapshot = store.snapshot_builder().build().unwrap();
    (store, snapshot)
}

fn begin(snapshot: &Snapshot, to: &Path) -> Result<BackupWriter, BackupError> {
    let description = BackupDescription { index: 7, ..BackupDescription::default() };
    let mut writer = BackupWriter::create(to, description, snapshot.manifest_bytes())?;
    for file in snapshot.files() {
        let data = snapshot.read(file, 0, usize::MAX)?;
        let half = data.len() / 2;
        writer.write(&file.name, 0, &data[..half])?;
        writer.write(&file.name, half as u64, &data[half..])?;
    }
    Ok(writer)
}

/// A backup in a temporary directory.
struct Written {
    snapshot: Snapshot,
    store: StateStore,
    /// The last one: removed when the store is closed.
    directory: TempDir,
}

impl Written {
    fn new() -> Written {
        let directory = tempfile::tempdir().unwrap();
        let (store, snapshot) = state_in(&directory.path().join("state"));
        let written = Written { snapshot, store, directory };
        begin(&written.snapshot, &written.path()).unwrap().finish().unwrap();
        written
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("backup")
    }

    /// All files, relative to the folder.
    fn names(&self) -> Vec<String> {
        let files = self.snapshot.files().iter().map(|file| format!("snapshot/{}", file.name));
        files.chain(["BACKUP".to_owned(), "snapshot/MANIFEST".to_owned()]).collect()
    }

    fn verify(&self) -> Result<(), BackupError> {
        Backup::open(&self.path())?.verify()
    }

    /// Asserts that verifying fails and names the file, and that restoring fails, while it has these contents.
    fn refuses(&self, name: &str, contents: Option<&[u8]>) {
        let path = self.path().join(name);
        let whole = fs::read(&path).unwrap();
        match contents {
            Some(contents) => fs::write(&path, contents).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let refused = self.verify().unwrap_err().to_string();
        let file = name.rsplit('/').next().unwrap();
        assert!(refused.contains(file), "{name}: {refused}");
        fs::write(&path, whole).unwrap();
    }
}

#[test]
fn a_new_state_begins_with_the_rows_of_a_backup_and_needs_it_no_more() {
    let written = Written::new();
    let backup = Backup::open(&written.path()).unwrap();
    backup.verify().unwrap();
    assert_eq!((backup.description().index, &backup.snapshot().applied()[..]), (7, &b"applied"[..]));

    let restored = written.directory.path().join("restored");
    let mut store = StateStore::from_snapshot(&restored, backup.snapshot(), resources()).unwrap();
    store.put(Table::Meta, b"", Bytes::from_static(b"another cluster"));
    store.commit(b"anew").unwrap();
    store.flush().unwrap();
    drop(store);
    fs::remove_dir_all(written.path()).unwrap();

    let store = open(&restored);
    assert_eq!(store.applied().unwrap().as_deref(), Some(&b"anew"[..]));
    assert_eq!(store.get(Table::Meta, b"").unwrap().as_deref(), Some(&b"another cluster"[..]));
    let mut restored = rows(&store);
    restored.retain(|(table, ..)| *table != Table::Meta);
    assert_eq!(restored, rows(&written.store));
    assert!(store.current_snapshot().is_none(), "one of the old log would be taken for one of the new");
}

#[test]
fn a_flipped_byte_anywhere_is_found_and_the_file_named() {
    let written = Written::new();
    written.verify().unwrap();
    let mut flipped = 0;
    for name in written.names() {
        let whole = fs::read(written.path().join(&name)).unwrap();
        let step = (whole.len() / SAMPLES).max(1);
        let last = whole.len().checked_sub(1);
        for position in (0..whole.len()).step_by(step).chain(last) {
            let mut damaged = whole.clone();
            damaged[position] ^= 1 << (position % 8);
            written.refuses(&name, Some(&damaged));
            flipped += 1;
        }
    }
    assert!(flipped > 200, "{flipped}");
    written.verify().unwrap();
}

#[test]
fn every_byte_of_the_small_files_counts() {
    let written = Written::new();
    for name in ["BACKUP", "snapshot/MANIFEST", "snapshot/CURRENT"] {
        let whole = fs::read(written.path().join(name)).unwrap();
        for position in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[position] ^= 0x40;
            written.refuses(name, Some(&damaged));
        }
    }
}

#[test]
fn a_file_that_is_cut_or_longer_or_missing_is_found_and_named() {
    let written = Written::new();
    for name in written.names() {
        let whole = fs::read(written.path().join(&name)).unwrap();
        for length in [whole.len().checked_sub(1), whole.len().checked_div(2), Some(0)].into_iter().flatten() {
            if length < whole.len() {
                written.refuses(&name, Some(&whole[..length]));
            }
        }
        written.refuses(&name, Some(&[&whole[..], b"x"].concat()));
        written.refuses(&name, None);
    }
    written.verify().unwrap();
}

#[test]
fn a_file_that_does_not_belong_to_it_is_named_and_one_beside_it_is_not_minded() {
    let written = Written::new();
    fs::write(written.path().join("NOTE"), "of Monday").unwrap();
    written.verify().unwrap();
    let stray = written.path().join("snapshot/000999.sst");
    fs::write(&stray, "of another backup").unwrap();
    let refused = written.verify().unwrap_err();
    assert!(matches!(&refused, BackupError::Stray { path } if *path == stray), "{refused}");
}

#[test]
fn one_that_was_not_finished_is_none_and_a_folder_in_use_is_refused() {
    let written = Written::new();
    let to = written.directory.path().join("other");
    drop(begin(&written.snapshot, &to).unwrap());
    assert!(matches!(Backup::open(&to), Err(BackupError::Incomplete { .. })));
    assert_eq!(fs::read_dir(&to).unwrap().count(), 0, "nothing is left of it");
    // Killed before its last step.
    begin(&written.snapshot, &to).unwrap().finish().unwrap();
    fs::remove_file(to.join("BACKUP")).unwrap();
    assert!(matches!(Backup::open(&to), Err(BackupError::Incomplete { .. })));
    assert!(matches!(begin(&written.snapshot, &to), Err(BackupError::NotEmpty { .. })));
}

#[test]
fn a_chunk_that_is_wrong_or_missing_keeps_it_from_becoming_one() {
    let written = Written::new();
    let wrong = written.directory.path().join("wrong");
    let mut writer = begin(&written.snapshot, &wrong).unwrap();
    writer.write("CURRENT", 0, b"X").unwrap();
    let problem = writer.finish().unwrap_err().to_string();
    assert!(problem.contains("CURRENT has checksum"), "{problem}");
    let missing = written.directory.path().join("missing");
    let manifest = written.snapshot.manifest_bytes();
    let writer = BackupWriter::create(&missing, BackupDescription::default(), manifest).unwrap();
    assert!(matches!(writer.finish(), Err(BackupError::Snapshot(_))));
    for directory in [wrong, missing] {
        assert!(matches!(Backup::open(&directory), Err(BackupError::Incomplete { .. })));
    }
}

#[test]
fn a_state_is_not_made_of_a_backup_that_was_damaged_after_it_was_opened() {
    let written = Written::new();
    let backup = Backup::open(&written.path()).unwrap();
    let table = backup.snapshot().files().iter().find(|file| file.name.ends_with(".sst")).unwrap();
    let path = written.path().join("snapshot").join(&table.name);
    let mut bytes = fs::read(&path).unwrap();
    bytes[10] ^= 1;
    fs::write(&path, bytes).unwrap();
    let restored = written.directory.path().join("restored");
    let refused = StateStore::from_snapshot(&restored, backup.snapshot(), resources()).map(drop).unwrap_err();
    assert!(refused.to_string().contains(&table.name), "{refused}");
}
