//! The file that says up to which batch the log was synced: `DURABLE`.
//!
//! A crash tears the last write, and a torn write is cut off: nobody was answered for it. A flipped bit in the
//! last batch that was synced, a last file that is short or missing, look just the same, and cutting that off
//! would forget what was acknowledged. So batches are numbered, each holds its number, and right after a batch was
//! synced, and before anybody is answered, its number is written here. A log that ends with a lower number than
//! this file says has lost something that it must not lose.
//!
//! The file itself is not synced: after a crash of the process it is exact. After a power cut it may be older,
//! which only means that fewer batches are sure to be there; never newer, since it is written after the sync.
//! There are two places, written in turn, so that a write that is torn leaves the one before it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::{BufMut, Bytes, BytesMut};

use super::LogError;
use super::identity::{STAMP_LENGTH, Stamp};
use crate::durable;
use crate::sealed::Seal;

const FILE: &str = "DURABLE";
const SEAL: Seal = Seal { magic: b"DWELLDUR", version: 1 };
const BODY_LENGTH: usize = STAMP_LENGTH + 8;
const FRAME_LENGTH: usize = 8 + 4 + BODY_LENGTH + 4;
const PLACES: u64 = 2;
/// Each in a page of its own.
const PLACE_LENGTH: u64 = 4096;

/// The open file.
pub(super) struct Mark {
    file: File,
    stamp: Stamp,
    batch: u64,
}

impl Mark {
    /// Opens the file of the log with this stamp, or makes it if `may_be_missing`: it is older than the file.
    pub fn open(directory: &Path, stamp: &Stamp, may_be_missing: bool) -> Result<Mark, LogError> {
        let path = directory.join(FILE);
        let corrupt = |what: &str| LogError::Corrupt(format!("{} {what}", path.display()));
        let failed = |error: io::Error| LogError::open(directory, error);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            Err(_) if may_be_missing => {
                create(directory, stamp).map_err(failed)?;
                fs::read(&path).map_err(failed)?
            }
            Err(_) => return Err(corrupt("is missing")),
        };
        let places = (0..PLACES).filter_map(|place| {
            let from = (place * PLACE_LENGTH) as usize;
            decode(bytes.get(from..from + FRAME_LENGTH)?, stamp)
        });
        let batch = places.max().ok_or_else(|| corrupt("is unreadable"))?;
        let file = OpenOptions::new().write(true).open(&path).map_err(failed)?;
        Ok(Mark { file, stamp: *stamp, batch })
    }

    /// The number of the last batch that was synced, as far as is known.
    pub fn batch(&self) -> u64 {
        self.batch
    }

    /// Notes that the batch with this number was synced.
    pub fn advance(&mut self, batch: u64) -> io::Result<()> {
        self.file.write_all_at(&encode(&self.stamp, batch), batch % PLACES * PLACE_LENGTH)?;
        self.batch = batch;
        Ok(())
    }

    /// Begins at a log that has more batches than the file knows of.
    pub fn resume(&mut self, batch: u64) {
        self.batch = self.batch.max(batch);
    }
}

/// Makes the file for a log that has nothing yet, durably.
pub(super) fn create(directory: &Path, stamp: &Stamp) -> io::Result<()> {
    let mut contents = vec![0; (PLACES * PLACE_LENGTH) as usize];
    contents[..FRAME_LENGTH].copy_from_slice(&encode(stamp, 0));
    durable::replace_file(&directory.join(FILE), &contents)
}

fn encode(stamp: &Stamp, batch: u64) -> Bytes {
    let mut body = BytesMut::with_capacity(BODY_LENGTH);
    body.put_slice(stamp);
    body.put_u64(batch);
    SEAL.close(&body)
}

fn decode(frame: &[u8], stamp: &Stamp) -> Option<u64> {
    let body = SEAL.open(&Bytes::copy_from_slice(frame)).ok()?;
    let batch = body.strip_prefix(stamp)?;
    Some(u64::from_be_bytes(batch.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use dwell_hostile_bytes::{Bound, cases, decode_within, tampered};
    use proptest::prelude::*;

    use super::*;

    const STAMP: Stamp = [7; STAMP_LENGTH];

    fn open(directory: &Path) -> Result<Mark, LogError> {
        Mark::open(directory, &STAMP, false)
    }

    #[test]
    fn the_mark_is_what_was_written_last() {
        let directory = tempfile::tempdir().unwrap();
        create(directory.path(), &STAMP).unwrap();
        for batch in 1..6 {
            open(directory.path()).unwrap().advance(batch).unwrap();
            assert_eq!(open(directory.path()).unwrap().batch(), batch);
        }
    }

    #[test]
    fn a_torn_write_leaves_the_mark_before_it() {
        let directory = tempfile::tempdir().unwrap();
        create(directory.path(), &STAMP).unwrap();
        let mut mark = open(directory.path()).unwrap();
        (1..5).for_each(|batch| mark.advance(batch).unwrap());
        let path = directory.path().join(FILE);
        let mut bytes = fs::read(&path).unwrap();
        bytes[20] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert_eq!(open(directory.path()).unwrap().batch(), 3);
        bytes[PLACE_LENGTH as usize + 20] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(matches!(open(directory.path()), Err(LogError::Corrupt(_))));
    }

    #[test]
    fn a_mark_that_is_missing_or_another_logs_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(open(directory.path()), Err(LogError::Corrupt(_))));
        assert_eq!(Mark::open(directory.path(), &STAMP, true).unwrap().batch(), 0);
        let other = Mark::open(directory.path(), &[8; STAMP_LENGTH], false);
        assert!(matches!(other, Err(LogError::Corrupt(_))));
    }

    proptest! {
        #![proptest_config(cases(2000))]

        #[test]
        fn a_tampered_mark_is_none_or_another_batch_of_this_log(
            body in tampered(Just(SEAL.open(&encode(&STAMP, 9)).unwrap()), STAMP_LENGTH),
            sealed in any::<bool>(),
        ) {
            let frame = if sealed { SEAL.close(&body) } else { body };
            if let Some(batch) = decode_within(frame.len(), Bound::times(1), || decode(&frame, &STAMP))? {
                prop_assert_eq!(encode(&STAMP, batch), frame);
            }
        }
    }
}
