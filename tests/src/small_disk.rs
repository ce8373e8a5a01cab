//! A small disk of a node's own, which can fill up, become read-only, and fail. It takes root, and loop devices.

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

/// What fills the disk.
const BALLAST: &str = "ballast";

/// A file system in an image file, mounted. Dropping it unmounts it.
#[derive(Debug)]
pub struct SmallDisk {
    image: PathBuf,
    mount_point: PathBuf,
}

impl SmallDisk {
    /// Makes one of so many bytes at `mount_point`. None, and a line about it, where the machine does not allow it.
    pub fn mount(mount_point: &Path, bytes: u64) -> anyhow::Result<Option<SmallDisk>> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: mounting a disk takes root");
            return Ok(None);
        }
        std::fs::create_dir_all(mount_point)?;
        let disk = SmallDisk { image: mount_point.with_extension("img"), mount_point: mount_point.to_owned() };
        File::create(&disk.image)?.set_len(bytes)?;
        // No blocks kept for root, which the servers run as.
        run("mkfs.ext4", &["-q", "-F", "-m", "0", &text(&disk.image)])?;
        if let Err(error) = run("mount", &["-o", "loop", &text(&disk.image), &text(mount_point)]) {
            println!("skipped: {error:#}");
            return Ok(None);
        }
        Ok(Some(disk))
    }

    /// Leaves so many bytes free, or no more than there are.
    pub fn leave_free(&self, bytes: u64) -> anyhow::Result<()> {
        let ballast = OpenOptions::new().create(true).append(true).open(self.mount_point.join(BALLAST))?;
        let length = ballast.metadata()?.len();
        let free = rustix::fs::statvfs(&self.mount_point)?;
        let free = free.f_bavail * free.f_frsize;
        let mut more = free.saturating_sub(bytes);
        // The file system needs some of it for itself: all that can be had.
        while more >= 4096 {
            let taken = rustix::fs::fallocate(ballast.as_fd(), rustix::fs::FallocateFlags::empty(), length, more);
            if taken.is_ok() {
                return Ok(());
            }
            more -= (more / 64).max(4096).min(more);
        }
        Ok(())
    }

    /// Gives back what was taken.
    pub fn free(&self) -> anyhow::Result<()> {
        Ok(std::fs::remove_file(self.mount_point.join(BALLAST))?)
    }

    /// Every write and sync fails from now on, with an I/O error, until [`Self::mend`].
    pub fn fail(&self) -> anyhow::Result<()> {
        // Without an argument it flushes nothing; it is an expert's command, hence `-x`.
        run("xfs_io", &["-x", "-c", "shutdown", &text(&self.mount_point)])
    }

    /// Makes the disk that failed whole again, or one that nothing is to be written to. To be called while nobody has
    /// files open on it.
    pub fn mend(&self, read_only: bool) -> anyhow::Result<()> {
        run("umount", &[&text(&self.mount_point)])?;
        // Its journal is replayed first, for which it must be writable.
        run("mount", &["-o", "loop", &text(&self.image), &text(&self.mount_point)])?;
        if read_only { run("mount", &["-o", "remount,ro", &text(&self.mount_point)]) } else { Ok(()) }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Also while a server still has files open on it.
        let _ = run("umount", &["-l", &text(&self.mount_point)]);
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("running {program}"))?;
    let errors = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{program} {}: {}", arguments.join(" "), errors.trim());
    Ok(())
}
