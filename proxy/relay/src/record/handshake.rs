//! Handshake messages that may come after the handshake: in parts, or several in a record.

use super::RecordError;
use super::protection::Version;

/// Type and length of a message.
const HEADER_BYTES: usize = 4;

/// Bytes of the longest message that is read.
const MESSAGE_BYTES_MAX: u32 = 0xffff;

/// [RFC 8446 §4.6.1] Lifetime, age, nonce's length, a ticket of one byte with its length, extensions' length.
const TICKET_BYTES_MIN: u32 = 4 + 4 + 1 + 3 + 2;

/// [RFC 8446 §4, RFC 5246 §7.4] Types of messages.
mod kind {
    pub const HELLO_REQUEST: u8 = 0;
    pub const CLIENT_HELLO: u8 = 1;
    pub const NEW_SESSION_TICKET: u8 = 4;
    pub const KEY_UPDATE: u8 = 24;
}

/// A message that has come whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Message {
    /// [RFC 8446 §4.6.1] Of no use: sessions are not resumed.
    SessionTicket,
    /// [RFC 8446 §4.6.3]
    KeyUpdate { is_requested: bool },
    /// [RFC 5246 §7.4.1.1] A HelloRequest, or a ClientHello.
    Renegotiation,
}

/// Puts messages together. It keeps a message's header alone: of the bodies that may come now nobody
/// needs more than a KeyUpdate's one byte.
#[derive(Debug)]
pub(super) struct Assembler {
    admitted: &'static [u8],
    header: [u8; HEADER_BYTES],
    header_filled: usize,
    body_left: u32,
}

impl Assembler {
    /// For messages that a client sends.
    pub(super) fn server(version: Version) -> Self {
        Self::new(match version {
            Version::Tls12 => &[kind::CLIENT_HELLO],
            Version::Tls13 => &[kind::KEY_UPDATE],
        })
    }

    /// For messages that a server sends.
    pub(super) fn client(version: Version) -> Self {
        Self::new(match version {
            Version::Tls12 => &[kind::HELLO_REQUEST],
            Version::Tls13 => &[kind::NEW_SESSION_TICKET, kind::KEY_UPDATE],
        })
    }

    fn new(admitted: &'static [u8]) -> Self {
        Self {
            admitted,
            header: [0; HEADER_BYTES],
            header_filled: 0,
            body_left: 0,
        }
    }

    /// Whether a part of a message has come and the rest has not.
    pub(super) fn is_within_message(&self) -> bool {
        self.header_filled > 0
    }

    /// Takes bytes up to the end of a message, or all of them.
    pub(super) fn take(&mut self, bytes: &mut &[u8]) -> Result<Option<Message>, RecordError> {
        if self.header_filled < HEADER_BYTES {
            let taken = bytes.len().min(HEADER_BYTES - self.header_filled);
            let (now, later) = bytes.split_at(taken);
            self.header[self.header_filled..][..taken].copy_from_slice(now);
            self.header_filled += taken;
            *bytes = later;
            if self.header_filled < HEADER_BYTES {
                return Ok(None);
            }
            self.body_left = self.judge_header()?;
        }
        let first = bytes.first().copied();
        let left = usize::try_from(self.body_left).unwrap_or(usize::MAX);
        let taken = bytes.len().min(left);
        *bytes = &bytes[taken..];
        self.body_left -= u32::try_from(taken).expect("no more is taken than is left");
        if self.body_left > 0 {
            return Ok(None);
        }
        self.header_filled = 0;
        self.finish(first).map(Some)
    }

    fn length(&self) -> u32 {
        let [_, a, b, c] = self.header;
        u32::from_be_bytes([0, a, b, c])
    }

    /// The body's length, if a message of this type and length may come now.
    fn judge_header(&self) -> Result<u32, RecordError> {
        let (kind, length) = (self.header[0], self.length());
        if !self.admitted.contains(&kind) {
            return Err(RecordError::Unexpected(
                "a handshake message after the handshake",
            ));
        }
        let is_fit = match kind {
            kind::HELLO_REQUEST => length == 0,
            kind::KEY_UPDATE => length == 1,
            kind::NEW_SESSION_TICKET => (TICKET_BYTES_MIN..=MESSAGE_BYTES_MAX).contains(&length),
            _ => length <= MESSAGE_BYTES_MAX,
        };
        if !is_fit {
            return Err(RecordError::Malformed("a handshake message's length"));
        }
        Ok(length)
    }

    /// The message that is whole now; `body` is the first byte of its last part.
    fn finish(&self, body: Option<u8>) -> Result<Message, RecordError> {
        match (self.header[0], body) {
            (kind::KEY_UPDATE, Some(0)) => Ok(Message::KeyUpdate {
                is_requested: false,
            }),
            (kind::KEY_UPDATE, Some(1)) => Ok(Message::KeyUpdate { is_requested: true }),
            (kind::KEY_UPDATE, _) => Err(RecordError::Malformed("a key update's request")),
            (kind::NEW_SESSION_TICKET, _) => Ok(Message::SessionTicket),
            _ => Ok(Message::Renegotiation),
        }
    }
}

/// [RFC 8446 §4.6.3] A KeyUpdate that asks for none in return: every side counts its own records.
pub(super) const KEY_UPDATE_NOT_REQUESTED: [u8; HEADER_BYTES + 1] = [kind::KEY_UPDATE, 0, 0, 1, 0];
