//! Frames from a browser: the same however the stream is cut, and as tungstenite reads them.
#![no_main]

use std::io::{self, Cursor, Read, Write};

use libfuzzer_sys::fuzz_target;
use postern_wire::websocket::{
    Decoder, DecoderLimits, Event, MessageKind, ProtocolError, TextPolicy,
};
use tungstenite::Message;
use tungstenite::protocol::{Role, WebSocket, WebSocketConfig};

const FRAME_BYTES_MAX: u64 = 4096;

/// A message, or a control frame, as it came whole.
#[derive(Debug, PartialEq)]
enum Whole {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close { with_code: bool },
}

/// Feeds `stream` in pieces of `length`; what came whole, and how it broke.
fn feed(stream: &[u8], text: TextPolicy, length: usize) -> (Vec<Whole>, Option<ProtocolError>) {
    let limits = DecoderLimits {
        frame_bytes_max: FRAME_BYTES_MAX,
    };
    let mut decoder = Decoder::new(limits, text);
    let (mut whole, mut begun, mut buffer) = (Vec::new(), Vec::new(), Vec::new());
    for piece in stream.chunks(length) {
        buffer.extend_from_slice(piece);
        loop {
            let step = match decoder.next(&mut buffer) {
                Ok(step) => step,
                Err(error) => return (whole, Some(error)),
            };
            assert!(step.consumed <= buffer.len());
            let Some(event) = step.event else {
                buffer.drain(..step.consumed);
                assert!(buffer.len() < 139, "at most a control frame waits");
                break;
            };
            match event {
                Event::Data {
                    kind,
                    payload,
                    first,
                    last,
                } => {
                    assert!(!first || begun.is_empty());
                    begun.extend_from_slice(&buffer[payload]);
                    if last {
                        let message = std::mem::take(&mut begun);
                        whole.push(match kind {
                            MessageKind::Text => Whole::Text(message),
                            MessageKind::Binary => Whole::Binary(message),
                        });
                    }
                }
                Event::Ping(payload) => whole.push(Whole::Ping(buffer[payload].to_vec())),
                Event::Pong(payload) => whole.push(Whole::Pong(buffer[payload].to_vec())),
                Event::Close(frame) => whole.push(Whole::Close {
                    with_code: frame.is_some(),
                }),
            }
            buffer.drain(..step.consumed);
        }
    }
    (whole, None)
}

struct Peer<'a>(Cursor<&'a [u8]>);

impl Read for Peer<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.0.read(out)
    }
}

impl Write for Peer<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What tungstenite's server reads, up to its first error.
fn oracle(stream: &[u8]) -> Vec<Whole> {
    let config = WebSocketConfig::default().max_frame_size(Some(FRAME_BYTES_MAX as usize));
    let peer = Peer(Cursor::new(stream));
    let mut socket = WebSocket::from_raw_socket(peer, Role::Server, Some(config));
    let mut whole = Vec::new();
    while let Ok(message) = socket.read() {
        whole.push(match message {
            Message::Text(text) => Whole::Text(text.as_bytes().to_vec()),
            Message::Binary(bytes) => Whole::Binary(bytes.to_vec()),
            Message::Ping(bytes) => Whole::Ping(bytes.to_vec()),
            Message::Pong(bytes) => Whole::Pong(bytes.to_vec()),
            Message::Close(frame) => Whole::Close {
                with_code: frame.is_some(),
            },
            Message::Frame(_) => unreachable!("not read in this mode"),
        });
    }
    whole
}

fuzz_target!(|input: (u8, &[u8])| {
    let (length, stream) = input;
    let length = usize::from(length) + 1;
    let at_once = feed(stream, TextPolicy::Validate, stream.len().max(1));
    assert_eq!(at_once, feed(stream, TextPolicy::Validate, 1));
    assert_eq!(at_once, feed(stream, TextPolicy::Validate, length));
    let refusing = feed(stream, TextPolicy::Refuse, stream.len().max(1));
    assert_eq!(refusing, feed(stream, TextPolicy::Refuse, length));

    let (whole, error) = at_once;
    let read = oracle(stream);
    assert!(read.starts_with(&whole), "{whole:?} {read:?}");
    assert!(error.is_some() || read == whole, "{whole:?} {read:?}");
});
