//! What `steer` does with packets: one test a rule, both families, every verdict counted once.
#![allow(clippy::unwrap_used, reason = "a test, its helpers included")]

mod packets;
mod world;

use packets::*;
use postern_ebpf_abi::flow::Address;
use postern_ebpf_abi::source::{ALLOW, DENY};
use postern_ebpf_abi::table::NodeId;
use postern_ebpf_abi::verdict::Verdict;
use world::*;

#[test]
fn what_is_not_ours_passes_untouched() {
    let world = World::new();
    let other = at("203.0.113.1:443");
    let other_v6 = at("[2001:db8::11]:443");
    let table = [
        ("ARP", ethernet(0x0806, &[0; 28]), Verdict::NotIp),
        ("a VLAN tag", ethernet(0x8100, &[0; 46]), Verdict::NotIp),
        (
            "another IPv4 address",
            arriving(&segment(at(CLIENT_V4), other, SYN)),
            Verdict::NotOurs,
        ),
        (
            "another IPv6 address",
            arriving(&segment(at(CLIENT_V6), other_v6, SYN)),
            Verdict::NotOurs,
        ),
        (
            "a fragment for another",
            arriving(&ipv4(
                ip("198.51.100.7"),
                ip("203.0.113.1"),
                TCP,
                0x2000,
                &[],
                &[0; 40],
            )),
            Verdict::NotOurs,
        ),
        (
            "UDP to another port of this node",
            arriving(&datagram(at("10.0.0.2:6080"), at("10.0.0.1:6081"), b"x")),
            Verdict::NotOurs,
        ),
    ];
    for (what, frame, verdict) in table {
        assert_eq!(world.steer(what, &frame, verdict), frame, "{what}");
    }
}

#[test]
fn without_a_table_everything_passes() {
    let programs =
        postern_ebpf::Programs::load().unwrap_or_else(|error| panic!("{error}: {error:?}"));
    let world = World {
        programs,
        draft: World::new().draft,
    };
    for (client, vip) in pairs() {
        let frame = arriving(&segment(client, vip, SYN));
        assert_eq!(world.steer("no table", &frame, Verdict::NoTable), frame);
    }
}

#[test]
fn broken_headers_are_dropped() {
    let world = World::new();
    let changed = |frame: &[u8], at: usize, byte: u8| {
        let mut frame = frame.to_vec();
        frame[at] = byte;
        frame
    };
    let v4 = arriving(&segment(at(CLIENT_V4), at(VIP_V4), SYN));
    let v6 = arriving(&segment(at(CLIENT_V6), at(VIP_V6), SYN));
    let udp = arriving(&datagram(at(CLIENT_V4), at(VIP_V4), b"x"));
    let short = |protocol, bytes: &[u8]| {
        arriving(&packet(
            ip("198.51.100.7"),
            ip("192.0.2.10"),
            protocol,
            bytes,
        ))
    };
    let table = [
        ("version 5 in IPv4", changed(&v4, 14, 0x55)),
        ("a header of 16 bytes", changed(&v4, 14, 0x44)),
        ("longer than the frame", changed(&v4, 16, 0x10)),
        (
            "shorter than its header",
            changed(&changed(&v4, 16, 0), 17, 19),
        ),
        ("version 4 in IPv6", changed(&v6, 14, 0x40)),
        ("IPv6 longer than the frame", changed(&v6, 18, 0x10)),
        ("IPv4 cut off", v4[..30].to_vec()),
        ("IPv6 cut off", v6[..50].to_vec()),
        ("half a TCP header", short(TCP, &[0; 12])),
        ("half a UDP header", short(UDP, &[0; 6])),
        ("half an ICMP header", short(ICMP, &[8, 0, 0, 0])),
        ("a TCP header of 16 bytes", changed(&v4, 46, 0x40)),
        (
            "a TCP header longer than the packet",
            changed(&v4, 46, 0xf0),
        ),
        (
            "UDP shorter than its header",
            changed(&changed(&udp, 38, 0), 39, 7),
        ),
        ("UDP longer than the packet", changed(&udp, 38, 1)),
        (
            "an IPv4 service's address in IPv6",
            arriving(&segment(at(CLIENT_V6), at("[::ffff:192.0.2.10]:443"), SYN)),
        ),
        (
            "an error about half a header",
            short(ICMP, &[3, 4, 0, 0, 0, 0, 0, 0, 0x45, 0, 0, 0]),
        ),
    ];
    for (what, frame) in table {
        world.steer(what, &frame, Verdict::Malformed);
    }
}

#[test]
fn what_no_port_is_seen_in_is_refused_by_name() {
    let world = World::new();
    let (from, to) = (ip("198.51.100.7"), ip("192.0.2.10"));
    let (from_v6, to_v6) = (ip("2001:db8:1::7"), ip("2001:db8::10"));
    let v4 = |fragment, options: &[u8]| arriving(&ipv4(from, to, TCP, fragment, options, &[0; 40]));
    let v6 = |next| arriving(&packet(from_v6, to_v6, next, &[0; 48]));
    let table = [
        ("the first fragment", v4(0x2000, &[]), Verdict::Fragment),
        ("a later fragment", v4(0x0010, &[]), Verdict::Fragment),
        ("router alert", v4(0, &[0x94, 4, 0, 0]), Verdict::IpOptions),
        (
            "forty bytes of options",
            v4(0, &[1; 40]),
            Verdict::IpOptions,
        ),
        ("a fragment of IPv6", v6(44), Verdict::Fragment),
        ("hop-by-hop options", v6(0), Verdict::Ipv6Extension),
        ("a routing header", v6(43), Verdict::Ipv6Extension),
        ("authentication", v6(51), Verdict::Ipv6Extension),
        ("destination options", v6(60), Verdict::Ipv6Extension),
    ];
    for (what, frame, verdict) in table {
        world.steer(what, &frame, verdict);
    }
}

#[test]
fn what_is_not_served_is_dropped() {
    let world = World::new();
    let mut port = [at(VIP_V4), at(VIP_V6)];
    port.iter_mut().for_each(|address| address.set_port(22));
    let (from, to) = (ip("198.51.100.7"), ip("192.0.2.10"));
    let (from_v6, to_v6) = (ip("2001:db8:1::7"), ip("2001:db8::10"));
    let table = [
        (
            "another port",
            segment(at(CLIENT_V4), port[0], SYN),
            Verdict::NotServed,
        ),
        (
            "another port of IPv6",
            segment(at(CLIENT_V6), port[1], ACK),
            Verdict::NotServed,
        ),
        (
            "another UDP port",
            datagram(at(CLIENT_V4), port[0], b""),
            Verdict::NotServed,
        ),
        ("SCTP", packet(from, to, 132, &[0; 40]), Verdict::NotServed),
        (
            "ESP",
            packet(from_v6, to_v6, 50, &[0; 40]),
            Verdict::NotServed,
        ),
        (
            "ICMPv6 in IPv4",
            packet(from, to, ICMPV6, &[128, 0, 0, 0, 0, 0, 0, 0]),
            Verdict::NotServed,
        ),
        (
            "ICMP in IPv6",
            packet(from_v6, to_v6, ICMP, &[8, 0, 0, 0, 0, 0, 0, 0]),
            Verdict::NotServed,
        ),
        (
            "a timestamp request",
            icmp(from, to, 13, 0, [0; 4], &[0; 12]),
            Verdict::IcmpUnhandled,
        ),
        (
            "a redirect",
            icmp(from, to, 5, 0, [0; 4], &[0; 28]),
            Verdict::IcmpUnhandled,
        ),
        (
            "an echo reply",
            icmp(from_v6, to_v6, 129, 0, [0; 4], &[]),
            Verdict::IcmpUnhandled,
        ),
    ];
    for (what, packet, verdict) in table {
        world.steer(what, &arriving(&packet), verdict);
    }
}

#[test]
fn sources_are_denied_by_the_longest_prefix() {
    let mut world = World::new();
    world.give(SELF, NodeId::NOBODY);
    let address = |text| postern_ebpf::from_ip(ip(text));
    let list: [(Address, u32, u32); 4] = [
        (address("198.51.100.0"), 96 + 24, DENY),
        (address("198.51.100.128"), 96 + 25, ALLOW),
        (address("2001:db8:1::"), 48, DENY),
        (address("2001:db8:1:2::"), 64, ALLOW),
    ];
    for (address, bits, rule) in list {
        world.programs.put_source(address, bits, rule).unwrap();
    }
    let denied = arriving(&segment(at(CLIENT_V4), at(VIP_V4), SYN));
    world.steer("the list is not in use", &denied, Verdict::Local);
    world.draft.settings().sources = 1;
    world.put();
    let table = [
        ("198.51.100.7:1", VIP_V4, Verdict::Denied),
        ("198.51.100.200:1", VIP_V4, Verdict::Local),
        ("203.0.113.9:1", VIP_V4, Verdict::Local),
        ("[2001:db8:1:1::1]:1", VIP_V6, Verdict::Denied),
        ("[2001:db8:1:2::1]:1", VIP_V6, Verdict::Local),
    ];
    for (source, vip, verdict) in table {
        for flags in [SYN, ACK] {
            world.steer(
                source,
                &arriving(&segment(at(source), at(vip), flags)),
                verdict,
            );
        }
    }
    let elsewhere = arriving(&segment(at(CLIENT_V4), at("203.0.113.1:22"), SYN));
    world.steer(
        "the list is for our addresses alone",
        &elsewhere,
        Verdict::NotOurs,
    );
    world
        .programs
        .remove_source(address("198.51.100.0"), 96 + 24)
        .unwrap();
    world
        .programs
        .remove_source(address("198.51.100.0"), 96 + 24)
        .unwrap();
    world.steer("no longer denied", &denied, Verdict::Local);
}

#[test]
fn a_source_begins_no_more_connections_than_it_may() {
    let mut world = World::new();
    world.give(SELF, NodeId::NOBODY);
    let second = 1_000_000_000;
    world.draft.settings().syn_interval_ns = 100 * second;
    world.draft.settings().syn_burst_ns = 250 * second;
    world.put();
    for (client, vip) in pairs() {
        let frame = |flags, port| {
            let mut client = client;
            client.set_port(port);
            arriving(&segment(client, vip, flags))
        };
        for port in 1..=3 {
            world.steer("within the burst", &frame(SYN, port), Verdict::Local);
        }
        for port in 4..=6 {
            world.steer("beyond the burst", &frame(SYN, port), Verdict::SynLimited);
        }
        world.steer("no connection begins", &frame(ACK, 7), Verdict::Local);
        world.steer("an answer", &frame(SYN | ACK, 7), Verdict::Local);
    }
    let neighbour = arriving(&segment(at("198.51.100.8:1"), at(VIP_V4), SYN));
    world.steer("another IPv4 host", &neighbour, Verdict::Local);
    let neighbour = arriving(&segment(at("[2001:db8:1::8]:1"), at(VIP_V6), SYN));
    world.steer("the same IPv6 network", &neighbour, Verdict::SynLimited);
    let neighbour = arriving(&segment(at("[2001:db8:1:1::8]:1"), at(VIP_V6), SYN));
    world.steer("another IPv6 network", &neighbour, Verdict::Local);
}

#[test]
fn echo_requests_are_answered() {
    let world = World::new();
    let body = [0x5a; 33];
    for (client, vip) in pairs() {
        let (request, reply) = if client.is_ipv4() { (8, 0) } else { (128, 129) };
        let asked = icmp(client.ip(), vip.ip(), request, 0, [1, 2, 3, 4], &body);
        let mut asked = arriving(&asked);
        // Other hops left than in the answer: the header's checksum must follow.
        if client.is_ipv4() {
            asked[22] = 57;
            asked[24..26].copy_from_slice(&[0, 0]);
            let sum = checksum(&[&asked[14..34]]).to_be_bytes();
            asked[24..26].copy_from_slice(&sum);
        } else {
            asked[21] = 57;
        }
        let answer = world.steer("echo", &asked, Verdict::EchoAnswered);
        verify_checksums(&answer);
        let expected = icmp(vip.ip(), client.ip(), reply, 0, [1, 2, 3, 4], &body);
        assert_eq!(answer, leaving(ROUTER, &expected));
    }
}

#[test]
fn the_first_node_takes_what_nobody_else_may_have() {
    let mut world = World::new();
    for second in [NodeId::NOBODY, SELF] {
        world.give(SELF, second);
        for (client, vip) in pairs() {
            for flags in [SYN, ACK, PSH | ACK, FIN | ACK, RST] {
                let frame = arriving(&segment(client, vip, flags));
                assert_eq!(world.steer("TCP", &frame, Verdict::Local), frame);
            }
            let frame = arriving(&datagram(client, vip, b"x"));
            assert_eq!(world.steer("UDP", &frame, Verdict::Local), frame);
        }
    }
}

#[test]
fn new_connections_stay_with_the_first_node() {
    let mut world = World::new();
    world.give(SELF, OTHER);
    for (client, vip) in pairs() {
        world.steer("SYN", &arriving(&segment(client, vip, SYN)), Verdict::Local);
    }
}

#[test]
fn packets_go_to_the_first_node_in_a_tunnel() {
    let mut world = World::new();
    let ways = [
        (OTHER, NodeId::NOBODY),
        (OTHER, SELF),
        (OTHER_V6, OTHER),
        (NEAR, OTHER_V6),
    ];
    for (first, second) in ways {
        world.give(first, second);
        for (client, vip) in pairs() {
            for flags in [SYN, ACK] {
                let inner = segment(client, vip, flags);
                let sent = world.steer("TCP", &arriving(&inner), Verdict::ToFirst);
                verify_checksums(&sent);
                assert_eq!(sent, forwarded(&inner, (client, vip, TCP), first, second));
            }
            let inner = datagram(client, vip, b"x");
            let sent = world.steer("UDP", &arriving(&inner), Verdict::ToFirst);
            let hops = if second == NodeId::NOBODY { 0 } else { 2 };
            let expected = forwarded_on(&inner, (client, vip, UDP), first, second, hops);
            assert_eq!(sent, expected);
        }
    }
}

#[test]
fn the_first_node_sends_what_it_does_not_know_to_the_second() {
    let mut world = World::new();
    for second in [OTHER, OTHER_V6] {
        world.give(SELF, second);
        for (client, vip) in pairs() {
            let inner = segment(client, vip, ACK);
            let sent = world.steer("ACK", &arriving(&inner), Verdict::ToSecond);
            verify_checksums(&sent);
            assert_eq!(
                sent,
                forwarded(&inner, (client, vip, TCP), second, NodeId::NOBODY)
            );
        }
    }
}

#[test]
fn errors_go_where_their_flow_goes() {
    let mut world = World::new();
    for (client, vip) in pairs() {
        // Our answer to the client, which somebody on the way could not deliver.
        let quoted = segment(vip, client, ACK);
        let router = if client.is_ipv4() {
            ip("203.0.113.254")
        } else {
            ip("2001:db8:9::1")
        };
        let kinds: &[(u8, u8)] = if client.is_ipv4() {
            &[(3, 4), (3, 1), (11, 0), (12, 0)]
        } else {
            &[(1, 0), (2, 0), (3, 0), (4, 0)]
        };
        for (kind, code) in kinds {
            let error = icmp(router, vip.ip(), *kind, *code, [0, 0, 5, 0], &quoted);
            world.give(OTHER, NodeId::NOBODY);
            let sent = world.steer("an error", &arriving(&error), Verdict::ToFirst);
            verify_checksums(&sent);
            assert_eq!(
                sent,
                forwarded(&error, (client, vip, TCP), OTHER, NodeId::NOBODY)
            );
            world.give(SELF, NodeId::NOBODY);
            world.steer("an error of ours", &arriving(&error), Verdict::Local);
            world.give(SELF, OTHER);
            world.steer("an error of nobody's", &arriving(&error), Verdict::ToSecond);
        }
        let about = icmp(
            router,
            vip.ip(),
            kinds[0].0,
            kinds[0].1,
            [0; 4],
            &datagram(vip, client, b"x"),
        );
        world.steer("an error about UDP", &arriving(&about), Verdict::ToSecond);
    }
}

#[test]
fn errors_about_flows_that_are_not_ours_are_refused() {
    let mut world = World::new();
    world.give(OTHER, NodeId::NOBODY);
    let (client, vip) = (at(CLIENT_V4), at(VIP_V4));
    let (router, to) = (ip("203.0.113.254"), vip.ip());
    let foreign = segment(at("192.0.2.99:443"), client, ACK);
    let other_port = segment(at("192.0.2.10:22"), client, ACK);
    let fragment = ipv4(to, client.ip(), TCP, 0x0010, &[], &[0; 20]);
    let echo = icmp(to, client.ip(), 0, 0, [0; 4], &[0; 20]);
    let table = [
        ("of another address", foreign, Verdict::Malformed),
        ("of another port", other_port, Verdict::NotServed),
        ("of a fragment", fragment, Verdict::Malformed),
        ("of an echo reply", echo, Verdict::IcmpUnhandled),
    ];
    for (what, quoted, verdict) in table {
        let error = icmp(router, to, 3, 4, [0; 4], &quoted);
        world.steer(what, &arriving(&error), verdict);
    }
}

#[test]
fn buckets_of_nobody_are_dropped() {
    let mut world = World::new();
    for first in [NodeId::NOBODY, UNKNOWN, NodeId(4096), NodeId(u16::MAX)] {
        world.give(first, OTHER);
        for (client, vip) in pairs() {
            world.steer(
                "nobody",
                &arriving(&segment(client, vip, SYN)),
                Verdict::Unassigned,
            );
        }
    }
}

#[test]
fn a_new_table_is_used_at_once() {
    let mut world = World::new();
    let frame = arriving(&segment(at(CLIENT_V4), at(VIP_V4), SYN));
    for (first, verdict) in [
        (SELF, Verdict::Local),
        (OTHER, Verdict::ToFirst),
        (SELF, Verdict::Local),
    ] {
        world.give(first, NodeId::NOBODY);
        world.steer("swapped", &frame, verdict);
    }
}
