//! The one file that knows that raft-engine wants protobuf 2 messages for entries.

use std::any::Any;

use bytes::Bytes;
use protobuf::well_known_types::BytesValue;
use protobuf::wire_format::WireType;
use protobuf::{Clear, CodedInputStream, CodedOutputStream, Message, ProtobufResult, UnknownFields, rt};

const FIELD_INDEX: u32 = 1;
const FIELD_PAYLOAD: u32 = 2;

/// One entry of a group's log: a position, and bytes that mean nothing to this crate.
///
/// Cheap to clone: the payload is shared.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LogEntry {
    index: u64,
    payload: Bytes,
    unknown: UnknownFields,
}

impl LogEntry {
    /// An entry to be appended at `index`.
    pub fn new(index: u64, payload: Bytes) -> Self {
        Self { index, payload, unknown: UnknownFields::default() }
    }

    /// Position in the log of its group.
    pub fn index(&self) -> u64 {
        self.index
    }

    /// What was appended.
    pub fn payload(&self) -> &Bytes {
        &self.payload
    }

    /// Takes the payload out.
    pub fn into_payload(self) -> Bytes {
        self.payload
    }

    /// What the entry weighs in queues and caches (bytes): its payload and the bookkeeping around it.
    pub(super) fn weight(&self) -> usize {
        self.payload.len() + size_of::<Self>()
    }
}

/// Tells raft-engine where an entry's index is.
pub(super) struct Adapter;

impl raft_engine::MessageExt for Adapter {
    type Entry = LogEntry;

    fn index(entry: &LogEntry) -> u64 {
        entry.index
    }
}

impl Clear for LogEntry {
    fn clear(&mut self) {
        *self = Self::default();
    }
}

impl Message for LogEntry {
    // Asked for only to name a message whose required fields are missing, and this one has none. A wrapper
    // of bytes is what it is.
    fn descriptor(&self) -> &'static protobuf::reflect::MessageDescriptor {
        BytesValue::descriptor_static()
    }

    fn is_initialized(&self) -> bool {
        true
    }

    fn merge_from(&mut self, input: &mut CodedInputStream<'_>) -> ProtobufResult<()> {
        while !input.eof()? {
            let (field, wire_type) = input.read_tag_unpack()?;
            match (field, wire_type) {
                (FIELD_INDEX, WireType::WireTypeVarint) => self.index = input.read_uint64()?,
                (FIELD_PAYLOAD, WireType::WireTypeLengthDelimited) => self.payload = Bytes::from(input.read_bytes()?),
                // Read as something else, they would turn all that follows into something else too.
                (FIELD_INDEX | FIELD_PAYLOAD, _) => return Err(rt::unexpected_wire_type(wire_type)),
                // Written by a newer node: kept, as protobuf has it.
                _ => rt::read_unknown_or_skip_group(field, wire_type, input, &mut self.unknown)?,
            }
        }
        Ok(())
    }

    fn write_to_with_cached_sizes(&self, output: &mut CodedOutputStream<'_>) -> ProtobufResult<()> {
        output.write_uint64(FIELD_INDEX, self.index)?;
        output.write_bytes(FIELD_PAYLOAD, &self.payload)?;
        output.write_unknown_fields(&self.unknown)
    }

    fn compute_size(&self) -> u32 {
        rt::value_size(FIELD_INDEX, self.index, protobuf::wire_format::WireTypeVarint)
            + rt::bytes_size(FIELD_PAYLOAD, &self.payload)
            + rt::unknown_fields_size(&self.unknown)
    }

    fn get_cached_size(&self) -> u32 {
        self.compute_size()
    }

    fn get_unknown_fields(&self) -> &UnknownFields {
        &self.unknown
    }

    fn mut_unknown_fields(&mut self) -> &mut UnknownFields {
        &mut self.unknown
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn new() -> Self {
        Self::default()
    }

    fn default_instance() -> &'static Self {
        static INSTANCE: std::sync::OnceLock<LogEntry> = std::sync::OnceLock::new();
        INSTANCE.get_or_init(Self::default)
    }
}

#[cfg(test)]
mod tests {
    use dwell_hostile_bytes::{Bound, cases, decode_within, must, tampered};
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    #[test]
    fn an_entry_reads_back_as_it_was_written() {
        for payload in [Bytes::new(), Bytes::from_static(b"x"), Bytes::from(vec![7; 100_000])] {
            let entry = LogEntry::new(u64::MAX, payload);
            let written = entry.write_to_bytes().unwrap();
            assert_eq!(written.len(), entry.compute_size() as usize);
            assert_eq!(LogEntry::parse_from_bytes(&written).unwrap(), entry);
        }
    }

    #[test]
    fn a_field_of_a_newer_version_is_kept() {
        let mut entry = LogEntry::new(3, Bytes::from_static(b"payload"));
        entry.unknown.add_varint(9, 42);
        let written = entry.write_to_bytes().unwrap();
        assert_eq!(LogEntry::parse_from_bytes(&written).unwrap(), entry);
    }

    #[test]
    fn a_field_of_another_kind_is_refused() {
        // A fixed number in place of the index, and a number in place of the payload.
        for written in [&[0x0d, 1, 0, 0, 0][..], &[0x10, 1]] {
            assert!(LogEntry::parse_from_bytes(written).is_err(), "{written:?}");
        }
    }

    /// Fields of a newer version are kept in a map of lists. Besides, protobuf takes a length's word for up to 10 MB.
    const BOUND: Bound = Bound { multiple: 512, constant: 10_000_000 + 64 * 1024 };

    fn written() -> Vec<Bytes> {
        let mut newer = LogEntry::new(3, Bytes::from_static(b"payload"));
        newer.unknown.add_varint(9, 42);
        newer.unknown.add_length_delimited(10, b"text".to_vec());
        newer.unknown.add_fixed64(11, 7);
        let entries = [LogEntry::new(1, Bytes::new()), LogEntry::new(u64::MAX, Bytes::from(vec![7; 300])), newer];
        entries.iter().map(|entry| entry.write_to_bytes().unwrap().into()).collect()
    }

    proptest! {
        #![proptest_config(cases(3000))]

        #[test]
        fn a_tampered_entry_is_refused_or_reads_back_as_it_was_understood(entry in tampered(select(written()), 0)) {
            let parsed = decode_within(entry.len(), BOUND, || LogEntry::parse_from_bytes(&entry))?;
            if let Ok(parsed) = parsed {
                let again = must(LogEntry::parse_from_bytes(&must(parsed.write_to_bytes())?))?;
                prop_assert_eq!(again, parsed);
            }
        }
    }
}
