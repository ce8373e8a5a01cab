//! A node's disk: a file system in an image file, which can lose power, fill up and rot.

mod rot;

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

pub(crate) use self::rot::{Rot, rot};
use crate::harness::command::run;
use crate::harness::error::{HarnessError, file_error, system_error};

/// What fills the disk.
const BALLAST: &str = "ballast";
/// Written and synced before a power cut: it must stay.
const SYNCED: &str = "power-cut-synced";
/// Written and not synced before a power cut: it must go.
const UNSYNCED: &str = "power-cut-unsynced";

/// A file system in an image file. Dropping it unmounts it; the image stays.
#[derive(Debug)]
pub(crate) struct Disk {
    image: PathBuf,
    mount_point: PathBuf,
    cuts: u64,
}

impl Disk {
    /// Makes an image with an empty file system of so many bytes, and mounts it.
    pub(crate) fn create(image: PathBuf, mount_point: PathBuf, bytes: u64) -> Result<Disk, HarnessError> {
        std::fs::create_dir_all(&mount_point).map_err(file_error("create", &mount_point))?;
        let file = File::create(&image).map_err(file_error("create", &image))?;
        file.set_len(bytes).map_err(file_error("extend", &image))?;
        // No blocks kept for root, which the servers run as.
        run("mkfs.ext4", &["-q", "-F", "-m", "0", &text(&image)])?;
        let disk = Disk { image, mount_point, cuts: 0 };
        disk.mount()?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        &self.mount_point
    }

    fn mount(&self) -> Result<(), HarnessError> {
        // The kernel frees a loop device that `mount` set up when it is unmounted.
        run("mount", &["-o", "loop", &text(&self.image), &text(&self.mount_point)]).map(drop)
    }

    fn unmount(&self) -> Result<(), HarnessError> {
        run("umount", &[&text(&self.mount_point)]).map(drop)
    }

    /// Writes two files, one synced and one not, by which [`Disk::restore_power`] sees what a power cut did. To be
    /// called while nobody else writes: another file's sync may take the unsynced one along.
    pub(crate) fn prepare_power_cut(&mut self) -> Result<(), HarnessError> {
        self.cuts += 1;
        for (name, sync) in [(SYNCED, true), (UNSYNCED, false)] {
            let path = self.mount_point.join(name);
            let mut file = File::create(&path).map_err(file_error("create", &path))?;
            file.write_all(self.cuts.to_string().as_bytes()).map_err(file_error("write", &path))?;
            if sync {
                file.sync_all().map_err(file_error("sync", &path))?;
                let directory = File::open(&self.mount_point).map_err(file_error("open", &self.mount_point))?;
                directory.sync_all().map_err(file_error("sync", &self.mount_point))?;
            }
        }
        Ok(())
    }

    /// Cuts the power: from now on nothing is written, not even what the file system has in its journal's buffers.
    pub(crate) fn cut_power(&self) -> Result<(), HarnessError> {
        // Without an argument `shutdown` does not flush the log; it is an expert's command, hence `-x`.
        run("xfs_io", &["-x", "-c", "shutdown", &text(&self.mount_point)]).map(drop)
    }

    /// Mounts it again after a power cut, when no process has files open on it. Answers in words what was lost, and an
    /// error in words if it was not what a power cut loses.
    pub(crate) fn restore_power(&self) -> Result<Result<String, String>, HarnessError> {
        self.unmount()?;
        self.mount()?;
        let expected = self.cuts.to_string();
        let content = |name: &str| std::fs::read_to_string(self.mount_point.join(name)).unwrap_or_default();
        let (synced, unsynced) = (content(SYNCED) == expected, content(UNSYNCED) == expected);
        Ok(match (synced, unsynced) {
            (true, false) => Ok("the synced file is there, the unsynced one is gone".to_owned()),
            (false, _) => Err("the synced file is gone".to_owned()),
            (true, true) => Err("the unsynced file is still there".to_owned()),
        })
    }

    /// Takes all space that is left.
    pub(crate) fn fill(&self) -> Result<u64, HarnessError> {
        let path = self.mount_point.join(BALLAST);
        let file = File::create(&path).map_err(file_error("create", &path))?;
        let statistics = statvfs(&self.mount_point).map_err(system_error("look at a disk"))?;
        let mut piece = statistics.f_bavail * statistics.f_frsize;
        let mut length = 0;
        while piece >= statistics.f_frsize {
            match fallocate(&file, FallocateFlags::empty(), length, piece) {
                Ok(()) => length += piece,
                // Space is also needed to tell where the space is.
                Err(Errno::NOSPC) => piece /= 2,
                Err(error) => return Err(system_error("fill a disk")(error)),
            }
        }
        Ok(length)
    }

    /// Whether a new file can be written.
    pub(crate) fn is_full(&self) -> bool {
        let path = self.mount_point.join("probe");
        let written = File::create(&path).and_then(|mut file| {
            file.write_all(&[1; 65536])?;
            file.sync_all()
        });
        // Not there if it could not even be created.
        let _ = std::fs::remove_file(&path);
        written.is_err_and(|error| error.kind() == std::io::ErrorKind::StorageFull)
    }

    /// Gives the space back.
    pub(crate) fn empty(&self) -> Result<(), HarnessError> {
        let path = self.mount_point.join(BALLAST);
        std::fs::remove_file(&path).map_err(file_error("delete", &path))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = self.unmount() {
            tracing::warn!(%error, "a node's disk stays mounted");
        }
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mounting needs root; without it, says loudly that nothing was tested.
    fn with_disk(name: &str, test: impl FnOnce(&mut Disk)) {
        if !rustix::process::geteuid().is_root() {
            eprintln!("NOT RUN: {name} needs root");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("disk.img");
        let mut disk = Disk::create(image, directory.path().join("mounted"), 64 * 1024 * 1024).unwrap();
        test(&mut disk);
    }

    #[test]
    fn a_power_cut_loses_what_was_not_synced_and_nothing_else() {
        with_disk("a power cut", |disk| {
            for round in 0..3 {
                disk.prepare_power_cut().unwrap();
                disk.cut_power().unwrap();
                assert!(File::create(disk.path().join("late")).is_err(), "a disk without power is not written");
                let lost = disk.restore_power().unwrap();
                assert!(lost.is_ok(), "round {round}: {lost:?}");
            }
        });
    }

    #[test]
    fn without_a_power_cut_nothing_is_lost() {
        with_disk("no power cut", |disk| {
            disk.prepare_power_cut().unwrap();
            let lost = disk.restore_power().unwrap();
            assert_eq!(lost, Err("the unsynced file is still there".to_owned()));
        });
    }

    #[test]
    fn a_full_disk_takes_nothing_until_it_is_emptied() {
        with_disk("a full disk", |disk| {
            assert!(!disk.is_full());
            assert!(disk.fill().unwrap() > 32 * 1024 * 1024);
            assert!(disk.is_full());
            disk.empty().unwrap();
            assert!(!disk.is_full());
        });
    }
}
