//! Bytes that somebody damaged, or made up: what decoders must survive.

use std::ops::Range;

use bytes::Bytes;
use cap::Cap;
use proptest::collection::vec;
use proptest::prelude::*;

/// What a decoder may allocate for each byte that it is given, and besides.
///
/// A byte of protobuf can be a whole message of a repeated field, which is up to some hundred bytes in memory, and a
/// growing list is copied into one twice as long.
const BYTES_PER_BYTE: usize = 1024;
const BYTES_BESIDES: usize = 64 * 1024;

#[global_allocator]
static ALLOCATOR: Cap<std::alloc::System> = Cap::new(std::alloc::System, usize::MAX);

/// One act of damage.
#[derive(Debug, Clone)]
pub enum Damage {
    Flip {
        at: f64,
        bit: u8,
    },
    Set {
        at: f64,
        to: u8,
    },
    Cut {
        at: f64,
    },
    Remove {
        range: Range<f64>,
    },
    Insert {
        at: f64,
        bytes: Vec<u8>,
    },
    /// A part comes twice.
    Repeat {
        range: Range<f64>,
        times: u8,
    },
    /// A number that is too large for anything takes the place of what is there.
    Huge {
        at: f64,
        number: u64,
    },
}

fn place() -> impl Strategy<Value = f64> {
    0.0..1.0
}

fn range() -> impl Strategy<Value = Range<f64>> {
    (place(), place()).prop_map(|(a, b)| a.min(b)..a.max(b))
}

fn damage() -> impl Strategy<Value = Damage> {
    let huge =
        prop_oneof![Just(u64::MAX), Just(u64::from(u32::MAX)), Just(1 << 31), Just(1 << 63), Just(i64::MAX as u64)];
    prop_oneof![
        4 => (place(), 0..8_u8).prop_map(|(at, bit)| Damage::Flip { at, bit }),
        4 => (place(), any::<u8>()).prop_map(|(at, to)| Damage::Set { at, to }),
        1 => place().prop_map(|at| Damage::Cut { at }),
        1 => range().prop_map(|range| Damage::Remove { range }),
        1 => (place(), vec(any::<u8>(), 1..20)).prop_map(|(at, bytes)| Damage::Insert { at, bytes }),
        1 => (range(), 2..5_u8).prop_map(|(range, times)| Damage::Repeat { range, times }),
        3 => (place(), huge).prop_map(|(at, number)| Damage::Huge { at, number }),
    ]
}

/// Damaged versions of `samples`, and bytes that were never anything.
pub fn hostile(samples: Vec<Bytes>) -> impl Strategy<Value = Bytes> {
    let damaged = (0..samples.len(), vec(damage(), 1..6)).prop_map(move |(sample, damages)| {
        let mut bytes = samples[sample].to_vec();
        damages.iter().for_each(|damage| damage.apply(&mut bytes));
        Bytes::from(bytes)
    });
    prop_oneof![9 => damaged, 1 => vec(any::<u8>(), 0..300).prop_map(Bytes::from)]
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let length = bytes.len();
        let index = |at: f64| ((at * length as f64) as usize).min(length.saturating_sub(1));
        let span = |range: &Range<f64>| index(range.start)..index(range.end);
        if length == 0 {
            return;
        }
        match self {
            Damage::Flip { at, bit } => bytes[index(*at)] ^= 1 << bit,
            Damage::Set { at, to } => bytes[index(*at)] = *to,
            Damage::Cut { at } => bytes.truncate(index(*at)),
            Damage::Remove { range } => drop(bytes.drain(span(range))),
            Damage::Insert { at, bytes: more } => drop(bytes.splice(index(*at)..index(*at), more.iter().copied())),
            Damage::Repeat { range, times } => {
                let part = bytes[span(range)].repeat(usize::from(*times));
                let at = index(range.end);
                bytes.splice(at..at, part);
            }
            Damage::Huge { at, number } => {
                let mut varint = Vec::new();
                let mut rest = *number;
                while rest >= 0x80 {
                    varint.push(rest as u8 | 0x80);
                    rest >>= 7;
                }
                varint.push(rest as u8);
                let at = index(*at);
                bytes.splice(at..(at + 1).min(length), varint);
            }
        }
    }
}

/// Runs a decoder. If it allocates more than its input allows, the process is aborted: nobody else allocates
/// meanwhile, so a test binary that uses this has one test, or a lock.
pub fn bounded<V>(input_bytes: usize, decode: impl FnOnce() -> V) -> V {
    let limit = ALLOCATOR.allocated() + input_bytes * BYTES_PER_BYTE + BYTES_BESIDES;
    ALLOCATOR.set_limit(limit).unwrap();
    let value = decode();
    ALLOCATOR.set_limit(usize::MAX).unwrap();
    value
}
