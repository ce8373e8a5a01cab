//! For tests of whatever decodes bytes that come from outside or from disk.
//!
//! - [`tampered`] makes encodings that were valid before somebody changed them, by bits, by bytes, and by protobuf fields
//!   whose lengths all around are set right again, so that the change reaches the decoder's depth.
//! - [`decode_within`] runs a decoder on them. It fails if the decoder panics, and if it held more memory at once than
//!   its [`Bound`] allows, whatever a length field said.
//! - [`cases`] says how often.
//!
//! The allocator of a test binary that uses this crate counts, for each thread by itself, so tests may run side by side.

mod check;
mod protobuf;
mod tamper;

pub use check::{Bound, cases, decode_within, must, unharmed};
pub use tamper::tampered;
