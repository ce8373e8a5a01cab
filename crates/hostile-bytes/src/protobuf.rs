//! Protobuf without a schema: taken apart into fields, so that one of them can be changed and the lengths of the messages
//! around it set right again.

/// How deep a length-delimited field is tried as a message.
const DEPTH_MAX: usize = 16;

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const LENGTH_DELIMITED: u8 = 2;
const START_GROUP: u8 = 3;
const FIXED32: u8 = 5;

/// A field.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    number: u32,
    value: Value,
}

#[derive(Debug, Clone, PartialEq)]
enum Value {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(Vec<u8>),
    /// Bytes that can be read as fields; a text may be taken for one.
    Message(Vec<Field>),
    /// As it is to be written, behind the field's number.
    Raw(u8, Vec<u8>),
}

/// What becomes of one field.
#[derive(Debug, Clone)]
pub enum FieldChange {
    /// Its number, or the number that its bytes become.
    Number(u64),
    /// Its contents are these.
    Bytes(Vec<u8>),
    /// It comes so many times more.
    Repeat(u16),
    /// It is left out.
    Remove,
    /// It has another field's number.
    Rename(u32),
    /// It says that so many bytes follow, whatever follows.
    Claim(u64),
    /// It is within itself, so deep.
    Nest(u8),
    /// In its place so many groups begin and never end.
    Groups(u16),
}

/// Takes a message apart. `None` if it is none.
pub fn parse(bytes: &[u8]) -> Option<Vec<Field>> {
    parse_within(bytes, DEPTH_MAX)
}

fn parse_within(mut bytes: &[u8], depth: usize) -> Option<Vec<Field>> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = take_varint(&mut bytes)?;
        let number = u32::try_from(tag >> 3).ok().filter(|number| *number > 0)?;
        let value = match (tag & 7) as u8 {
            VARINT => Value::Varint(take_varint(&mut bytes)?),
            FIXED64 => Value::Fixed64(u64::from_le_bytes(take(&mut bytes, 8)?.try_into().ok()?)),
            FIXED32 => Value::Fixed32(u32::from_le_bytes(take(&mut bytes, 4)?.try_into().ok()?)),
            LENGTH_DELIMITED => {
                let length = usize::try_from(take_varint(&mut bytes)?).ok()?;
                let content = take(&mut bytes, length)?;
                let inner = if depth > 0 { parse_within(content, depth - 1) } else { None };
                match inner.filter(|inner| !inner.is_empty()) {
                    Some(inner) => Value::Message(inner),
                    None => Value::Bytes(content.to_vec()),
                }
            }
            _ => return None,
        };
        fields.push(Field { number, value });
    }
    Some(fields)
}

/// Puts a message together.
pub fn encode(fields: &[Field]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for Field { number, value } in fields {
        let mut tag = |kind: u8| put_varint(&mut bytes, u64::from(*number) << 3 | u64::from(kind));
        match value {
            Value::Varint(value) => {
                tag(VARINT);
                put_varint(&mut bytes, *value);
            }
            Value::Fixed64(value) => {
                tag(FIXED64);
                bytes.extend_from_slice(&value.to_le_bytes());
            }
            Value::Fixed32(value) => {
                tag(FIXED32);
                bytes.extend_from_slice(&value.to_le_bytes());
            }
            Value::Bytes(content) => {
                tag(LENGTH_DELIMITED);
                put_delimited(&mut bytes, content);
            }
            Value::Message(inner) => {
                tag(LENGTH_DELIMITED);
                put_delimited(&mut bytes, &encode(inner));
            }
            Value::Raw(kind, content) => {
                tag(*kind);
                bytes.extend_from_slice(content);
            }
        }
    }
    bytes
}

/// How many fields there are, those of inner messages included.
pub fn count(fields: &[Field]) -> usize {
    fields
        .iter()
        .map(|field| match &field.value {
            Value::Message(inner) => 1 + count(inner),
            _ => 1,
        })
        .sum()
}

/// Changes the field that comes at `place` when all are counted, an outer one before those within it.
pub fn change(fields: &mut Vec<Field>, mut place: usize, change_to: &FieldChange) {
    for position in 0..fields.len() {
        if place == 0 {
            return change_at(fields, position, change_to);
        }
        place -= 1;
        if let Value::Message(inner) = &mut fields[position].value {
            let within = count(inner);
            if place < within {
                return change(inner, place, change_to);
            }
            place -= within;
        }
    }
}

fn change_at(fields: &mut Vec<Field>, position: usize, change_to: &FieldChange) {
    let field = &mut fields[position];
    match change_to {
        FieldChange::Number(number) => {
            field.value = match &field.value {
                Value::Fixed64(_) => Value::Fixed64(*number),
                Value::Fixed32(_) => Value::Fixed32(*number as u32),
                _ => Value::Varint(*number),
            }
        }
        FieldChange::Bytes(content) => field.value = Value::Bytes(content.clone()),
        FieldChange::Repeat(times) => {
            let copies = vec![field.clone(); usize::from(*times)];
            fields.splice(position..position, copies);
        }
        FieldChange::Remove => {
            fields.remove(position);
        }
        FieldChange::Rename(number) => field.number = *number,
        FieldChange::Claim(length) => {
            let mut content = Vec::new();
            put_varint(&mut content, *length);
            content.extend_from_slice(&encode(std::slice::from_ref(field)));
            field.value = Value::Raw(LENGTH_DELIMITED, content);
        }
        FieldChange::Nest(depth) => {
            for _ in 0..*depth {
                field.value = Value::Message(vec![field.clone()]);
            }
        }
        FieldChange::Groups(count) => {
            let mut content = Vec::new();
            for _ in 0..*count {
                put_varint(&mut content, u64::from(field.number) << 3 | u64::from(START_GROUP));
            }
            field.value = Value::Raw(START_GROUP, content);
        }
    }
}

/// Appends a number of one to ten bytes.
pub fn put_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn put_delimited(bytes: &mut Vec<u8>, content: &[u8]) {
    put_varint(bytes, content.len() as u64);
    bytes.extend_from_slice(content);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `{ 1: 300, 2: { 3: "abc" } }`
    const SAMPLE: [u8; 10] = [0x08, 0xac, 0x02, 0x12, 0x05, 0x1a, 0x03, b'a', b'b', b'\xff'];

    fn changed(place: usize, to: FieldChange) -> Vec<u8> {
        let mut fields = parse(&SAMPLE).unwrap();
        assert_eq!(count(&fields), 3);
        change(&mut fields, place, &to);
        encode(&fields)
    }

    #[test]
    fn what_was_taken_apart_can_be_put_together() {
        assert_eq!(encode(&parse(&SAMPLE).unwrap()), SAMPLE);
        assert_eq!(parse(&SAMPLE[..9]), None);
    }

    #[test]
    fn lengths_around_a_changed_field_are_set_right() {
        assert_eq!(changed(0, FieldChange::Number(1)), [0x08, 1, 0x12, 5, 0x1a, 3, b'a', b'b', 0xff]);
        assert_eq!(changed(2, FieldChange::Bytes(vec![7])), [0x08, 0xac, 2, 0x12, 3, 0x1a, 1, 7]);
        assert_eq!(changed(2, FieldChange::Remove), [0x08, 0xac, 2, 0x12, 0]);
        assert_eq!(changed(1, FieldChange::Nest(1)), [&[8, 0xac, 2, 0x12, 7][..], &SAMPLE[3..]].concat());
        assert_eq!(changed(0, FieldChange::Repeat(1)), [&SAMPLE[..3], &SAMPLE[..]].concat());
        assert_eq!(changed(0, FieldChange::Groups(2))[..3], [0x0b, 0x0b, 0x0b]);
        assert_eq!(changed(2, FieldChange::Claim(9))[3..7], [0x12, 7, 0x1a, 9]);
        assert_eq!(changed(2, FieldChange::Rename(4))[5], 0x22);
    }
}
