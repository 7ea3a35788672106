//! RDCleanPath PDUs: lengths agree with what is parsed; what is read can be written and read again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use postern_wire::rdcleanpath::{
    Answer, Request, encode_request, failure, request_length, response,
};

fuzz_target!(|bytes: &[u8]| {
    let length = request_length(bytes);
    for cut in 0..bytes.len() {
        match request_length(&bytes[..cut]) {
            Ok(None) => {}
            early => assert_eq!(early, length, "at {cut}"),
        }
    }
    if let Ok(request) = Request::parse(bytes) {
        assert_eq!(length, Ok(Some(bytes.len())));
        let again = encode_request(&request.destination, "", &request.x224).expect("it encodes");
        let again = Request::parse(&again).expect("it parses");
        assert_eq!(
            (again.destination, again.x224),
            (request.destination, request.x224)
        );
    }
    if let Ok(answer) = Answer::parse(bytes) {
        let again = match &answer {
            Answer::Desktop {
                server_addr,
                x224_confirm,
                chain,
            } => response(server_addr, x224_confirm, chain),
            Answer::Failed(why) => failure(why),
        };
        assert_eq!(Answer::parse(&again), Ok(answer));
    }
});
