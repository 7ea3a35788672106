//! The five bytes before every record.

use super::RecordError;

/// Content type, version, length.
pub(super) const HEADER_BYTES: usize = 5;

/// [RFC 8446 §5.1] The version that every record names, whatever was agreed.
const LEGACY_VERSION: [u8; 2] = [3, 3];

/// [RFC 8446 §5.1, RFC 5246 §6.2.1] What a record carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    ChangeCipherSpec = 20,
    Alert = 21,
    Handshake = 22,
    ApplicationData = 23,
}

/// A record's header, and the bytes it was read from: they are authenticated as they stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub content: Content,
    /// Bytes that follow.
    pub length: usize,
    pub bytes: [u8; HEADER_BYTES],
}

impl Content {
    pub(super) fn parse(byte: u8) -> Result<Self, RecordError> {
        match byte {
            20 => Ok(Self::ChangeCipherSpec),
            21 => Ok(Self::Alert),
            22 => Ok(Self::Handshake),
            23 => Ok(Self::ApplicationData),
            _ => Err(RecordError::Unexpected("its content type is unknown")),
        }
    }
}

impl Header {
    /// Reads a header. Only the version's first byte is looked at here: the whole of it is
    /// authenticated with the record.
    pub(super) fn parse(bytes: [u8; HEADER_BYTES]) -> Result<Self, RecordError> {
        let [content, major, _, high, low] = bytes;
        let content = Content::parse(content)?;
        if major != LEGACY_VERSION[0] {
            return Err(RecordError::Malformed("its version is not one of TLS"));
        }
        Ok(Self {
            content,
            length: usize::from(u16::from_be_bytes([high, low])),
            bytes,
        })
    }

    /// The header of a record of ours; `length` must be one that a record may have.
    pub(super) fn ours(content: Content, length: usize) -> Self {
        let [high, low] = u16::try_from(length)
            .expect("a record's length is bounded far below 2^16")
            .to_be_bytes();
        let [major, minor] = LEGACY_VERSION;
        Self {
            content,
            length,
            bytes: [content as u8, major, minor, high, low],
        }
    }
}
