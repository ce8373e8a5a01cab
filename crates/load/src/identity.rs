//! What the body of a message begins with, so that each one can be accounted for.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// Bytes that an identity takes.
pub const IDENTITY_BYTES: usize = 28;

/// Identifies a message of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Tells runs apart, and their messages from anything else in the queue.
    pub run: u64,
    /// Who published it.
    pub producer: u32,
    /// From 0 for each producer.
    pub number: u64,
    /// When the message is due, or was published if it is not delayed: microseconds since the Unix epoch.
    pub at_us: u64,
}

impl Identity {
    /// A body of `size` bytes, at least [`IDENTITY_BYTES`], that begins with the identity.
    pub fn body(&self, size: usize) -> Bytes {
        let size = size.max(IDENTITY_BYTES);
        let mut body = BytesMut::with_capacity(size);
        body.put_u64(self.run);
        body.put_u32(self.producer);
        body.put_u64(self.number);
        body.put_u64(self.at_us);
        // Numbers that look drawn by lot: a store that compresses gains nothing, whichever system it is part of.
        let mut filler = self.number ^ (u64::from(self.producer) << 40) ^ 0x9E37_79B9_7F4A_7C15;
        while body.len() < size {
            filler ^= filler << 13;
            filler ^= filler >> 7;
            filler ^= filler << 17;
            let bytes = filler.to_be_bytes();
            body.put_slice(&bytes[..bytes.len().min(size - body.len())]);
        }
        body.freeze()
    }

    /// The identity that a body begins with; none if it is too short.
    pub fn of(mut body: &[u8]) -> Option<Identity> {
        if body.len() < IDENTITY_BYTES {
            return None;
        }
        let (run, producer) = (body.get_u64(), body.get_u32());
        Some(Identity { run, producer, number: body.get_u64(), at_us: body.get_u64() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_read_back_from_a_body_of_any_size() {
        let identity = Identity { run: 1, producer: 2, number: 3, at_us: 4 };
        for size in [IDENTITY_BYTES, 29, 36, 100, 1024] {
            let body = identity.body(size);
            assert_eq!((body.len(), Identity::of(&body)), (size, Some(identity)));
        }
        assert_eq!(Identity::of(b"something else"), None);
    }

    #[test]
    fn bodies_differ_and_do_not_repeat_themselves() {
        let body = |number| Identity { run: 1, producer: 2, number, at_us: 4 }.body(1024);
        assert_ne!(body(1)[IDENTITY_BYTES..], body(2)[IDENTITY_BYTES..]);
        let first = body(1);
        let words: std::collections::BTreeSet<&[u8]> = first[IDENTITY_BYTES..].chunks(8).collect();
        assert_eq!(words.len(), (1024 - IDENTITY_BYTES).div_ceil(8));
    }
}
