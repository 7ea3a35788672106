//! A node with its table in the kernel, on which packets are tried: each must be counted once, under the verdict that is expected.
#![allow(dead_code, reason = "every test program uses a part")]
#![allow(clippy::unwrap_used, reason = "this is a part of tests")]

use std::hash::Hasher as _;
use std::net::{IpAddr, SocketAddr};

use postern_ebpf::{Draft, Endpoint, Program, Programs, Run};
use postern_ebpf_abi::flow::Address;
use postern_ebpf_abi::siphash::SipKey;
use postern_ebpf_abi::table::{Bucket, NodeId, Settings};
use postern_ebpf_abi::verdict::{Action, Verdict};
use siphasher::sip::{SipHasher13, SipHasher24};

use crate::packets::{ROUTER, gue, leaving};

/// This node, and two others: one over IPv4, one over IPv6.
pub const SELF: NodeId = NodeId(1);
pub const OTHER: NodeId = NodeId(2);
pub const OTHER_V6: NodeId = NodeId(3);
/// A node on the same link, with an Ethernet address.
pub const NEAR: NodeId = NodeId(4);
/// A number that no node has.
pub const UNKNOWN: NodeId = NodeId(99);
pub const NEAR_ETHERNET: [u8; 6] = [2, 0, 0, 0, 0, 4];

pub const TUNNEL_PORT: u16 = 6080;
pub const GENERATION: u64 = 0x0102_0304_0506_0708;
const FLOW_KEY: [u8; 16] = *b"0123456789abcdef";
const TAG_KEYS: [[u8; 16]; 2] = [*b"tag key number 0", *b"tag key number 1"];

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Where a node is.
pub fn place(node: NodeId) -> IpAddr {
    match node {
        SELF => ip("10.0.0.1"),
        OTHER => ip("10.0.0.2"),
        OTHER_V6 => ip("fd00::3"),
        NEAR => ip("10.0.0.4"),
        _ => panic!("{node:?} is nowhere"),
    }
}

/// This node's address towards `to`.
pub fn own(to: IpAddr) -> IpAddr {
    if to.is_ipv4() {
        ip("10.0.0.1")
    } else {
        ip("fd00::1")
    }
}

/// The services: TCP and UDP at one address of each family.
pub const VIP_V4: &str = "192.0.2.10:443";
pub const VIP_V6: &str = "[2001:db8::10]:443";
pub const CLIENT_V4: &str = "198.51.100.7:50000";
pub const CLIENT_V6: &str = "[2001:db8:1::7]:50000";
/// Client and service, of each family.
pub const PAIRS: [(&str, &str); 2] = [(CLIENT_V4, VIP_V4), (CLIENT_V6, VIP_V6)];

pub struct World {
    pub programs: Programs,
    pub draft: Draft,
}

impl World {
    /// A node that serves the two addresses, and no bucket is anybody's.
    pub fn new() -> Self {
        let endpoints = [VIP_V4, VIP_V6].map(at);
        Self::serving(&endpoints)
    }

    /// A node that serves these.
    pub fn serving(endpoints: &[SocketAddr]) -> Self {
        let programs = Programs::load().unwrap_or_else(|error| {
            panic!("these tests run programs in the kernel: {error}: {error:?}")
        });
        let mut draft = Draft::new(settings());
        let endpoints: Vec<Endpoint> = endpoints
            .iter()
            .flat_map(|address| {
                [6, 17].map(|protocol| Endpoint {
                    address: *address,
                    protocol,
                })
            })
            .collect();
        draft.serve(&endpoints).unwrap();
        for node in [SELF, OTHER, OTHER_V6, NEAR] {
            let ethernet = if node == NEAR { NEAR_ETHERNET } else { [0; 6] };
            draft.node(node, place(node), ethernet).unwrap();
        }
        let mut world = Self { programs, draft };
        world.put();
        world
    }

    /// Puts the draft in force.
    pub fn put(&mut self) {
        self.programs.put_table(self.draft.table()).unwrap();
    }

    /// Gives every bucket to these.
    pub fn give(&mut self, first: NodeId, second: NodeId) {
        self.draft.buckets().fill(Bucket { first, second });
        self.put();
    }

    /// Runs `program` on `frame`: it must count exactly `verdict`, once, with the frame's bytes, and
    /// do what that verdict says; what it leaves.
    pub fn check(&self, program: Program, what: &str, frame: &[u8], verdict: Verdict) -> Vec<u8> {
        let before = self.programs.counts().unwrap();
        let Run {
            returned, packet, ..
        } = self.programs.run(program, frame, 1).unwrap();
        let after = self.programs.counts().unwrap();
        let counted: Vec<_> = Verdict::ALL
            .iter()
            .filter(|one| before[**one as usize] != after[**one as usize])
            .map(|one| {
                (
                    one.name(),
                    after[*one as usize].packets - before[*one as usize].packets,
                )
            })
            .collect();
        assert_eq!(counted, [(verdict.name(), 1)], "{what}");
        let bytes = after[verdict as usize].bytes - before[verdict as usize].bytes;
        assert_eq!(bytes, frame.len() as u64, "{what}: bytes");
        assert_eq!(returned, code(verdict.action()), "{what}: returned");
        packet
    }

    /// The same for `steer`.
    pub fn steer(&self, what: &str, frame: &[u8], verdict: Verdict) -> Vec<u8> {
        self.check(Program::Steer, what, frame, verdict)
    }

    /// The same for `redirect`, through `steer`, as it comes in the field.
    pub fn redirect(&self, what: &str, frame: &[u8], verdict: Verdict) -> Vec<u8> {
        self.check(Program::Steer, what, frame, verdict)
    }
}

/// XDP's return values.
pub fn code(action: Action) -> u32 {
    match action {
        Action::Drop => 1,
        Action::Pass => 2,
        Action::Transmit => 3,
    }
}

fn settings() -> Settings {
    Settings {
        generation: GENERATION,
        flow_key: SipKey::from_bytes(FLOW_KEY),
        tag_keys: TAG_KEYS.map(SipKey::from_bytes),
        address_v4: postern_ebpf::from_ip(ip("10.0.0.1")),
        address_v6: postern_ebpf::from_ip(ip("fd00::1")),
        vip_seed: 0,
        syn_interval_ns: 0,
        syn_burst_ns: 0,
        node: SELF,
        tunnel_port: TUNNEL_PORT,
        mtu: 1500,
        tag_key: 0,
        sources: 0,
        isolated: 0,
        reserved: [0; 7],
    }
}

pub const NO_ADDRESS: Address = Address::NONE;

/// The flow's hash, by an independent SipHash over its documented layout.
pub fn flow_hash(source: SocketAddr, destination: SocketAddr, protocol: u8) -> u64 {
    let mut hasher = SipHasher13::new_with_key(&FLOW_KEY);
    for address in [source.ip(), destination.ip()] {
        match address {
            IpAddr::V4(v4) => hasher.write(&v4.octets()),
            IpAddr::V6(v6) => hasher.write(&v6.octets()),
        }
    }
    let ports = [source.port(), destination.port()].map(u16::to_le_bytes);
    hasher.write(&[
        protocol,
        0,
        0,
        0,
        ports[1][0],
        ports[1][1],
        ports[0][0],
        ports[0][1],
    ]);
    hasher.finish()
}

/// A chain, as bytes, signed with key `key`.
pub fn chain(key: u8, hops_left: u8, way: [NodeId; 3], hash: u64) -> Vec<u8> {
    chain_of(key, hops_left, way, GENERATION, hash)
}

/// The same of a table of `generation`.
pub fn chain_of(key: u8, hops_left: u8, way: [NodeId; 3], generation: u64, hash: u64) -> Vec<u8> {
    let mut bytes = vec![0x10 | key, hops_left];
    for NodeId(node) in way {
        bytes.extend(node.to_be_bytes());
    }
    bytes.extend(generation.to_be_bytes());
    let tag = tag(key, &bytes, hash);
    bytes.extend(tag.to_be_bytes());
    bytes
}

fn tag(key: u8, chain: &[u8], hash: u64) -> u64 {
    let mut hasher = SipHasher24::new_with_key(&TAG_KEYS[usize::from(key)]);
    hasher.write(&hash.to_le_bytes());
    let way: [u8; 8] = chain[..8].try_into().unwrap();
    hasher.write(&u64::from_be_bytes(way).to_le_bytes());
    let generation: [u8; 8] = chain[8..16].try_into().unwrap();
    hasher.write(&u64::from_be_bytes(generation).to_le_bytes());
    hasher.finish()
}

/// A client and a service of ours, of each family.
pub fn pairs() -> [(SocketAddr, SocketAddr); 2] {
    PAIRS.map(|(client, vip)| (at(client), at(vip)))
}

/// The frame in which this node sends `inner` to `to`, and which may go on to `next`.
pub fn forwarded(
    inner: &[u8],
    flow: (SocketAddr, SocketAddr, u8),
    to: NodeId,
    next: NodeId,
) -> Vec<u8> {
    let hops = u8::from(next != NodeId::NOBODY);
    forwarded_on(inner, flow, to, next, hops)
}

/// The same, where it may be passed on `hops` times.
pub fn forwarded_on(
    inner: &[u8],
    flow: (SocketAddr, SocketAddr, u8),
    to: NodeId,
    next: NodeId,
    hops: u8,
) -> Vec<u8> {
    let hash = flow_hash(flow.0, flow.1, flow.2);
    let chain = chain(0, hops, [SELF, to, next], hash);
    let place = place(to);
    let source = SocketAddr::from((own(place), source_port(hash)));
    let packet = gue(
        source,
        SocketAddr::from((place, TUNNEL_PORT)),
        &chain,
        inner,
    );
    leaving(if to == NEAR { NEAR_ETHERNET } else { ROUTER }, &packet)
}

/// The tunnel's source port for a flow.
pub fn source_port(hash: u64) -> u16 {
    0xc000 | (hash >> 48) as u16
}
