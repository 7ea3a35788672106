//! What a head must and must not be.

use proptest::prelude::*;

use super::*;

/// [RFC 6455 §1.2, §1.3] The opening handshake of the specification.
const HANDSHAKE: &str = "GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Origin: http://example.com\r\nSec-WebSocket-Protocol: chat, superchat\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";

fn whole(bytes: &[u8]) -> Head<'_> {
    parse_head(bytes)
        .expect("a good head")
        .expect("a whole head")
}

/// A GET of `/` with these header lines (each with its CR LF) after the host.
fn with_lines(lines: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: gw.example\r\n{lines}\r\n")
}

fn refused(bytes: &[u8], expected: HeadError) {
    let text = String::from_utf8_lossy(bytes);
    assert_eq!(parse_head(bytes).err(), Some(expected), "{text:?}");
}

#[test]
fn a_head_is_taken_apart() {
    let mut bytes = b"POST /app/lab/renew?x=1&y=?2 HTTP/1.1\r\nhOsT: GW.Example:8443\r\n\
        Content-Length: 3\r\nX-Note:  caf\xc3\xa9 \t\r\n\r\n"
        .to_vec();
    let length = bytes.len();
    bytes.extend_from_slice(b"abc");
    let head = whole(&bytes);
    assert_eq!(head.method, "POST");
    assert_eq!(head.target, "/app/lab/renew?x=1&y=?2");
    assert_eq!(head.path, "/app/lab/renew");
    assert_eq!(head.query, Some("x=1&y=?2"));
    assert_eq!(head.host().name, "gw.example");
    assert_eq!(head.host().port, Some(8443));
    assert_eq!(head.body, Body::Length(3));
    assert_eq!(head.length, length);
    assert_eq!(head.headers[2].value, b"caf\xc3\xa9");
    assert_eq!(head.header("x-note"), Err(HeadError::Value));
    assert_eq!(head.header("absent"), Ok(None));
}

#[test]
fn a_head_in_pieces_is_neither_whole_nor_wrong() {
    for head in [HANDSHAKE, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"] {
        for cut in 0..head.len() {
            assert!(
                matches!(parse_head(&head.as_bytes()[..cut]), Ok(None)),
                "cut at {cut}"
            );
        }
    }
}

#[test]
fn a_malformed_head_is_refused_before_it_is_whole() {
    let cases: &[(&[u8], HeadError)] = &[
        (b"\x16\x03\x01", HeadError::ControlByte),
        (b"G\0", HeadError::ControlByte),
        (b" GET", HeadError::RequestLine),
        (b"\r\n", HeadError::RequestLine),
        (b"G(T", HeadError::RequestLine),
        (b"PRI * HTTP/2.0\r\n", HeadError::Version),
        (b"GET / HTTP/1.1\n", HeadError::LineEnd),
        (b"GET / HTTP/1.1\rH", HeadError::LineEnd),
        (b"GET / HTTP/1.1\r\n Host", HeadError::Folded),
        (b"GET / HTTP/1.1\r\nHost : a", HeadError::HeaderLine),
        (b"GET / HTTP/1.1\r\nHost: a\x7f", HeadError::ControlByte),
    ];
    for (bytes, expected) in cases {
        refused(bytes, *expected);
    }
}

#[test]
fn request_lines_that_are_not_plain_are_refused() {
    let cases = [
        ("GET / HTTP/1.0", HeadError::Version10),
        ("GET / HTTP/2.0", HeadError::Version),
        ("GET / http/1.1", HeadError::RequestLine),
        ("GET /", HeadError::RequestLine),
        ("GET  / HTTP/1.1", HeadError::RequestLine),
        ("GET / HTTP/1.1 ", HeadError::RequestLine),
        ("GET\t/\tHTTP/1.1", HeadError::RequestLine),
        ("GET http://gw.example/ HTTP/1.1", HeadError::Target),
        ("CONNECT gw.example:443 HTTP/1.1", HeadError::Target),
        ("OPTIONS * HTTP/1.1", HeadError::Target),
        ("GET //evil.example/ HTTP/1.1", HeadError::Target),
        ("GET /a#b HTTP/1.1", HeadError::Target),
        ("GET /a\\b HTTP/1.1", HeadError::Target),
        ("GET /caf\u{e9} HTTP/1.1", HeadError::Target),
        ("GET /%2 HTTP/1.1", HeadError::Target),
        ("GET /%zz HTTP/1.1", HeadError::Target),
        ("GET /a/../b HTTP/1.1", HeadError::Target),
        ("GET /a/.%2E/b HTTP/1.1", HeadError::Target),
        ("GET /. HTTP/1.1", HeadError::Target),
        ("GET /%2e HTTP/1.1", HeadError::Target),
    ];
    for (line, expected) in cases {
        refused(
            format!("{line}\r\nHost: gw.example\r\n\r\n").as_bytes(),
            expected,
        );
    }
}

#[test]
fn dots_that_are_no_segment_are_fine() {
    for target in ["/a.b/...", "/?a=../b", "/.well-known/jwks.json", "/a%2fb"] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(whole(head.as_bytes()).target, target);
    }
}

#[test]
fn smuggling_shapes_are_refused() {
    let cases = [
        (
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            HeadError::BothLengths,
        ),
        (
            "Content-Length: 5\r\nContent-Length: 5\r\n",
            HeadError::Duplicate,
        ),
        (
            "Content-Length: 5\r\ncontent-length: 6\r\n",
            HeadError::Duplicate,
        ),
        ("Content-Length: 5, 5\r\n", HeadError::ContentLength),
        ("Content-Length: +5\r\n", HeadError::ContentLength),
        ("Content-Length: -5\r\n", HeadError::ContentLength),
        ("Content-Length: 05\r\n", HeadError::ContentLength),
        ("Content-Length: 0x5\r\n", HeadError::ContentLength),
        ("Content-Length: 5 5\r\n", HeadError::ContentLength),
        ("Content-Length:\r\n", HeadError::ContentLength),
        (
            "Content-Length: 18446744073709551616\r\n",
            HeadError::ContentLength,
        ),
        (
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            HeadError::Duplicate,
        ),
        (
            "Transfer-Encoding: chunked, identity\r\n",
            HeadError::TransferEncoding,
        ),
        (
            "Transfer-Encoding: gzip, chunked\r\n",
            HeadError::TransferEncoding,
        ),
        (
            "Transfer-Encoding: xchunked\r\n",
            HeadError::TransferEncoding,
        ),
        (
            "Transfer-Encoding: \"chunked\"\r\n",
            HeadError::TransferEncoding,
        ),
        ("Transfer-Encoding:\r\n", HeadError::TransferEncoding),
        ("Transfer-Encoding:\x0bchunked\r\n", HeadError::ControlByte),
        ("Transfer-Encoding : chunked\r\n", HeadError::HeaderLine),
        ("Transfer-Encoding\t: chunked\r\n", HeadError::HeaderLine),
        ("Transfer-Encoding:\r\n chunked\r\n", HeadError::Folded),
        ("X: y\nTransfer-Encoding: chunked\r\n", HeadError::LineEnd),
        ("X: y\rTransfer-Encoding: chunked\r\n", HeadError::LineEnd),
        ("X: y\r\n\tfolded\r\n", HeadError::Folded),
        ("X: a\0b\r\n", HeadError::ControlByte),
        (": nameless\r\n", HeadError::HeaderLine),
        ("no colon\r\n", HeadError::HeaderLine),
        ("na me: x\r\n", HeadError::HeaderLine),
        ("Host: gw.example\r\n", HeadError::Duplicate),
        ("hOST: evil.example\r\n", HeadError::Duplicate),
    ];
    for (lines, expected) in cases {
        refused(with_lines(lines).as_bytes(), expected);
        let upgrade = HANDSHAKE.replace("\r\n\r\n", "\r\n");
        refused(format!("{upgrade}{lines}\r\n").as_bytes(), expected);
    }
}

#[test]
fn a_body_is_told_by_exactly_one_length() {
    let cases = [
        ("", Body::None),
        ("Content-Length: 0\r\n", Body::None),
        ("Content-Length: \t42 \r\n", Body::Length(42)),
        ("Transfer-Encoding: Chunked\r\n", Body::Chunked),
    ];
    for (lines, expected) in cases {
        assert_eq!(
            whole(with_lines(lines).as_bytes()).body,
            expected,
            "{lines:?}"
        );
    }
}

#[test]
fn the_number_of_header_lines_is_limited() {
    let lines = |count| with_lines(&"X: y\r\n".repeat(count - 1));
    assert_eq!(
        whole(lines(HEADERS_MAX).as_bytes()).headers.len(),
        HEADERS_MAX
    );
    refused(lines(HEADERS_MAX + 1).as_bytes(), HeadError::TooManyHeaders);
    let begun = lines(HEADERS_MAX);
    let begun = format!("{}\r\nX", begun.trim_end());
    refused(begun.as_bytes(), HeadError::TooManyHeaders);
}

#[test]
fn a_host_is_a_name_or_an_address_and_perhaps_a_port() {
    let cases = [
        ("A.b-c.EXAMPLE", "a.b-c.example", None),
        ("127.0.0.1:8443", "127.0.0.1", Some(8443)),
        ("[::1]", "[::1]", None),
        ("[2001:DB8:0::1]:443", "[2001:db8::1]", Some(443)),
    ];
    for (value, name, port) in cases {
        let head = format!("GET / HTTP/1.1\r\nHost: {value}\r\n\r\n");
        let host = whole(head.as_bytes()).host().clone();
        assert_eq!((host.name.as_str(), host.port), (name, port));
    }
}

#[test]
fn hosts_that_are_anything_else_are_refused() {
    let long = "a".repeat(254);
    let hosts = [
        "",
        "a.",
        ".a",
        "a..b",
        "a b",
        "a,b",
        "user@a",
        "a/b",
        "a:",
        "a:0",
        "a:080",
        "a:65536",
        "a:+1",
        "a:1:2",
        "::1",
        "[::1",
        "[::1]x",
        "[::1]:",
        "[fe80::1%25eth0]",
        "[]",
        "caf\u{e9}",
        "%61",
        &long,
    ];
    for host in hosts {
        refused(
            format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes(),
            HeadError::Host,
        );
    }
    refused(b"GET / HTTP/1.1\r\nX: y\r\n\r\n", HeadError::HostMissing);
}

#[test]
fn a_cookie_is_found_by_its_exact_name() {
    let head = with_lines("Cookie: a=1; b=x=y; ; flag; __Host-c=e30.e30.sig; n=\r\n");
    let head = whole(head.as_bytes());
    let cases = [
        ("a", Some("1")),
        ("b", Some("x=y")),
        ("__Host-c", Some("e30.e30.sig")),
        ("n", Some("")),
        ("A", None),
        ("flag", None),
        ("c", None),
    ];
    for (name, value) in cases {
        assert_eq!(head.cookie(name), Ok(value), "{name}");
    }
    assert_eq!(whole(with_lines("").as_bytes()).cookie("a"), Ok(None));
}

#[test]
fn a_cookie_that_could_be_planted_is_refused() {
    let cases = [
        ("Cookie: a=1; a=2\r\n", HeadError::Duplicate),
        ("Cookie: a=1;a =1\r\n", HeadError::Duplicate),
        ("Cookie: a=1\r\nCookie: b=2\r\n", HeadError::Duplicate),
        ("Cookie: a=1\r\ncookie: a=1\r\n", HeadError::Duplicate),
        ("Cookie: a=1 2\r\n", HeadError::Cookie),
        ("Cookie: a=\"1\"\r\n", HeadError::Cookie),
        ("Cookie: a=1,2\r\n", HeadError::Cookie),
        ("Cookie: a=\u{e9}\r\n", HeadError::Cookie),
    ];
    for (lines, expected) in cases {
        let head = with_lines(lines);
        assert_eq!(
            whole(head.as_bytes()).cookie("a"),
            Err(expected),
            "{lines:?}"
        );
    }
    let neighbours = with_lines("Cookie: x=\u{e9}; x=2; a=1\r\n");
    assert_eq!(whole(neighbours.as_bytes()).cookie("a"), Ok(Some("1")));
}

#[test]
fn a_second_value_of_a_single_header_is_an_error() {
    let head = with_lines("Origin: https://a\r\nORIGIN: https://a\r\n");
    assert_eq!(
        whole(head.as_bytes()).header("origin"),
        Err(HeadError::Duplicate)
    );
}

#[test]
fn the_specifications_handshake_gets_its_answer() {
    let head = whole(HANDSHAKE.as_bytes());
    assert!(head.wants_websocket());
    let accepted = websocket_accept(&head).expect("accepted");
    let text = String::from_utf8(accepted)
        .expect("text")
        .to_ascii_lowercase();
    assert!(text.starts_with("http/1.1 101 switching protocols\r\n"));
    assert!(text.ends_with("\r\n\r\n"));
    assert!(text.contains("\r\nsec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"));
    assert!(text.contains("\r\nconnection: upgrade\r\n"));
    assert!(text.contains("\r\nupgrade: websocket\r\n"));
    assert_eq!(text.lines().count(), 5, "nothing else is agreed to: {text}");
}

#[test]
fn compression_is_never_agreed_to() {
    let head = HANDSHAKE.replace(
        "\r\n\r\n",
        "\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n",
    );
    let accepted = websocket_accept(&whole(head.as_bytes())).expect("accepted");
    let text = String::from_utf8(accepted)
        .expect("text")
        .to_ascii_lowercase();
    assert!(!text.contains("extensions") && !text.contains("deflate"));
}

#[test]
fn upgrades_that_are_lists_are_understood() {
    let head = HANDSHAKE
        .replace("Upgrade: websocket", "Upgrade: h2c, WebSocket")
        .replace("Connection: Upgrade", "Connection: keep-alive, Upgrade");
    assert!(websocket_accept(&whole(head.as_bytes())).is_ok());
}

#[test]
fn upgrades_that_are_not_the_handshake_are_refused() {
    let key = "dGhlIHNhbXBsZSBub25jZQ==";
    let second_key = "Sec-WebSocket-Key: a\r\nSec-WebSocket-Key";
    let cases = [
        ("GET", "POST", UpgradeError::NotWebSocket),
        (
            "Upgrade: websocket",
            "Upgrade: websocketx",
            UpgradeError::NotWebSocket,
        ),
        ("Upgrade: websocket", "X: y", UpgradeError::NotWebSocket),
        (
            "Connection: Upgrade",
            "Connection: close",
            UpgradeError::Connection,
        ),
        ("Version: 13", "Version: 8", UpgradeError::Version),
        ("Version: 13", "Version: 13, 8", UpgradeError::Version),
        ("Sec-WebSocket-Version", "X", UpgradeError::Version),
        ("Sec-WebSocket-Key", "X", UpgradeError::Key),
        (
            "Sec-WebSocket-Key",
            second_key,
            UpgradeError::Head(HeadError::Duplicate),
        ),
        (key, "", UpgradeError::Key),
        (key, "AAAA", UpgradeError::Key),
        (key, "dGhlIHNhbXBsZSBub25jZQ!!", UpgradeError::Key),
        (key, "AAAAAAAAAAAAAAAAAAAAAAAA", UpgradeError::Key),
        ("Origin:", "Content-Length: 1\r\nO:", UpgradeError::Body),
        (
            "Origin:",
            "Transfer-Encoding: chunked\r\nO:",
            UpgradeError::Body,
        ),
    ];
    for (good, bad, expected) in cases {
        let head = HANDSHAKE.replace(good, bad);
        assert_eq!(
            websocket_accept(&whole(head.as_bytes())),
            Err(expected),
            "{bad:?}"
        );
    }
}

#[test]
fn another_websocket_version_is_told_which_one_is_spoken() {
    let text = String::from_utf8(UpgradeError::Version.response()).expect("text");
    assert!(text.starts_with("HTTP/1.1 426 Upgrade Required\r\n"));
    assert!(text.contains("\r\nSec-WebSocket-Version: 13\r\n"));
    let text = String::from_utf8(UpgradeError::Key.response()).expect("text");
    assert!(text.starts_with("HTTP/1.1 400 Bad Request\r\n"));
}

#[test]
fn a_response_closes_the_connection_and_is_not_kept() {
    let extra = [
        ("Retry-After", "5"),
        ("Location", "/login?next=\r\nSet-Cookie: evil=1"),
    ];
    let bytes = response(403, "Forbidden", "text/html", &extra, b"<p>no");
    let expected = "HTTP/1.1 403 Forbidden\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\
        Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\
        Retry-After: 5\r\nLocation: /login?next=Set-Cookie: evil=1\r\n\r\n<p>no";
    assert_eq!(String::from_utf8(bytes).expect("text"), expected);
}

proptest! {
    #[test]
    fn any_bytes_are_an_answer_not_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse_head(&bytes);
    }

    #[test]
    fn one_changed_byte_never_moves_the_end_of_a_head(at in 0..HANDSHAKE.len(), byte: u8) {
        let mut bytes = HANDSHAKE.as_bytes().to_vec();
        bytes[at] = byte;
        if let Ok(Some(head)) = parse_head(&bytes) {
            prop_assert_eq!(head.length, HANDSHAKE.len());
            prop_assert!(head.path.starts_with('/'));
        }
    }

    #[test]
    fn what_is_refused_stays_refused_with_more_bytes(at in 0..HANDSHAKE.len(), byte: u8) {
        let mut bytes = HANDSHAKE.as_bytes().to_vec();
        bytes[at] = byte;
        let whole = parse_head(&bytes).map(|head| head.is_some());
        for cut in 0..bytes.len() {
            if parse_head(&bytes[..cut]).is_err() {
                prop_assert!(whole.is_err(), "refused at {} only", cut);
            }
        }
    }
}
