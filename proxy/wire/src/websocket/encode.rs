//! What we send: frame headers before payload that is elsewhere, and whole control frames.

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::unmask;

/// Longest payload of a control frame [RFC 6455 §5.5].
pub const CONTROL_BYTES_MAX: usize = 125;

/// Longest reason of a close frame: its payload less the code.
pub const CLOSE_REASON_BYTES_MAX: usize = CONTROL_BYTES_MAX - 2;

/// Longest header without a mask.
const HEADER_BYTES_MAX: usize = 10;

/// Length of a masking key.
const KEY_BYTES: usize = 4;

/// Kinds of frames [RFC 6455 §11.8].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
}

impl From<Opcode> for OpCode {
    fn from(opcode: Opcode) -> Self {
        match opcode {
            Opcode::Continuation => Self::Data(Data::Continue),
            Opcode::Text => Self::Data(Data::Text),
            Opcode::Binary => Self::Data(Data::Binary),
            Opcode::Close => Self::Control(Control::Close),
            Opcode::Ping => Self::Control(Control::Ping),
            Opcode::Pong => Self::Control(Control::Pong),
        }
    }
}

/// Writes the header of a frame from us to the start of `out`; how many bytes it is.
pub fn frame_header(opcode: Opcode, fin: bool, payload_len: usize, out: &mut [u8; 10]) -> usize {
    write_header(opcode, fin, None, payload_len, out)
}

fn write_header(
    opcode: Opcode,
    fin: bool,
    mask: Option<[u8; KEY_BYTES]>,
    payload_len: usize,
    out: &mut [u8],
) -> usize {
    let header = FrameHeader {
        is_final: fin,
        opcode: opcode.into(),
        mask,
        ..FrameHeader::default()
    };
    let length = payload_len as u64;
    let mut rest = &mut *out;
    header
        .format(length, &mut rest)
        .expect("every caller's buffer holds the longest header");
    header.len(length)
}

/// A whole control frame from us, without memory of its own on the heap [RFC 6455 §5.5].
#[derive(Debug, Clone, Copy)]
pub struct ControlFrame {
    bytes: [u8; 2 + CONTROL_BYTES_MAX],
    length: usize,
}

impl ControlFrame {
    /// A frame with at most [`CONTROL_BYTES_MAX`] of `payload`.
    #[must_use]
    pub fn new(opcode: Opcode, payload: &[u8]) -> Self {
        let payload = &payload[..payload.len().min(CONTROL_BYTES_MAX)];
        let mut header = [0; HEADER_BYTES_MAX];
        let begin = frame_header(opcode, true, payload.len(), &mut header);
        let length = begin + payload.len();
        let mut bytes = [0; 2 + CONTROL_BYTES_MAX];
        bytes[..begin].copy_from_slice(&header[..begin]);
        bytes[begin..length].copy_from_slice(payload);
        Self { bytes, length }
    }

    /// A close frame; a reason over [`CLOSE_REASON_BYTES_MAX`] is cut at a character.
    #[must_use]
    pub fn close(code: u16, reason: &str) -> Self {
        let reason = &reason[..reason.floor_char_boundary(CLOSE_REASON_BYTES_MAX)];
        let mut payload = [0; CONTROL_BYTES_MAX];
        let length = 2 + reason.len();
        payload[..2].copy_from_slice(&code.to_be_bytes());
        payload[2..length].copy_from_slice(reason.as_bytes());
        Self::new(Opcode::Close, &payload[..length])
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// A close frame; a reason over [`CLOSE_REASON_BYTES_MAX`] is cut at a character.
#[must_use]
pub fn close_frame(code: u16, reason: &str) -> Vec<u8> {
    ControlFrame::close(code, reason).as_bytes().to_vec()
}

/// The close frame that answers one without a code.
#[must_use]
pub fn close_without_code() -> Vec<u8> {
    control(Opcode::Close, &[])
}

/// A whole unmasked binary message in one frame.
#[must_use]
pub fn binary_frame(payload: &[u8]) -> Vec<u8> {
    let mut header = [0; HEADER_BYTES_MAX];
    let length = frame_header(Opcode::Binary, true, payload.len(), &mut header);
    [&header[..length], payload].concat()
}

/// A ping frame; at most [`CONTROL_BYTES_MAX`] of `payload` are sent.
#[must_use]
pub fn ping(payload: &[u8]) -> Vec<u8> {
    control(Opcode::Ping, payload)
}

/// The pong frame that answers a ping with `payload`.
#[must_use]
pub fn pong(payload: &[u8]) -> Vec<u8> {
    control(Opcode::Pong, payload)
}

fn control(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    ControlFrame::new(opcode, payload).as_bytes().to_vec()
}

/// A whole masked frame as a client sends it: for tests and load.
#[must_use]
pub fn client_frame(opcode: Opcode, fin: bool, key: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let mut header = [0; HEADER_BYTES_MAX + KEY_BYTES];
    let length = write_header(opcode, fin, Some(key), payload.len(), &mut header);
    let mut frame = [&header[..length], payload].concat();
    unmask(&mut frame[length..], key, 0);
    frame
}
