//! `account` on single packets: what each changes in the counters of its flow, and what a packet costs.
#![allow(clippy::unwrap_used, reason = "a test, its helpers included")]

use std::net::SocketAddr;
use std::time::Duration;

use postern_ebpf::{Accounts, Side};
use postern_ebpf_abi::account::{FlowKey, FlowRecord};

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// What the kernel needs to run any program at all; measured with the packet of no protocol.
const REPEAT: u32 = 200_000;

fn accounts() -> Accounts {
    Accounts::load(16).unwrap_or_else(|error| panic!("{error}: {error:?}"))
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A segment as it is on an Ethernet.
#[derive(Clone)]
struct Segment {
    from: SocketAddr,
    to: SocketAddr,
    sequence: u32,
    acknowledged: u32,
    flags: u8,
    payload: usize,
    /// Bytes of TCP options.
    options: usize,
    /// Whole extension headers of IPv6, of destination options.
    extensions: usize,
}

impl Segment {
    fn frame(&self) -> Vec<u8> {
        let mut tcp = Vec::new();
        tcp.extend(self.from.port().to_be_bytes());
        tcp.extend(self.to.port().to_be_bytes());
        tcp.extend(self.sequence.to_be_bytes());
        tcp.extend(self.acknowledged.to_be_bytes());
        tcp.extend([((20 + self.options) / 4 * 16) as u8, self.flags]);
        tcp.extend([0; 6]);
        tcp.extend(vec![1; self.options]);
        tcp.extend(vec![0xaa; self.payload]);
        // [IEEE 802.3] Destination, source, type.
        let mut frame = vec![2; 12];
        match (self.from, self.to) {
            (SocketAddr::V4(from), SocketAddr::V4(to)) => {
                frame.extend(0x0800u16.to_be_bytes());
                // [RFC 791 §3.1]
                frame.extend([0x45, 0]);
                frame.extend((20 + tcp.len() as u16).to_be_bytes());
                frame.extend([0, 0, 0, 0, 64, 6, 0, 0]);
                frame.extend(from.ip().octets());
                frame.extend(to.ip().octets());
            }
            (SocketAddr::V6(from), SocketAddr::V6(to)) => {
                frame.extend(0x86ddu16.to_be_bytes());
                // [RFC 8200 §3]
                frame.extend([0x60, 0, 0, 0]);
                frame.extend(((tcp.len() + 8 * self.extensions) as u16).to_be_bytes());
                frame.extend([if self.extensions == 0 { 6 } else { 60 }, 64]);
                frame.extend(from.ip().octets());
                frame.extend(to.ip().octets());
                for left in (0..self.extensions).rev() {
                    // [RFC 8200 §4.6] With four bytes of padding.
                    frame.extend([if left == 0 { 6 } else { 60 }, 0, 1, 4, 0, 0, 0, 0]);
                }
            }
            _ => unreachable!("one family"),
        }
        frame.extend(tcp);
        frame
    }
}

/// A flow of which both ends are known, with the sequence numbers where the streams are.
struct Flow {
    accounts: Accounts,
    here: SocketAddr,
    there: SocketAddr,
}

const SENT_NEXT: u32 = 5000;
const RECEIVED_NEXT: u32 = 9000;

impl Flow {
    fn new(here: &str, there: &str) -> Self {
        Self::at(here, there, SENT_NEXT, RECEIVED_NEXT)
    }

    fn at(here: &str, there: &str, sent_next: u32, received_next: u32) -> Self {
        let (here, there) = (address(here), address(there));
        let mut accounts = accounts();
        let record = FlowRecord {
            outgoing_next: sent_next,
            incoming_next: received_next,
            ..FlowRecord::default()
        };
        accounts
            .enter(FlowKey::between(here, there), record)
            .unwrap();
        Self {
            accounts,
            here,
            there,
        }
    }

    fn segment(&self, side: Side) -> Segment {
        let (from, to) = match side {
            Side::In => (self.there, self.here),
            Side::Out => (self.here, self.there),
        };
        let (sequence, acknowledged) = match side {
            Side::In => (RECEIVED_NEXT, SENT_NEXT),
            Side::Out => (SENT_NEXT, RECEIVED_NEXT),
        };
        Segment {
            from,
            to,
            sequence,
            acknowledged,
            flags: ACK,
            payload: 0,
            options: 0,
            extensions: 0,
        }
    }

    fn sees(&self, side: Side, segment: &Segment) {
        self.accounts.run(side, &segment.frame(), 1).unwrap();
    }

    fn record(&self) -> FlowRecord {
        let found = self.accounts.find(self.here, self.there).unwrap();
        found.expect("the flow is in the map").record
    }
}

const V4: (&str, &str) = ("192.0.2.1:443", "198.51.100.2:50000");
const V6: (&str, &str) = ("[2001:db8::1]:443", "[2001:db8:1::2]:50000");

#[test]
fn every_direction_counts_its_packets_with_all_headers() {
    for ((here, there), header) in [(V4, 20), (V6, 40)] {
        let flow = Flow::new(here, there);
        let incoming = Segment {
            payload: 1000,
            options: 12,
            ..flow.segment(Side::In)
        };
        flow.sees(Side::In, &incoming);
        let outgoing = Segment {
            payload: 300,
            acknowledged: RECEIVED_NEXT + 1000,
            ..flow.segment(Side::Out)
        };
        flow.sees(Side::Out, &outgoing);
        let record = flow.record();
        assert_eq!(record.incoming.packets, 1);
        assert_eq!(record.incoming.wire_bytes, header + 32 + 1000);
        assert_eq!(record.payload_in(), 1000);
        assert_eq!(record.outgoing.packets, 1);
        assert_eq!(record.outgoing.wire_bytes, header + 20 + 300);
        assert_eq!(record.payload_out(), 300);
        assert_eq!((record.repeated_in(), record.repeated_out()), (0, 0));
        assert!(record.last_ns > 0);
    }
}

#[test]
fn payload_that_comes_in_counts_once_it_is_acknowledged() {
    let flow = Flow::new(V4.0, V4.1);
    let data = Segment {
        payload: 1000,
        ..flow.segment(Side::In)
    };
    // Ahead of a hole, twice; a forged one far away; then what fills the hole.
    for sequence in [RECEIVED_NEXT + 1000, RECEIVED_NEXT + 1000, 1, RECEIVED_NEXT] {
        flow.sees(
            Side::In,
            &Segment {
                sequence,
                ..data.clone()
            },
        );
    }
    assert_eq!(flow.record().payload_in(), 0);
    let acknowledgement = flow.segment(Side::Out);
    for (acknowledged, payload) in [
        (RECEIVED_NEXT, 0),
        (RECEIVED_NEXT + 2000, 2000),
        // An old one goes out late.
        (RECEIVED_NEXT + 500, 2000),
    ] {
        flow.sees(
            Side::Out,
            &Segment {
                acknowledged,
                ..acknowledgement.clone()
            },
        );
        assert_eq!(flow.record().payload_in(), payload);
    }
    assert_eq!(flow.record().repeated_in(), 2000);
}

#[test]
fn payload_that_is_sent_again_is_kept_apart() {
    // Across the end of the sequence numbers.
    let next = u32::MAX - 1500;
    let flow = Flow::at(V4.0, V4.1, next, RECEIVED_NEXT);
    let data = Segment {
        payload: 1000,
        ..flow.segment(Side::Out)
    };
    for (offset, payload, repeated) in [
        (0, 1000, 0),
        (1000, 2000, 0),
        (0, 2000, 1000),
        (2000, 3000, 1000),
        // Half of it is new.
        (2500, 3500, 1500),
    ] {
        let sequence = next.wrapping_add(offset);
        flow.sees(
            Side::Out,
            &Segment {
                sequence,
                ..data.clone()
            },
        );
        let record = flow.record();
        assert_eq!(
            (record.payload_out(), record.repeated_out()),
            (payload, repeated),
            "{offset}"
        );
    }
}

#[test]
fn a_fin_is_marked_and_is_no_payload() {
    let flow = Flow::new(V4.0, V4.1);
    let incoming = Segment {
        payload: 100,
        flags: ACK | FIN,
        ..flow.segment(Side::In)
    };
    flow.sees(Side::In, &incoming);
    let outgoing = Segment {
        payload: 10,
        acknowledged: RECEIVED_NEXT + 101,
        flags: ACK | FIN,
        ..flow.segment(Side::Out)
    };
    flow.sees(Side::Out, &outgoing);
    // What is acknowledged afterwards is numbered after the FIN.
    let last = Segment {
        sequence: SENT_NEXT + 11,
        acknowledged: RECEIVED_NEXT + 101,
        ..flow.segment(Side::Out)
    };
    flow.sees(Side::Out, &last);
    let record = flow.record();
    assert_eq!((record.fin_in, record.fin_out), (1, 1));
    assert_eq!((record.payload_in(), record.payload_out()), (100, 10));
    // The socket is still to close.
    assert!(!record.is_over());
}

#[test]
fn the_acknowledgement_of_a_reset_is_not_believed() {
    let flow = Flow::new(V4.0, V4.1);
    let reset = Segment {
        acknowledged: RECEIVED_NEXT + 777,
        flags: ACK | RST,
        ..flow.segment(Side::Out)
    };
    flow.sees(Side::Out, &reset);
    let record = flow.record();
    assert_eq!((record.reset, record.payload_in()), (1, 0));
}

/// Every one is counted apart, and none enters the map.
#[test]
fn what_is_of_no_connection_changes_no_flow() {
    let v4 = Flow::new(V4.0, V4.1);
    let v6 = Flow::new(V6.0, V6.1);
    let of_v4 = v4.segment(Side::In);
    let of_v6 = v6.segment(Side::In);
    let stranger = Segment {
        from: address("203.0.113.9:1"),
        payload: 9,
        ..of_v4.clone()
    };
    let syn = Segment {
        flags: SYN,
        ..of_v4.clone()
    };
    let deep = Segment {
        extensions: 5,
        ..of_v6.clone()
    };
    let mut udp = of_v4.frame();
    udp[14 + 9] = 17;
    let mut short = of_v4.frame();
    short.truncate(14 + 20 + 19);
    let mut no_words = of_v4.frame();
    no_words[14] = 0x44;
    let mut long_words = of_v4.frame();
    // Its header claims to be longer than the packet.
    long_words[14 + 20 + 12] = 0xf0;
    let table = [
        ("a stranger", &v4, stranger.frame()),
        ("a SYN", &v4, syn.frame()),
        ("five extension headers", &v6, deep.frame()),
        ("UDP", &v4, udp),
        ("half a header", &v4, short),
        ("an IP header too short to be one", &v4, no_words),
        ("a TCP header longer than the packet", &v4, long_words),
    ];
    for (what, flow, frame) in table {
        for side in [Side::In, Side::Out] {
            let before = (flow.record(), flow.accounts.apart().unwrap());
            flow.accounts.run(side, &frame, 1).unwrap();
            assert_eq!(flow.record(), before.0, "{what}");
            let apart = flow.accounts.apart().unwrap();
            assert_eq!(apart.packets, before.1.packets + 1, "{what}");
            let bytes = frame.len() as u64 - 14;
            assert_eq!(apart.wire_bytes, before.1.wire_bytes + bytes, "{what}");
            assert_eq!(flow.accounts.len().unwrap(), 1, "{what}");
        }
    }
}

#[test]
fn extension_headers_are_skipped_and_counted() {
    let flow = Flow::new(V6.0, V6.1);
    let segment = Segment {
        extensions: 4,
        payload: 10,
        ..flow.segment(Side::In)
    };
    flow.sees(Side::In, &segment);
    let record = flow.record();
    assert_eq!(record.incoming.carried_bytes, 10);
    assert_eq!(record.incoming.wire_bytes, 40 + 32 + 20 + 10);
}

/// A pure property: bytes of packets are counted once, in a flow or apart, whatever they say.
#[test]
fn any_mutated_packet_is_counted_once() {
    let flow = Flow::new(V4.0, V4.1);
    let mut frame = Segment {
        payload: 40,
        ..flow.segment(Side::In)
    }
    .frame();
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    for number in 1..=5000u64 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let at = 14 + state as usize % (frame.len() - 14);
        let before = frame[at];
        frame[at] = (state >> 32) as u8;
        flow.accounts.run(Side::In, &frame, 1).unwrap();
        // Three in four changes stay, until there is nothing left of the packet.
        if state >> 62 == 0 {
            frame[at] = before;
        }
        let counted = flow.record().incoming.packets + flow.accounts.apart().unwrap().packets;
        assert_eq!(counted, number);
    }
}

/// Issue 4: `steer-account` is to cost 50 ns at most, warm.
#[test]
fn the_cost_of_a_packet_is_told() {
    let flow = Flow::new(V4.0, V4.1);
    let mut nothing = flow.segment(Side::In).frame();
    nothing[14] = 0;
    for side in [Side::In, Side::Out] {
        let frame = Segment {
            payload: 1000,
            ..flow.segment(side)
        }
        .frame();
        let run = |frame: &[u8]| -> Duration {
            let runs = (0..7).map(|_| flow.accounts.run(side, frame, REPEAT).unwrap());
            runs.min().unwrap()
        };
        let stranger = Segment {
            to: address("203.0.113.9:1"),
            ..flow.segment(side)
        };
        let syn = Segment {
            flags: SYN,
            ..flow.segment(side)
        };
        let whole = run(&frame);
        println!(
            "{side:?}: {whole:?} a packet, the harness included; of no connection {:?}, a SYN {:?}, nothing {:?}",
            run(&stranger.frame()),
            run(&syn.frame()),
            run(&nothing),
        );
        assert!(whole < Duration::from_micros(10));
    }
    for (name, count) in flow.accounts.verified_instructions().unwrap() {
        println!("{name}: {count} verified instructions");
    }
}
