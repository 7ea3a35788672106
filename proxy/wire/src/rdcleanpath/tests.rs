//! Round trips, the DER of a request spelled out, and PDUs that are not for us.

use proptest::prelude::*;

use super::*;

/// The request `SEQUENCE { [0] 3390, [2] "pc:3389", [3] "t", [6] 03 00 00 0b }` in DER.
const REQUEST: &[u8] = b"\x30\x1e\xa0\x04\x02\x02\x0d\x3e\xa2\x09\x0c\x07pc:3389\
    \xa3\x03\x0c\x01t\xa6\x06\x04\x04\x03\x00\x00\x0b";

/// `body` in a DER sequence.
fn sequence(body: &[u8]) -> Vec<u8> {
    let length = u8::try_from(body.len()).expect("a short body");
    assert!(length < 0x80, "the short form of a length");
    [&[SEQUENCE, length], body].concat()
}

fn pdu(change: impl FnOnce(&mut RDCleanPathPdu)) -> Vec<u8> {
    let mut pdu = RDCleanPathPdu::from_der(REQUEST).expect("a good request");
    change(&mut pdu);
    pdu.to_der().expect("it encodes")
}

#[test]
fn a_request_is_read_and_written_byte_by_byte() {
    let bytes = encode_request("pc:3389", "t", &[3, 0, 0, 0x0b]).expect("it encodes");
    assert_eq!(bytes, REQUEST);
    let expected = Request {
        destination: "pc:3389".into(),
        x224: vec![3, 0, 0, 0x0b],
        has_preconnection_blob: false,
    };
    assert_eq!(Request::parse(&bytes), Ok(expected));
}

#[test]
fn the_length_is_known_once_the_version_is_there() {
    for cut in 0..REQUEST.len() {
        let expected = (cut >= 8).then_some(REQUEST.len());
        assert_eq!(
            request_length(&REQUEST[..cut]),
            Ok(expected),
            "cut at {cut}"
        );
    }
    let long = encode_request("pc", "", &[0; 17 * 1024]).expect("it encodes");
    assert_eq!(request_length(&long[..12]), Ok(Some(long.len())));
}

#[test]
fn what_can_not_become_a_pdu_is_refused_at_once() {
    let cases: [&[u8]; 8] = [
        b"\x03",
        b"GET",
        b"\x31\x20",
        b"\x30\x80",
        b"\x30\x20\xa2",
        b"\x30\x82\x01\x00\xa1",
        b"\x30\x20\xa0\x04\x02\x02\x0d\x3d",
        b"\x30\x20\xa0\x04\x02\x02\x0d\x3f",
    ];
    for bytes in cases {
        assert_eq!(
            request_length(bytes),
            Err(CleanPathError::NotCleanPath),
            "{bytes:02x?}"
        );
    }
}

#[test]
fn a_request_with_bytes_left_over_or_missing_is_refused() {
    let more = [REQUEST, b"\0"].concat();
    for bytes in [&more[..], &REQUEST[..REQUEST.len() - 1], &REQUEST[..4], b""] {
        assert_eq!(Request::parse(bytes), Err(CleanPathError::Length));
    }
    let inside = sequence(&[&REQUEST[2..], b"\x05\x00"].concat());
    assert_eq!(Request::parse(&inside), Err(CleanPathError::Malformed));
}

#[test]
fn a_preconnection_blob_is_told() {
    let bytes = pdu(|pdu| pdu.preconnection_blob = Some("vm".into()));
    assert!(
        Request::parse(&bytes)
            .expect("a request")
            .has_preconnection_blob
    );
}

#[test]
fn pdus_that_are_not_requests_are_refused() {
    let cases = [
        pdu(|pdu| pdu.destination = None),
        pdu(|pdu| pdu.proxy_auth = None),
        pdu(|pdu| pdu.x224_connection_pdu = None),
        pdu(|pdu| pdu.server_addr = Some("10.0.0.1".into())),
        pdu(|pdu| pdu.server_cert_chain = Some(vec![])),
        pdu(|pdu| pdu.error = RDCleanPathPdu::new_general_error().error),
        response("10.0.0.1", b"cc", [b"der"]),
        failure(&Failure::General),
    ];
    for bytes in cases {
        assert_eq!(
            Request::parse(&bytes),
            Err(CleanPathError::NotRequest),
            "{bytes:02x?}"
        );
    }
    assert_eq!(Answer::parse(REQUEST), Err(CleanPathError::NotAnswer));
}

#[test]
fn a_request_without_x224_is_refused() {
    let bytes = pdu(|pdu| {
        pdu.x224_connection_pdu = None;
        pdu.preconnection_blob = Some("9d8f1c5e".into());
    });
    assert_eq!(Request::parse(&bytes), Err(CleanPathError::NotRequest));
}

#[test]
fn a_desktop_is_answered() {
    let chain = [b"leaf".to_vec(), b"issuer".to_vec()];
    let expected = Answer::Desktop {
        server_addr: "10.0.0.1:3389".into(),
        x224_confirm: vec![3, 0, 0, 19],
        chain: chain.to_vec(),
    };
    let bytes = response("10.0.0.1:3389", &[3, 0, 0, 19], &chain);
    assert_eq!(Answer::parse(&bytes), Ok(expected));
}

#[test]
fn every_failure_is_answered() {
    let cases = [
        Failure::Http(403),
        Failure::Wsa(10061),
        Failure::Tls(40),
        Failure::Negotiation(vec![3, 0, 0, 19]),
        Failure::General,
    ];
    for case in cases {
        assert_eq!(Answer::parse(&failure(&case)), Ok(Answer::Failed(case)));
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        destination in ".{0,40}",
        token in ".{0,300}",
        x224 in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let bytes = encode_request(&destination, &token, &x224).expect("it encodes");
        prop_assert_eq!(request_length(&bytes), Ok(Some(bytes.len())));
        let expected = Request { destination, x224, has_preconnection_blob: false };
        prop_assert_eq!(Request::parse(&bytes), Ok(expected));
    }

    #[test]
    fn a_damaged_request_is_an_answer_not_a_panic(at in 0..REQUEST.len(), byte: u8, cut in 0..REQUEST.len()) {
        let mut bytes = REQUEST.to_vec();
        bytes[at] = byte;
        let _ = (Request::parse(&bytes), Answer::parse(&bytes), request_length(&bytes[..cut]));
    }
}
