//! The framing as outside conformance suites look at it: what is not allowed ends the connection at
//! once, with the code that RFC 6455 has for it.

use anyhow::{Context as _, Result};
use tungstenite::Message;
use tungstenite::protocol::frame::FrameHeader;

use crate::echo_peer::{Peer, gateway, spoilt};

const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CONTINUATION: u8 = 0x0;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;

fn whole(opcode: u8, payload: &[u8]) -> Vec<u8> {
    spoilt(opcode, payload, |_| {})
}

fn begun(opcode: u8, payload: &[u8]) -> Vec<u8> {
    spoilt(opcode, payload, |header| header.is_final = false)
}

fn close(code: u16) -> Vec<u8> {
    whole(CLOSE, &code.to_be_bytes())
}

/// Breaks of the protocol; each ends with 1002.
fn violations() -> Vec<(String, Vec<u8>)> {
    let bit = |spoil: fn(&mut FrameHeader)| spoilt(TEXT, b"x", spoil);
    let mut cases = vec![
        ("unmasked".into(), spoilt(TEXT, b"x", |h| h.mask = None)),
        ("unmasked ping".into(), spoilt(PING, b"", |h| h.mask = None)),
        ("reserved bit 1".into(), bit(|h| h.rsv1 = true)),
        ("reserved bit 2".into(), bit(|h| h.rsv2 = true)),
        ("reserved bit 3".into(), bit(|h| h.rsv3 = true)),
        ("a ping with a reserved bit".into(), {
            spoilt(PING, b"x", |h| h.rsv2 = true)
        }),
        ("a close with reserved bits".into(), {
            spoilt(CLOSE, b"", |h| (h.rsv1, h.rsv3) = (true, true))
        }),
        ("a ping of 126 bytes".into(), whole(PING, &[0xfe; 126])),
        ("a pong of 126 bytes".into(), whole(0xa, &[0xfe; 126])),
        ("a close of 126 bytes".into(), {
            whole(CLOSE, &[&[3, 0xe8][..], &[b'r'; 124]].concat())
        }),
        ("a ping in parts".into(), begun(PING, b"x")),
        ("a pong in parts".into(), begun(0xa, b"x")),
        ("a close in parts".into(), begun(CLOSE, b"")),
        ("a last part of nothing".into(), whole(CONTINUATION, b"x")),
        ("a part of nothing".into(), begun(CONTINUATION, b"x")),
        ("a part after a whole message".into(), {
            [
                begun(TEXT, b"a"),
                whole(CONTINUATION, b"b"),
                begun(CONTINUATION, b"c"),
            ]
            .concat()
        }),
        ("a message inside another".into(), {
            [begun(TEXT, b"a"), whole(TEXT, b"b")].concat()
        }),
        ("a binary message inside text".into(), {
            [begun(TEXT, b"a"), begun(BINARY, b"b")].concat()
        }),
        ("half a close code".into(), whole(CLOSE, &[3])),
        ("5 in two bytes".into(), vec![0x82, 0xfe, 0, 5, 1, 2, 3, 4]),
        ("2^63 bytes".into(), {
            vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]
        }),
        // What can't be right need not come whole.
        ("one byte of a reserved bit".into(), vec![0xc1]),
        ("one byte of a ping in parts".into(), vec![0x09]),
        ("two bytes of a long ping".into(), vec![0x89, 0xfe]),
    ];
    for opcode in (0x3..=0x7).chain(0xb..=0xf) {
        cases.push((format!("opcode {opcode}"), whole(opcode, b"x")));
    }
    for code in [
        0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535,
    ] {
        cases.push((format!("close code {code}"), close(code)));
    }
    cases
}

#[test]
fn a_break_of_the_protocol_ends_with_1002() -> Result<()> {
    let gateway = gateway()?;
    for (what, bytes) in violations() {
        let check = |alone: bool| -> Result<()> {
            let mut peer = Peer::connect(&gateway.browser())?;
            if !alone {
                // What came whole before it is answered before the end.
                peer.raw(&[whole(TEXT, "früher".as_bytes()), whole(PING, b"p")].concat())?;
            }
            // And what comes after it is not.
            peer.raw(&[bytes.as_slice(), &whole(PING, b"after")].concat())?;
            if !alone {
                peer.expect(&Message::text("früher"))?;
                peer.expect(&Message::Pong("p".into()))?;
            }
            if what == "a part after a whole message" {
                peer.expect(&Message::text("ab"))?;
            }
            peer.expect_close(Some(1002))
        };
        for alone in [true, false] {
            check(alone).with_context(|| what.clone())?;
        }
    }
    Ok(())
}

/// Byte strings that are in no text.
const NOT_UTF8: [&[u8]; 13] = [
    b"\x80",
    b"\xbf",
    b"\xc0\x80",
    b"\xc1\xbf",
    b"\xe0\x80\xaf",
    b"\xf0\x80\x80\xaf",
    b"\xed\xa0\x80",
    b"\xed\xbf\xbf",
    b"\xed\xa0\x80\xed\xb0\x80",
    b"\xf4\x90\x80\x80",
    b"\xf8\x88\x80\x80\x80",
    b"\xfe",
    b"\xff",
];

#[test]
fn text_that_is_no_text_ends_with_1007_at_the_first_wrong_byte() -> Result<()> {
    let gateway = gateway()?;
    let check = |what: &str, sent: &[u8]| -> Result<()> {
        let mut peer = Peer::connect(&gateway.browser())?;
        peer.raw(sent)?;
        let shown = || format!("{what}: {sent:02x?}");
        peer.expect_close(Some(1007)).with_context(shown)
    };
    for bytes in NOT_UTF8 {
        let within = [b"Hello-", bytes, b"-end"].concat();
        check("in one frame", &whole(TEXT, &within))?;
        let parts: Vec<u8> = std::iter::once(begun(TEXT, b""))
            .chain(within.iter().map(|byte| begun(CONTINUATION, &[*byte])))
            .flatten()
            .collect();
        check("byte by byte, and never ended", &parts)?;
        // The frame promises more than ever comes: only a reader that looks at once can tell.
        let long = whole(TEXT, &[within.as_slice(), &[b'.'; 1000]].concat());
        check("at the start of a long frame", &long[..8 + within.len()])?;
    }
    for unfinished in [&b"\xc3"[..], b"\xe2\x82", b"\xf0\x9f\x98", b"ab\xce"] {
        check("an unfinished character", &whole(TEXT, unfinished))?;
        let ended = [begun(TEXT, unfinished), whole(CONTINUATION, b"")].concat();
        check("an unfinished character, then an empty end", &ended)?;
        let next = [whole(TEXT, unfinished), whole(TEXT, b"\x80")].concat();
        check("a character that goes on in the next message", &next)?;
    }
    for reason in [
        b"\xff".as_slice(),
        b"\xce\xba\xe1\xbd\xb9\xcf",
        b"\xed\xa0\x80",
    ] {
        let payload = [&1000_u16.to_be_bytes()[..], reason].concat();
        check("a close reason", &whole(CLOSE, &payload))?;
    }
    Ok(())
}

#[test]
fn binary_messages_may_hold_what_is_no_text() -> Result<()> {
    let gateway = gateway()?;
    let mut peer = Peer::connect(&gateway.browser())?;
    for bytes in NOT_UTF8 {
        peer.echoed(Message::binary(bytes))?;
    }
    Ok(())
}

#[test]
fn a_frame_over_the_limit_ends_with_1009_before_it_is_sent() -> Result<()> {
    let gateway = gateway()?;
    let mut peer = Peer::connect(&gateway.browser())?;
    let promised = (64_u64 << 20) + 1;
    peer.raw(&[&[0x82, 0xff][..], &promised.to_be_bytes(), &[1, 2, 3, 4]].concat())?;
    peer.expect_close(Some(1009))
}
