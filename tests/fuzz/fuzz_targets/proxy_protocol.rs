//! PROXY protocol headers: what is read can be written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postern_wire::proxy_protocol::{BODY_BYTES_MAX, Proxied, decode, encode};

fuzz_target!(|bytes: &[u8]| {
    let whole = decode(bytes);
    for cut in 0..bytes.len().min(16 + BODY_BYTES_MAX) {
        match decode(&bytes[..cut]) {
            Ok(None) => {}
            early => assert_eq!(early, whole, "at {cut}"),
        }
    }
    let Ok(Some((proxied, used))) = whole else {
        return;
    };
    assert!(used <= bytes.len() && used <= 16 + BODY_BYTES_MAX);
    if let Proxied::Tcp {
        source,
        destination,
    } = proxied
    {
        let again = encode(source, destination);
        assert_eq!(decode(&again), Ok(Some((proxied, again.len()))));
    }
});
