//! Tells a torn tail from damage, before raft-engine cuts the end of the last file off.
//!
//! A crash can tear the last write: its callers were never answered, and cutting it off is right. But
//! raft-engine cuts from the first record that does not check, and would silently drop everything behind a
//! single flipped bit, acknowledged entries included. So the last file of each of its two queues is read
//! first: if a whole record of this log stands anywhere behind a broken one, the file is damaged.
//!
//! Depends on the layout of raft-engine's files, format version 2:
//! a header of magic, u64 version, u64 alignment; then records, each
//! `{ u56 length | u8 compression | u64 footer offset } { entries, crc32 } { footer, crc32 ^ file number }`,
//! where the footer ends with the last key and value put into the batch. Integers big-endian, checksums
//! little-endian. The tests of damage fail if that layout changes.

use std::fs;
use std::path::{Path, PathBuf};

use super::LogError;
use super::identity::{STAMP_LENGTH, Stamp};

const FILE_MAGIC: &[u8] = b"RAFT-LOG-FILE-HEADER-9986AB3E47F320B394C8E84916EB0ED5";
const FILE_VERSION: u64 = 2;
const FILE_HEADER: usize = FILE_MAGIC.len() + 16;
const RECORD_HEADER: usize = 16;
const CHECKSUM: usize = 4;

/// Refuses a log whose last files are damaged elsewhere than at their end.
pub(super) fn check(directory: &Path, stamp: &Stamp) -> Result<(), LogError> {
    // Rewritten records are raft-engine's own and carry no stamp.
    for (suffix, stamp) in [(".raftlog", Some(stamp)), (".rewrite", None)] {
        let Some((number, path)) = last_file(directory, suffix).map_err(|error| LogError::open(directory, error))?
        else {
            continue;
        };
        let bytes = fs::read(&path).map_err(|error| LogError::open(directory, error))?;
        if let Some(damage) = find_damage(&bytes, number as u32, stamp) {
            return Err(LogError::Corrupt(format!(
                "{} is damaged at byte {}, with a whole record behind it at {}",
                path.display(),
                damage.broken_at,
                damage.whole_at
            )));
        }
    }
    Ok(())
}

#[derive(Debug, PartialEq)]
struct Damage {
    broken_at: usize,
    whole_at: usize,
}

fn last_file(directory: &Path, suffix: &str) -> std::io::Result<Option<(u64, PathBuf)>> {
    let mut last = None;
    for file in fs::read_dir(directory)? {
        let path = file?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if let Some(number) = name.strip_suffix(suffix).and_then(|digits| digits.parse::<u64>().ok()) {
            last = last.max(Some((number, path.clone())));
        }
    }
    Ok(last)
}

fn find_damage(file: &[u8], signature: u32, stamp: Option<&Stamp>) -> Option<Damage> {
    let mut broken_at = 0;
    if file.strip_prefix(FILE_MAGIC).is_some_and(|rest| rest.starts_with(&FILE_VERSION.to_be_bytes())) {
        broken_at = FILE_HEADER;
        while let Some(length) = record_length(file.get(broken_at..)?, signature, None) {
            broken_at += length;
        }
    }
    (broken_at + 1..file.len())
        .find(|start| record_length(&file[*start..], signature, stamp).is_some())
        .map(|whole_at| Damage { broken_at, whole_at })
}

/// The length of the record that `bytes` begin with, if one stands there whole. With a stamp, only records
/// that end in it count.
///
/// The signature keeps out what an earlier use of a recycled file left behind.
fn record_length(bytes: &[u8], signature: u32, stamp: Option<&Stamp>) -> Option<usize> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let (footer_offset, _) = rest.split_first_chunk::<8>()?;
    let (length, compression) = (u64::from_be_bytes(*length) >> 8, length[7]);
    let footer_offset = u64::from_be_bytes(*footer_offset);
    if compression > 1 || length > bytes.len() as u64 || footer_offset > length || footer_offset < RECORD_HEADER as u64
    {
        return None;
    }
    // Both are within `bytes` now.
    let (length, footer_offset) = (length as usize, footer_offset as usize);
    let (footer, checksum) = bytes[footer_offset..length].split_last_chunk::<CHECKSUM>()?;
    // Far cheaper than the checksum, and this runs once for each byte of a torn tail.
    if stamp.is_some_and(|stamp| footer.len() <= STAMP_LENGTH || !footer.ends_with(stamp)) {
        return None;
    }
    (!footer.is_empty() && crc32fast::hash(footer) ^ signature == u32::from_le_bytes(*checksum)).then_some(length)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use dwell_hostile_bytes::{Bound, cases, decode_within, tampered};
    use proptest::prelude::*;

    use super::*;

    const STAMP: Stamp = [9; STAMP_LENGTH];

    fn record(entries: &[u8], signature: u32) -> Vec<u8> {
        let mut footer = b"items".to_vec();
        footer.extend_from_slice(&STAMP);
        let footer_offset = RECORD_HEADER + entries.len() + CHECKSUM;
        let length = footer_offset + footer.len() + CHECKSUM;
        let mut bytes = ((length as u64) << 8).to_be_bytes().to_vec();
        bytes.extend_from_slice(&(footer_offset as u64).to_be_bytes());
        bytes.extend_from_slice(entries);
        bytes.extend_from_slice(&crc32fast::hash(entries).to_le_bytes());
        bytes.extend_from_slice(&footer);
        bytes.extend_from_slice(&(crc32fast::hash(&footer) ^ signature).to_le_bytes());
        bytes
    }

    fn file(records: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = FILE_MAGIC.to_vec();
        bytes.extend_from_slice(&FILE_VERSION.to_be_bytes());
        bytes.extend_from_slice(&[0; 8]);
        records.iter().for_each(|record| bytes.extend_from_slice(record));
        bytes
    }

    #[test]
    fn a_whole_file_and_a_torn_one_are_let_pass() {
        let bytes = file(&[record(b"one", 7), record(b"two", 7)]);
        for length in 0..=bytes.len() {
            assert_eq!(find_damage(&bytes[..length], 7, Some(&STAMP)), None, "cut at {length}");
        }
        let mut padded = bytes.clone();
        padded.resize(bytes.len() + 10_000, 0);
        assert_eq!(find_damage(&padded, 7, Some(&STAMP)), None);
    }

    #[test]
    fn any_bit_flipped_in_a_footer_or_a_header_before_a_whole_record_is_damage() {
        let first = record(b"one", 7);
        let bytes = file(&[first.clone(), record(b"two", 7)]);
        let entries = FILE_HEADER + RECORD_HEADER..FILE_HEADER + RECORD_HEADER + 3 + CHECKSUM;
        for position in FILE_HEADER..FILE_HEADER + first.len() {
            // Damaged entries are found when they are read; they do not make the record unreadable.
            if entries.contains(&position) {
                continue;
            }
            let mut damaged = bytes.clone();
            damaged[position] ^= 0x80;
            let damage = find_damage(&damaged, 7, Some(&STAMP)).expect("found");
            assert_eq!(
                damage,
                Damage { broken_at: FILE_HEADER, whole_at: FILE_HEADER + first.len() },
                "byte {position}"
            );
        }
    }

    #[test]
    fn what_an_earlier_use_of_the_file_left_is_not_taken_for_a_record() {
        let bytes = file(&[record(b"one", 7), record(b"old", 3), record(b"older", 3)]);
        assert_eq!(find_damage(&bytes, 7, Some(&STAMP)), None);
    }

    #[test]
    fn a_body_that_looks_like_a_record_does_not_make_a_torn_write_damage() {
        let mut forged = record(b"forged", 7);
        let stamp_at = forged.len() - CHECKSUM - STAMP_LENGTH;
        forged[stamp_at] ^= 1;
        let footer_at = forged.len() - CHECKSUM - STAMP_LENGTH - 5;
        let end = forged.len() - CHECKSUM;
        let checksum = (crc32fast::hash(&forged[footer_at..end]) ^ 7).to_le_bytes();
        forged[end..].copy_from_slice(&checksum);
        assert!(record_length(&forged, 7, None).is_some(), "a record but for the stamp");

        let torn = record(&forged, 7);
        let bytes = file(&[record(b"one", 7), torn[..torn.len() - 1].to_vec()]);
        assert_eq!(find_damage(&bytes, 7, Some(&STAMP)), None);
    }

    proptest! {
        #![proptest_config(cases(2000))]

        #[test]
        fn a_tampered_file_is_whole_or_torn_or_damaged_within_itself(
            file in tampered(Just(Bytes::from(file(&[record(b"one", 7), record(b"two", 7)]))), FILE_HEADER),
            stamped in any::<bool>(),
        ) {
            let stamp = stamped.then_some(&STAMP);
            let found = decode_within(file.len(), Bound::times(1), || find_damage(&file, 7, stamp))?;
            if let Some(Damage { broken_at, whole_at }) = found {
                prop_assert!(broken_at < whole_at && whole_at < file.len());
            }
        }
    }
}
