//! X.224 negotiation: no confirm yields a protocol that was not offered, and nothing that we send
//! offers more than was allowed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postern_wire::x224::{
    Confirm, ConnectionRequest, Protocols, REQUEST_BYTES_MAX, confirm_length, encode_confirm,
    encode_request, judge,
};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(request) = ConnectionRequest::parse(bytes) {
        assert!(bytes.len() <= REQUEST_BYTES_MAX);
        let allowed = request
            .protocols()
            .intersection(Protocols::NLA.union(Protocols::NLA_EX));
        if let Ok(sent) = encode_request(request.cookie.as_ref(), allowed) {
            let sent = ConnectionRequest::parse(&sent).expect("what is sent is a request");
            assert_eq!(sent.protocols(), allowed);
            assert_eq!(sent.cookie, request.cookie);
        }
    }
    let length = confirm_length(bytes);
    if let Ok(confirm) = Confirm::parse(bytes) {
        assert_eq!(length, Ok(Some(bytes.len())));
        assert_eq!(Confirm::parse(&encode_confirm(confirm)), Ok(confirm));
        for bits in 0..16 {
            let offered = Protocols::from_bits(bits);
            if let Ok(protocol) = judge(confirm, offered) {
                assert!(offered.contains(protocol));
                assert_eq!(confirm, Confirm::Selected(protocol.bit()));
            }
        }
    }
});
