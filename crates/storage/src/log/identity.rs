//! The file that says what a log directory is: format version, and a number no other log has.

use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{ErrorKind, Write};
use std::path::Path;

use super::{LogError, mark};

const FILE: &str = "IDENTITY";
const FILE_NEW: &str = "IDENTITY.new";
const MAGIC: &[u8; 8] = b"dwellLOG";
/// Version 1 had no [`mark`]. A log keeps the version that it began with.
const VERSION_WITHOUT_MARK: u32 = 1;
const VERSION: u32 = 2;
const LENGTH: usize = MAGIC.len() + 4 + STAMP_LENGTH + 4;

/// Bytes of a [`Stamp`].
pub(super) const STAMP_LENGTH: usize = 16;

/// Ends every batch this log writes. Nobody outside knows it, so bytes that end in it are a batch of this
/// log, and not a message body that looks like one.
pub(super) type Stamp = [u8; STAMP_LENGTH];

/// What a log directory says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub stamp: Stamp,
    /// The log began with a [`mark`], which therefore must be there.
    pub has_mark: bool,
}

/// Reads the identity of the log in `directory`, or gives it one if nothing is there yet.
pub(super) fn open(directory: &Path) -> Result<Identity, LogError> {
    match fs::read(directory.join(FILE)) {
        Ok(bytes) => decode(&bytes),
        Err(error) if error.kind() == ErrorKind::NotFound => create(directory),
        Err(error) => Err(LogError::open(directory, error)),
    }
}

/// Makes names created in `directory` durable.
pub(super) fn sync_directory(directory: &Path) -> std::io::Result<()> {
    File::open(directory)?.sync_all()
}

fn create(directory: &Path) -> Result<Identity, LogError> {
    let has_log_files = fs::read_dir(directory)
        .and_then(|mut files| {
            files.try_fold(false, |found, file| Ok(found || file?.file_name().to_string_lossy().ends_with(".raftlog")))
        })
        .map_err(|error| LogError::open(directory, error))?;
    if has_log_files {
        return Err(LogError::Corrupt(format!("{} has log files but no {FILE}", directory.display())));
    }
    let stamp = random_stamp();
    let write = || -> std::io::Result<()> {
        // First, so that no log of this version is without.
        mark::create(directory, &stamp)?;
        let mut file = File::create(directory.join(FILE_NEW))?;
        file.write_all(&encode(&stamp))?;
        file.sync_all()?;
        fs::rename(directory.join(FILE_NEW), directory.join(FILE))?;
        sync_directory(directory)
    };
    write().map_err(|error| LogError::open(directory, error))?;
    Ok(Identity { stamp, has_mark: true })
}

/// Unpredictable, as the keys of the standard hasher are: they come from the system.
fn random_stamp() -> Stamp {
    let mut stamp = [0; STAMP_LENGTH];
    for half in stamp.chunks_mut(8) {
        half.copy_from_slice(&RandomState::new().build_hasher().finish().to_be_bytes());
    }
    stamp
}

fn encode(stamp: &Stamp) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(LENGTH);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_be_bytes());
    bytes.extend_from_slice(stamp);
    bytes.extend_from_slice(&crc32fast::hash(&bytes).to_be_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Result<Identity, LogError> {
    let corrupt = |what: &str| LogError::Corrupt(format!("{FILE} {what}"));
    let (magic, rest) = bytes.split_first_chunk::<8>().ok_or_else(|| corrupt("is too short"))?;
    let (version, rest) = rest.split_first_chunk::<4>().ok_or_else(|| corrupt("is too short"))?;
    if magic != MAGIC {
        return Err(corrupt("does not begin as it should"));
    }
    // Before the checksum, whose place another version may have changed.
    let version = u32::from_be_bytes(*version);
    if !(VERSION_WITHOUT_MARK..=VERSION).contains(&version) {
        return Err(LogError::Version { got: version, known: VERSION });
    }
    let (stamp, checksum) = rest.split_first_chunk::<STAMP_LENGTH>().ok_or_else(|| corrupt("is too short"))?;
    if checksum != crc32fast::hash(&bytes[..LENGTH - 4]).to_be_bytes() {
        return Err(corrupt("has a wrong checksum"));
    }
    Ok(Identity { stamp: *stamp, has_mark: version > VERSION_WITHOUT_MARK })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use dwell_hostile_bytes::{Bound, cases, decode_within, tampered};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_identity_is_kept_and_is_unlike_any_other() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let identity = open(one.path()).unwrap();
        assert_eq!(open(one.path()).unwrap(), identity);
        assert_ne!(open(other.path()).unwrap().stamp, identity.stamp);
    }

    #[test]
    fn a_damaged_identity_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let bytes = encode(&open(directory.path()).unwrap().stamp);
        for position in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[position] ^= 1;
            // A version that is not known may be a newer one's, whose data must not be taken for damaged.
            match decode(&damaged) {
                Err(LogError::Corrupt(_)) => {}
                Err(LogError::Version { .. }) => assert!((8..12).contains(&position), "byte {position}"),
                other => panic!("byte {position}: {other:?}"),
            }
            assert!(matches!(decode(&bytes[..position]), Err(LogError::Corrupt(_))), "length {position}");
        }
    }

    #[test]
    fn log_files_without_an_identity_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("0000000000000001.raftlog"), b"").unwrap();
        assert!(matches!(open(directory.path()), Err(LogError::Corrupt(_))));
    }

    proptest! {
        #![proptest_config(cases(2000))]

        #[test]
        fn a_tampered_identity_is_refused_or_has_its_checksum(
            identity in tampered(Just(Bytes::from(encode(&[7; STAMP_LENGTH]))), MAGIC.len()),
        ) {
            if decode_within(identity.len(), Bound::times(1), || decode(&identity))?.is_ok() {
                let (body, checksum) = identity.split_at(LENGTH - 4);
                prop_assert_eq!(checksum, crc32fast::hash(body).to_be_bytes());
            }
        }
    }
}
