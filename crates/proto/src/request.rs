//! Decoding requests within a bound on memory.
//!
//! An empty message takes two bytes on the wire, and some hundred in memory: a request within the limit on its bytes
//! could take gigabytes before anybody looks at how many messages it has. So the elements of its repeated fields are
//! counted first, on the wire, by what [`FILE_DESCRIPTOR_SET`](crate::FILE_DESCRIPTOR_SET) says of its type.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::LazyLock;

use bytes::{Buf, Bytes};
use prost::encoding::{WireType, decode_key, decode_varint};
use prost::{Message, Name};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FileDescriptorSet, MethodDescriptorProto};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstEncoder};

/// Most elements that the repeated fields of one request may have together, those of inner messages included. It is
/// above what the limits on messages and on their headers make possible.
pub const ELEMENTS_MAX: usize = 1 << 18;

/// Deeper messages do not decode.
const DEPTH_MAX: usize = 100;

/// Why a request was refused before anybody looked into it.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// Its repeated fields have too many elements.
    #[error("the request's repeated fields have more than {ELEMENTS_MAX} elements")]
    Elements,
    /// It is no protobuf message of its type.
    #[error("the request does not decode: {0}")]
    Decode(#[from] prost::DecodeError),
}

impl From<RequestError> for Status {
    fn from(error: RequestError) -> Status {
        Status::invalid_argument(error.to_string())
    }
}

/// Decodes a request; bytes fields share its memory. What is not the request of some call is not counted: answers are
/// as large as what was asked for.
///
/// It takes no more memory than [`ELEMENTS_MAX`] elements, besides the request itself.
pub fn decode<M: Message + Name + Default>(bytes: Bytes) -> Result<M, RequestError> {
    if let Some(shape) = REQUESTS.get(M::PACKAGE, M::NAME) {
        let mut left = ELEMENTS_MAX;
        REQUESTS.count(shape, &bytes, &mut left, 0)?;
    }
    Ok(M::decode(bytes)?)
}

/// Looks at each request of a call before the service sees it, and may refuse it.
pub type Check = Box<dyn Fn(&dyn Any) -> Result<(), Status> + Send + Sync>;

tokio::task_local! {
    /// Taken by the decoder that is made first, which is that of the requests.
    static CHECK: RefCell<Option<Check>>;
}

/// Serves one call whose requests, those that come later in its stream as well, are to pass `check`.
pub async fn checked<F: Future>(check: Check, call: F) -> F::Output {
    CHECK.scope(RefCell::new(Some(check)), call).await
}

/// Encodes as [`ProstCodec`] does, and decodes by [`decode`]. Requests of a call that is [`checked`] are checked.
#[derive(Debug)]
pub struct RequestCodec<E, D>(PhantomData<(E, D)>);

impl<E, D> Default for RequestCodec<E, D> {
    fn default() -> RequestCodec<E, D> {
        RequestCodec(PhantomData)
    }
}

impl<E, D> Codec for RequestCodec<E, D>
where
    E: Message + Send + 'static,
    D: Message + Name + Default + Send + 'static,
{
    type Encode = E;
    type Decode = D;
    type Encoder = ProstEncoder<E>;
    type Decoder = RequestDecoder<D>;

    fn encoder(&mut self) -> ProstEncoder<E> {
        ProstCodec::<E, D>::default().encoder()
    }

    fn decoder(&mut self) -> RequestDecoder<D> {
        let check = CHECK.try_with(|check| check.borrow_mut().take()).ok().flatten();
        RequestDecoder(check, PhantomData)
    }
}

/// See [`RequestCodec`].
pub struct RequestDecoder<D>(Option<Check>, PhantomData<D>);

impl<D: Message + Name + Default + 'static> Decoder for RequestDecoder<D> {
    type Item = D;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<D>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        let item: D = decode(bytes)?;
        if let Some(check) = &self.0 {
            check(&item)?;
        }
        Ok(Some(item))
    }
}

/// The fields of each message type that repeat, or hold messages.
struct Shapes {
    /// By number: the fields of which something is to be known.
    messages: Vec<BTreeMap<u32, FieldShape>>,
    /// The requests of all calls, by package and name.
    requests: BTreeMap<String, BTreeMap<String, usize>>,
}

#[derive(Clone, Copy)]
struct FieldShape {
    is_repeated: bool,
    content: Content,
}

#[derive(Clone, Copy)]
enum Content {
    /// A message, by its place in [`Shapes::messages`].
    Message(usize),
    /// Text or bytes.
    Opaque,
    /// Numbers, which are packed if they repeat, the shortest of one byte.
    Numbers,
}

static REQUESTS: LazyLock<Shapes> = LazyLock::new(|| {
    let files = FileDescriptorSet::decode(crate::FILE_DESCRIPTOR_SET);
    // The build encoded it; a test decodes it.
    Shapes::new(&files.unwrap_or_default())
});

impl Shapes {
    fn new(files: &FileDescriptorSet) -> Shapes {
        let mut types = BTreeMap::new();
        for file in &files.file {
            collect(&format!(".{}", file.package()), &file.message_type, &mut types);
        }
        let places: BTreeMap<&str, usize> = types.keys().map(String::as_str).zip(0..).collect();
        let shape = |message: &DescriptorProto| {
            let fields = message.field.iter().filter_map(|field| {
                let is_repeated = field.label() == Label::Repeated;
                let content = match field.r#type() {
                    Type::Message => Content::Message(*places.get(field.type_name())?),
                    Type::String | Type::Bytes => Content::Opaque,
                    _ => Content::Numbers,
                };
                let matters = is_repeated || matches!(content, Content::Message(_));
                matters.then_some((field.number() as u32, FieldShape { is_repeated, content }))
            });
            fields.collect()
        };
        let methods = files.file.iter().flat_map(|file| &file.service).flat_map(|service| &service.method);
        let mut requests: BTreeMap<String, BTreeMap<String, usize>> = BTreeMap::new();
        for request in methods.map(MethodDescriptorProto::input_type) {
            if let Some((package, name)) = request.trim_start_matches('.').rsplit_once('.')
                && let Some(place) = places.get(request)
            {
                requests.entry(package.to_owned()).or_default().insert(name.to_owned(), *place);
            }
        }
        Shapes { messages: types.values().map(|message| shape(message)).collect(), requests }
    }

    fn get(&self, package: &str, name: &str) -> Option<usize> {
        self.requests.get(package)?.get(name).copied()
    }

    /// Takes the elements in a message from those that are `left`. What is malformed is left to the decoder: it stops at
    /// the same place.
    fn count(&self, shape: usize, mut bytes: &[u8], left: &mut usize, depth: usize) -> Result<(), RequestError> {
        let Some(fields) = self.messages.get(shape).filter(|_| depth < DEPTH_MAX) else { return Ok(()) };
        while bytes.has_remaining() {
            let Ok((number, wire_type)) = decode_key(&mut bytes) else { return Ok(()) };
            let field = fields.get(&number);
            let length = match wire_type {
                WireType::Varint if decode_varint(&mut bytes).is_ok() => 0,
                WireType::SixtyFourBit => 8,
                WireType::ThirtyTwoBit => 4,
                WireType::LengthDelimited => match decode_varint(&mut bytes) {
                    Ok(length) => usize::try_from(length).unwrap_or(usize::MAX),
                    Err(_) => return Ok(()),
                },
                _ => return Ok(()),
            };
            let Some((content, rest)) = bytes.split_at_checked(length) else { return Ok(()) };
            bytes = rest;
            let Some(field) = field else { continue };
            if field.is_repeated {
                let elements = match field.content {
                    Content::Numbers if wire_type == WireType::LengthDelimited => content.len(),
                    _ => 1,
                };
                *left = left.checked_sub(elements).ok_or(RequestError::Elements)?;
            }
            if let Content::Message(inner) = field.content {
                self.count(inner, content, left, depth + 1)?;
            }
        }
        Ok(())
    }
}

/// All message types of a scope by their full names, which begin with a dot.
fn collect<'d>(scope: &str, messages: &'d [DescriptorProto], types: &mut BTreeMap<String, &'d DescriptorProto>) {
    for message in messages {
        let name = format!("{scope}.{}", message.name());
        collect(&name, &message.nested_type, types);
        types.insert(name, message);
    }
}

#[cfg(test)]
mod tests {
    use dwell_hostile_bytes::{Bound, decode_within};

    use super::*;
    use crate::v1::{Message as Content, PublishMessage, PublishRequest, TransactRequest};

    const REQUEST_BYTES: usize = 32 << 20;

    fn request(messages: usize, headers: usize) -> PublishRequest {
        let headers = (0..headers).map(|number| (number.to_string(), String::new())).collect();
        let content = Content { headers, ..Content::default() };
        let message = PublishMessage { message: Some(content), ..PublishMessage::default() };
        PublishRequest { messages: vec![message; messages], ..PublishRequest::default() }
    }

    #[test]
    fn a_request_of_empty_elements_takes_no_memory() {
        // `messages` of a publish request, and an unknown field of the same length.
        let messages = Bytes::from([0x12, 0x00].repeat(REQUEST_BYTES / 2));
        let refused = decode_within(messages.len(), Bound::times(0), || decode::<PublishRequest>(messages.clone()));
        assert!(matches!(refused, Ok(Err(RequestError::Elements))));

        let most = messages.slice(..2 * ELEMENTS_MAX);
        let elements = size_of::<PublishMessage>() * ELEMENTS_MAX;
        // The vector of elements takes three times their size while it grows.
        let bound = Bound { multiple: 0, constant: 3 * elements };
        let decoded = decode_within(most.len(), bound, || decode::<PublishRequest>(most.clone()));
        assert_eq!(decoded.unwrap().unwrap().messages.len(), ELEMENTS_MAX);
    }

    #[test]
    fn elements_of_inner_messages_are_counted() {
        let fits = request(1000, 256);
        assert_eq!(decode::<PublishRequest>(fits.encode_to_vec().into()).unwrap(), fits);
        let too_many = request(1000, 262);
        assert!(matches!(decode::<PublishRequest>(too_many.encode_to_vec().into()), Err(RequestError::Elements)));
        let transaction = TransactRequest { messages: too_many.messages, ..TransactRequest::default() };
        assert!(matches!(decode::<TransactRequest>(transaction.encode_to_vec().into()), Err(RequestError::Elements)));
    }

    #[test]
    fn all_requests_are_known() {
        let files = FileDescriptorSet::decode(crate::FILE_DESCRIPTOR_SET).unwrap();
        let shapes = Shapes::new(&files);
        for method in files.file.iter().flat_map(|file| &file.service).flat_map(|service| &service.method) {
            let (package, name) = method.input_type()[1..].rsplit_once('.').unwrap();
            assert!(shapes.get(package, name).is_some(), "{}", method.input_type());
        }
        assert_eq!(REQUESTS.messages.len(), shapes.messages.len());
    }

    #[test]
    fn what_is_malformed_is_refused_by_its_field() {
        let error = decode::<PublishRequest>(Bytes::from_static(&[0x12, 0x05, 0x01])).unwrap_err();
        assert!(matches!(error, RequestError::Decode(_)));
    }
}
