//! Encodings that somebody changed.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::protobuf::{self, FieldChange};

/// Numbers at which decoders come to grief: where a sign or a carry is, or no memory.
const NUMBERS: [u64; 16] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x100,
    u16::MAX as u64,
    i32::MAX as u64,
    1 << 31,
    u32::MAX as u64,
    1 << 32,
    i64::MAX as u64 - 1,
    i64::MAX as u64,
    1 << 63,
    u64::MAX - 1,
    u64::MAX,
];

/// One change.
#[derive(Debug, Clone)]
enum Change {
    Flip(Index, u8),
    Set(Index, u8),
    Truncate(Index),
    Extend(Vec<u8>),
    Remove(Index, Index),
    Insert(Index, Vec<u8>),
    /// The end of another sample, from somewhere, in place of the end from somewhere.
    Splice(Index, Index),
    /// A number written over what is there.
    Number(Index, Width, u64),
    Field(Index, FieldChange),
}

#[derive(Debug, Clone, Copy)]
enum Width {
    Varint,
    BigEndian64,
    BigEndian32,
    LittleEndian32,
}

/// Encodings made of valid ones, each changed once or a few times; some are not made of any. Protobuf begins behind the
/// first `frame` bytes of a sample: fields are only changed there.
pub fn tampered(
    samples: impl Strategy<Value = Bytes> + Clone + 'static,
    frame: usize,
) -> impl Strategy<Value = Bytes> + Clone {
    let changed = (samples.clone(), samples.clone(), vec(change(), 1..4));
    let changed = changed.prop_map(move |(sample, other, changes)| {
        changes.iter().fold(sample, |bytes, change| apply(change, &bytes, &other, frame))
    });
    let framed = (samples, vec(any::<u8>(), 0..64));
    let framed = framed.prop_map(move |(sample, rest)| {
        let start = &sample[..frame.min(sample.len())];
        Bytes::from([start, &rest].concat())
    });
    let arbitrary = vec(any::<u8>(), 0..64).prop_map(Bytes::from);
    prop_oneof![18 => changed, 1 => framed, 1 => arbitrary]
}

fn number() -> impl Strategy<Value = u64> + Clone {
    prop_oneof![3 => prop::sample::select(&NUMBERS[..]), 1 => any::<u64>()]
}

fn change() -> impl Strategy<Value = Change> + Clone {
    let width =
        prop::sample::select(vec![Width::Varint, Width::BigEndian64, Width::BigEndian32, Width::LittleEndian32]);
    let few = || vec(any::<u8>(), 0..20);
    prop_oneof![
        2 => (any::<Index>(), 0..8_u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        2 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        1 => any::<Index>().prop_map(Change::Truncate),
        1 => few().prop_map(Change::Extend),
        1 => (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Change::Remove(from, to)),
        1 => (any::<Index>(), few()).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        1 => (any::<Index>(), any::<Index>()).prop_map(|(own, others)| Change::Splice(own, others)),
        3 => (any::<Index>(), width, number()).prop_map(|(at, width, number)| Change::Number(at, width, number)),
        12 => (any::<Index>(), field_change()).prop_map(|(at, change)| Change::Field(at, change)),
    ]
}

fn field_change() -> impl Strategy<Value = FieldChange> + Clone {
    let text = "[ -~\\x00\u{e9}\u{1f600}]{0,12}".prop_map(String::into_bytes);
    prop_oneof![
        12 => number().prop_map(FieldChange::Number),
        3 => text.prop_map(FieldChange::Bytes),
        1 => vec(any::<u8>(), 0..12).prop_map(FieldChange::Bytes),
        1 => (0..3000_usize).prop_map(|length| FieldChange::Bytes(vec![b'x'; length])),
        2 => (1..4_u16).prop_map(FieldChange::Repeat),
        1 => (1..2000_u16).prop_map(FieldChange::Repeat),
        2 => Just(FieldChange::Remove),
        3 => (1..30_u32).prop_map(FieldChange::Rename),
        2 => number().prop_map(FieldChange::Claim),
        1 => any::<u8>().prop_map(FieldChange::Nest),
        1 => any::<u16>().prop_map(FieldChange::Groups),
    ]
}

fn apply(change: &Change, sample: &Bytes, other: &Bytes, frame: usize) -> Bytes {
    let mut bytes = sample.to_vec();
    // A place in front of a byte, or behind the last.
    let place = |at: &Index| at.index(sample.len() + 1);
    match change {
        Change::Flip(at, bit) if !bytes.is_empty() => bytes[at.index(sample.len())] ^= 1 << bit,
        Change::Set(at, byte) if !bytes.is_empty() => bytes[at.index(sample.len())] = *byte,
        Change::Flip(..) | Change::Set(..) => {}
        Change::Truncate(at) => bytes.truncate(place(at)),
        Change::Extend(more) => bytes.extend_from_slice(more),
        Change::Remove(from, to) => {
            let (from, to) = (place(from), place(to));
            bytes.drain(from.min(to)..from.max(to));
        }
        Change::Insert(at, more) => {
            bytes.splice(place(at)..place(at), more.iter().copied());
        }
        Change::Splice(own, others) => {
            bytes.truncate(place(own));
            bytes.extend_from_slice(&other[others.index(other.len() + 1)..]);
        }
        Change::Number(at, width, number) => write_over(&mut bytes, place(at), *width, *number),
        Change::Field(at, change) => {
            let Some((start, message)) = sample.split_at_checked(frame) else { return sample.clone() };
            let Some(mut fields) = protobuf::parse(message).filter(|fields| !fields.is_empty()) else {
                return sample.clone();
            };
            let place = at.index(protobuf::count(&fields));
            protobuf::change(&mut fields, place, change);
            return Bytes::from([start, &protobuf::encode(&fields)].concat());
        }
    }
    bytes.into()
}

fn write_over(bytes: &mut Vec<u8>, at: usize, width: Width, number: u64) {
    let mut written = Vec::new();
    match width {
        Width::Varint => protobuf::put_varint(&mut written, number),
        Width::BigEndian64 => written.extend_from_slice(&number.to_be_bytes()),
        Width::BigEndian32 => written.extend_from_slice(&(number as u32).to_be_bytes()),
        Width::LittleEndian32 => written.extend_from_slice(&(number as u32).to_le_bytes()),
    }
    let replaced = match width {
        // As many bytes as the number has that is there.
        Width::Varint => bytes[at..].iter().take_while(|byte| **byte & 0x80 != 0).count() + 1,
        _ => written.len(),
    };
    let end = bytes.len().min(at + replaced);
    bytes.splice(at..end, written);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over(sample: &[u8], at: usize, width: Width, number: u64) -> Vec<u8> {
        let mut bytes = sample.to_vec();
        write_over(&mut bytes, at, width, number);
        bytes
    }

    #[test]
    fn a_number_takes_the_place_of_the_one_that_is_there() {
        assert_eq!(over(&[1, 0x80, 2, 3], 1, Width::Varint, 300), [1, 0xac, 2, 3]);
        assert_eq!(over(&[1, 2, 3, 4, 5, 6], 1, Width::BigEndian32, 7), [1, 0, 0, 0, 7, 6]);
        assert_eq!(over(&[1, 2], 1, Width::BigEndian32, 7), [1, 0, 0, 0, 7]);
        assert_eq!(over(&[1], 1, Width::LittleEndian32, 7), [1, 7, 0, 0, 0]);
    }

    proptest! {
        #[test]
        fn a_sample_of_any_length_can_be_tampered_with(
            changed in tampered(vec(any::<u8>(), 0..20).prop_map(Bytes::from), 1),
        ) {
            prop_assert!(changed.len() < 300_000);
        }
    }
}
