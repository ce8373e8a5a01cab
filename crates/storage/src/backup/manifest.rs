//! What a backup says of itself.

use bytes::Bytes;
use prost::Message as _;

use super::BackupError;
use crate::sealed::Seal;
use crate::snapshot::SnapshotFile;

const SEAL: Seal = Seal { magic: b"DWELLBAK", version: 1 };

/// A member of the cluster that was backed up.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct BackupMember {
    /// The node's id.
    #[prost(uint64, tag = "1")]
    pub node_id: u64,
    /// host:port where the other nodes reached it.
    #[prost(string, tag = "2")]
    pub peer_address: String,
    /// host:port where clients reached it.
    #[prost(string, tag = "3")]
    pub client_address: String,
    /// Whether it had a vote.
    #[prost(bool, tag = "4")]
    pub voter: bool,
}

/// Where a backup comes from, and what it covers.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct BackupDescription {
    /// A number that no other backup has, drawn by the node that made it.
    #[prost(fixed64, tag = "7")]
    pub backup_id: u64,
    /// The cluster that was backed up, in the notation of `dwell cluster status`; empty if it had no id yet.
    #[prost(string, tag = "8")]
    pub cluster_id: String,
    /// The node that made it.
    #[prost(uint64, tag = "1")]
    pub node_id: u64,
    /// The version of that node.
    #[prost(string, tag = "2")]
    pub node_version: String,
    /// Index of the last log entry that it covers.
    #[prost(uint64, tag = "3")]
    pub index: u64,
    /// The term of that entry.
    #[prost(uint64, tag = "4")]
    pub term: u64,
    /// When it was begun, by the node's clock, in milliseconds since the Unix epoch. It covers all that was confirmed before.
    #[prost(uint64, tag = "5")]
    pub begun_at_ms: u64,
    /// The members of the cluster then.
    #[prost(message, repeated, tag = "6")]
    pub members: Vec<BackupMember>,
}

/// What is in a backup's own file.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct BackupManifest {
    #[prost(message, optional, tag = "1")]
    pub description: Option<BackupDescription>,
    /// The list of all other files, with their lengths and checksums.
    #[prost(message, optional, tag = "2")]
    pub files: Option<SnapshotFile>,
}

impl BackupManifest {
    pub fn encode(&self) -> Bytes {
        SEAL.close(&self.encode_to_vec())
    }

    pub fn decode(encoded: &Bytes) -> Result<BackupManifest, BackupError> {
        Ok(<BackupManifest as prost::Message>::decode(SEAL.open(encoded)?)?)
    }
}

#[cfg(test)]
mod tests {
    use dwell_hostile_bytes::{Bound, cases, decode_within, must, tampered};
    use proptest::prelude::*;

    use super::*;

    fn manifest() -> BackupManifest {
        let member = |node_id: u64| BackupMember {
            node_id,
            peer_address: format!("10.0.0.{node_id}:7601"),
            client_address: format!("10.0.0.{node_id}:7600"),
            voter: node_id < 3,
        };
        BackupManifest {
            description: Some(BackupDescription {
                backup_id: 0x0123_4567_89ab_cdef,
                cluster_id: "00000000000000aa".into(),
                node_id: 2,
                node_version: "0.1.0".into(),
                index: 77,
                term: 3,
                begun_at_ms: 1_800_000_000_000,
                members: (1..=3).map(member).collect(),
            }),
            files: Some(SnapshotFile { name: "MANIFEST".into(), length: 300, crc32: 0xfeed }),
        }
    }

    #[test]
    fn what_was_encoded_decodes() {
        assert_eq!(BackupManifest::decode(&manifest().encode()).unwrap(), manifest());
    }

    #[test]
    fn bytes_that_are_no_manifest_are_refused() {
        assert!(matches!(BackupManifest::decode(&SEAL.close(b"\xff\xff\xff")), Err(BackupError::Decode(_))));
        assert!(matches!(BackupManifest::decode(&Bytes::from_static(b"junk")), Err(BackupError::Seal(_))));
    }

    proptest! {
        #![proptest_config(cases(3000))]

        #[test]
        fn a_tampered_manifest_is_refused_or_decodes_within_bounds(
            body in tampered(Just(Bytes::from(manifest().encode_to_vec())), 0),
        ) {
            let sealed = SEAL.close(&body);
            let bound = Bound::elements(2 * size_of::<BackupMember>());
            let Ok(decoded) = decode_within(sealed.len(), bound, || BackupManifest::decode(&sealed))? else {
                return Ok(());
            };
            prop_assert_eq!(must(BackupManifest::decode(&decoded.encode()))?, decoded);
        }
    }
}
