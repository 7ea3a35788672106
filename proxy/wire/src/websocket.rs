//! The server's side of the WebSocket framing [RFC 6455 §5]: a streaming decoder that unmasks in
//! place, and an encoder of headers and control frames.

mod decoder;
mod encode;
mod error;
mod mask;
mod utf8;

pub use decoder::{Decoder, DecoderLimits, Event, MessageKind, Step, TextPolicy};
pub use encode::{
    CLOSE_REASON_BYTES_MAX, CONTROL_BYTES_MAX, ControlFrame, Opcode, binary_frame, client_frame,
    close_frame, close_without_code, frame_header, ping, pong,
};
pub use error::ProtocolError;
pub use mask::unmask;

#[cfg(test)]
mod tests;
