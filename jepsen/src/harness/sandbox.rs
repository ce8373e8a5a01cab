//! What this machine permits, and who may use the names that the harness takes: namespaces, devices, mounts.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use crate::harness::command::run;
use crate::harness::error::{HarnessError, file_error};

/// Begins the names of all namespaces and devices. With a number it is a device's name, of at most 15 bytes.
pub(crate) const NAME_PREFIX: &str = "dwell-jepsen";
/// Where the nodes' disks are mounted.
pub(crate) const MOUNTS: &str = "/run/dwell-jepsen";

/// The right to the harness's names on this machine, for one process at a time. Dropping it removes what is left.
#[derive(Debug)]
pub struct Sandbox {
    abilities: Abilities,
    /// Locked.
    _lock: File,
}

/// What this machine permits; the errors say why not.
#[derive(Debug, Clone)]
pub struct Abilities {
    /// A network namespace for each node.
    pub network: Result<(), String>,
    /// A disk for each node, that can be filled and can lose power.
    pub disks: Result<(), String>,
    /// A clock for each node.
    pub clocks: Result<PathBuf, String>,
}

impl Sandbox {
    /// Takes the right, removes what a killed run left behind, and finds out what is permitted.
    pub fn enter() -> Result<Sandbox, HarnessError> {
        let root = rustix::process::geteuid().is_root();
        let path = if root { PathBuf::from("/run") } else { std::env::temp_dir() }.join("dwell-jepsen.lock");
        let lock = File::create(&path).map_err(file_error("create", &path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(HarnessError::Busy { path }),
            Err(TryLockError::Error(source)) => return Err(file_error("lock", &path)(source)),
        }
        if root {
            remove_leftovers();
        }
        let abilities = Abilities { network: try_network(root), disks: try_disks(root), clocks: find_clocks() };
        Ok(Sandbox { abilities, _lock: lock })
    }

    /// What this machine permits.
    pub fn abilities(&self) -> &Abilities {
        &self.abilities
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if rustix::process::geteuid().is_root() {
            remove_leftovers();
        }
    }
}

fn try_network(root: bool) -> Result<(), String> {
    if !root {
        return Err("network namespaces need root".to_owned());
    }
    if !Path::new("/dev/net/tun").exists() {
        return Err("there is no /dev/net/tun".to_owned());
    }
    let name = format!("{NAME_PREFIX}-try");
    let tried = run("ip", &["netns", "add", &name]).and_then(|_| run("ip", &["netns", "delete", &name]));
    tried.map(drop).map_err(|error| error.to_string())
}

fn try_disks(root: bool) -> Result<(), String> {
    if !root {
        return Err("mounting disk images needs root".to_owned());
    }
    let tried = ["mkfs.ext4", "xfs_io"].iter().try_for_each(|program| run(program, &["-V"]).map(drop));
    tried.map_err(|error| error.to_string())?;
    if Path::new("/dev/loop-control").exists() { Ok(()) } else { Err("there is no /dev/loop-control".to_owned()) }
}

/// The library that gives a process its own clock.
fn find_clocks() -> Result<PathBuf, String> {
    let directories = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"];
    let libraries = directories.map(|directory| Path::new(directory).join("faketime/libfaketimeMT.so.1"));
    libraries.into_iter().find(|library| library.exists()).ok_or_else(|| "libfaketime is not installed".to_owned())
}

/// Ends what a run left behind that was killed. Only ever called by who holds the lock, so that nothing of it is in use.
fn remove_leftovers() {
    let attempt = |program: &str, arguments: &[&str]| match run(program, arguments) {
        Ok(printed) => printed,
        Err(error) => {
            tracing::warn!(%error, "something of an earlier run stays behind");
            String::new()
        }
    };
    let namespaces = run("ip", &["netns", "list"]).unwrap_or_default();
    let names = namespaces.lines().filter_map(|line| line.split_whitespace().next());
    for name in names.filter(|name| name.starts_with(NAME_PREFIX)) {
        for process in attempt("ip", &["netns", "pids", name]).split_whitespace() {
            kill(process);
        }
        attempt("ip", &["netns", "delete", name]);
    }
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    for place in places.filter(|place| Path::new(place).starts_with(MOUNTS)) {
        // A process that was just killed may hold files for a moment longer; the mount then goes with it.
        attempt("umount", &["--lazy", place]);
    }
}

fn kill(process: &str) {
    let id = process.parse().ok().and_then(rustix::process::Pid::from_raw);
    if let Some(id) = id {
        tracing::warn!(process, "kills a server of an earlier run");
        // It may have ended by itself meanwhile.
        let _ = rustix::process::kill_process(id, rustix::process::Signal::KILL);
    }
}
