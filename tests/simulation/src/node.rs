//! One node: its process, which comes and goes, and what outlives it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dwell_consensus::group::Group;
use dwell_server::{Config, Environment, Member, Node};
use parking_lot::Mutex;

use crate::clock::SimulatedClock;
use crate::disk::Disk;
use crate::network::SimulatedNetwork;

/// Port for clients, on every node's own address.
pub const CLIENT_PORT: u16 = 7600;
const PEER_PORT: u16 = 7601;

/// Small, so that snapshots are made, the log is purged, and followers that were away need a snapshot.
const SNAPSHOT_LOG_ENTRIES: u64 = 150;
const SNAPSHOT_LOG_ENTRIES_KEPT: u64 = 30;
/// So much that the database never writes anything by itself, at a moment that no seed decides: only snapshots do.
const STATE_MEMORY_BYTES: usize = 256 << 20;

/// A node of the simulated cluster; cheap to clone.
#[derive(Clone)]
pub struct SimulatedNode {
    /// From 1.
    pub id: u64,
    /// Where its log is.
    pub disk: Disk,
    /// Its wall clock.
    pub clock: Arc<SimulatedClock>,
    /// Where its state is, on the machine's own disk.
    directory: PathBuf,
    members: Vec<Member>,
    process: Arc<Process>,
}

/// The process, if there is one.
#[derive(Default)]
struct Process {
    group: Mutex<Option<Group>>,
    ended: AtomicBool,
}

/// The name by which a node is known in the network.
pub fn host_name(id: u64) -> String {
    format!("node-{id}")
}

/// A node's addresses.
pub fn member(id: u64) -> Member {
    Member {
        node_id: id,
        peer_address: format!("{}:{PEER_PORT}", host_name(id)),
        client_address: format!("{}:{CLIENT_PORT}", host_name(id)),
    }
}

impl SimulatedNode {
    /// Node `id`, with its state below `directory`. Of the first `count` the cluster is made; others wait to be added.
    pub fn new(id: u64, count: u64, directory: &Path, seed: u64) -> SimulatedNode {
        SimulatedNode {
            id,
            disk: Disk::new(seed.wrapping_add(id)),
            clock: Arc::new(SimulatedClock::new()),
            directory: directory.join(host_name(id)),
            members: if id <= count { (1..=count).map(member).collect() } else { Vec::new() },
            process: Arc::default(),
        }
    }

    /// The name of its host.
    pub fn host(&self) -> String {
        host_name(self.id)
    }

    /// The running group; none while the process is down or starting.
    pub fn group(&self) -> Option<Group> {
        self.process.group.lock().clone()
    }

    /// True once the process has ended by itself.
    pub fn has_ended(&self) -> bool {
        self.process.ended.load(Ordering::Relaxed)
    }

    /// The process, from start to end. It is over when the host is crashed, or when the node gives up; somebody has
    /// to start it again then.
    pub async fn run(self) {
        self.process.ended.store(false, Ordering::Relaxed);
        let environment = Environment {
            clock: self.clock.clone(),
            client_transport: Arc::new(SimulatedNetwork),
            peer_transport: Arc::new(SimulatedNetwork),
            logs: Some(self.disk.open()),
            state_compacts: false,
        };
        match Node::start(self.config(), environment).await {
            Ok(node) => {
                *self.process.group.lock() = Some(node.group().clone());
                if let Err(error) = node.serve().await {
                    tracing::warn!(node = self.id, %error, "node ended");
                }
            }
            Err(error) => tracing::warn!(node = self.id, %error, "node did not start"),
        }
        *self.process.group.lock() = None;
        self.process.ended.store(true, Ordering::Relaxed);
        std::future::pending().await
    }

    /// To be called before the host is crashed: remembers what of the state is on disk by now. RocksDB would write
    /// the rest when it is closed, which a dead process does not.
    pub fn before_crash(&self) -> io::Result<()> {
        let saved = self.saved_directory();
        remove(&saved)?;
        // The database may be tidying up: then what was copied does not belong together.
        while self.directory.exists() {
            let before = manifests(&self.directory)?;
            copy_tree(&self.directory, &saved)?;
            if manifests(&self.directory)? == before {
                break;
            }
            remove(&saved)?;
        }
        *self.process.group.lock() = None;
        Ok(())
    }

    /// To be called after the host was crashed: what was not on disk is gone.
    pub fn after_crash(&self) -> io::Result<()> {
        self.disk.crash();
        remove(&self.directory)?;
        if self.saved_directory().exists() {
            fs::rename(self.saved_directory(), &self.directory)?;
        }
        Ok(())
    }

    fn saved_directory(&self) -> PathBuf {
        self.directory.with_extension("saved")
    }

    fn config(&self) -> Config {
        Config {
            node_id: self.id,
            data_dir: self.directory.clone(),
            client_address: ([0, 0, 0, 0], CLIENT_PORT).into(),
            peer_address: ([0, 0, 0, 0], PEER_PORT).into(),
            members: self.members.clone(),
            join: self.members.is_empty(),
            state_memory_bytes: STATE_MEMORY_BYTES,
            snapshot_log_entries: SNAPSHOT_LOG_ENTRIES,
            snapshot_log_entries_kept: SNAPSHOT_LOG_ENTRIES_KEPT,
            ..Config::default()
        }
    }
}

fn remove(directory: &Path) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The files that tell which others belong to a database, and their lengths.
fn manifests(directory: &Path) -> io::Result<BTreeMap<PathBuf, u64>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.append(&mut manifests(&entry.path())?);
        } else if entry.file_name().to_string_lossy().starts_with("MANIFEST") {
            // The database may have gone over to another one since it was listed.
            match entry.metadata() {
                Ok(metadata) => drop(found.insert(entry.path(), metadata.len())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(found)
}

/// Files that never change are linked, others copied. A file may vanish while the database tidies up.
fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let copied = match () {
            () if source.is_dir() => copy_tree(&source, &target),
            () if source.extension().is_some_and(|kind| kind == "sst" || kind == "blob") => {
                fs::hard_link(&source, &target)
            }
            () => fs::copy(&source, &target).map(drop),
        };
        match copied {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
