//! What is too big for a tunnel is answered: which packets, by what, and how often.
#![allow(clippy::unwrap_used, reason = "a test, its helpers included")]

mod packets;
mod world;

use std::net::SocketAddr;

use packets::*;
use postern_ebpf_abi::table::NodeId;
use postern_ebpf_abi::too_big::{ANSWER_BURST_NS, ANSWER_INTERVAL_NS};
use postern_ebpf_abi::verdict::Verdict;
use world::*;

const MTU: u16 = 1500;

/// Nodes by family, and what their tunnels add.
const TUNNELS: [(NodeId, u16); 3] = [(OTHER, 56), (OTHER_V6, 76), (NEAR, 56)];

/// A datagram whose IP packet has so many bytes.
fn sized(client: SocketAddr, vip: SocketAddr, bytes: u16) -> Vec<u8> {
    let headers = if client.is_ipv4() { 28 } else { 48 };
    let payload: Vec<u8> = (0..bytes - headers)
        .map(|byte| (byte % 251) as u8)
        .collect();
    datagram(client, vip, &payload)
}

/// A TCP segment of so many bytes.
fn segment_of(client: SocketAddr, vip: SocketAddr, bytes: u16) -> Vec<u8> {
    let headers = if client.is_ipv4() { 40 } else { 60 };
    let payload = vec![0x5a; usize::from(bytes - headers)];
    let segment = tcp(client, vip, ACK | PSH, [7, 8], &payload);
    packet(client.ip(), vip.ip(), TCP, &segment)
}

/// The answer to `packet`: RFC 792 with RFC 1191 §4 and as much as RFC 1812 §4.3.2.3 has room for,
/// or RFC 4443 §3.2; from the service's address, back to the router.
fn answer(client: SocketAddr, vip: SocketAddr, packet: &[u8], mtu: u16) -> Vec<u8> {
    let [a, b] = mtu.to_be_bytes();
    let answer = if client.is_ipv4() {
        let quoted = &packet[..576 - 20 - 8];
        let mut answer = icmp(vip.ip(), client.ip(), 3, 4, [0, 0, a, b], quoted);
        // RFC 1812 §4.3.2.5: precedence 6.
        answer[1] = 0xc0;
        answer[10..12].copy_from_slice(&[0, 0]);
        let sum = checksum(&[&answer[..20]]).to_be_bytes();
        answer[10..12].copy_from_slice(&sum);
        answer
    } else {
        let quoted = &packet[..1280 - 40 - 8];
        icmp(vip.ip(), client.ip(), 2, 0, [0, 0, a, b], quoted)
    };
    leaving(ROUTER, &answer)
}

#[test]
fn the_client_is_told_what_fits() {
    for (to, overhead) in TUNNELS {
        // Each has its own limit, which this stays below.
        let mut world = World::new();
        let room = MTU - overhead;
        for (first, second, fits) in [
            (to, NodeId::NOBODY, Verdict::ToFirst),
            (to, SELF, Verdict::ToFirst),
            (SELF, to, Verdict::ToSecond),
        ] {
            world.give(first, second);
            for (client, vip) in pairs() {
                for make in [sized, segment_of] {
                    let sent = world.steer("fits", &arriving(&make(client, vip, room)), fits);
                    assert_eq!(sent.len(), usize::from(MTU) + 14);
                    for bytes in [room + 1, room + 2, MTU] {
                        let packet = make(client, vip, bytes);
                        let frame = arriving(&packet);
                        let told = world.steer("too big", &frame, Verdict::TooBigAnswered);
                        verify_checksums(&told);
                        assert_eq!(told, answer(client, vip, &packet, room), "{bytes}");
                    }
                }
            }
        }
    }
}

#[test]
fn what_this_node_takes_is_never_too_big() {
    let mut world = World::new();
    world.give(SELF, NodeId::NOBODY);
    for (client, vip) in pairs() {
        let frame = arriving(&sized(client, vip, MTU));
        world.steer("taken", &frame, Verdict::Local);
    }
}

#[test]
fn what_must_not_be_answered_is_dropped() {
    let mut world = World::new();
    world.give(OTHER, NodeId::NOBODY);
    let (client, vip) = (at(CLIENT_V4), at(VIP_V4));
    let (client_v6, vip_v6) = (at(CLIENT_V6), at(VIP_V6));
    let whole = sized(client, vip, MTU);
    let body = &whole[20..];
    let may_be_cut = ipv4(client.ip(), vip.ip(), UDP, 0, &[], body);
    let quoting = |client: SocketAddr, vip: SocketAddr, bytes: u16| {
        let (kind, headers) = if vip.is_ipv4() { (3, 28) } else { (1, 48) };
        let quoted = segment_of(vip, client, bytes - headers);
        icmp(client.ip(), vip.ip(), kind, 1, [0; 4], &quoted)
    };
    let mut to_many = arriving(&whole);
    to_many[..6].copy_from_slice(&[0xff; 6]);
    let mut to_group = arriving(&whole);
    to_group[0] |= 1;
    let mut table = vec![
        ("it may be fragmented", arriving(&may_be_cut)),
        ("an error", arriving(&quoting(client, vip, MTU))),
        (
            "an error of IPv6",
            arriving(&quoting(client_v6, vip_v6, MTU)),
        ),
        ("an Ethernet broadcast", to_many),
        ("an Ethernet group", to_group),
    ];
    for source in [
        "0.0.0.7",
        "127.0.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
    ] {
        let source = SocketAddr::new(ip(source), 9);
        table.push(("no host of IPv4", arriving(&sized(source, vip, MTU))));
    }
    for source in ["::", "ff02::1"] {
        let source = SocketAddr::new(ip(source), 9);
        table.push(("no host of IPv6", arriving(&sized(source, vip_v6, MTU))));
    }
    for (what, frame) in table {
        let left = world.steer(what, &frame, Verdict::TooBig);
        assert_eq!(left, frame, "{what}");
    }
}

#[test]
fn a_link_that_is_smaller_than_any_answer_gives_none() {
    let mut world = World::new();
    world.draft.settings().mtu = 560;
    world.give(OTHER, NodeId::NOBODY);
    for (client, vip) in pairs() {
        world.steer("tiny", &arriving(&sized(client, vip, 540)), Verdict::TooBig);
    }
}

#[test]
fn what_comes_in_a_tunnel_and_is_too_big_for_the_next_is_dropped() {
    let world = World::new();
    for (client, vip) in pairs() {
        let inner = segment_of(client, vip, MTU - 56);
        let hash = flow_hash(client, vip, TCP);
        let chain = chain(0, 1, [OTHER, SELF, OTHER_V6], hash);
        let source = SocketAddr::from((place(OTHER), 50_000));
        let destination = SocketAddr::from((own(place(OTHER)), TUNNEL_PORT));
        let frame = arriving(&gue(source, destination, &chain, &inner));
        world.redirect("from IPv4 to IPv6", &frame, Verdict::TooBig);
    }
}

#[test]
fn a_flood_is_answered_within_the_limit() {
    stay_on_one_core();
    let mut world = World::new();
    world.give(OTHER, NodeId::NOBODY);
    let (client, vip) = pairs()[0];
    let frame = arriving(&sized(client, vip, MTU));
    let start = std::time::Instant::now();
    // The kernel would hand an answer to the next run: one run each.
    for _ in 0..2_000 {
        world
            .programs
            .run(postern_ebpf::Program::Steer, &frame, 1)
            .unwrap();
    }
    let elapsed = u64::try_from(start.elapsed().as_nanos()).unwrap();
    let count = |verdict| world.programs.count(verdict).unwrap().packets;
    let (told, dropped) = (count(Verdict::TooBigAnswered), count(Verdict::TooBig));
    assert_eq!(told + dropped, 2_000);
    let burst = ANSWER_BURST_NS / ANSWER_INTERVAL_NS;
    // The clock that the program reads may be a tick of 10 ms late, or early at its start.
    let most = burst + 1 + elapsed / ANSWER_INTERVAL_NS + 10;
    assert!((burst..=most).contains(&told), "{told} of at most {most}");
    std::thread::sleep(std::time::Duration::from_millis(100));
    world.steer("later", &frame, Verdict::TooBigAnswered);
}

/// The limit is each core's.
fn stay_on_one_core() {
    // SAFETY: a set of cores is made of integers; the calls read and write it alone.
    unsafe {
        let mut cores: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(usize::try_from(libc::sched_getcpu()).unwrap(), &mut cores);
        let done = libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const cores);
        assert_eq!(done, 0);
    }
}
