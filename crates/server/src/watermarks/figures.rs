//! What the process and its disk have.

use std::fs;
use std::path::Path;

/// Memory and disk, as far as they could be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Figures {
    /// Of this process.
    pub resident_bytes: Option<u64>,
    /// For this process, where the data is.
    pub disk_free_bytes: Option<u64>,
}

pub(super) fn read(data_directory: &Path) -> Figures {
    let disk = rustix::fs::statvfs(data_directory).ok();
    Figures {
        resident_bytes: fs::read_to_string("/proc/self/status").ok().and_then(|text| kibibytes(&text, "VmRSS:")),
        disk_free_bytes: disk.map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize)),
    }
}

/// What the process may use: the machine's memory, or what its control group is given.
pub fn memory_available_bytes() -> Option<u64> {
    let total = fs::read_to_string("/proc/meminfo").ok().and_then(|text| kibibytes(&text, "MemTotal:"));
    let group = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];
    let given = group.iter().find_map(|path| fs::read_to_string(path).ok()?.trim().parse().ok());
    total.into_iter().chain(given).min()
}

/// A line `NAME   123 kB`.
fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_and_a_disk() {
        let figures = read(Path::new("/"));
        assert!(figures.resident_bytes.unwrap() > 100_000 && figures.disk_free_bytes.is_some());
        assert!(memory_available_bytes().unwrap() > figures.resident_bytes.unwrap());
    }

    #[test]
    fn what_cannot_be_read_is_not_known() {
        assert_eq!(read(Path::new("/nowhere at all")).disk_free_bytes, None);
        assert_eq!(kibibytes("VmRSS: 12 MB", "VmRSS:"), None);
        assert_eq!(kibibytes("VmHWM: 1 kB\nVmRSS:\t  12 kB\n", "VmRSS:"), Some(12 * 1024));
    }
}
