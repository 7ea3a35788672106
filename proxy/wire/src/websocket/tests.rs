//! The specification's frames, attacks, and tungstenite's own reader as the oracle.

use std::io::{self, Cursor, Read, Write};

use proptest::collection::vec;
use proptest::prelude::*;
use tungstenite::Message;
use tungstenite::protocol::{Role, WebSocket, WebSocketConfig};

use super::*;

const FRAME_BYTES_MAX: u64 = 70_000;

/// A message, or a control frame, as it came whole.
#[derive(Debug, Clone, PartialEq)]
enum Whole {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>),
}

/// What a stream gave: whole things, the begun message's bytes, and how it broke.
#[derive(Debug, Default, PartialEq)]
struct Outcome {
    whole: Vec<Whole>,
    begun: Vec<u8>,
    error: Option<ProtocolError>,
}

/// Feeds `stream` in pieces of these lengths, in turn, through one growing buffer.
fn feed(stream: &[u8], text: TextPolicy, lengths: &[usize]) -> Outcome {
    let limits = DecoderLimits {
        frame_bytes_max: FRAME_BYTES_MAX,
    };
    let mut decoder = Decoder::new(limits, text);
    let mut outcome = Outcome::default();
    let mut buffer = Vec::new();
    let mut rest = stream;
    for length in lengths.iter().cycle() {
        let (piece, after) = rest.split_at((*length).min(rest.len()));
        buffer.extend_from_slice(piece);
        loop {
            match decoder.next(&mut buffer) {
                Ok(Step { consumed, event }) => {
                    let done = event.is_none();
                    if let Some(event) = event {
                        outcome.take(event, &buffer, consumed);
                    }
                    buffer.drain(..consumed);
                    if done {
                        break;
                    }
                }
                Err(error) => {
                    assert_eq!(decoder.next(&mut buffer), Err(error), "an error stays");
                    outcome.error = Some(error);
                    return outcome;
                }
            }
        }
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    outcome
}

impl Outcome {
    fn take(&mut self, event: Event, buffer: &[u8], consumed: usize) {
        let bytes = |range: std::ops::Range<usize>| {
            assert!(range.end <= consumed, "payload is before what is consumed");
            buffer[range].to_vec()
        };
        let whole = match event {
            Event::Data {
                kind,
                payload,
                first,
                last,
            } => {
                assert!(
                    !payload.is_empty() || last,
                    "an empty piece only ends a message"
                );
                assert!(!first || self.begun.is_empty());
                self.begun.extend(bytes(payload));
                if !last {
                    return;
                }
                let message = std::mem::take(&mut self.begun);
                match kind {
                    MessageKind::Text => Whole::Text(message),
                    MessageKind::Binary => Whole::Binary(message),
                }
            }
            Event::Ping(payload) => Whole::Ping(bytes(payload)),
            Event::Pong(payload) => Whole::Pong(bytes(payload)),
            Event::Close(frame) => Whole::Close(frame.map(|(code, _)| code)),
        };
        self.whole.push(whole);
    }
}

/// What tungstenite's server reads from the same stream, up to its first error.
fn oracle(stream: &[u8]) -> Vec<Whole> {
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
            Message::Close(frame) => Whole::Close(frame.map(|frame| frame.code.into())),
            Message::Frame(_) => unreachable!("not read in this mode"),
        });
    }
    whole
}

fn check(stream: &[u8], text: TextPolicy, expected: Result<&[Whole], ProtocolError>) {
    for lengths in [vec![stream.len().max(1)], vec![1], vec![2, 3], vec![5]] {
        let outcome = feed(stream, text, &lengths);
        match expected {
            Ok(whole) => {
                assert_eq!(outcome.whole, whole, "{stream:02x?}");
                assert_eq!(outcome.error, None, "{stream:02x?}");
            }
            Err(error) => assert_eq!(outcome.error, Some(error), "{stream:02x?}"),
        }
    }
}

fn frame(opcode: Opcode, fin: bool, payload: &[u8]) -> Vec<u8> {
    client_frame(opcode, fin, [0x37, 0xfa, 0x21, 0x3d], payload)
}

/// [RFC 6455 §5.7] The examples that a client may send.
#[test]
fn the_specifications_frames_are_read() {
    let hello = Whole::Text(b"Hello".to_vec());
    let masked = [
        0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
    ];
    check(
        &masked,
        TextPolicy::Validate,
        Ok(std::slice::from_ref(&hello)),
    );
    let pong = [
        0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
    ];
    check(
        &pong,
        TextPolicy::Refuse,
        Ok(&[Whole::Pong(b"Hello".to_vec())]),
    );
    let fragmented = [
        frame(Opcode::Text, false, b"Hel"),
        frame(Opcode::Continuation, true, b"lo"),
    ];
    check(&fragmented.concat(), TextPolicy::Validate, Ok(&[hello]));
}

/// [RFC 6455 §5.7] The examples that a server may send.
#[test]
fn the_specifications_headers_are_written() {
    let cases: [(Opcode, bool, usize, &[u8]); 6] = [
        (Opcode::Text, true, 5, &[0x81, 0x05]),
        (Opcode::Text, false, 3, &[0x01, 0x03]),
        (Opcode::Continuation, true, 2, &[0x80, 0x02]),
        (Opcode::Ping, true, 5, &[0x89, 0x05]),
        (Opcode::Binary, true, 256, &[0x82, 0x7e, 0x01, 0x00]),
        (
            Opcode::Binary,
            true,
            65536,
            &[0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0],
        ),
    ];
    for (opcode, fin, payload_len, expected) in cases {
        let mut out = [0; 10];
        let length = frame_header(opcode, fin, payload_len, &mut out);
        assert_eq!(&out[..length], expected);
    }
    assert_eq!(pong(b"Hello"), b"\x8a\x05Hello");
    assert_eq!(ping(b"Hello"), b"\x89\x05Hello");
    assert_eq!(
        frame(Opcode::Text, true, b"Hello")[6..],
        [0x7f, 0x9f, 0x4d, 0x51, 0x58]
    );
}

#[test]
fn lengths_around_every_boundary_are_read() {
    for length in [0, 1, 125, 126, 127, 65535, 65536, FRAME_BYTES_MAX as usize] {
        let payload: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
        let stream = frame(Opcode::Binary, true, &payload);
        let outcome = feed(&stream, TextPolicy::Refuse, &[1000, 1, 3]);
        assert_eq!(outcome.whole, [Whole::Binary(payload)], "{length}");
    }
}

#[test]
fn frames_that_break_the_protocol_are_refused() {
    use ProtocolError as E;
    let start = frame(Opcode::Binary, false, b"x");
    let cases: &[(&[u8], E)] = &[
        (&[0x82, 0x01, 0xff], E::Unmasked),
        (&[0x89, 0x00], E::Unmasked),
        (&[0xc2], E::ReservedBits),
        (&[0xa2], E::ReservedBits),
        (&[0x92], E::ReservedBits),
        (&[0x83], E::ReservedOpcode),
        (&[0x87], E::ReservedOpcode),
        (&[0x8b], E::ReservedOpcode),
        (&[0x8f], E::ReservedOpcode),
        (&[0x09], E::FragmentedControl),
        (&[0x08], E::FragmentedControl),
        (&[0x89, 0xfe], E::LongControl),
        (&[0x88, 0xff], E::LongControl),
        (&[0x80], E::ContinuationWithoutStart),
        (&[0x00], E::ContinuationWithoutStart),
        (&[0x82, 0xfe, 0, 125, 1, 2, 3, 4], E::NonMinimalLength),
        (
            &[0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1, 2, 3, 4],
            E::NonMinimalLength,
        ),
        (
            &[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4],
            E::LengthTopBit,
        ),
        (
            &[
                0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4,
            ],
            E::LengthTopBit,
        ),
        (
            &[0x82, 0xff, 0, 0, 0, 0, 0, 1, 0x11, 0x71, 1, 2, 3, 4],
            E::FrameTooLong,
        ),
        (&[0x81], E::TextRefused),
    ];
    for (bytes, error) in cases {
        check(bytes, TextPolicy::Refuse, Err(*error));
    }
    for opcode in [Opcode::Binary, Opcode::Text] {
        let inside = [start.clone(), frame(opcode, true, b"y")].concat();
        check(&inside, TextPolicy::Validate, Err(E::StartInsideMessage));
    }
}

#[test]
fn close_frames_are_checked() {
    use ProtocolError as E;
    check(
        &frame(Opcode::Close, true, b""),
        TextPolicy::Refuse,
        Ok(&[Whole::Close(None)]),
    );
    for code in [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1014, 3000, 3999, 4000, 4999,
    ] {
        let stream = frame(Opcode::Close, true, &u16::to_be_bytes(code));
        check(&stream, TextPolicy::Refuse, Ok(&[Whole::Close(Some(code))]));
    }
    for code in [
        0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535,
    ] {
        let stream = frame(Opcode::Close, true, &u16::to_be_bytes(code));
        check(&stream, TextPolicy::Refuse, Err(E::CloseCode));
    }
    check(
        &frame(Opcode::Close, true, &[3]),
        TextPolicy::Refuse,
        Err(E::CloseLength),
    );
    let reason = frame(Opcode::Close, true, b"\x03\xe8caf\xe9");
    check(&reason, TextPolicy::Refuse, Err(E::CloseReason));
    let after = [
        frame(Opcode::Close, true, b""),
        frame(Opcode::Ping, true, b""),
    ]
    .concat();
    check(&after, TextPolicy::Refuse, Err(E::AfterClose));
}

#[test]
fn a_close_reason_is_given() {
    let limits = DecoderLimits { frame_bytes_max: 0 };
    let mut decoder = Decoder::new(limits, TextPolicy::Refuse);
    let mut stream = frame(Opcode::Close, true, b"\x0f\xa0killed");
    let step = decoder.next(&mut stream).expect("a good frame");
    let Some(Event::Close(Some((code, reason)))) = step.event else {
        panic!("not a close frame: {step:?}");
    };
    assert_eq!((code, &stream[reason]), (4000, &b"killed"[..]));
    assert_eq!(step.consumed, stream.len());
    assert_eq!(
        decoder.next(&mut []),
        Ok(Step {
            consumed: 0,
            event: None
        })
    );
}

#[test]
fn errors_have_the_close_code_that_the_specification_names() {
    let cases = [
        (ProtocolError::Unmasked, 1002),
        (ProtocolError::AfterClose, 1002),
        (ProtocolError::TextRefused, 1003),
        (ProtocolError::NotUtf8, 1007),
        (ProtocolError::CloseReason, 1007),
        (ProtocolError::FrameTooLong, 1009),
    ];
    for (error, code) in cases {
        assert_eq!(error.close_code(), code, "{}", error.label());
    }
}

#[test]
fn text_is_checked_as_it_comes() {
    let euro = [0xe2, 0x82, 0xac];
    for cut in 0..=euro.len() {
        let stream = [
            frame(Opcode::Text, false, &euro[..cut]),
            frame(Opcode::Ping, true, b""),
            frame(Opcode::Continuation, true, &euro[cut..]),
        ];
        let expected = [Whole::Ping(vec![]), Whole::Text(euro.to_vec())];
        check(&stream.concat(), TextPolicy::Validate, Ok(&expected));
    }
    let bad: [&[u8]; 7] = [
        &[0xff],
        &[0xc0, 0x80],
        &[0xed, 0xa0],
        &[0xf4, 0x90],
        &[0xf5],
        b"ok\x80",
        &[0xe2, 0x82, b'x'],
    ];
    for text in bad {
        // Neither frame nor message has ended: what can't become right is refused at once.
        let stream = frame(Opcode::Text, false, &[text, &[b' '; 9]].concat());
        check(
            &stream[..6 + text.len()],
            TextPolicy::Validate,
            Err(ProtocolError::NotUtf8),
        );
    }
    let cut_short = frame(Opcode::Text, true, &euro[..2]);
    check(
        &cut_short,
        TextPolicy::Validate,
        Err(ProtocolError::NotUtf8),
    );
    let cut_short = [
        frame(Opcode::Text, false, &euro[..1]),
        frame(Opcode::Continuation, true, b""),
    ];
    check(
        &cut_short.concat(),
        TextPolicy::Validate,
        Err(ProtocolError::NotUtf8),
    );
}

#[test]
fn one_message_does_not_taint_the_next() {
    let stream = [
        frame(Opcode::Text, true, "é".as_bytes()),
        frame(Opcode::Binary, true, &[0xff, 0xc3]),
        frame(Opcode::Text, true, "é".as_bytes()),
        frame(Opcode::Binary, false, b""),
        frame(Opcode::Continuation, true, b""),
    ];
    let expected = [
        Whole::Text("é".into()),
        Whole::Binary(vec![0xff, 0xc3]),
        Whole::Text("é".into()),
        Whole::Binary(vec![]),
    ];
    check(&stream.concat(), TextPolicy::Validate, Ok(&expected));
}

#[test]
fn payload_comes_before_its_frame_is_whole() {
    let limits = DecoderLimits {
        frame_bytes_max: 10,
    };
    let mut decoder = Decoder::new(limits, TextPolicy::Refuse);
    let mut stream = frame(Opcode::Binary, true, b"0123456789");
    let step = decoder.next(&mut stream[..9]).expect("good so far");
    let expected = Event::Data {
        kind: MessageKind::Binary,
        payload: 6..9,
        first: true,
        last: false,
    };
    assert_eq!(
        step,
        Step {
            consumed: 9,
            event: Some(expected)
        }
    );
    assert_eq!(&stream[6..9], b"012");
    assert!(decoder.is_inside_message());
    let step = decoder.next(&mut stream[9..]).expect("good to the end");
    let expected = Event::Data {
        kind: MessageKind::Binary,
        payload: 0..7,
        first: false,
        last: true,
    };
    assert_eq!(
        step,
        Step {
            consumed: 7,
            event: Some(expected)
        }
    );
    assert_eq!(&stream[9..], b"3456789");
    assert!(!decoder.is_inside_message());
}

#[test]
fn close_frames_of_ours_are_within_the_limit() {
    assert_eq!(close_frame(4000, "killed"), b"\x88\x08\x0f\xa0killed");
    assert_eq!(close_without_code(), b"\x88\x00");
    let long = close_frame(1000, &"é".repeat(100));
    assert_eq!(long.len(), 2 + 2 + 122, "cut at a character");
    assert_eq!(pong(&[0; 200]).len(), 2 + CONTROL_BYTES_MAX);
}

/// A stream of good messages in fragments, with control frames between them.
fn good_stream() -> impl Strategy<Value = Vec<u8>> {
    let control = prop_oneof![Just(Opcode::Ping), Just(Opcode::Pong)];
    let fragment = (
        vec(any::<u8>(), 0..300),
        proptest::option::of((control, vec(any::<u8>(), 0..126))),
    );
    let binary = (Just(Opcode::Binary), vec(fragment, 1..4)).boxed();
    let text = ("\\PC{0,60}", 1_usize..9).prop_map(|(text, size)| {
        let mut fragments: Vec<_> = text
            .as_bytes()
            .chunks(size)
            .map(|piece| (piece.to_vec(), None))
            .collect();
        fragments.push((vec![], None));
        (Opcode::Text, fragments)
    });
    let message = prop_oneof![binary, text];
    (vec((message, any::<[u8; 4]>()), 0..5), any::<bool>()).prop_map(|(messages, close)| {
        let mut stream = Vec::new();
        for ((opcode, fragments), key) in messages {
            let count = fragments.len();
            for (at, (payload, control)) in fragments.into_iter().enumerate() {
                let opcode = if at == 0 {
                    opcode
                } else {
                    Opcode::Continuation
                };
                stream.extend(client_frame(opcode, at + 1 == count, key, &payload));
                if let Some((opcode, payload)) = control {
                    stream.extend(client_frame(opcode, true, key, &payload));
                }
            }
        }
        if close {
            stream.extend(client_frame(Opcode::Close, true, [9; 4], b"\x03\xe8bye"));
        }
        stream
    })
}

proptest! {
    #[test]
    fn any_cut_gives_what_tungstenite_reads(
        stream in good_stream(),
        lengths in vec(1_usize..200, 1..8),
    ) {
        let outcome = feed(&stream, TextPolicy::Validate, &lengths);
        prop_assert_eq!(outcome.error, None);
        prop_assert_eq!(outcome.whole, oracle(&stream));
    }

    #[test]
    fn a_damaged_stream_breaks_at_one_place_however_it_is_cut(
        mut stream in good_stream(),
        damage in vec((any::<proptest::sample::Index>(), any::<u8>()), 1..4),
        lengths in vec(1_usize..200, 1..8),
    ) {
        for (at, byte) in damage {
            if !stream.is_empty() {
                let at = at.index(stream.len());
                stream[at] = byte;
            }
        }
        let at_once = feed(&stream, TextPolicy::Validate, &[stream.len().max(1)]);
        let cut = feed(&stream, TextPolicy::Validate, &lengths);
        prop_assert_eq!(&at_once.whole, &cut.whole);
        prop_assert_eq!(at_once.error, cut.error);
        let read = oracle(&stream);
        prop_assert!(read.starts_with(&at_once.whole), "{:?} {:?}", read, at_once);
        if at_once.error.is_none() {
            prop_assert_eq!(read, at_once.whole);
        }
    }

    #[test]
    fn unmasking_is_the_same_at_any_offset(
        payload in vec(any::<u8>(), 0..1_500),
        key: [u8; 4],
        offset in 0_usize..9,
    ) {
        let expected: Vec<u8> = payload
            .iter()
            .enumerate()
            .map(|(at, byte)| byte ^ key[(at + offset) % 4])
            .collect();
        let mut masked = payload;
        unmask(&mut masked, key, offset);
        prop_assert_eq!(masked, expected);
    }
}
