//! How a browser can break the framing, and what it is told.

use super::utf8::NotUtf8;

/// How a peer broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    #[error("a frame is not masked")]
    Unmasked,
    #[error("a reserved bit is set")]
    ReservedBits,
    #[error("the opcode is reserved")]
    ReservedOpcode,
    #[error("a control frame is fragmented")]
    FragmentedControl,
    #[error("a control frame is over 125 bytes")]
    LongControl,
    #[error("a frame length is not in its shortest form")]
    NonMinimalLength,
    #[error("a frame length has its top bit set")]
    LengthTopBit,
    #[error("a continuation without a message")]
    ContinuationWithoutStart,
    #[error("a message begins inside another")]
    StartInsideMessage,
    #[error("a close frame with half a code")]
    CloseLength,
    #[error("a close code that may not be sent")]
    CloseCode,
    #[error("a close reason is not UTF-8")]
    CloseReason,
    #[error("a frame is over the limit")]
    FrameTooLong,
    #[error("text is not taken here")]
    TextRefused,
    #[error("text is not UTF-8")]
    NotUtf8,
    #[error("bytes after the close frame")]
    AfterClose,
}

impl ProtocolError {
    /// The close code to answer with [RFC 6455 §7.4.1].
    #[must_use]
    pub const fn close_code(self) -> u16 {
        match self {
            Self::TextRefused => 1003,
            Self::CloseReason | Self::NotUtf8 => 1007,
            Self::FrameTooLong => 1009,
            _ => 1002,
        }
    }

    /// The metric and log label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unmasked => "unmasked_frame",
            Self::ReservedBits => "reserved_bits",
            Self::ReservedOpcode => "reserved_opcode",
            Self::FragmentedControl => "fragmented_control",
            Self::LongControl => "long_control",
            Self::NonMinimalLength => "non_minimal_length",
            Self::LengthTopBit => "length_top_bit",
            Self::ContinuationWithoutStart => "continuation_without_start",
            Self::StartInsideMessage => "start_inside_message",
            Self::CloseLength => "close_length",
            Self::CloseCode => "close_code",
            Self::CloseReason => "close_reason",
            Self::FrameTooLong => "frame_too_long",
            Self::TextRefused => "text_refused",
            Self::NotUtf8 => "text_not_utf8",
            Self::AfterClose => "after_close",
        }
    }
}

impl From<NotUtf8> for ProtocolError {
    fn from(_: NotUtf8) -> Self {
        Self::NotUtf8
    }
}
