//! The snapshots of a group: one current, and the places for those to come.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use parking_lot::Mutex;

use super::manifest::Manifest;
use super::receiver::RECEIVING_PREFIX;
use super::{MANIFEST, Snapshot, SnapshotError};
use crate::damage::DamageSignal;
use crate::durable;

/// Beginning of the names of snapshots that are not complete.
const STAGING_PREFIX: &str = "staging-";

/// The directory of a group's snapshots, each in a directory of its own, named by a number that only grows.
pub(crate) struct Catalog {
    root: PathBuf,
    damage: DamageSignal,
    state: Mutex<CatalogState>,
}

struct CatalogState {
    last_id: u64,
    current: Option<(u64, Snapshot)>,
}

/// A place for a snapshot in the making; removed unless it is published.
pub(super) struct Staging {
    pub id: u64,
    pub path: PathBuf,
}

impl Drop for Staging {
    fn drop(&mut self) {
        if let Err(error) = durable::remove_directory(&self.path) {
            // The next start removes it.
            tracing::warn!(directory = %self.path.display(), %error, "unfinished snapshot not removed");
        }
    }
}

impl Catalog {
    /// Opens the directory, and removes all in it but the newest complete snapshot.
    pub fn open(root: &Path, damage: &DamageSignal) -> Result<Catalog, SnapshotError> {
        fs::create_dir_all(root).map_err(SnapshotError::io(root))?;
        let mut ids = Vec::new();
        for entry in fs::read_dir(root).map_err(SnapshotError::io(root))? {
            let entry = entry.map_err(SnapshotError::io(root))?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Ok(id) = name.parse::<u64>() {
                ids.push(id);
            } else if name.starts_with(STAGING_PREFIX) || name.starts_with(RECEIVING_PREFIX) {
                durable::remove_directory(&entry.path()).map_err(SnapshotError::io(&entry.path()))?;
            }
        }
        ids.sort_unstable();
        let newest = ids.pop();
        for id in ids {
            let path = snapshot_path(root, id);
            durable::remove_directory(&path).map_err(SnapshotError::io(&path))?;
        }
        let current = newest.and_then(|id| load(root, id));
        let current = current.map(|(id, snapshot)| (id, snapshot.reporting(damage)));
        Ok(Catalog {
            root: root.to_path_buf(),
            damage: damage.clone(),
            state: Mutex::new(CatalogState { last_id: newest.unwrap_or(0), current }),
        })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn current(&self) -> Option<Snapshot> {
        self.state.lock().current.as_ref().map(|(_, snapshot)| snapshot.clone())
    }

    /// A place for the next snapshot. Of two, the one whose place was asked for later is the newer.
    pub(super) fn stage(&self) -> Staging {
        let mut state = self.state.lock();
        state.last_id += 1;
        Staging { id: state.last_id, path: self.root.join(format!("{STAGING_PREFIX}{}", state.last_id)) }
    }

    /// Makes a staged snapshot, complete but for its manifest, the current one, durably. If a newer one was
    /// published meanwhile, it stays the current one, and the staged one lives only as long as it is used.
    pub(super) fn publish(&self, staging: Staging, manifest: Manifest) -> Result<Snapshot, SnapshotError> {
        let encoded = manifest.encode();
        let manifest_path = staging.path.join(MANIFEST);
        durable::replace_file(&manifest_path, &encoded).map_err(SnapshotError::io(&manifest_path))?;
        let path = snapshot_path(&self.root, staging.id);
        fs::rename(&staging.path, &path).map_err(SnapshotError::io(&path))?;
        let snapshot = Snapshot::temporary(path, manifest, encoded).reporting(&self.damage);
        durable::sync_directory(&self.root).map_err(SnapshotError::io(&self.root))?;
        let mut state = self.state.lock();
        if state.current.as_ref().is_some_and(|(current, _)| *current > staging.id) {
            return Ok(snapshot);
        }
        snapshot.set_kept(true);
        let replaced = state.current.replace((staging.id, snapshot.clone()));
        drop(state);
        if let Some((_, replaced)) = replaced {
            replaced.set_kept(false);
        }
        Ok(snapshot)
    }

    /// Makes a snapshot that was received the current one.
    pub fn keep(&self, received: &Snapshot) -> Result<Snapshot, SnapshotError> {
        if let Some(current) = self.current()
            && current.is_same(received)
        {
            return Ok(current);
        }
        let staging = self.stage();
        received.link_into(&staging.path)?;
        self.publish(staging, Manifest::clone(&received.manifest))
    }
}

fn snapshot_path(root: &Path, id: u64) -> PathBuf {
    root.join(id.to_string())
}

/// The snapshot with this id, if it is whole as far as can be told without reading all of it. The state never
/// needs it, only nodes that are behind, and then a new one is made: so a damaged one is as good as none. It stays
/// for people to look at until there is a newer one at some start.
fn load(root: &Path, id: u64) -> Option<(u64, Snapshot)> {
    let path = snapshot_path(root, id);
    match load_complete(&path) {
        Ok(snapshot) => Some((id, snapshot)),
        Err(error) => {
            tracing::warn!(directory = %path.display(), %error, "snapshot refused");
            None
        }
    }
}

pub(crate) fn load_complete(path: &Path) -> Result<Snapshot, SnapshotError> {
    let manifest_path = path.join(MANIFEST);
    let encoded = Bytes::from(fs::read(&manifest_path).map_err(SnapshotError::io(&manifest_path))?);
    let manifest = Manifest::decode(&encoded)?;
    for file in &manifest.files {
        let file_path = path.join(&file.name);
        let got = fs::metadata(&file_path).map_err(SnapshotError::io(&file_path))?.len();
        if got != file.length {
            return Err(SnapshotError::Length { name: file.name.clone(), got, expected: file.length });
        }
    }
    let snapshot = Snapshot::temporary(path.to_path_buf(), manifest, encoded);
    snapshot.set_kept(true);
    Ok(snapshot)
}
