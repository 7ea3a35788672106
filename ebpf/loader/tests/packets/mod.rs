//! Packets as the RFCs lay them out, built byte by byte, and a reader that verifies every checksum.
#![allow(dead_code, reason = "every test program uses a part")]
#![allow(clippy::unwrap_used, reason = "this is a part of tests")]

use std::net::{IpAddr, SocketAddr};

/// The router that packets come from, and this node.
pub const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub const NODE: [u8; 6] = [2, 0, 0, 0, 0, 2];

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;

pub const ICMP: u8 = 1;
pub const IPIP: u8 = 4;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const IPV6_IN: u8 = 41;
pub const ICMPV6: u8 = 58;

/// RFC 1071: the one's complement of the one's complement sum.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let bytes: Vec<u8> = parts.concat();
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// The pseudo header of RFC 9293 §3.1 and RFC 8200 §8.1.
fn pseudo(source: &[u8], destination: &[u8], protocol: u8, bytes: usize) -> Vec<u8> {
    let length = u32::try_from(bytes).unwrap().to_be_bytes();
    [source, destination, &length, &[0, 0, 0, protocol]].concat()
}

/// Puts a checksum at `at`; that of UDP is never 0 on the wire.
fn sealed(
    mut bytes: Vec<u8>,
    at: usize,
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
) -> Vec<u8> {
    let pseudo = pseudo(&octets(source), &octets(destination), protocol, bytes.len());
    let sum = match checksum(&[&pseudo, &bytes]) {
        0 if protocol == UDP => 0xffff,
        sum => sum,
    };
    bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    bytes
}

/// A frame from the router to this node.
pub fn ethernet(kind: u16, payload: &[u8]) -> Vec<u8> {
    [&NODE[..], &ROUTER, &kind.to_be_bytes(), payload].concat()
}

/// A frame that this node sends to `to`.
pub fn leaving(to: [u8; 6], packet: &[u8]) -> Vec<u8> {
    let kind: u16 = if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd };
    [&to[..], &NODE, &kind.to_be_bytes(), packet].concat()
}

/// An arriving frame with an IP packet.
pub fn arriving(packet: &[u8]) -> Vec<u8> {
    let kind = if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd };
    ethernet(kind, packet)
}

/// RFC 791 §3.1 or RFC 8200 §3, with 64 hops.
pub fn packet(source: IpAddr, destination: IpAddr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    match (source, destination) {
        (IpAddr::V4(_), IpAddr::V4(_)) => ipv4(source, destination, protocol, 0x4000, &[], payload),
        _ => {
            let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
            let begin = [0x60, 0, 0, 0, length[0], length[1], protocol, 64];
            [&begin[..], &octets(source), &octets(destination), payload].concat()
        }
    }
}

/// RFC 791 §3.1 with flags, fragment offset and options of one's own.
pub fn ipv4(
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    fragment: u16,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let header = 20 + options.len();
    let length = u16::try_from(header + payload.len()).unwrap().to_be_bytes();
    let fragment = fragment.to_be_bytes();
    let begin = 0x40 | u8::try_from(header / 4).unwrap();
    let mut bytes = vec![
        begin,
        0,
        length[0],
        length[1],
        0,
        0,
        fragment[0],
        fragment[1],
    ];
    bytes.extend([64, protocol, 0, 0]);
    bytes.extend(octets(source));
    bytes.extend(octets(destination));
    bytes.extend(options);
    let sum = checksum(&[&bytes]).to_be_bytes();
    bytes[10..12].copy_from_slice(&sum);
    bytes.extend(payload);
    bytes
}

/// RFC 9293 §3.1, without options.
pub fn tcp(
    source: SocketAddr,
    destination: SocketAddr,
    flags: u8,
    numbers: [u32; 2],
    payload: &[u8],
) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(source.port().to_be_bytes());
    bytes.extend(destination.port().to_be_bytes());
    bytes.extend(numbers[0].to_be_bytes());
    bytes.extend(numbers[1].to_be_bytes());
    bytes.extend([5 << 4, flags, 0xff, 0xff, 0, 0, 0, 0]);
    bytes.extend(payload);
    sealed(bytes, 16, source.ip(), destination.ip(), TCP)
}

/// A TCP segment in IP.
pub fn segment(source: SocketAddr, destination: SocketAddr, flags: u8) -> Vec<u8> {
    let segment = tcp(source, destination, flags, [1000, 2000], b"payload");
    packet(source.ip(), destination.ip(), TCP, &segment)
}

/// RFC 768, in IP.
pub fn datagram(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len()).unwrap();
    let mut bytes = Vec::new();
    bytes.extend(source.port().to_be_bytes());
    bytes.extend(destination.port().to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(payload);
    let bytes = sealed(bytes, 6, source.ip(), destination.ip(), UDP);
    packet(source.ip(), destination.ip(), UDP, &bytes)
}

/// RFC 792 or RFC 4443: type, code, four bytes and a body, in IP.
pub fn icmp(
    source: IpAddr,
    destination: IpAddr,
    kind: u8,
    code: u8,
    rest: [u8; 4],
    body: &[u8],
) -> Vec<u8> {
    let mut bytes = vec![kind, code, 0, 0];
    bytes.extend(rest);
    bytes.extend(body);
    if source.is_ipv4() {
        let sum = checksum(&[&bytes]).to_be_bytes();
        bytes[2..4].copy_from_slice(&sum);
        packet(source, destination, ICMP, &bytes)
    } else {
        let bytes = sealed(bytes, 2, source, destination, ICMPV6);
        packet(source, destination, ICMPV6, &bytes)
    }
}

/// draft-ietf-intarea-gue-09 §3.1 over UDP without a checksum, in IP.
pub fn gue(source: SocketAddr, destination: SocketAddr, chain: &[u8], inner: &[u8]) -> Vec<u8> {
    let carried = if inner[0] >> 4 == 6 { IPV6_IN } else { IPIP };
    let words = u8::try_from(chain.len() / 4).unwrap();
    let length = u16::try_from(8 + 4 + chain.len() + inner.len()).unwrap();
    let mut bytes = Vec::new();
    bytes.extend(source.port().to_be_bytes());
    bytes.extend(destination.port().to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes.extend([0, 0, words, carried, 0, 0]);
    bytes.extend(chain);
    bytes.extend(inner);
    packet(source.ip(), destination.ip(), UDP, &bytes)
}

/// Panics where a checksum of the frame is wrong; looks into tunnels.
pub fn verify_checksums(frame: &[u8]) {
    verify_packet(&frame[14..]);
}

fn verify_packet(packet: &[u8]) {
    let v4 = packet[0] >> 4 == 4;
    let (header, protocol) = if v4 { (20, packet[9]) } else { (40, packet[6]) };
    if v4 {
        assert_eq!(checksum(&[&packet[..20]]), 0, "checksum of the IPv4 header");
    }
    let addresses = if v4 { &packet[12..20] } else { &packet[8..40] };
    let (source, destination) = addresses.split_at(addresses.len() / 2);
    let payload = &packet[header..];
    match protocol {
        UDP if payload[6..8] == [0, 0] => verify_packet(&payload[8 + 4 + 24..]),
        TCP | UDP | ICMPV6 => {
            let pseudo = pseudo(source, destination, protocol, payload.len());
            assert_eq!(checksum(&[&pseudo, payload]), 0, "checksum of {protocol}");
        }
        ICMP => assert_eq!(checksum(&[payload]), 0, "checksum of ICMP"),
        _ => {}
    }
}
