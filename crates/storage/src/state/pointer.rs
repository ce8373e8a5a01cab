//! The file that says which of the databases in a state directory is the current one.
//!
//! A snapshot is installed beside the database in use, as the next generation. Replacing this one small file
//! makes it the current one: before that moment the old state is whole, after it the new one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::durable;
use crate::sealed::{Seal, SealError};
use crate::state::StateError;

const SEAL: Seal = Seal { magic: b"DWELLSTA", version: 1 };
const FILE: &str = "CURRENT";
const GENERATION_PREFIX: &str = "db-";

/// Where the pointer of a state directory is.
pub(super) fn path(directory: &Path) -> PathBuf {
    directory.join(FILE)
}

/// Where the database of a generation is.
pub(super) fn database_path(directory: &Path, generation: u64) -> PathBuf {
    directory.join(format!("{GENERATION_PREFIX}{generation}"))
}

/// The current generation; none in a directory that was never used.
pub(super) fn read(directory: &Path) -> Result<Option<u64>, StateError> {
    let path = path(directory);
    let sealed = match fs::read(&path) {
        Ok(sealed) => Bytes::from(sealed),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StateError::Io { path, source }),
    };
    let body = match SEAL.open(&sealed) {
        Ok(body) => body,
        Err(source) => return Err(StateError::Pointer { path, source }),
    };
    match <[u8; 8]>::try_from(&body[..]) {
        Ok(generation) => Ok(Some(u64::from_be_bytes(generation))),
        Err(_) => Err(StateError::Pointer { path, source: SealError::TooShort { length: sealed.len() } }),
    }
}

/// Makes a generation the current one, durably.
pub(super) fn write(directory: &Path, generation: u64) -> Result<(), StateError> {
    let path = path(directory);
    durable::replace_file(&path, &SEAL.close(&generation.to_be_bytes())).map_err(StateError::io(&path))
}

/// The generations that have a directory, current or not.
pub(super) fn generations(directory: &Path) -> Result<Vec<u64>, StateError> {
    let mut generations = Vec::new();
    for entry in fs::read_dir(directory).map_err(StateError::io(directory))? {
        let name = entry.map_err(StateError::io(directory))?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(GENERATION_PREFIX));
        generations.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    Ok(generations)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pointer_is_what_was_written_last() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read(directory.path()).unwrap(), None);
        for generation in [1, 2, u64::MAX] {
            write(directory.path(), generation).unwrap();
            assert_eq!(read(directory.path()).unwrap(), Some(generation));
        }
    }

    #[test]
    fn a_damaged_pointer_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), 7).unwrap();
        let path = path(directory.path());
        let mut bytes = fs::read(&path).unwrap();
        bytes[14] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(matches!(read(directory.path()), Err(StateError::Pointer { source: SealError::Checksum { .. }, .. })));
    }

    #[test]
    fn generations_are_found_among_other_files() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["db-3", "db-12", "db-x", "snapshots"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        let mut found = generations(directory.path()).unwrap();
        found.sort_unstable();
        assert_eq!(found, [3, 12]);
    }
}
