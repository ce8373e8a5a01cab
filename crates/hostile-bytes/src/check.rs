//! What a decoder may do with hostile bytes: refuse them, cheaply.

use std::any::Any;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::test_runner::{Config, FileFailurePersistence, TestCaseError};

/// The most memory that a decoder may hold at once, by the bytes that it was given.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    /// For each byte.
    ///
    /// In protobuf an empty element of a repeated field takes two bytes, and the vector of elements three times their
    /// size while it grows. So a decoder of repeated messages needs one and a half times the size of a message.
    pub multiple: usize,
    /// Besides, however few bytes there are: error messages, and the smallest vectors.
    pub constant: usize,
}

impl Bound {
    /// So many bytes for each byte of input, and 64 KiB.
    pub const fn times(multiple: usize) -> Bound {
        Bound { multiple, constant: 64 * 1024 }
    }

    /// What a decoder needs whose input may consist of empty elements of this size: see [`Bound::multiple`]. The rest is
    /// for what the allocator's callers round up.
    pub const fn elements(size: usize) -> Bound {
        Bound::times(16 + 2 * size)
    }

    fn bytes(self, input: usize) -> usize {
        self.multiple.saturating_mul(input).saturating_add(self.constant)
    }
}

/// Decodes so many bytes of input. Fails if the decoder panics, or exceeds its bound.
pub fn decode_within<T>(input: usize, bound: Bound, decode: impl FnOnce() -> T) -> Result<T, TestCaseError> {
    let mut outcome = Err(TestCaseError::fail("the decoder was not called"));
    // The panic is caught within, because the counter keeps a stack of who measures.
    let measured = allocation_counter::measure(|| outcome = unharmed(decode));
    let value = outcome?;
    let (held, allowed) = (measured.bytes_max, bound.bytes(input) as u64);
    if held > allowed {
        let problem = format!("decoding {input} bytes took {held} bytes of memory at once, {allowed} are allowed");
        return Err(TestCaseError::fail(problem));
    }
    Ok(value)
}

/// Works with what was decoded. Fails if that panics.
pub fn unharmed<T>(work: impl FnOnce() -> T) -> Result<T, TestCaseError> {
    let caught = catch_unwind(AssertUnwindSafe(work));
    caught.map_err(|panic| TestCaseError::fail(format!("it panicked: {}", text_of(&*panic))))
}

/// What a test case expects to succeed.
pub fn must<T, E: Display>(result: Result<T, E>) -> Result<T, TestCaseError> {
    result.map_err(|error| TestCaseError::fail(error.to_string()))
}

/// So many cases, or as many as `PROPTEST_CASES` says. Seeds of failures are kept beside the test.
pub fn cases(usual: u32) -> Config {
    let config = Config {
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..Config::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_some() { config } else { Config { cases: usual, ..config } }
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("without a message")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Believes the length that its input begins with.
    fn gullible(bytes: &[u8]) -> Vec<u8> {
        let (length, rest) = bytes.split_first_chunk::<4>().expect("four bytes");
        let mut copy = Vec::with_capacity(u32::from_be_bytes(*length) as usize);
        copy.extend_from_slice(rest);
        copy
    }

    fn decode(bytes: &[u8]) -> Result<Vec<u8>, String> {
        decode_within(bytes.len(), Bound::times(1), || gullible(bytes)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_decoder_that_reserves_what_a_length_field_says_is_found_out() {
        assert_eq!(decode(&[0, 0, 0, 2, 7, 8]), Ok(vec![7, 8]));
        let problem = decode(&[0, 2, 0, 0, 7, 8]).unwrap_err();
        assert!(problem.contains("took 131072 bytes of memory at once, 65542 are allowed"), "{problem}");
    }

    #[test]
    fn a_decoder_that_panics_is_found_out_and_the_next_one_is_measured_all_the_same() {
        for _ in 0..100 {
            assert!(decode(&[0]).unwrap_err().contains("panicked: four bytes"));
        }
        assert!(decode(&[0, 2, 0, 0, 7, 8]).is_err());
    }

    #[test]
    fn memory_that_was_given_back_before_counts_no_more() {
        let decode = || (0..100).map(|_| gullible(&[0, 0, 128, 0, 7]).len()).sum::<usize>();
        assert_eq!(decode_within(5, Bound::times(1), decode).unwrap(), 100);
    }
}
