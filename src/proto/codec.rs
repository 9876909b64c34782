//! The codec of gRPC messages: prost's codec with another status for bytes that cannot be decoded.
//!
//! **Invariant**: bytes that are not a valid message of the call are an error of the sender, with the status
//! `INVALID_ARGUMENT`. The codec of prost returns `INTERNAL` instead.

use prost::Message;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder};
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

/// The codec of the generated clients and servers.
pub struct MessageCodec<T, U>(ProstCodec<T, U>);

impl<T, U> Default for MessageCodec<T, U> {
    fn default() -> Self {
        Self(ProstCodec::default())
    }
}

impl<T: Message + Send + 'static, U: Message + Default + Send + 'static> Codec for MessageCodec<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = <ProstCodec<T, U> as Codec>::Encoder;
    type Decoder = MessageDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        self.0.encoder()
    }

    fn decoder(&mut self) -> MessageDecoder<U> {
        MessageDecoder::default()
    }
}

/// Decodes messages. The documentation of this module describes the errors.
pub struct MessageDecoder<U>(tonic_prost::ProstDecoder<U>);

impl<U: Message + Default + 'static> Default for MessageDecoder<U> {
    fn default() -> Self {
        Self(ProstCodec::<(), U>::raw_decoder(BufferSettings::default()))
    }
}

impl<U: Message + Default> Decoder for MessageDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        self.0.decode(buffer).map_err(|status| {
            if status.code() == Code::Internal {
                let problem = status.message();
                Status::invalid_argument(format!("the bytes are not a valid message of this call: {problem}"))
            } else {
                status
            }
        })
    }

    fn buffer_settings(&self) -> BufferSettings {
        self.0.buffer_settings()
    }
}
