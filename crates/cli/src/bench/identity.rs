//! What the body of a message begins with, so that each one can be accounted for.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes that an identity takes.
pub const IDENTITY_BYTES: usize = 28;

/// Identifies a message of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Tells runs apart, and their messages from anything else in the queue.
    pub run: u64,
    pub producer: u32,
    /// From 0 for each producer.
    pub number: u64,
    /// When the message is due, or was published if it is not delayed: microseconds since the Unix epoch.
    pub at_us: u64,
}

impl Identity {
    /// A body of `size` bytes, at least [`IDENTITY_BYTES`], that begins with the identity.
    pub fn body(&self, size: usize) -> Bytes {
        let mut body = BytesMut::with_capacity(size.max(IDENTITY_BYTES));
        body.put_u64(self.run);
        body.put_u32(self.producer);
        body.put_u64(self.number);
        body.put_u64(self.at_us);
        // Not all zero: a store that compresses should not look better than it is on real bodies, nor worse.
        let filler = self.number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes();
        while body.len() + filler.len() <= size {
            body.put_slice(&filler);
        }
        body.resize(size.max(IDENTITY_BYTES), 0);
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
}
