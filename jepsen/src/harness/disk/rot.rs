//! Bits that flip and ends that go missing, in the files of a node that does not run.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

use crate::harness::error::{HarnessError, file_error};

/// Which files rot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rot {
    /// Those of the Raft log.
    Log,
    /// Those of the state machine: its database's and its snapshots.
    State,
}

/// Flips bits in, or cuts the end off, one to three files below `data`. Answers what was done, exactly.
pub(crate) fn rot(data: &Path, what: Rot, random: &mut StdRng) -> Result<Vec<String>, HarnessError> {
    let mut files = Vec::new();
    collect(data, &mut files)?;
    files.sort();
    files.retain(|file| belongs(file.strip_prefix(data).unwrap_or(file), what) && length(file) > 0);
    let mut done = Vec::new();
    for _ in 0..random.random_range(1..=3) {
        let Some(file) = files.choose(random) else { break };
        let name = file.strip_prefix(data).unwrap_or(file).display().to_string();
        let open = OpenOptions::new().read(true).write(true).open(file).map_err(file_error("open", file))?;
        let length = open.metadata().map_err(file_error("look at", file))?.len();
        if length == 0 {
            continue;
        }
        if random.random_bool(0.25) {
            let kept = random.random_range(0..length);
            open.set_len(kept).map_err(file_error("truncate", file))?;
            done.push(format!("{name}: cut from {length} to {kept} bytes"));
        } else {
            // Most of a preallocated log is zeros that nobody reads: where there is data is found first.
            let used = used_length(&open, length).map_err(file_error("read", file))?;
            let (offset, bit) = (random.random_range(0..used), random.random_range(0..8));
            let mut byte = [0];
            open.read_exact_at(&mut byte, offset).map_err(file_error("read", file))?;
            open.write_all_at(&[byte[0] ^ (1 << bit)], offset).map_err(file_error("write", file))?;
            done.push(format!("{name}: flipped bit {bit} of byte {offset}, {length} bytes, {used} used"));
        }
        open.sync_all().map_err(file_error("sync", file))?;
    }
    Ok(done)
}

/// Up to and with the last byte that is not zero; at least 1.
fn used_length(file: &File, length: u64) -> std::io::Result<u64> {
    const PIECE: u64 = 1 << 16;
    let mut end = length;
    while end > 0 {
        let start = end.saturating_sub(PIECE);
        let mut piece = vec![0; usize::try_from(end - start).unwrap_or(0)];
        file.read_exact_at(&mut piece, start)?;
        if let Some(last) = piece.iter().rposition(|byte| *byte != 0) {
            return Ok(start + last as u64 + 1);
        }
        end = start;
    }
    Ok(1)
}

fn length(file: &Path) -> u64 {
    file.metadata().map_or(0, |metadata| metadata.len())
}

fn belongs(file: &Path, what: Rot) -> bool {
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    match what {
        Rot::Log => file.starts_with("log") && name.ends_with(".raftlog"),
        // Not the database's own diary and options, which nobody reads back.
        Rot::State => {
            file.starts_with("groups")
                && (name.ends_with(".sst")
                    || name.starts_with("MANIFEST-")
                    || name == "CURRENT"
                    || file.components().any(|part| part.as_os_str() == "snapshots"))
        }
    }
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> Result<(), HarnessError> {
    for entry in std::fs::read_dir(directory).map_err(file_error("read", directory))? {
        let path = entry.map_err(file_error("read", directory))?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    fn sample() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for file in ["log/1.raftlog", "log/LOCK", "groups/1/db-1/4.sst", "groups/1/db-1/LOG", "groups/1/CURRENT"] {
            let path = directory.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, [[0xaa; 1000], [0; 1000]].concat()).unwrap();
        }
        directory
    }

    #[test]
    fn the_same_seed_does_the_same_and_only_to_the_files_meant() {
        for what in [Rot::Log, Rot::State] {
            let (first, second) = (sample(), sample());
            let done = rot(first.path(), what, &mut StdRng::seed_from_u64(5)).unwrap();
            assert!(!done.is_empty());
            assert_eq!(done, rot(second.path(), what, &mut StdRng::seed_from_u64(5)).unwrap());
            for file in ["log/LOCK", "groups/1/db-1/LOG"] {
                assert_eq!(std::fs::read(first.path().join(file)).unwrap()[..1000], [0xaa; 1000]);
            }
            let log_is_whole =
                std::fs::read(first.path().join("log/1.raftlog")).unwrap() == [[0xaa; 1000], [0; 1000]].concat();
            assert_eq!(log_is_whole, what == Rot::State);
        }
    }

    #[test]
    fn bits_flip_where_there_is_data() {
        let directory = sample();
        let file = File::open(directory.path().join("log/1.raftlog")).unwrap();
        assert_eq!(used_length(&file, 2000).unwrap(), 1000);
    }
}
