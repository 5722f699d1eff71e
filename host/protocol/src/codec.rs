//! The codec of the generated service: as usual, but for requests that would unfold too far.

use std::marker::PhantomData;

use prost::Message;
use prost::bytes::Buf as _;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::{ProstCodec, ProstEncoder};

use crate::shape::{self, Shaped, Unfit};

/// Encodes `T`, decodes `U`.
#[derive(Clone, Debug)]
pub struct CheckedCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for CheckedCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for CheckedCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Shaped + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = CheckedDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstCodec::<T, U>::default().encoder()
    }

    fn decoder(&mut self) -> Self::Decoder {
        CheckedDecoder(PhantomData)
    }
}

/// Decodes what [`shape::check`] lets through.
#[derive(Clone, Debug)]
pub struct CheckedDecoder<U>(PhantomData<U>);

impl<U: Message + Default + Shaped> Decoder for CheckedDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        // The transport gathers a message in one piece.
        let whole = bytes.chunk();
        if whole.len() != bytes.remaining() {
            return Err(Status::internal("a message came in pieces"));
        }
        if shape::may_unfold(whole.len()) {
            shape::check::<U>(whole).map_err(status)?;
        }
        // What the decoder says of wrong bytes speaks of its own insides.
        U::decode(bytes).map(Some).map_err(|_| status(Unfit::Malformed))
    }
}

fn status(unfit: Unfit) -> Status {
    match unfit {
        Unfit::Malformed => Status::internal(unfit.to_string()),
        Unfit::TooMany(..) => Status::invalid_argument(unfit.to_string()),
    }
}
