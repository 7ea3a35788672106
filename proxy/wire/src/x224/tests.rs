//! The specification's PDUs, downgrades, and what is not a negotiation.

use proptest::prelude::*;

use super::*;

/// [MS-RDPBCGR 4.1.1] Client X.224 Connection Request PDU.
const REQUEST: &[u8] = b"\x03\x00\x00\x2c\x27\xe0\x00\x00\x00\x00\x00Cookie: mstshash=eltons\r\n\
    \x01\x00\x08\x00\x00\x00\x00\x00";

/// [MS-RDPBCGR 4.1.2] Server X.224 Connection Confirm PDU.
const CONFIRM: &[u8] =
    b"\x03\x00\x00\x13\x0e\xd0\x00\x00\x12\x34\x00\x02\x00\x08\x00\x00\x00\x00\x00";

const NLA_BOTH: Protocols = Protocols::NLA.union(Protocols::NLA_EX);

/// A connection request with this variable part.
fn request(variable: &[u8]) -> Vec<u8> {
    tpdu(0xe0, variable)
}

fn tpdu(code: u8, variable: &[u8]) -> Vec<u8> {
    let length = u8::try_from(11 + variable.len()).expect("a short PDU");
    [
        &[3, 0, 0, length, length - 5, code, 0, 0, 0, 0, 0],
        variable,
    ]
    .concat()
}

#[test]
fn the_specifications_request_is_read_and_written() {
    let parsed = ConnectionRequest::parse(REQUEST).expect("a request");
    assert_eq!(parsed.cookie, Some(Cookie::UserHash("eltons".into())));
    assert_eq!(
        parsed.protocols(),
        Protocols::NONE,
        "it offers standard RDP security only"
    );
    assert_eq!(
        encode_request(parsed.cookie.as_ref(), Protocols::NONE).as_deref(),
        Ok(REQUEST)
    );
}

#[test]
fn the_specifications_confirm_is_standard_security() {
    assert_eq!(confirm_length(CONFIRM), Ok(Some(CONFIRM.len())));
    let confirm = Confirm::parse(CONFIRM).expect("a confirm");
    assert_eq!(confirm, Confirm::Standard);
    assert_eq!(
        judge(confirm, Protocols::ALL),
        Err(Refused::StandardSecurity)
    );
}

#[test]
fn requests_of_every_kind_are_read() {
    let offer = [1, 0, 8, 0, 0x0b, 0, 0, 0];
    let correlation = [&[6, 0, 36, 0][..], &[7; 16], &[0; 16]].concat();
    let with = |line: &[u8]| request(&[line, &offer].concat());
    let token = "Cookie: msts=3640205228.15629.0000\r\n";
    let opaque = "tsv://MS Terminal Services Plugin.1.Farm\r\n";
    let cases = [
        (request(b""), None, Protocols::NONE),
        (with(b""), None, Protocols::ALL),
        (
            with(token.as_bytes()),
            Some(Cookie::RoutingToken(token[13..34].into())),
            Protocols::ALL,
        ),
        (
            with(opaque.as_bytes()),
            Some(Cookie::Opaque(opaque[..40].into())),
            Protocols::ALL,
        ),
        (
            request(&[&[1, 8, 8, 0, 3, 0, 0, 0][..], &correlation].concat()),
            None,
            Protocols::TLS.union(Protocols::NLA),
        ),
        (
            request(&[1, 0, 8, 0, 0x14, 0, 0, 0x80]),
            None,
            Protocols::NONE,
        ),
    ];
    for (bytes, cookie, protocols) in cases {
        let parsed = ConnectionRequest::parse(&bytes).expect("a request");
        assert_eq!(
            (parsed.cookie.clone(), parsed.protocols()),
            (cookie, protocols)
        );
        let again = encode_request(parsed.cookie.as_ref(), NLA_BOTH).expect("it encodes");
        let again = ConnectionRequest::parse(&again).expect("a request");
        assert_eq!((again.cookie, again.protocols), (parsed.cookie, NLA_BOTH));
    }
}

#[test]
fn what_is_sent_on_offers_only_what_is_allowed() {
    // Restricted admin is asked for and TLS, NLA and NLA_EX are offered; NLA is allowed.
    let parsed =
        ConnectionRequest::parse(&request(&[1, 1, 8, 0, 0x0b, 0, 0, 0])).expect("a request");
    let offered = parsed.protocols().intersection(Protocols::NLA);
    let sent = encode_request(None, offered).expect("it encodes");
    assert_eq!(sent, request(&[1, 0, 8, 0, 2, 0, 0, 0]));
}

#[test]
fn what_is_not_one_request_is_refused() {
    let more = [REQUEST, b"\0"].concat();
    let mut user_data = REQUEST.to_vec();
    user_data[4] -= 8;
    let mut short_tpkt = REQUEST.to_vec();
    short_tpkt[3] -= 1;
    let cases: &[(&[u8], X224Error)] = &[
        (b"", X224Error::Length),
        (&more, X224Error::Length),
        (&user_data, X224Error::Length),
        (&short_tpkt, X224Error::Length),
        (&REQUEST[..REQUEST.len() - 1], X224Error::Length),
        (&[3, 0, 0, 5, 0], X224Error::Malformed),
        (&[3, 0, 0, 7, 2, 0xe0, 0], X224Error::Malformed),
        (b"\x16\x03\x01\x02\x00", X224Error::NotTpkt),
        (CONFIRM, X224Error::Malformed),
        (&request(&[1, 0, 8, 0]), X224Error::Malformed),
        (&request(&[1, 0, 9, 0, 1, 0, 0, 0]), X224Error::Malformed),
        (&request(&[2, 0, 8, 0, 1, 0, 0, 0]), X224Error::Malformed),
        (&request(&[1, 0, 8, 0, 1, 0, 0, 0, 0]), X224Error::Malformed),
        (&request(b"Cookie: mstshash=a"), X224Error::Malformed),
        (&request(b"Cookie: mstshash=a\nb\r\n"), X224Error::Cookie),
        (&request(b"Cookie: mstshash=\xff\r\n"), X224Error::Malformed),
    ];
    for (bytes, error) in cases {
        assert_eq!(ConnectionRequest::parse(bytes), Err(*error), "{bytes:02x?}");
    }
}

#[test]
fn a_cookie_that_is_no_line_or_too_long_is_not_sent() {
    let cases = [
        Cookie::UserHash("a\r\nb".into()),
        Cookie::RoutingToken("a\n".into()),
        Cookie::Opaque("a\r\n\x01".into()),
        Cookie::Opaque(String::new()),
        Cookie::UserHash("u".repeat(240)),
        Cookie::RoutingToken("u".repeat(70_000)),
    ];
    for cookie in cases {
        assert_eq!(
            encode_request(Some(&cookie), Protocols::NLA),
            Err(X224Error::Cookie)
        );
    }
}

#[test]
fn a_confirms_length_is_known_from_its_header_and_capped() {
    for cut in 0..CONFIRM.len() {
        let expected = (cut >= 4).then_some(CONFIRM.len());
        assert_eq!(
            confirm_length(&CONFIRM[..cut]),
            Ok(expected),
            "cut at {cut}"
        );
    }
    let cases: [(&[u8], X224Error); 5] = [
        (b"\x16", X224Error::NotTpkt),
        (b"\x03\0\0\0", X224Error::Length),
        (b"\x03\0\0\x0a", X224Error::Length),
        (b"\x03\0\0\x14", X224Error::Length),
        (b"\x03\0\xff\xff", X224Error::Length),
    ];
    for (bytes, error) in cases {
        assert_eq!(confirm_length(bytes), Err(error));
    }
}

#[test]
fn confirms_are_written_and_read() {
    let cases = [
        Confirm::Selected(1),
        Confirm::Selected(2),
        Confirm::Selected(8),
        Confirm::Selected(0x8000_0003),
        Confirm::Failure(HYBRID_REQUIRED_BY_SERVER),
        Confirm::Failure(u32::MAX),
        Confirm::Standard,
    ];
    for confirm in cases {
        let bytes = encode_confirm(confirm);
        assert_eq!(bytes.len(), CONFIRM_BYTES_MAX);
        assert_eq!(Confirm::parse(&bytes), Ok(confirm));
    }
    assert_eq!(Confirm::parse(&tpdu(0xd0, b"")), Ok(Confirm::Standard));
}

#[test]
fn what_is_not_one_confirm_is_refused() {
    let more = [CONFIRM, b"\0"].concat();
    let cases: &[(&[u8], X224Error)] = &[
        (&more, X224Error::Length),
        (&CONFIRM[..11], X224Error::Length),
        (REQUEST, X224Error::Length),
        (&request(b""), X224Error::Malformed),
        (&tpdu(0xd0, &[2, 0, 8]), X224Error::Malformed),
        (&tpdu(0xd0, &[2, 0, 9, 0, 1, 0, 0, 0]), X224Error::Malformed),
        (&tpdu(0xd0, &[1, 0, 8, 0, 1, 0, 0, 0]), X224Error::Malformed),
        (&tpdu(0xd0, &[0; 8]), X224Error::Malformed),
    ];
    for (bytes, error) in cases {
        assert_eq!(Confirm::parse(bytes), Err(*error), "{bytes:02x?}");
    }
}

#[test]
fn only_one_offered_protocol_is_accepted() {
    let cases = [
        (Confirm::Selected(1), Protocols::ALL, Ok(Protocol::Tls)),
        (Confirm::Selected(2), NLA_BOTH, Ok(Protocol::Nla)),
        (Confirm::Selected(8), NLA_BOTH, Ok(Protocol::NlaEx)),
        (Confirm::Selected(1), NLA_BOTH, Err(Refused::NotOffered(1))),
        (
            Confirm::Selected(8),
            Protocols::NLA,
            Err(Refused::NotOffered(8)),
        ),
        (
            Confirm::Selected(3),
            Protocols::ALL,
            Err(Refused::NotOffered(3)),
        ),
        (
            Confirm::Selected(4),
            Protocols::ALL,
            Err(Refused::NotOffered(4)),
        ),
        (
            Confirm::Selected(16),
            Protocols::ALL,
            Err(Refused::NotOffered(16)),
        ),
        (
            Confirm::Selected(0x102),
            Protocols::ALL,
            Err(Refused::NotOffered(0x102)),
        ),
        (
            Confirm::Selected(2),
            Protocols::NONE,
            Err(Refused::NotOffered(2)),
        ),
        (
            Confirm::Standard,
            Protocols::ALL,
            Err(Refused::StandardSecurity),
        ),
        (
            Confirm::Standard,
            Protocols::NONE,
            Err(Refused::StandardSecurity),
        ),
        (
            Confirm::Selected(0),
            Protocols::ALL,
            Err(Refused::StandardSecurity),
        ),
        (
            Confirm::Failure(2),
            Protocols::ALL,
            Err(Refused::ByTarget(2)),
        ),
    ];
    for (confirm, offered, expected) in cases {
        assert_eq!(
            judge(confirm, offered),
            expected,
            "{confirm:?} of {offered:?}"
        );
    }
}

proptest! {
    #[test]
    fn a_request_in_any_words_is_read_again(name in "[^\\p{C}]{0,40}", bits in 0_u32..16) {
        let cookie = Some(Cookie::UserHash(name));
        let protocols = Protocols::from_bits(bits);
        let bytes = encode_request(cookie.as_ref(), protocols).expect("it encodes");
        let expected = ConnectionRequest { cookie, protocols };
        prop_assert_eq!(ConnectionRequest::parse(&bytes), Ok(expected));
    }

    #[test]
    fn damaged_pdus_are_an_answer_not_a_panic(at in 0..REQUEST.len(), byte: u8, cut in 0..=REQUEST.len()) {
        for pdu in [REQUEST, CONFIRM] {
            let mut bytes = pdu.to_vec();
            let at = at % bytes.len();
            bytes[at] = byte;
            let bytes = &bytes[..cut.min(bytes.len())];
            let _ = (ConnectionRequest::parse(bytes), Confirm::parse(bytes), confirm_length(bytes));
        }
    }
}
