//! Request heads: a head that is taken means the same however it came, and can hide no other.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postern_wire::http1::{self, Body, HEADERS_MAX};

fuzz_target!(|bytes: &[u8]| {
    let whole = http1::parse_head(bytes);
    for cut in 0..bytes.len() {
        match (&whole, http1::parse_head(&bytes[..cut])) {
            (_, Ok(None)) => {}
            (Ok(Some(head)), Ok(Some(early))) => assert_eq!(early.length, head.length),
            (Err(late), Err(early)) => assert!(early.status().0 >= 400 && late.status().0 >= 400),
            (Err(_), Ok(Some(_))) => panic!("a whole head became an error at {cut}"),
            (Ok(_), early) => panic!("an error at {cut} was forgotten: {early:?}"),
        }
    }
    let Ok(Some(head)) = whole else {
        return;
    };
    let taken = &bytes[..head.length];
    assert!(taken.ends_with(b"\r\n\r\n"));
    assert_eq!(
        taken.windows(4).position(|end| end == b"\r\n\r\n"),
        Some(taken.len() - 4)
    );
    assert!(head.target.starts_with('/') && !head.target.starts_with("//"));
    assert!(head.headers.len() <= HEADERS_MAX);
    for header in &head.headers {
        assert!(
            !header
                .value
                .iter()
                .any(|byte| byte.is_ascii_control() && *byte != b'\t')
        );
        let _ = head.header(header.name);
    }
    let _ = (head.cookie("__Secure-postern-app"), head.cookie(""));
    match http1::websocket_accept(&head) {
        Ok(answer) => {
            assert!(head.wants_websocket() && head.body == Body::None);
            assert!(answer.starts_with(b"HTTP/1.1 101 ") && answer.ends_with(b"\r\n\r\n"));
        }
        Err(error) => assert!(error.response().starts_with(b"HTTP/1.1 4")),
    }
});
