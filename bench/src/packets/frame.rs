//! Short packets of many flows, as they come in from a wire.

use std::net::{Ipv4Addr, SocketAddrV4};

/// Of a frame, as far as software sees it: the wire adds a checksum of four more.
pub const FRAME_BYTES: usize = 64;

/// Flows that packets belong to, each in turn.
pub const FLOWS: u16 = 16_384;

/// The first client; the others follow it.
const FIRST_CLIENT: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
/// Flows of a client.
const PORTS: u16 = 16;
const FIRST_PORT: u16 = 50_000;

const ETHERNET_BYTES: usize = 14;
const IP_BYTES: usize = 20;

pub type Frame = [u8; FRAME_BYTES];

/// What a packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Udp,
    /// The first segment of a TCP connection.
    Syn,
}

/// One frame of every flow to `service`, for the interface with address `ethernet`.
#[must_use]
pub fn flows(protocol: Protocol, service: SocketAddrV4, ethernet: [u8; 6]) -> Vec<Frame> {
    (0..FLOWS)
        .map(|number| {
            let address = u32::from(FIRST_CLIENT) + u32::from(number / PORTS);
            let client = SocketAddrV4::new(address.into(), FIRST_PORT + number % PORTS);
            frame(protocol, client, service, ethernet)
        })
        .collect()
}

fn frame(
    protocol: Protocol,
    client: SocketAddrV4,
    service: SocketAddrV4,
    ethernet: [u8; 6],
) -> Frame {
    let payload = segment(protocol, client, service);
    let mut packet = Vec::with_capacity(FRAME_BYTES);
    packet.extend(ethernet);
    packet.extend([2, 0, 0, 0, 0, 2, 8, 0]);
    // [RFC 791 §3.1]: no options, may not be fragmented, 64 hops.
    let length = (IP_BYTES + payload.len()) as u16;
    packet.extend([0x45, 0]);
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0, 0x40, 0, 64, number(protocol), 0, 0]);
    packet.extend(client.ip().octets());
    packet.extend(service.ip().octets());
    let sum = checksum(&packet[ETHERNET_BYTES..]);
    packet[ETHERNET_BYTES + 10..][..2].copy_from_slice(&sum.to_be_bytes());
    packet.extend(payload);
    let mut frame = [0; FRAME_BYTES];
    frame[..packet.len()].copy_from_slice(&packet);
    frame
}

/// Its number in the header of IP.
const fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Udp => 17,
        Protocol::Syn => 6,
    }
}

fn segment(protocol: Protocol, client: SocketAddrV4, service: SocketAddrV4) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(client.port().to_be_bytes());
    segment.extend(service.port().to_be_bytes());
    match protocol {
        Protocol::Udp => {
            // [RFC 768]: the length, and 0 for no checksum; the rest of the frame is payload.
            let length = FRAME_BYTES - ETHERNET_BYTES - IP_BYTES;
            segment.extend((length as u16).to_be_bytes());
            segment.resize(length, 0);
        }
        Protocol::Syn => {
            // [RFC 9293 §3.1]: number 1, nothing to acknowledge, six words of header, SYN, and the
            // largest segment as its one option.
            segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x60, 0x02, 0xff, 0xff, 0, 0, 0, 0]);
            segment.extend([2, 4, 0x05, 0xb4]);
            let mut summed = Vec::new();
            summed.extend(client.ip().octets());
            summed.extend(service.ip().octets());
            summed.extend([0, number(protocol)]);
            summed.extend((segment.len() as u16).to_be_bytes());
            summed.extend(&segment);
            segment[16..18].copy_from_slice(&checksum(&summed).to_be_bytes());
        }
    }
    segment
}

/// [RFC 1071]: the complement of the sum of 16-bit words; `bytes` has an even number.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2);
    let mut sum: u32 = words
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn flows_are_all_different_and_their_headers_sound() {
        for (protocol, length) in [(Protocol::Udp, 50), (Protocol::Syn, 44)] {
            let service = "192.0.2.10:443".parse().unwrap();
            let frames = flows(protocol, service, [2, 0, 0, 0, 0, 1]);
            let different: BTreeSet<_> =
                frames.iter().map(|frame| frame[26..38].to_vec()).collect();
            assert_eq!(different.len(), usize::from(FLOWS));
            for frame in frames {
                assert_eq!(frame[..6], [2, 0, 0, 0, 0, 1]);
                assert_eq!(u16::from_be_bytes([frame[16], frame[17]]), length);
                // A header with its checksum in it sums up to nothing.
                assert_eq!(checksum(&frame[14..34]), 0);
                assert_eq!(frame[30..34], [192, 0, 2, 10]);
                assert_eq!(u16::from_be_bytes([frame[36], frame[37]]), 443);
                if protocol == Protocol::Syn {
                    let mut summed = frame[26..34].to_vec();
                    summed.extend([0, 6, 0, 24]);
                    summed.extend(&frame[34..58]);
                    assert_eq!(checksum(&summed), 0);
                }
            }
        }
    }
}
