//! What a node has decided about its place in a cluster, where it finds its place by itself.
//!
//! A node's id lives with its data: who has lost the data has forgotten its vote, and must not go on under the id that it
//! had. So the id is kept here, beside the data, and not in whatever starts the node.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message;

use crate::durable;
use crate::sealed::{Seal, SealError};

const SEAL: Seal = Seal { magic: b"DWELLENR", version: 1 };
const FILE: &str = "ENROLMENT";

/// How far a node has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It is to be one of a new cluster's founders, and has not taken part in anything yet.
    Founding,
    /// It may have voted, and acknowledged entries.
    Started,
}

/// The place of a node in a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enrolment {
    /// Its id, for as long as it has its data.
    pub node_id: u64,
    /// It is one of the first members, and not one that joined them.
    pub is_founder: bool,
    /// How far it has come.
    pub phase: Phase,
}

/// What a node has decided could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum EnrolmentError {
    /// The operating system refused.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is damaged, or a newer node's.
    #[error(
        "{} is not readable: {source}. If this node's data cannot be had elsewhere, empty its data directory: it joins \
         the cluster anew, under another id", path.display()
    )]
    Sealed {
        /// The file.
        path: PathBuf,
        /// Why.
        source: SealError,
    },
    /// It is whole, and says nothing that this node understands.
    #[error("{} holds something else", .0.display())]
    Contents(PathBuf),
    /// There is data whose owner is not known.
    #[error(
        "{} holds a node's data, and no {FILE}: it is the data of a node that was started with an id of its own. \
         Start it with `dwell server` as before", .0.display()
    )]
    Foreign(PathBuf),
}

#[derive(Clone, PartialEq, Message)]
struct Record {
    #[prost(uint64, tag = "1")]
    node_id: u64,
    #[prost(bool, tag = "2")]
    is_founder: bool,
    #[prost(bool, tag = "3")]
    has_started: bool,
}

impl Enrolment {
    /// What the node with this data directory has decided; none if it has not, and has no data.
    pub fn read(data_directory: &Path) -> Result<Option<Enrolment>, EnrolmentError> {
        let path = data_directory.join(FILE);
        let sealed = match fs::read(&path) {
            Ok(bytes) => Bytes::from(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return match crate::recovery::DataDirectory::new(data_directory).log().exists() {
                    true => Err(EnrolmentError::Foreign(data_directory.to_owned())),
                    false => Ok(None),
                };
            }
            Err(source) => return Err(EnrolmentError::File { path, source }),
        };
        let body = SEAL.open(&sealed).map_err(|source| EnrolmentError::Sealed { path: path.clone(), source })?;
        let record = Record::decode(body).ok().filter(|record| record.node_id > 0);
        let record = record.ok_or(EnrolmentError::Contents(path))?;
        let phase = if record.has_started { Phase::Started } else { Phase::Founding };
        Ok(Some(Enrolment { node_id: record.node_id, is_founder: record.is_founder, phase }))
    }

    /// Keeps it, durably. Makes the data directory if there is none.
    pub fn write(&self, data_directory: &Path) -> Result<(), EnrolmentError> {
        let Enrolment { node_id, is_founder, phase } = *self;
        let record = Record { node_id, is_founder, has_started: phase == Phase::Started };
        let path = data_directory.join(FILE);
        let written = fs::create_dir_all(data_directory)
            .and_then(|()| durable::replace_file(&path, &SEAL.close(&record.encode_to_vec())))
            .and_then(|()| data_directory.parent().map_or(Ok(()), durable::sync_directory));
        written.map_err(|source| EnrolmentError::File { path, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FOUNDER: Enrolment = Enrolment { node_id: 2, is_founder: true, phase: Phase::Founding };

    #[test]
    fn what_was_decided_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        assert_eq!(Enrolment::read(&data).unwrap(), None);
        for enrolment in [FOUNDER, Enrolment { phase: Phase::Started, is_founder: false, ..FOUNDER }] {
            enrolment.write(&data).unwrap();
            assert_eq!(Enrolment::read(&data).unwrap(), Some(enrolment));
        }
    }

    #[test]
    fn a_damaged_file_is_no_other_node_and_no_empty_one() {
        let directory = tempfile::tempdir().unwrap();
        FOUNDER.write(directory.path()).unwrap();
        let path = directory.path().join(FILE);
        let whole = fs::read(&path).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, damaged).unwrap();
            assert!(Enrolment::read(directory.path()).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn data_without_it_is_not_taken_for_none() {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("log")).unwrap();
        assert!(matches!(Enrolment::read(directory.path()), Err(EnrolmentError::Foreign(_))));
    }
}
