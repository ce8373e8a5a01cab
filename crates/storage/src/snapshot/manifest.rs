//! The list of a snapshot's files.

use std::collections::BTreeSet;

use bytes::Bytes;
use prost::Message as _;

use super::{MANIFEST, SnapshotError};
use crate::sealed::Seal;

const SEAL: Seal = Seal { magic: b"DWELLSNP", version: 1 };

/// Longest name of a file, as common file systems allow.
const NAME_BYTES_MAX: usize = 255;

/// One file of a snapshot.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SnapshotFile {
    /// Its name in the snapshot's directory.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Bytes it has.
    #[prost(uint64, tag = "2")]
    pub length: u64,
    /// CRC-32 of its contents.
    #[prost(fixed32, tag = "3")]
    pub crc32: u32,
}

/// What is in a snapshot's manifest.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct Manifest {
    /// The opaque record of what was applied; empty if nothing was.
    #[prost(bytes = "bytes", tag = "1")]
    pub applied: Bytes,
    #[prost(message, repeated, tag = "2")]
    pub files: Vec<SnapshotFile>,
}

impl Manifest {
    pub fn encode(&self) -> Bytes {
        SEAL.close(&self.encode_to_vec())
    }

    /// Decodes a manifest, which may come from another node: every name in it is good for a file in the
    /// snapshot's directory and nowhere else.
    pub fn decode(encoded: &Bytes) -> Result<Manifest, SnapshotError> {
        let manifest = <Manifest as prost::Message>::decode(SEAL.open(encoded)?)?;
        let mut names = BTreeSet::new();
        for file in &manifest.files {
            if !is_file_name(&file.name) || !names.insert(&file.name) {
                return Err(SnapshotError::FileName { name: file.name.clone() });
            }
        }
        Ok(manifest)
    }

    pub fn file(&self, name: &str) -> Option<&SnapshotFile> {
        self.files.iter().find(|file| file.name == name)
    }
}

/// RocksDB's names are letters, digits, hyphens and one dot at most: nothing else is let in.
pub(super) fn is_file_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.' || byte == b'_';
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && !name.starts_with('.')
        && name != MANIFEST
        && name.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use dwell_hostile_bytes::{Bound, cases, decode_within, must, tampered};
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    fn manifest(names: &[&str]) -> Manifest {
        let files =
            names.iter().map(|name| SnapshotFile { name: (*name).to_owned(), length: 3, crc32: 0xfeed }).collect();
        Manifest { applied: Bytes::from_static(b"applied"), files }
    }

    #[test]
    fn what_was_encoded_decodes() {
        for names in [&[][..], &["CURRENT", "MANIFEST-000005", "000012.sst", "OPTIONS-000007"]] {
            let written = manifest(names);
            assert_eq!(Manifest::decode(&written.encode()).unwrap(), written);
        }
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        let long = "a".repeat(256);
        for name in ["", ".", "..", "../x", "/etc/passwd", "a/b", "a\\b", ".hidden", "MANIFEST", "a\0b", "ä", &long] {
            let decoded = Manifest::decode(&manifest(&["CURRENT", name]).encode());
            assert!(matches!(decoded, Err(SnapshotError::FileName { .. })), "{name:?}");
        }
    }

    #[test]
    fn a_name_that_comes_twice_is_refused() {
        let decoded = Manifest::decode(&manifest(&["CURRENT", "CURRENT"]).encode());
        assert!(matches!(decoded, Err(SnapshotError::FileName { .. })));
    }

    #[test]
    fn bytes_that_are_no_manifest_are_refused() {
        let sealed = SEAL.close(b"\xff\xff\xff");
        assert!(matches!(Manifest::decode(&sealed), Err(SnapshotError::Decode(_))));
        assert!(matches!(Manifest::decode(&Bytes::from_static(b"junk")), Err(SnapshotError::Seal(_))));
    }

    fn bodies() -> Vec<Bytes> {
        let manifests = [&["CURRENT", "MANIFEST-000005", "000012.sst", "OPTIONS-000007"][..], &["../x"], &[]];
        manifests.into_iter().map(|names| manifest(names).encode_to_vec().into()).collect()
    }

    proptest! {
        #![proptest_config(cases(3000))]

        #[test]
        fn a_tampered_manifest_is_refused_or_names_files_of_its_directory_only(body in tampered(select(bodies()), 0)) {
            let sealed = SEAL.close(&body);
            // The set of the names is beside the files.
            let bound = Bound::elements(2 * size_of::<SnapshotFile>());
            let Ok(decoded) = decode_within(sealed.len(), bound, || Manifest::decode(&sealed))? else { return Ok(()) };
            let directory = Path::new("/snapshots/receiving-1");
            for file in &decoded.files {
                let path = directory.join(&file.name);
                prop_assert_eq!(path.parent(), Some(directory));
                prop_assert_eq!(path.file_name(), Some(file.name.as_ref()));
                prop_assert_eq!(path.components().count(), directory.components().count() + 1);
            }
            prop_assert_eq!(must(Manifest::decode(&decoded.encode()))?, decoded);
        }

        #[test]
        fn a_name_of_any_text_is_refused_or_stays_in_its_directory(name in "([./\\\\a-z0-9_-]|\\PC|\0){0,8}") {
            if is_file_name(&name) {
                let normal = Path::new(&name).components().collect::<Vec<_>>();
                prop_assert!(matches!(normal[..], [std::path::Component::Normal(only)] if only == name.as_str()));
            }
        }
    }
}
