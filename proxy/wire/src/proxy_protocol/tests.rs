//! The specification's layout, byte by byte, and what is not taken.

use proptest::prelude::*;

use super::*;

/// [proxy-protocol.txt §2.2] TCP over IPv4, 192.0.2.1:4660 → 198.51.100.2:443.
const TCP4_HEADER: &[u8] = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a\x21\x11\x00\x0c\
    \xc0\x00\x02\x01\xc6\x33\x64\x02\x12\x34\x01\xbb";

/// TCP over IPv6, [2001:db8::1]:4660 → [2001:db8::2]:443.
const TCP6_HEADER: &[u8] = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a\x21\x21\x00\x24\
    \x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02\
    \x12\x34\x01\xbb";

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn header(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).expect("short").to_be_bytes();
    [&SIGNATURE[..], &[command, family], &length, body].concat()
}

#[test]
fn the_specifications_bytes_are_written_and_read() {
    let cases = [
        ("192.0.2.1:4660", "198.51.100.2:443", TCP4_HEADER),
        ("[2001:db8::1]:4660", "[2001:db8::2]:443", TCP6_HEADER),
    ];
    for (source, destination, bytes) in cases {
        let (source, destination) = (address(source), address(destination));
        assert_eq!(encode(source, destination), bytes);
        let proxied = Proxied::Tcp {
            source,
            destination,
        };
        assert_eq!(decode(bytes), Ok(Some((proxied, bytes.len()))));
        for cut in 0..bytes.len() {
            assert_eq!(decode(&bytes[..cut]), Ok(None), "cut at {cut}");
        }
    }
}

#[test]
fn addresses_of_two_families_are_written_as_one() {
    let bytes = encode(address("192.0.2.1:1"), address("[2001:db8::2]:2"));
    let proxied = Proxied::Tcp {
        source: address("[::ffff:192.0.2.1]:1"),
        destination: address("[2001:db8::2]:2"),
    };
    assert_eq!(decode(&bytes), Ok(Some((proxied, bytes.len()))));
}

#[test]
fn tlvs_and_what_follows_are_left_alone() {
    let body = [&TCP4_HEADER[16..], b"\x04\x00\x03abc"].concat();
    let bytes = header(VERSION_2_PROXY, TCP4, &body);
    let length = bytes.len();
    let stream = [bytes, b"GET / HTTP/1.1".to_vec()].concat();
    let (proxied, used) = decode(&stream).expect("good").expect("whole");
    assert_eq!(used, length);
    assert!(matches!(proxied, Proxied::Tcp { source, .. } if source == address("192.0.2.1:4660")));
}

#[test]
fn a_health_check_has_no_addresses() {
    for body in [&b""[..], b"\0\0\0\0"] {
        let bytes = header(VERSION_2_LOCAL, 0, body);
        assert_eq!(decode(&bytes), Ok(Some((Proxied::Local, bytes.len()))));
    }
}

#[test]
fn anything_else_is_refused_as_soon_as_it_is_seen() {
    let cases = [
        (b"PROXY TCP4 ".to_vec(), ProxyError::Signature),
        (b"GET".to_vec(), ProxyError::Signature),
        (b"\r\n\r\n\0\r\nQUIX".to_vec(), ProxyError::Signature),
        ([&SIGNATURE[..], &[0x11]].concat(), ProxyError::Command),
        ([&SIGNATURE[..], &[0x22]].concat(), ProxyError::Command),
        ([&SIGNATURE[..], &[0x31]].concat(), ProxyError::Command),
        (header(VERSION_2_PROXY, 0x12, &[0; 12]), ProxyError::Family),
        (header(VERSION_2_PROXY, 0x22, &[0; 36]), ProxyError::Family),
        (header(VERSION_2_PROXY, 0x31, &[0; 216]), ProxyError::Family),
        (header(VERSION_2_PROXY, 0x00, &[]), ProxyError::Family),
        (
            header(VERSION_2_PROXY, TCP4, &[0; 11]),
            ProxyError::TooShort,
        ),
        (
            header(VERSION_2_PROXY, TCP6, &[0; 35]),
            ProxyError::TooShort,
        ),
        (
            header(VERSION_2_PROXY, TCP4, &[0; 521])[..16].to_vec(),
            ProxyError::TooLong,
        ),
        (
            header(VERSION_2_LOCAL, 0, &[0; 521])[..16].to_vec(),
            ProxyError::TooLong,
        ),
    ];
    for (bytes, error) in cases {
        assert_eq!(decode(&bytes), Err(error), "{bytes:02x?}");
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(source: SocketAddr, destination: SocketAddr) {
        let bytes = encode(source, destination);
        let (proxied, used) = decode(&bytes).expect("good").expect("whole");
        prop_assert_eq!(used, bytes.len());
        let Proxied::Tcp { source: from, destination: to } = proxied else {
            panic!("not TCP");
        };
        prop_assert_eq!((from.port(), to.port()), (source.port(), destination.port()));
        prop_assert_eq!(mapped(from.ip()), mapped(source.ip()));
        prop_assert_eq!(mapped(to.ip()), mapped(destination.ip()));
    }

    #[test]
    fn any_bytes_are_an_answer_not_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = decode(&bytes);
        let _ = decode(&[&SIGNATURE[..], &bytes].concat());
    }
}
