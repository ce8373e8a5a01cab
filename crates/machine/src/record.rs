//! Values as they are stored: protobuf with a version byte in front.

mod message;
mod queue;
mod session;
mod topology;
mod user;

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

pub use message::*;
pub use queue::*;
pub(crate) use session::*;
pub use topology::*;
pub use user::*;

use crate::store::{StoreError, Table};

/// Version of the value encodings; the first byte of every value.
const VERSION: u8 = 1;

/// Encodes a value.
pub(crate) fn encode(record: &impl Message) -> Bytes {
    let mut buffer = BytesMut::with_capacity(1 + record.encoded_len());
    buffer.put_u8(VERSION);
    record.encode_raw(&mut buffer);
    buffer.freeze()
}

/// Decodes a value of `table`; byte fields are slices of it.
pub(crate) fn decode<R: Message + Default>(table: Table, mut value: Bytes) -> Result<R, StoreError> {
    match value.first() {
        Some(&VERSION) => {
            R::decode(value.split_off(1)).map_err(|error| StoreError::Corrupt { table, reason: error.to_string() })
        }
        Some(version) => Err(StoreError::Corrupt {
            table,
            reason: format!("format version {version}, this node reads up to {VERSION}"),
        }),
        None => Err(StoreError::Corrupt { table, reason: "empty value".into() }),
    }
}
