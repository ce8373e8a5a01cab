//! The groups' votes, kept besides in the log: a node whose log is damaged must not vote twice in a term.
//!
//! Two files for each group, written one after the other, each synced, before the vote goes into the log. So when
//! somebody is answered for a vote, both hold it, and one may be damaged.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bytes::{BufMut, Bytes, BytesMut};

use crate::durable;
use crate::sealed::Seal;

const SEAL: Seal = Seal { magic: b"DWELLVOT", version: 1 };
const COPIES: [&str; 2] = ["a", "b"];
/// Of a vote, as its owner encodes it.
const VOTE_LENGTH_MAX: usize = 200;

/// Writes votes. The files of a group are made with its first vote.
pub(super) struct Votes {
    directory: PathBuf,
    open: HashMap<u64, Vec<File>>,
}

impl Votes {
    /// Keeps the votes in `directory`.
    pub fn open(directory: &Path) -> io::Result<Votes> {
        fs::create_dir_all(directory)?;
        if let Some(parent) = directory.parent() {
            durable::sync_directory(parent)?;
        }
        Ok(Votes { directory: directory.to_path_buf(), open: HashMap::new() })
    }

    /// Keeps a group's vote, durably. The older one is there until this returns.
    pub fn write(&mut self, group: u64, vote: &[u8]) -> io::Result<()> {
        let frame = encode(vote)?;
        if let Some(files) = self.open.get(&group) {
            return files.iter().try_for_each(|file| {
                file.write_all_at(&frame, 0)?;
                file.sync_data()
            });
        }
        let mut files = Vec::new();
        for copy in COPIES {
            let path = path(&self.directory, group, copy);
            durable::replace_file(&path, &frame)?;
            files.push(OpenOptions::new().write(true).open(&path)?);
        }
        self.open.insert(group, files);
        Ok(())
    }
}

/// The readable copies of a group's vote: none, one, or two, which differ if a crash came between their writes.
pub fn read_votes(directory: &Path, group: u64) -> io::Result<Vec<Bytes>> {
    let mut votes = Vec::new();
    for copy in COPIES {
        let path = path(directory, group, copy);
        match fs::read(&path) {
            Ok(frame) => match decode(&Bytes::from(frame)) {
                Some(vote) => votes.push(vote),
                None => tracing::warn!(file = %path.display(), "a copy of the vote is damaged"),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(votes)
}

fn path(directory: &Path, group: u64, copy: &str) -> PathBuf {
    // No extension: a file is replaced by way of one with the same name and another extension.
    directory.join(format!("{group}-{copy}"))
}

/// Always of the same length, so that a file that is written over keeps its length.
fn encode(vote: &[u8]) -> io::Result<Bytes> {
    let length = u8::try_from(vote.len()).ok().filter(|length| usize::from(*length) <= VOTE_LENGTH_MAX);
    let length = length.ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("a vote of {} bytes is too long to be kept", vote.len()))
    })?;
    let mut body = BytesMut::with_capacity(1 + VOTE_LENGTH_MAX);
    body.put_u8(length);
    body.put_slice(vote);
    body.resize(1 + VOTE_LENGTH_MAX, 0);
    Ok(SEAL.close(&body))
}

fn decode(frame: &Bytes) -> Option<Bytes> {
    let body = SEAL.open(frame).ok()?;
    let length = usize::from(*body.first()?);
    (length < body.len()).then(|| body.slice(1..=length))
}

#[cfg(test)]
mod tests {
    use dwell_hostile_bytes::{Bound, cases, decode_within, tampered};
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_vote_is_in_both_copies_and_one_may_be_lost() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("votes");
        let mut votes = Votes::open(&directory).unwrap();
        assert!(read_votes(&directory, 1).unwrap().is_empty());
        for vote in [&b"first"[..], b"second", b""] {
            votes.write(1, vote).unwrap();
            assert_eq!(read_votes(&directory, 1).unwrap(), [vote, vote]);
        }
        votes.write(2, b"other").unwrap();
        Votes::open(&directory).unwrap().write(1, b"third").unwrap();
        assert_eq!(read_votes(&directory, 1).unwrap(), [&b"third"[..], b"third"]);

        let damaged = path(&directory, 1, "a");
        let whole = fs::read(&damaged).unwrap();
        for position in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[position] ^= 1;
            fs::write(&damaged, bytes).unwrap();
            assert_eq!(read_votes(&directory, 1).unwrap(), [&b"third"[..]], "byte {position}");
        }
        fs::remove_file(&damaged).unwrap();
        assert_eq!(read_votes(&directory, 1).unwrap(), [&b"third"[..]]);
        assert!(votes.write(1, &[0; 201]).is_err());
    }

    proptest! {
        #![proptest_config(cases(2000))]

        #[test]
        fn a_tampered_vote_is_none_or_fits_its_frame(
            body in tampered(Just(SEAL.open(&encode(b"a vote").unwrap()).unwrap()), 1),
            sealed in any::<bool>(),
        ) {
            let frame = if sealed { SEAL.close(&body) } else { body };
            if let Some(vote) = decode_within(frame.len(), Bound::times(1), || decode(&frame))? {
                prop_assert!(vote.len() < frame.len());
            }
        }
    }
}
