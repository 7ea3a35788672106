//! gRPC's messages as bytes: no answer is taken that has more parts than are allowed.

use std::marker::PhantomData;

use bytes::Buf;
use prost::Message;
use prost::encoding::{DecodeContext, decode_key, skip_field};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use crate::store::limits::MESSAGE_ELEMENTS_MAX;

/// What begins the text of every refusal for length, of tonic's own too.
const TOO_LONG: &str = "Error, decoded message length too large";

/// A message that comes from etcd.
pub(super) trait Answer: Message + Default + 'static {
    /// Number of the field that may come many times.
    const REPEATED: Option<u32> = None;
}

/// Encodes `Q` and decodes `A`.
pub(super) struct Bounded<Q, A>(PhantomData<(Q, A)>);

impl<Q, A> Bounded<Q, A> {
    pub(super) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<Q: Message + 'static, A: Answer> Codec for Bounded<Q, A> {
    type Encode = Q;
    type Decode = A;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self::new()
    }

    fn decoder(&mut self) -> Self {
        Self::new()
    }
}

impl<Q: Message, A> Encoder for Bounded<Q, A> {
    type Item = Q;
    type Error = Status;

    fn encode(&mut self, item: Q, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        item.encode(buffer)
            .map_err(|error| Status::invalid_argument(error.to_string()))
    }
}

impl<Q, A: Answer> Decoder for Bounded<Q, A> {
    type Item = A;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<A>, Status> {
        let message = buffer.copy_to_bytes(buffer.remaining());
        decode(message.as_ref()).map(Some)
    }
}

/// A whole message.
fn decode<A: Answer>(message: &[u8]) -> Result<A, Status> {
    let broken = |error: prost::DecodeError| Status::data_loss(error.to_string());
    if let Some(field) = A::REPEATED
        && count(message, field).map_err(broken)? > MESSAGE_ELEMENTS_MAX
    {
        return Err(Status::out_of_range(format!(
            "{TOO_LONG}: more than {MESSAGE_ELEMENTS_MAX} parts"
        )));
    }
    A::decode(message).map_err(broken)
}

/// How often `field` comes in a message.
fn count(mut message: &[u8], field: u32) -> Result<usize, prost::DecodeError> {
    let mut found = 0;
    while message.has_remaining() {
        let (number, kind) = decode_key(&mut message)?;
        skip_field(kind, number, &mut message, DecodeContext::default())?;
        found += usize::from(number == field);
    }
    Ok(found)
}

/// True where an answer was refused for its length.
pub(super) fn is_too_long(status: &Status) -> bool {
    status.code() == tonic::Code::OutOfRange && status.message().starts_with(TOO_LONG)
}

#[cfg(test)]
mod tests {
    use super::super::wire::{KeyValue, RangeResponse};
    use super::*;

    #[test]
    fn a_message_of_more_parts_than_allowed_is_refused_before_it_takes_memory() {
        let check = |parts: usize, taken: bool| {
            let message = RangeResponse {
                kvs: vec![KeyValue::default(); parts],
                ..RangeResponse::default()
            };
            let decoded = decode::<RangeResponse>(&message.encode_to_vec());
            match decoded {
                Ok(decoded) => assert!(taken && decoded == message, "{parts}"),
                Err(status) => assert!(!taken && is_too_long(&status), "{parts}: {status}"),
            }
        };
        check(0, true);
        check(MESSAGE_ELEMENTS_MAX, true);
        check(MESSAGE_ELEMENTS_MAX + 1, false);
    }

    #[test]
    fn broken_messages_are_errors() {
        for broken in [&[0x12, 0xff][..], &[0x12, 5, 1], &[0xff; 12], &[0x0b]] {
            let status = decode::<RangeResponse>(broken).unwrap_err();
            assert_eq!(status.code(), tonic::Code::DataLoss, "{broken:?}");
        }
    }
}
