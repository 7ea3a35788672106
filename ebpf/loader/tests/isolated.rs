//! A node that the cluster went on without: it keeps what its stack has, drops all else, and sees by tunnels that it is behind.
#![allow(clippy::unwrap_used, reason = "a test, its helpers included")]

mod packets;
mod world;

use std::net::{SocketAddr, TcpListener, TcpStream};

use packets::*;
use postern_ebpf_abi::table::NodeId;
use postern_ebpf_abi::verdict::Verdict;
use world::*;

const NOBODY: NodeId = NodeId::NOBODY;

/// Every pair of hops that a bucket may have on this node.
const HOPS: [(NodeId, NodeId); 6] = [
    (SELF, NOBODY),
    (SELF, OTHER),
    (OTHER, SELF),
    (OTHER, NOBODY),
    (OTHER_V6, OTHER),
    (NOBODY, NOBODY),
];

fn isolate(world: &mut World) {
    world.draft.settings().isolated = 1;
    world.put();
}

/// Everything to `vip` that is of no connection of this node.
fn strangers(client: SocketAddr, vip: SocketAddr) -> Vec<(&'static str, Vec<u8>)> {
    let v4 = client.is_ipv4();
    let (echo, unreachable) = if v4 { (8, 3) } else { (128, 1) };
    let of_tcp = segment(vip, client, ACK);
    let of_udp = datagram(vip, client, b"x");
    let error = |quoted: &[u8]| icmp(client.ip(), vip.ip(), unreachable, 1, [0; 4], quoted);
    vec![
        ("a SYN", segment(client, vip, SYN)),
        ("an unknown segment", segment(client, vip, ACK)),
        ("a reset", segment(client, vip, RST)),
        ("a datagram", datagram(client, vip, b"x")),
        ("an error about TCP", error(&of_tcp)),
        ("an error about UDP", error(&of_udp)),
        (
            "an echo request",
            icmp(client.ip(), vip.ip(), echo, 0, [0; 4], b"x"),
        ),
    ]
}

#[test]
fn an_isolated_node_takes_nothing_new_and_forwards_nothing() {
    let mut world = World::new();
    for (first, second) in HOPS {
        world.give(first, second);
        isolate(&mut world);
        for (client, vip) in pairs() {
            for (what, packet) in strangers(client, vip) {
                let frame = arriving(&packet);
                let left = world.steer(what, &frame, Verdict::Isolated);
                assert_eq!(left, frame, "{what}");
            }
        }
    }
}

#[test]
fn what_comes_in_tunnels_is_no_exception() {
    let mut world = World::new();
    isolate(&mut world);
    for (client, vip) in pairs() {
        for (what, inner) in strangers(client, vip) {
            let protocol = if what.contains("UDP") || what.contains("datagram") {
                UDP
            } else {
                TCP
            };
            let hash = flow_hash(client, vip, protocol);
            for (from, next) in [(OTHER, NOBODY), (OTHER_V6, OTHER), (OTHER, SELF)] {
                let frame = tunnelled(&inner, from, next, GENERATION, hash);
                let verdict = match what {
                    "an echo request" => Verdict::TunnelForeign,
                    _ => Verdict::Isolated,
                };
                world.redirect(what, &frame, verdict);
            }
        }
    }
}

#[test]
fn an_isolated_node_keeps_its_connections_and_completes_none_by_a_cookie() {
    for address in ["127.0.0.78:0", "[::1]:0"] {
        let listener = TcpListener::bind(address).unwrap();
        let vip = listener.local_addr().unwrap();
        let _stream = TcpStream::connect(vip).unwrap();
        let (_accepted, client) = listener.accept().unwrap();
        let mut world = World::serving(&[vip]);
        for (first, second) in HOPS {
            world.give(first, second);
            isolate(&mut world);
            let inner = segment(client, vip, PSH | ACK);
            let frame = arriving(&inner);
            let left = world.steer("established", &frame, Verdict::LocalSocket);
            assert_eq!(left, frame);
            let (kind, code) = if vip.is_ipv4() { (3, 4) } else { (2, 0) };
            let quoted = segment(vip, client, ACK);
            let error = icmp(client.ip(), vip.ip(), kind, code, [0, 0, 5, 0], &quoted);
            world.steer("an error about it", &arriving(&error), Verdict::LocalSocket);
            let hash = flow_hash(client, vip, TCP);
            for next in [NOBODY, OTHER] {
                let frame = tunnelled(&inner, OTHER, next, GENERATION, hash);
                let taken = world.redirect("established", &frame, Verdict::TakenSocket);
                assert_eq!(taken, arriving(&inner));
            }
            let mut stranger = client;
            stranger.set_port(client.port() ^ 1);
            let unknown = arriving(&segment(stranger, vip, ACK));
            world.steer("only a listener", &unknown, Verdict::Isolated);
            let again = arriving(&segment(client, vip, SYN));
            world.steer("a SYN of a connection", &again, Verdict::Isolated);
        }
    }
}

#[test]
fn an_isolated_node_is_as_strict_as_ever_and_leaves_other_traffic_alone() {
    let mut world = World::new();
    isolate(&mut world);
    let other = at("203.0.113.1:443");
    let port = at("192.0.2.10:22");
    let table = [
        (
            "not ours",
            segment(at(CLIENT_V4), other, SYN),
            Verdict::NotOurs,
        ),
        (
            "not served",
            segment(at(CLIENT_V4), port, SYN),
            Verdict::NotServed,
        ),
        (
            "a fragment",
            ipv4(
                ip("198.51.100.7"),
                ip("192.0.2.10"),
                TCP,
                0x2000,
                &[],
                &[0; 20],
            ),
            Verdict::Fragment,
        ),
    ];
    for (what, packet, verdict) in table {
        world.steer(what, &arriving(&packet), verdict);
    }
    let (client, vip) = (at(CLIENT_V4), at(VIP_V4));
    let inner = segment(client, vip, SYN);
    let forged = tunnelled(&inner, OTHER, NOBODY, GENERATION, 1);
    world.redirect("a wrong tag", &forged, Verdict::TunnelForged);
    world.draft.settings().isolated = 0;
    world.give(SELF, NOBODY);
    world.steer("no longer isolated", &arriving(&inner), Verdict::Local);
}

#[test]
fn the_newest_generation_is_that_of_genuine_tunnels() {
    let world = World::new();
    let newest = || world.programs.newest_generation_seen().unwrap();
    assert_eq!(newest(), 0);
    let (client, vip) = (at(CLIENT_V4), at(VIP_V4));
    let (inner, hash) = (segment(client, vip, SYN), flow_hash(client, vip, TCP));
    for (named, seen) in [(7, 7), (5, 7), (9, 9), (9, 9), (u64::MAX - 1, u64::MAX - 1)] {
        let frame = tunnelled(&inner, OTHER, NOBODY, named, hash);
        world.redirect("genuine", &frame, Verdict::TakenSyn);
        assert_eq!(newest(), seen, "after {named}");
    }
    let forged = tunnelled(&inner, OTHER, NOBODY, u64::MAX, hash ^ 1);
    world.redirect("forged", &forged, Verdict::TunnelForged);
    assert_eq!(newest(), u64::MAX - 1);
}

#[test]
fn an_isolated_node_still_sees_what_others_steer_by() {
    let mut world = World::new();
    isolate(&mut world);
    let (client, vip) = (at(CLIENT_V4), at(VIP_V4));
    let (inner, hash) = (segment(client, vip, SYN), flow_hash(client, vip, TCP));
    let frame = tunnelled(&inner, OTHER, NOBODY, GENERATION + 1, hash);
    world.redirect("newer", &frame, Verdict::Isolated);
    let newest = world.programs.newest_generation_seen().unwrap();
    assert_eq!(newest, GENERATION + 1);
}

/// A frame that `from` sent here under a table of `generation`.
fn tunnelled(inner: &[u8], from: NodeId, next: NodeId, generation: u64, hash: u64) -> Vec<u8> {
    let hops = u8::from(next != NOBODY);
    let chain = chain_of(0, hops, [from, SELF, next], generation, hash);
    let source = SocketAddr::from((place(from), 50_000));
    let destination = SocketAddr::from((own(place(from)), TUNNEL_PORT));
    arriving(&gue(source, destination, &chain, inner))
}
