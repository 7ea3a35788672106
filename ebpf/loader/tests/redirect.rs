//! What `redirect` does with packets of other nodes: taken, passed on, or refused for what is forged about them.
#![allow(clippy::unwrap_used, reason = "a test, its helpers included")]

mod packets;
mod world;

use std::io::Read as _;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};

use packets::*;
use postern_ebpf::Program;
use postern_ebpf_abi::table::NodeId;
use postern_ebpf_abi::verdict::Verdict;
use world::*;

const NOBODY: NodeId = NodeId::NOBODY;

/// A frame that `from` sent here.
fn tunnelled(inner: &[u8], chain: &[u8], from: IpAddr) -> Vec<u8> {
    let destination = SocketAddr::from((own(from), TUNNEL_PORT));
    arriving(&gue(
        SocketAddr::from((from, 50_000)),
        destination,
        chain,
        inner,
    ))
}

/// The same with a chain as it should be, from `from` to this node.
fn sent(inner: &[u8], flow: (SocketAddr, SocketAddr, u8), from: NodeId, next: NodeId) -> Vec<u8> {
    let hash = flow_hash(flow.0, flow.1, flow.2);
    let hops = u8::from(next != NOBODY);
    tunnelled(
        inner,
        &chain(0, hops, [from, SELF, next], hash),
        place(from),
    )
}

#[test]
fn a_connection_that_begins_is_taken() {
    let world = World::new();
    for from in [OTHER, OTHER_V6] {
        for (client, vip) in pairs() {
            let inner = segment(client, vip, SYN);
            for next in [NOBODY, NEAR] {
                let frame = sent(&inner, (client, vip, TCP), from, next);
                let taken = world.redirect("SYN", &frame, Verdict::TakenSyn);
                assert_eq!(taken, arriving(&inner));
            }
        }
    }
}

#[test]
fn redirect_is_the_same_when_it_is_run_alone() {
    let world = World::new();
    let (client, vip) = (at(CLIENT_V4), at(VIP_V4));
    let frame = sent(
        &segment(client, vip, SYN),
        (client, vip, TCP),
        OTHER,
        NOBODY,
    );
    world.check(Program::Redirect, "alone", &frame, Verdict::TakenSyn);
    let plain = arriving(&segment(client, vip, SYN));
    world.check(
        Program::Redirect,
        "no tunnel",
        &plain,
        Verdict::TunnelMalformed,
    );
}

#[test]
fn unknown_connections_are_passed_on_once_and_then_taken() {
    let world = World::new();
    for (client, vip) in pairs() {
        let inner = segment(client, vip, ACK);
        for (from, to) in [
            (OTHER, OTHER_V6),
            (OTHER_V6, OTHER),
            (OTHER, NEAR),
            (OTHER, OTHER),
        ] {
            let frame = sent(&inner, (client, vip, TCP), from, to);
            let on = world.redirect("ACK", &frame, Verdict::PassedOn);
            verify_checksums(&on);
            assert_eq!(on, forwarded(&inner, (client, vip, TCP), to, NOBODY));
        }
        for next in [NOBODY, SELF] {
            let frame = sent(&inner, (client, vip, TCP), OTHER, next);
            let taken = world.redirect("the last hop", &frame, Verdict::TakenLast);
            assert_eq!(taken, arriving(&inner));
        }
        let hash = flow_hash(client, vip, TCP);
        let spent = tunnelled(
            &inner,
            &chain(0, 0, [OTHER, SELF, NEAR], hash),
            place(OTHER),
        );
        world.redirect("no hops left", &spent, Verdict::TakenLast);
    }
}

#[test]
fn both_keys_of_tags_are_good_while_keys_change() {
    let world = World::new();
    let (client, vip) = (at(CLIENT_V4), at(VIP_V4));
    let (inner, hash) = (segment(client, vip, SYN), flow_hash(client, vip, TCP));
    let way = [OTHER, SELF, NOBODY];
    let second = tunnelled(&inner, &chain(1, 0, way, hash), place(OTHER));
    world.redirect("key 1", &second, Verdict::TakenSyn);
    let mut swapped = chain(1, 0, way, hash);
    swapped[0] = 0x10;
    let swapped = tunnelled(&inner, &swapped, place(OTHER));
    world.redirect("key 1 that says 0", &swapped, Verdict::TunnelForged);
}

#[test]
fn forged_tunnels_are_refused() {
    let world = World::new();
    for (client, vip) in pairs() {
        let (inner, hash) = (segment(client, vip, SYN), flow_hash(client, vip, TCP));
        let way = [OTHER, SELF, NEAR];
        let good = chain(0, 1, way, hash);
        let changed = |at: usize, byte: u8| {
            let mut chain = good.clone();
            chain[at] = byte;
            chain
        };
        let mut other_flow = client;
        other_flow.set_port(client.port() ^ 1);
        let table: [(&str, Vec<u8>, &str, Verdict); 14] = [
            (
                "an unlisted source",
                good.clone(),
                "10.0.0.77",
                Verdict::TunnelUnlisted,
            ),
            (
                "another node's source",
                good.clone(),
                "10.0.0.4",
                Verdict::TunnelUnlisted,
            ),
            (
                "a source of IPv6",
                good.clone(),
                "fd00::3",
                Verdict::TunnelUnlisted,
            ),
            (
                "nobody",
                chain(0, 1, [NOBODY, SELF, NEAR], hash),
                "10.0.0.2",
                Verdict::TunnelUnlisted,
            ),
            (
                "an unknown node",
                chain(0, 1, [UNKNOWN, SELF, NEAR], hash),
                "10.0.0.2",
                Verdict::TunnelUnlisted,
            ),
            (
                "a number beyond the table",
                chain(0, 1, [NodeId(0x1002), SELF, NEAR], hash),
                "10.0.0.2",
                Verdict::TunnelUnlisted,
            ),
            (
                "another's packet",
                chain(0, 1, [OTHER, NEAR, SELF], hash),
                "10.0.0.2",
                Verdict::TunnelMisdelivered,
            ),
            (
                "too many hops",
                chain(0, 2, way, hash),
                "10.0.0.2",
                Verdict::TunnelHops,
            ),
            (
                "a loop",
                chain(0, 255, [OTHER, SELF, OTHER], hash),
                "10.0.0.2",
                Verdict::TunnelHops,
            ),
            (
                "a wrong tag",
                changed(23, good[23] ^ 1),
                "10.0.0.2",
                Verdict::TunnelForged,
            ),
            (
                "another next hop",
                changed(7, 2),
                "10.0.0.2",
                Verdict::TunnelForged,
            ),
            (
                "another generation",
                changed(8, 99),
                "10.0.0.2",
                Verdict::TunnelForged,
            ),
            (
                "fewer hops",
                changed(1, 0),
                "10.0.0.2",
                Verdict::TunnelForged,
            ),
            (
                "the tag of another flow",
                chain(0, 1, way, flow_hash(other_flow, vip, TCP)),
                "10.0.0.2",
                Verdict::TunnelForged,
            ),
        ];
        for (what, chain, from, verdict) in table {
            world.redirect(what, &tunnelled(&inner, &chain, ip(from)), verdict);
        }
    }
}

#[test]
fn tunnels_of_another_shape_are_refused() {
    let world = World::new();
    let (client, vip) = (at(CLIENT_V4), at(VIP_V4));
    let inner = segment(client, vip, SYN);
    let good = sent(&inner, (client, vip, TCP), OTHER, NOBODY);
    let good_v6 = sent(&inner, (client, vip, TCP), OTHER_V6, NOBODY);
    let changed = |frame: &[u8], at: usize, byte: u8| {
        let mut frame = frame.to_vec();
        frame[at] = byte;
        frame
    };
    let gue = 14 + 20 + 8;
    let table = [
        ("version 1", changed(&good, gue, 0x46)),
        ("a control message", changed(&good, gue, 0x26)),
        ("another header length", changed(&good, gue, 5)),
        ("another protocol", changed(&good, gue + 1, 6)),
        ("IPv6 that is IPv4", changed(&good, gue + 1, 41)),
        ("flags", changed(&good, gue + 2, 0x80)),
        (
            "another version of the chain",
            changed(&good, gue + 4, 0x20),
        ),
        ("a key that is not there", changed(&good, gue + 4, 0x12)),
        ("another UDP length", changed(&good, gue - 3, 1)),
        (
            "GUE over IPv6 of version 2",
            changed(&good_v6, gue + 20, 0x86),
        ),
        ("no inner packet", {
            let chain = chain(0, 0, [OTHER, SELF, NOBODY], 0);
            let udp = [&[0xc0, 0, 0x17, 0xc0, 0, 36, 0, 0, 6, 4, 0, 0][..], &chain].concat();
            arriving(&packet(place(OTHER), own(place(OTHER)), UDP, &udp))
        }),
        ("cut off", {
            let udp = [0xc0, 0, 0x17, 0xc0, 0, 12, 0, 0, 6, 4, 0, 0];
            arriving(&packet(place(OTHER), own(place(OTHER)), UDP, &udp))
        }),
    ];
    for (what, frame) in table {
        world.redirect(what, &frame, Verdict::TunnelMalformed);
    }
}

#[test]
fn nothing_but_our_services_comes_out_of_a_tunnel() {
    let world = World::new();
    let (client, vip) = (at(CLIENT_V4), at(VIP_V4));
    let node = segment(client, at("10.0.0.1:22"), SYN);
    let port = segment(client, at("192.0.2.10:22"), SYN);
    let fragment = ipv4(client.ip(), vip.ip(), TCP, 0x2000, &[], &[0; 20]);
    let echo = icmp(client.ip(), vip.ip(), 8, 0, [0; 4], b"x");
    let nested = gue(
        at("10.0.0.2:1"),
        at("10.0.0.1:6080"),
        &chain(0, 0, [OTHER, SELF, NOBODY], 0),
        &port,
    );
    let options = ipv4(client.ip(), vip.ip(), TCP, 0, &[1; 4], &[0; 20]);
    for (what, inner) in [
        ("this node itself", node),
        ("another port", port),
        ("a fragment", fragment),
        ("a tunnel", nested),
        ("options", options),
    ] {
        let frame = sent(&inner, (client, vip, TCP), OTHER, NOBODY);
        world.redirect(what, &frame, Verdict::TunnelForeign);
    }
    let frame = sent(&echo, (client, vip, TCP), OTHER, NOBODY);
    world.redirect("an echo request", &frame, Verdict::TunnelForeign);
}

#[test]
fn without_redirect_tunnels_are_dropped() {
    let mut world = World::new();
    world.programs.unchain().unwrap();
    let (client, vip) = (at(CLIENT_V4), at(VIP_V4));
    let frame = sent(
        &segment(client, vip, SYN),
        (client, vip, TCP),
        OTHER,
        NOBODY,
    );
    world.redirect("no program", &frame, Verdict::NoRedirect);
}

#[test]
fn connections_that_the_stack_has_are_kept() {
    for address in ["127.0.0.77:0", "[::1]:0"] {
        let listener = TcpListener::bind(address).unwrap();
        let vip = listener.local_addr().unwrap();
        let mut stream = TcpStream::connect(vip).unwrap();
        let (accepted, client) = listener.accept().unwrap();
        let mut world = World::serving(&[vip]);
        world.give(SELF, OTHER);
        let inner = segment(client, vip, PSH | ACK);
        world.steer("established", &arriving(&inner), Verdict::LocalSocket);
        let frame = sent(&inner, (client, vip, TCP), OTHER, NEAR);
        let taken = world.redirect("established", &frame, Verdict::TakenSocket);
        assert_eq!(taken, arriving(&inner));
        let quoted = segment(vip, client, ACK);
        let kind = if vip.is_ipv4() { 3 } else { 2 };
        let error = icmp(client.ip(), vip.ip(), kind, 4, [0, 0, 5, 0], &quoted);
        world.steer("an error about it", &arriving(&error), Verdict::LocalSocket);
        let error = sent(&error, (client, vip, TCP), OTHER, NEAR);
        world.redirect("an error about it", &error, Verdict::TakenSocket);
        let mut stranger = client;
        stranger.set_port(client.port() ^ 1);
        let inner = segment(stranger, vip, PSH | ACK);
        world.steer("only a listener", &arriving(&inner), Verdict::ToSecond);
        let frame = sent(&inner, (stranger, vip, TCP), OTHER, NEAR);
        let on = world.redirect("only a listener", &frame, Verdict::PassedOn);
        assert_eq!(on, forwarded(&inner, (stranger, vip, TCP), NEAR, NOBODY));
        drop(accepted);
        assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    }
}
