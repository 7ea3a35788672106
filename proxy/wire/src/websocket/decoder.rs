//! The decoder of what a browser sends: it buffers no payload and unmasks where the bytes lie.

use std::io::Cursor;
use std::ops::Range;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use super::utf8::Utf8;
use super::{CONTROL_BYTES_MAX, ProtocolError, unmask};

/// What a peer may make us take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecoderLimits {
    /// Longest payload of one data frame.
    pub frame_bytes_max: u64,
}

/// What becomes of text messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextPolicy {
    /// A text frame ends the connection with 1003.
    Refuse,
    /// Text must be UTF-8, checked as it comes.
    Validate,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageKind {
    Text,
    Binary,
}

/// What the decoder found; ranges are into the buffer given to [`Decoder::next`], unmasked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A piece of a message; empty only where a message ends with no further bytes.
    Data {
        kind: MessageKind,
        payload: Range<usize>,
        /// The message's first piece.
        first: bool,
        /// The message ends with this piece.
        last: bool,
    },
    Ping(Range<usize>),
    Pong(Range<usize>),
    /// The code and where the reason is, when the frame has them. Nothing comes after it.
    Close(Option<(u16, Range<usize>)>),
}

/// What one call did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Bytes of the buffer that are done with; the next call must begin after them.
    pub consumed: usize,
    /// `None`: call again with more bytes.
    pub event: Option<Event>,
}

/// The data frame whose payload is coming in.
#[derive(Debug, Clone, Copy)]
struct OpenFrame {
    key: [u8; 4],
    fin: bool,
    taken: u64,
    /// INVARIANT: not 0; a frame that has come whole is not open.
    left: u64,
}

/// The message that has begun and not ended.
#[derive(Debug, Clone, Copy)]
struct OpenMessage {
    kind: MessageKind,
    /// No piece has been given out yet.
    first: bool,
}

/// A header that has come whole.
struct Header {
    opcode: OpCode,
    fin: bool,
    key: [u8; 4],
    /// Of the header itself.
    length: usize,
    payload: u64,
}

/// Reads one connection's frames from a browser.
#[derive(Debug)]
pub struct Decoder {
    limits: DecoderLimits,
    text: TextPolicy,
    frame: Option<OpenFrame>,
    message: Option<OpenMessage>,
    utf8: Utf8,
    /// A close frame came or the protocol was broken: nothing more is taken.
    ended: Option<ProtocolError>,
}

impl Decoder {
    #[must_use]
    pub fn new(limits: DecoderLimits, text: TextPolicy) -> Self {
        Self {
            limits,
            text,
            frame: None,
            message: None,
            utf8: Utf8::default(),
            ended: None,
        }
    }

    /// Whether a message has begun and not ended.
    #[must_use]
    pub fn is_inside_message(&self) -> bool {
        self.message.is_some()
    }

    /// Takes the next event from `buffer`, which begins where the last step's `consumed` ended.
    ///
    /// Bytes that are not consumed must be given again, unchanged, with more behind them. Payload
    /// of data frames comes as it arrives; control frames come whole.
    ///
    /// # Errors
    /// The first violation, as soon as it is seen; the same again from then on.
    pub fn next(&mut self, buffer: &mut [u8]) -> Result<Step, ProtocolError> {
        if let Some(error) = self.ended {
            return match (error, buffer.is_empty()) {
                (ProtocolError::AfterClose, true) => Ok(Step {
                    consumed: 0,
                    event: None,
                }),
                (error, _) => Err(error),
            };
        }
        self.step(buffer)
            .inspect_err(|error| self.ended = Some(*error))
    }

    fn step(&mut self, buffer: &mut [u8]) -> Result<Step, ProtocolError> {
        let mut start = 0;
        loop {
            if self.frame.is_some() {
                return self.payload(buffer, start);
            }
            let Some(header) = self.header(&buffer[start..])? else {
                return Ok(Step {
                    consumed: start,
                    event: None,
                });
            };
            let OpCode::Data(data) = header.opcode else {
                return self.control(&header, buffer, start);
            };
            start += header.length;
            self.open(data)?;
            let fin = header.fin;
            if header.payload > 0 {
                self.frame = Some(OpenFrame {
                    key: header.key,
                    fin,
                    taken: 0,
                    left: header.payload,
                });
            } else if fin {
                return self.piece(start..start, start, true);
            }
        }
    }

    /// The header at the start of `bytes`, checked as far as it has come.
    fn header(&self, bytes: &[u8]) -> Result<Option<Header>, ProtocolError> {
        self.check_start(bytes)?;
        let mut cursor = Cursor::new(bytes);
        let Ok(parsed) = FrameHeader::parse(&mut cursor) else {
            return Err(ProtocolError::ReservedOpcode);
        };
        let Some((header, payload)) = parsed else {
            return Ok(None);
        };
        let length = header.len(payload);
        if cursor.position() != length as u64 {
            return Err(ProtocolError::NonMinimalLength);
        }
        if payload > i64::MAX as u64 {
            return Err(ProtocolError::LengthTopBit);
        }
        if payload > self.limits.frame_bytes_max && matches!(header.opcode, OpCode::Data(_)) {
            return Err(ProtocolError::FrameTooLong);
        }
        Ok(Some(Header {
            opcode: header.opcode,
            fin: header.is_final,
            key: header.mask.ok_or(ProtocolError::Unmasked)?,
            length,
            payload,
        }))
    }

    /// [RFC 6455 §5.2] What the first two bytes of a frame tell already.
    fn check_start(&self, bytes: &[u8]) -> Result<(), ProtocolError> {
        let Some(&first) = bytes.first() else {
            return Ok(());
        };
        if first & 0x70 != 0 {
            return Err(ProtocolError::ReservedBits);
        }
        let is_final = first & 0x80 != 0;
        let control = match OpCode::from(first & 0x0f) {
            OpCode::Data(Data::Reserved(_)) | OpCode::Control(Control::Reserved(_)) => {
                return Err(ProtocolError::ReservedOpcode);
            }
            OpCode::Control(_) if !is_final => return Err(ProtocolError::FragmentedControl),
            OpCode::Control(_) => true,
            OpCode::Data(data) => {
                self.check_order(data)?;
                false
            }
        };
        let Some(&second) = bytes.get(1) else {
            return Ok(());
        };
        if second & 0x80 == 0 {
            return Err(ProtocolError::Unmasked);
        }
        if control && usize::from(second & 0x7f) > CONTROL_BYTES_MAX {
            return Err(ProtocolError::LongControl);
        }
        Ok(())
    }

    /// [RFC 6455 §5.4] Whether a data frame may come now.
    fn check_order(&self, data: Data) -> Result<(), ProtocolError> {
        match (data, self.message) {
            (Data::Continue, None) => Err(ProtocolError::ContinuationWithoutStart),
            (Data::Text | Data::Binary, Some(_)) => Err(ProtocolError::StartInsideMessage),
            (Data::Text, None) if self.text == TextPolicy::Refuse => {
                Err(ProtocolError::TextRefused)
            }
            _ => Ok(()),
        }
    }

    /// Begins a message, unless the frame continues one.
    fn open(&mut self, data: Data) -> Result<(), ProtocolError> {
        let kind = match data {
            Data::Continue => return Ok(()),
            Data::Text => MessageKind::Text,
            Data::Binary => MessageKind::Binary,
            Data::Reserved(_) => return Err(ProtocolError::ReservedOpcode),
        };
        self.message = Some(OpenMessage { kind, first: true });
        Ok(())
    }

    /// What has come of the open frame's payload, which begins at `start`.
    fn payload(&mut self, buffer: &mut [u8], start: usize) -> Result<Step, ProtocolError> {
        let Some(mut frame) = self.frame else {
            return Ok(Step {
                consumed: start,
                event: None,
            });
        };
        let there = buffer.len() - start;
        let length = usize::try_from(frame.left).map_or(there, |left| left.min(there));
        if length == 0 {
            return Ok(Step {
                consumed: start,
                event: None,
            });
        }
        let piece = start..start + length;
        unmask(
            &mut buffer[piece.clone()],
            frame.key,
            (frame.taken % 4) as usize,
        );
        frame.taken += length as u64;
        frame.left -= length as u64;
        self.frame = (frame.left > 0).then_some(frame);
        let last = frame.fin && frame.left == 0;
        if self
            .message
            .is_some_and(|message| message.kind == MessageKind::Text)
        {
            self.utf8.push(&buffer[piece.clone()])?;
        }
        self.piece(piece.clone(), piece.end, last)
    }

    /// The event for a piece of the open message.
    fn piece(
        &mut self,
        payload: Range<usize>,
        consumed: usize,
        last: bool,
    ) -> Result<Step, ProtocolError> {
        let message = self
            .message
            .ok_or(ProtocolError::ContinuationWithoutStart)?;
        let OpenMessage { kind, first } = message;
        self.message = (!last).then_some(OpenMessage { kind, first: false });
        if last && kind == MessageKind::Text {
            self.utf8.finish()?;
        }
        let event = Event::Data {
            kind,
            payload,
            first,
            last,
        };
        Ok(Step {
            consumed,
            event: Some(event),
        })
    }

    /// A control frame, once all of it is there.
    fn control(
        &mut self,
        header: &Header,
        buffer: &mut [u8],
        start: usize,
    ) -> Result<Step, ProtocolError> {
        let length = usize::try_from(header.payload)
            .ok()
            .filter(|length| *length <= CONTROL_BYTES_MAX)
            .ok_or(ProtocolError::LongControl)?;
        let begin = start + header.length;
        let payload = begin..begin + length;
        let Some(bytes) = buffer.get_mut(payload.clone()) else {
            return Ok(Step {
                consumed: start,
                event: None,
            });
        };
        unmask(bytes, header.key, 0);
        let event = match header.opcode {
            OpCode::Control(Control::Ping) => Event::Ping(payload.clone()),
            OpCode::Control(Control::Pong) => Event::Pong(payload.clone()),
            _ => {
                let code = close_code(bytes)?;
                self.ended = Some(ProtocolError::AfterClose);
                Event::Close(code.map(|code| (code, begin + 2..payload.end)))
            }
        };
        Ok(Step {
            consumed: payload.end,
            event: Some(event),
        })
    }
}

/// [RFC 6455 §5.5.1, §7.4] The code of a close frame's payload, when it has one.
fn close_code(payload: &[u8]) -> Result<Option<u16>, ProtocolError> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return match payload {
            [] => Ok(None),
            _ => Err(ProtocolError::CloseLength),
        };
    };
    let code = u16::from_be_bytes(*code);
    // 1014 (bad gateway) is registered; tungstenite does not know it yet.
    if code != 1014 && !CloseCode::from(code).is_allowed() {
        return Err(ProtocolError::CloseCode);
    }
    if std::str::from_utf8(reason).is_err() {
        return Err(ProtocolError::CloseReason);
    }
    Ok(Some(code))
}
