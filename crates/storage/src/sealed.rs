//! The frame of our own small files: magic, version, body, checksum.

use bytes::{BufMut, Bytes, BytesMut};

const MAGIC_BYTES: usize = 8;
const VERSION_BYTES: usize = 4;
const CHECKSUM_BYTES: usize = 4;

/// A file that is not what its name says, or is damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Less than the frame itself needs.
    #[error("it has {length} bytes, too few to be one")]
    TooShort {
        /// Bytes there are.
        length: usize,
    },
    /// Begins with something else.
    #[error("it does not begin with the expected magic bytes")]
    Magic,
    /// Written by a newer node.
    #[error("it has format version {got}, this node reads version {known}")]
    Version {
        /// The version found.
        got: u32,
        /// The version that this node reads and writes.
        known: u32,
    },
    /// Some bit of it changed since it was written.
    #[error("its checksum is {computed:08x}, {stored:08x} is stored")]
    Checksum {
        /// Of the bytes as they are.
        computed: u32,
        /// As written.
        stored: u32,
    },
}

/// A kind of sealed file.
pub(crate) struct Seal {
    pub magic: &'static [u8; MAGIC_BYTES],
    pub version: u32,
}

impl Seal {
    /// Frames a body.
    pub fn close(&self, body: &[u8]) -> Bytes {
        let mut buffer = BytesMut::with_capacity(MAGIC_BYTES + VERSION_BYTES + body.len() + CHECKSUM_BYTES);
        buffer.put_slice(self.magic);
        buffer.put_u32(self.version);
        buffer.put_slice(body);
        let checksum = crc32fast::hash(&buffer);
        buffer.put_u32(checksum);
        buffer.freeze()
    }

    /// Gives the body of a framed one.
    ///
    /// The checksum is looked at before the version: a flipped bit in a version is damage, of which a node recovers, and
    /// not a file that only a newer node reads. A frame of every version ends with the checksum of all before it.
    pub fn open(&self, sealed: &Bytes) -> Result<Bytes, SealError> {
        let length = sealed.len();
        let body_start = MAGIC_BYTES + VERSION_BYTES;
        if length < body_start + CHECKSUM_BYTES {
            return Err(SealError::TooShort { length });
        }
        if sealed[..MAGIC_BYTES] != self.magic[..] {
            return Err(SealError::Magic);
        }
        let body_end = length - CHECKSUM_BYTES;
        let (computed, stored) = (crc32fast::hash(&sealed[..body_end]), big_endian(&sealed[body_end..]));
        if computed != stored {
            return Err(SealError::Checksum { computed, stored });
        }
        let got = big_endian(&sealed[MAGIC_BYTES..body_start]);
        if got != self.version {
            return Err(SealError::Version { got, known: self.version });
        }
        Ok(sealed.slice(body_start..body_end))
    }
}

fn big_endian(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte))
}

#[cfg(test)]
mod tests {
    use dwell_hostile_bytes::{Bound, cases, decode_within, tampered};
    use proptest::prelude::*;

    use super::*;

    const SEAL: Seal = Seal { magic: b"DWELLTST", version: 3 };

    #[test]
    fn what_was_sealed_opens() {
        for body in [&b""[..], b"x", &[0xff; 1000]] {
            assert_eq!(SEAL.open(&SEAL.close(body)).unwrap(), body);
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let sealed = SEAL.close(b"a body");
        for bit in 0..sealed.len() * 8 {
            let mut damaged = sealed.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let error = SEAL.open(&damaged.into()).unwrap_err();
            assert!(matches!(error, SealError::Magic | SealError::Checksum { .. }), "bit {bit} is damage, not {error}");
        }
    }

    #[test]
    fn every_truncation_is_noticed() {
        let sealed = SEAL.close(b"a body");
        for length in 0..sealed.len() {
            assert!(SEAL.open(&sealed.slice(..length)).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn another_kind_and_another_version_are_called_so() {
        let other_kind = Seal { magic: b"DWELLOTH", version: 3 }.close(b"a body");
        assert_eq!(SEAL.open(&other_kind), Err(SealError::Magic));
        let newer = Seal { magic: b"DWELLTST", version: 4 }.close(b"a body");
        assert_eq!(SEAL.open(&newer), Err(SealError::Version { got: 4, known: 3 }));
    }

    proptest! {
        #![proptest_config(cases(2000))]

        #[test]
        fn what_opens_is_what_was_sealed(sealed in tampered(Just(SEAL.close(b"a body")), 12)) {
            if let Ok(body) = decode_within(sealed.len(), Bound::times(1), || SEAL.open(&sealed))? {
                prop_assert_eq!(SEAL.close(&body), sealed);
            }
        }
    }
}
