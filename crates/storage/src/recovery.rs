//! What a data directory says of its own damage, and how damaged stores are set aside.
//!
//! - `DAMAGED`: damage was found; the stores must not be opened any more.
//! - `RECOVERING`: the stores were begun anew after damage, and do not yet hold all that this node had.
//! - `CLUSTER`: the id of the cluster that the data is of.
//! - `damaged-N`: the stores as they were when damage was found, for people to look at.
//!
//! A mark that is there counts, whether its contents can be read or not.

mod staging;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message;

pub use staging::{StageError, StagedStores};

use crate::damage::{Damage, DamagedPart};
use crate::durable;
use crate::sealed::Seal;

const SEAL: Seal = Seal { magic: b"DWELLDMG", version: 1 };
const CLUSTER_SEAL: Seal = Seal { magic: b"DWELLCLU", version: 1 };
const CLUSTER: &str = "CLUSTER";
const DAMAGED: &str = "DAMAGED";
const RECOVERING: &str = "RECOVERING";
const ASIDE_PREFIX: &str = "damaged-";
const LOG: &str = "log";
const GROUPS: &str = "groups";
const VOTES: &str = "votes";

/// What is in `DAMAGED` and in `RECOVERING`.
#[derive(Clone, PartialEq, Message)]
struct MarkRecord {
    #[prost(string, tag = "1")]
    part: String,
    #[prost(string, tag = "2")]
    reason: String,
    /// Of `RECOVERING`: the number of the directory with the damaged stores.
    #[prost(uint64, tag = "3")]
    aside: u64,
}

/// A recovery that has begun and not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// Why.
    pub damage: Damage,
    /// Where the damaged stores are.
    pub aside: PathBuf,
}

/// A data directory could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct DataDirectoryError {
    /// What it was about.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// Where a node keeps what it must not forget.
#[derive(Debug, Clone)]
pub struct DataDirectory {
    root: PathBuf,
}

impl DataDirectory {
    /// The directory at `root`, which need not exist.
    pub fn new(root: &Path) -> DataDirectory {
        DataDirectory { root: root.to_path_buf() }
    }

    /// Of the log.
    pub fn log(&self) -> PathBuf {
        self.root.join(LOG)
    }

    /// Of the groups' states, each in a directory named by its number.
    pub fn groups(&self) -> PathBuf {
        self.root.join(GROUPS)
    }

    /// Of the votes, kept here besides in the log.
    pub fn votes(&self) -> PathBuf {
        self.root.join(VOTES)
    }

    /// The id of the cluster that the data is of; none if it was not noted, or cannot be read any more. It is also in the
    /// state.
    pub fn cluster_id(&self) -> Result<Option<u64>, DataDirectoryError> {
        let path = self.root.join(CLUSTER);
        let sealed = match fs::read(&path) {
            Ok(sealed) => Bytes::from(sealed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(&path)(error)),
        };
        let id = CLUSTER_SEAL.open(&sealed).ok().and_then(|body| <[u8; 8]>::try_from(&body[..]).ok());
        if id.is_none() {
            tracing::warn!(file = %path.display(), "the file is unreadable: the cluster's id is taken from the state");
        }
        Ok(id.map(u64::from_be_bytes))
    }

    /// Notes the id of the cluster, durably.
    pub fn note_cluster_id(&self, id: u64) -> Result<(), DataDirectoryError> {
        let path = self.root.join(CLUSTER);
        durable::replace_file(&path, &CLUSTER_SEAL.close(&id.to_be_bytes())).map_err(failed(&path))
    }

    /// The damage that was noted.
    pub fn damage(&self) -> Result<Option<Damage>, DataDirectoryError> {
        Ok(self.read(DAMAGED)?.map(|record| damage_of(&record)))
    }

    /// Notes damage, durably.
    pub fn note_damage(&self, damage: &Damage) -> Result<(), DataDirectoryError> {
        self.write(DAMAGED, damage, 0)
    }

    /// The recovery that has not ended yet.
    pub fn recovery(&self) -> Result<Option<Recovery>, DataDirectoryError> {
        let Some(record) = self.read(RECOVERING)? else { return Ok(None) };
        let number = if record.aside == 0 { self.last_aside()? } else { record.aside };
        Ok(Some(Recovery { damage: damage_of(&record), aside: self.aside(number) }))
    }

    /// Sets the damaged log and states aside and begins a recovery, durably: afterwards the stores are empty.
    /// Interrupted, it is to be called again, since the damage is still noted then.
    ///
    /// Stores that were damaged while a recovery was under way are deleted: they hold less than those that were
    /// set aside when it began.
    pub fn begin_recovery(&self, damage: &Damage) -> Result<Recovery, DataDirectoryError> {
        self.note_damage(damage)?;
        let recovery = match self.recovery()? {
            Some(recovery) => recovery,
            None => {
                let number = self.last_aside()? + 1;
                // First of all: a node that finds empty stores must not take itself for a new one.
                self.write(RECOVERING, damage, number)?;
                Recovery { damage: damage.clone(), aside: self.aside(number) }
            }
        };
        self.remove_other_asides(&recovery.aside)?;
        fs::create_dir_all(&recovery.aside).map_err(failed(&recovery.aside))?;
        for name in [LOG, GROUPS] {
            let (from, to) = (self.root.join(name), recovery.aside.join(name));
            if to.exists() {
                durable::remove_directory(&from).map_err(failed(&from))?;
            } else if from.exists() {
                fs::rename(&from, &to).map_err(failed(&from))?;
            }
        }
        durable::sync_directory(&recovery.aside).map_err(failed(&recovery.aside))?;
        durable::sync_directory(&self.root).map_err(failed(&self.root))?;
        self.remove(DAMAGED)?;
        Ok(recovery)
    }

    /// Ends the recovery, durably: this node holds again all that it ever acknowledged.
    pub fn end_recovery(&self) -> Result<(), DataDirectoryError> {
        self.remove(RECOVERING)
    }

    fn aside(&self, number: u64) -> PathBuf {
        self.root.join(format!("{ASIDE_PREFIX}{number}"))
    }

    /// The highest number of stores set aside; 0 if there are none.
    fn last_aside(&self) -> Result<u64, DataDirectoryError> {
        Ok(self.asides()?.into_iter().map(|(number, _)| number).max().unwrap_or(0))
    }

    fn asides(&self) -> Result<Vec<(u64, PathBuf)>, DataDirectoryError> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(failed(&self.root))? {
            let entry = entry.map_err(failed(&self.root))?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(ASIDE_PREFIX));
            let number = number.and_then(|number| number.parse::<u32>().ok());
            found.extend(number.map(|number| (u64::from(number), entry.path())));
        }
        Ok(found)
    }

    fn remove_other_asides(&self, kept: &Path) -> Result<(), DataDirectoryError> {
        for (_, path) in self.asides()?.into_iter().filter(|(_, path)| path != kept) {
            durable::remove_directory(&path).map_err(failed(&path))?;
        }
        Ok(())
    }

    fn read(&self, name: &str) -> Result<Option<MarkRecord>, DataDirectoryError> {
        let path = self.root.join(name);
        let sealed = match fs::read(&path) {
            Ok(sealed) => Bytes::from(sealed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(&path)(error)),
        };
        let body = SEAL.open(&sealed).map_err(|error| error.to_string());
        let record = body.and_then(|body| MarkRecord::decode(body).map_err(|error| error.to_string()));
        Ok(Some(record.unwrap_or_else(|reason| {
            tracing::warn!(file = %path.display(), reason, "the file's contents are unreadable; that it is there counts");
            MarkRecord { reason: "it is not known any more how it was noticed".to_owned(), ..MarkRecord::default() }
        })))
    }

    fn write(&self, name: &str, damage: &Damage, aside: u64) -> Result<(), DataDirectoryError> {
        let record = MarkRecord { part: damage.part.name().to_owned(), reason: damage.reason.clone(), aside };
        let path = self.root.join(name);
        durable::replace_file(&path, &SEAL.close(&record.encode_to_vec())).map_err(failed(&path))
    }

    fn remove(&self, name: &str) -> Result<(), DataDirectoryError> {
        let path = self.root.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&path)(error)),
            _ => {}
        }
        durable::sync_directory(&self.root).map_err(failed(&self.root))
    }
}

fn damage_of(record: &MarkRecord) -> Damage {
    let part = DamagedPart::of_name(&record.part).unwrap_or(DamagedPart::Log);
    Damage { part, reason: record.reason.clone() }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> DataDirectoryError {
    let path = path.to_path_buf();
    move |source| DataDirectoryError { path, source }
}

#[cfg(test)]
mod tests {
    use dwell_hostile_bytes::{Bound, cases, decode_within, must, tampered};
    use proptest::prelude::*;

    use super::*;

    fn damage(reason: &str) -> Damage {
        Damage { part: DamagedPart::State, reason: reason.to_owned() }
    }

    fn fill(directory: &DataDirectory, contents: &str) {
        for path in [directory.log(), directory.groups()] {
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("file"), contents).unwrap();
        }
    }

    #[test]
    fn the_cluster_id_stays_with_the_directory_and_a_damaged_note_is_no_id() {
        let root = tempfile::tempdir().unwrap();
        let directory = DataDirectory::new(root.path());
        assert_eq!(directory.cluster_id().unwrap(), None);
        directory.note_cluster_id(0x0123_4567_89ab_cdef).unwrap();
        assert_eq!(directory.cluster_id().unwrap(), Some(0x0123_4567_89ab_cdef));
        directory.note_damage(&damage("one")).unwrap();
        directory.begin_recovery(&damage("one")).unwrap();
        assert_eq!(directory.cluster_id().unwrap(), Some(0x0123_4567_89ab_cdef), "a recovery keeps it");
        let path = root.path().join(CLUSTER);
        let mut sealed = fs::read(&path).unwrap();
        sealed[15] ^= 1;
        fs::write(&path, sealed).unwrap();
        assert_eq!(directory.cluster_id().unwrap(), None);
    }

    #[test]
    fn stores_are_set_aside_and_the_recovery_lasts_until_it_is_ended() {
        let root = tempfile::tempdir().unwrap();
        let directory = DataDirectory::new(root.path());
        assert_eq!((directory.damage().unwrap(), directory.recovery().unwrap()), (None, None));
        fill(&directory, "old");
        directory.note_damage(&damage("one")).unwrap();
        let recovery = directory.begin_recovery(&damage("one")).unwrap();
        assert_eq!(fs::read(recovery.aside.join("log/file")).unwrap(), b"old");
        assert!(!directory.log().exists() && !directory.groups().exists());
        assert_eq!((directory.damage().unwrap(), directory.recovery().unwrap()), (None, Some(recovery)));
        directory.end_recovery().unwrap();
        assert_eq!(directory.recovery().unwrap(), None);

        fill(&directory, "new");
        let second = directory.begin_recovery(&damage("two")).unwrap();
        assert_eq!(fs::read(second.aside.join("groups/file")).unwrap(), b"new");
        assert_eq!(directory.asides().unwrap().len(), 1, "only the newest is kept");
    }

    #[test]
    fn damage_during_a_recovery_leaves_what_was_set_aside_when_it_began() {
        let root = tempfile::tempdir().unwrap();
        let directory = DataDirectory::new(root.path());
        fill(&directory, "all");
        let first = directory.begin_recovery(&damage("one")).unwrap();
        fill(&directory, "a part");
        let again = directory.begin_recovery(&damage("two")).unwrap();
        assert_eq!(again, first);
        assert_eq!(fs::read(first.aside.join("log/file")).unwrap(), b"all");
        assert!(!directory.log().exists());
    }

    #[test]
    fn an_interrupted_beginning_goes_on_where_it_was() {
        let root = tempfile::tempdir().unwrap();
        let directory = DataDirectory::new(root.path());
        fill(&directory, "all");
        directory.note_damage(&damage("one")).unwrap();
        directory.write(RECOVERING, &damage("one"), 1).unwrap();
        fs::create_dir_all(directory.aside(1)).unwrap();
        fs::rename(directory.log(), directory.aside(1).join(LOG)).unwrap();
        let recovery = directory.begin_recovery(&damage("one")).unwrap();
        assert_eq!(fs::read(recovery.aside.join("log/file")).unwrap(), b"all");
        assert_eq!(fs::read(recovery.aside.join("groups/file")).unwrap(), b"all");
    }

    #[test]
    fn a_mark_that_is_unreadable_counts() {
        let root = tempfile::tempdir().unwrap();
        let directory = DataDirectory::new(root.path());
        fs::write(root.path().join(DAMAGED), "").unwrap();
        fs::write(root.path().join(RECOVERING), "what").unwrap();
        assert!(directory.damage().unwrap().is_some() && directory.recovery().unwrap().is_some());
    }

    fn body() -> Bytes {
        let record = MarkRecord { part: "state".to_owned(), reason: "a block".to_owned(), aside: 3 };
        record.encode_to_vec().into()
    }

    proptest! {
        #![proptest_config(cases(300))]

        #[test]
        fn a_tampered_mark_counts_whatever_it_says(body in tampered(Just(body()), 0), sealed in any::<bool>()) {
            let root = tempfile::tempdir().unwrap();
            let directory = DataDirectory::new(root.path());
            let frame = if sealed { SEAL.close(&body) } else { body };
            for name in [DAMAGED, RECOVERING] {
                fs::write(root.path().join(name), &frame).unwrap();
            }
            let bound = Bound::times(16);
            let damage = must(decode_within(frame.len(), bound, || directory.damage())?)?;
            let recovery = must(decode_within(frame.len(), bound, || directory.recovery())?)?;
            prop_assert!(damage.is_some());
            let recovery = recovery.unwrap();
            prop_assert_eq!(recovery.aside.parent(), Some(root.path()));
        }
    }
}
