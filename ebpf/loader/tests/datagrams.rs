//! UDP flows stay with the node that took them: who remembers them, who is asked, who takes what nobody knows, and for how long.
#![allow(clippy::unwrap_used, reason = "a test, its helpers included")]

mod packets;
mod world;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use packets::*;
use postern_ebpf::{Remembered, from_ip};
use postern_ebpf_abi::datagram::QUIET_NS_MAX;
use postern_ebpf_abi::table::NodeId;
use postern_ebpf_abi::verdict::{Action, Verdict};
use proptest::prelude::*;
use world::*;

const NOBODY: NodeId = NodeId::NOBODY;

/// A frame with `inner` that `from` sent here.
fn sent(
    inner: &[u8],
    flow: (SocketAddr, SocketAddr),
    from: NodeId,
    next: NodeId,
    hops: u8,
) -> Vec<u8> {
    let hash = flow_hash(flow.0, flow.1, UDP);
    let chain = chain(0, hops, [from, SELF, next], hash);
    let source = SocketAddr::from((place(from), 50_000));
    let destination = SocketAddr::from((own(place(from)), TUNNEL_PORT));
    arriving(&gue(source, destination, &chain, inner))
}

/// An ICMP error about what the service sent to the client.
fn error(client: SocketAddr, vip: SocketAddr) -> Vec<u8> {
    let kind = if vip.is_ipv4() { 3 } else { 1 };
    icmp(
        client.ip(),
        vip.ip(),
        kind,
        1,
        [0; 4],
        &datagram(vip, client, b"x"),
    )
}

fn quiet(world: &World, hash: u64) -> Option<Duration> {
    let flows = world.programs.remembered().unwrap();
    flows
        .iter()
        .find(|flow| flow.hash == hash)
        .map(|flow| flow.quiet)
}

#[test]
fn the_first_node_remembers_what_it_takes_and_keeps_it_as_first_and_as_second() {
    let mut world = World::new();
    for (client, vip) in pairs() {
        let inner = datagram(client, vip, b"x");
        let frame = arriving(&inner);
        world.give(SELF, NOBODY);
        for _ in 0..2 {
            assert_eq!(world.steer("alone", &frame, Verdict::Local), frame);
        }
        world.give(SELF, OTHER);
        assert_eq!(world.steer("first", &frame, Verdict::LocalDatagram), frame);
        world.give(OTHER, SELF);
        for (next, hops) in [(OTHER, 1), (NEAR, 2), (NOBODY, 0)] {
            let frame = sent(&inner, (client, vip), OTHER, next, hops);
            let taken = world.redirect("second", &frame, Verdict::TakenDatagram);
            assert_eq!(taken, arriving(&inner));
        }
    }
    assert_eq!(world.programs.remembered().unwrap().len(), pairs().len());
}

#[test]
fn a_first_node_that_does_not_know_a_flow_asks_the_second_which_sends_it_back() {
    let mut world = World::new();
    for (client, vip) in pairs() {
        let flow = (client, vip, UDP);
        let inner = datagram(client, vip, b"x");
        for second in [OTHER, OTHER_V6, NEAR] {
            world.give(SELF, second);
            let on = world.steer("asked", &arriving(&inner), Verdict::ToSecond);
            verify_checksums(&on);
            assert_eq!(on, forwarded_on(&inner, flow, second, SELF, 1));
            let frame = sent(&inner, (client, vip), OTHER, second, 2);
            let on = world.redirect("asked through a tunnel", &frame, Verdict::PassedOn);
            verify_checksums(&on);
            assert_eq!(on, forwarded_on(&inner, flow, second, SELF, 1));
        }
        for first in [OTHER, OTHER_V6] {
            let frame = sent(&inner, (client, vip), first, first, 1);
            let back = world.redirect("sent back", &frame, Verdict::PassedOn);
            verify_checksums(&back);
            assert_eq!(back, forwarded_on(&inner, flow, first, NOBODY, 0));
        }
    }
    let remembered = world.programs.remembered().unwrap();
    assert_eq!(remembered, [], "who passes on remembers nothing");
}

#[test]
fn the_last_hop_takes_what_nobody_knows_and_remembers_it() {
    let mut world = World::new();
    for (client, vip) in pairs() {
        let inner = datagram(client, vip, b"x");
        let frame = sent(&inner, (client, vip), OTHER, NOBODY, 0);
        let taken = world.redirect("new", &frame, Verdict::TakenNewDatagram);
        assert_eq!(taken, arriving(&inner));
        world.redirect("known", &frame, Verdict::TakenDatagram);
        world.give(SELF, OTHER);
        world.steer("known", &arriving(&inner), Verdict::LocalDatagram);
    }
    let (client, vip) = (at("198.51.100.9:1"), at(VIP_V4));
    let inner = datagram(client, vip, b"x");
    let frame = sent(&inner, (client, vip), OTHER, SELF, 2);
    world.redirect("it is next itself", &frame, Verdict::TakenNewDatagram);
}

#[test]
fn who_forwards_to_the_first_node_remembers_nothing() {
    let mut world = World::new();
    for (first, second) in [(OTHER, NOBODY), (OTHER, SELF), (OTHER_V6, OTHER)] {
        world.give(first, second);
        for (client, vip) in pairs() {
            let inner = datagram(client, vip, b"x");
            let on = world.steer("forwarded", &arriving(&inner), Verdict::ToFirst);
            let hops = if second == NOBODY { 0 } else { 2 };
            let expected = forwarded_on(&inner, (client, vip, UDP), first, second, hops);
            assert_eq!(on, expected);
        }
    }
    assert_eq!(world.programs.remembered().unwrap(), []);
}

#[test]
fn a_flow_that_was_quiet_for_its_time_is_forgotten() {
    let mut world = World::new();
    world.give(SELF, OTHER);
    let over = Duration::from_nanos(QUIET_NS_MAX) + Duration::from_secs(1);
    let nearly = Duration::from_nanos(QUIET_NS_MAX) - Duration::from_secs(20);
    for (client, vip) in pairs() {
        let frame = arriving(&datagram(client, vip, b"x"));
        let hash = flow_hash(client, vip, UDP);
        let mut rest = |quiet| world.programs.remember(Remembered { hash, quiet }).unwrap();
        rest(over);
        world.steer("over", &frame, Verdict::ToSecond);
        assert_eq!(quiet(&world, hash), None);
        let mut rest = |quiet| world.programs.remember(Remembered { hash, quiet }).unwrap();
        rest(nearly);
        world.steer("nearly over", &frame, Verdict::LocalDatagram);
        assert!(quiet(&world, hash).unwrap() < Duration::from_secs(20));
    }
}

#[test]
fn errors_follow_their_flow_and_keep_none_alive() {
    let mut world = World::new();
    for (client, vip) in pairs() {
        let hash = flow_hash(client, vip, UDP);
        let about = error(client, vip);
        for (first, verdict) in [(SELF, Verdict::ToSecond), (OTHER_V6, Verdict::ToFirst)] {
            world.give(first, OTHER);
            let on = world.steer("of nobody's", &arriving(&about), verdict);
            let (to, next) = if first == SELF {
                (OTHER, NOBODY)
            } else {
                (first, OTHER)
            };
            assert_eq!(on, forwarded(&about, (client, vip, UDP), to, next));
        }
        let frame = sent(&about, (client, vip), OTHER, NOBODY, 0);
        world.redirect("the last hop", &frame, Verdict::TakenLast);
        world.give(SELF, NOBODY);
        world.steer("alone", &arriving(&about), Verdict::Local);
        assert_eq!(quiet(&world, hash), None, "an error begins no flow");
        let rested = Duration::from_secs(200);
        world
            .programs
            .remember(Remembered {
                hash,
                quiet: rested,
            })
            .unwrap();
        world.give(SELF, OTHER);
        world.steer("known", &arriving(&about), Verdict::LocalDatagram);
        let frame = sent(&about, (client, vip), OTHER, NEAR, 1);
        world.redirect("known", &frame, Verdict::TakenDatagram);
        assert!(quiet(&world, hash).unwrap() >= rested);
    }
}

#[test]
fn no_packet_goes_further_than_its_kind_may() {
    let world = World::new();
    for (client, vip) in pairs() {
        let inner = datagram(client, vip, b"x");
        for hops in [3, 255] {
            let frame = sent(&inner, (client, vip), OTHER, NEAR, hops);
            world.redirect("a datagram", &frame, Verdict::TunnelHops);
        }
        let frame = sent(&error(client, vip), (client, vip), OTHER, NEAR, 2);
        world.redirect("an error about UDP", &frame, Verdict::TunnelHops);
        let chain = chain(0, 2, [OTHER, SELF, NEAR], flow_hash(client, vip, TCP));
        let source = SocketAddr::from((place(OTHER), 50_000));
        let destination = SocketAddr::from((own(place(OTHER)), TUNNEL_PORT));
        let segment = segment(client, vip, ACK);
        let frame = arriving(&gue(source, destination, &chain, &segment));
        world.redirect("a TCP segment", &frame, Verdict::TunnelHops);
    }
}

#[test]
fn an_isolated_node_keeps_the_flows_that_it_remembers() {
    let mut world = World::new();
    world.draft.settings().isolated = 1;
    world.put();
    for (client, vip) in pairs() {
        let inner = datagram(client, vip, b"x");
        let tunnelled = sent(&inner, (client, vip), OTHER, NOBODY, 0);
        world.steer("unknown", &arriving(&inner), Verdict::Isolated);
        world.redirect("unknown", &tunnelled, Verdict::Isolated);
        assert_eq!(quiet(&world, flow_hash(client, vip, UDP)), None);
        let hash = flow_hash(client, vip, UDP);
        let quiet = Duration::ZERO;
        world.programs.remember(Remembered { hash, quiet }).unwrap();
        world.steer("known", &arriving(&inner), Verdict::LocalDatagram);
        world.redirect("known", &tunnelled, Verdict::TakenDatagram);
    }
}

/// Three nodes, between which frames are carried by hand.
const NODES: [NodeId; 3] = [SELF, OTHER, NEAR];

struct Cluster {
    worlds: BTreeMap<u16, World>,
}

impl Cluster {
    fn new() -> Self {
        let worlds = NODES.map(|node| {
            let mut world = World::new();
            let settings = world.draft.settings();
            settings.node = node;
            settings.address_v4 = from_ip(place(node));
            world.draft.node(NEAR, place(NEAR), [0; 6]).unwrap();
            world.put();
            (node.0, world)
        });
        Self {
            worlds: worlds.into(),
        }
    }

    fn give(&mut self, first: NodeId, second: NodeId) {
        for world in self.worlds.values_mut() {
            world.give(first, second);
        }
    }

    /// Lets a datagram arrive at node `at`; who takes it, after how many tunnels.
    fn deliver(&self, inner: &[u8], at: NodeId) -> (NodeId, usize) {
        let (mut frame, mut node) = (arriving(inner), at);
        for tunnels in 0.. {
            assert!(tunnels <= 3, "a datagram goes round");
            let world = &self.worlds[&node.0];
            let run = world
                .programs
                .run(postern_ebpf::Program::Steer, &frame, 1)
                .unwrap();
            if run.returned == code(Action::Pass) {
                assert_eq!(run.packet, arriving(inner));
                return (node, tunnels);
            }
            assert_eq!(run.returned, code(Action::Transmit), "lost at {node:?}");
            let to = <[u8; 4]>::try_from(&run.packet[30..34]).unwrap();
            let to = IpAddr::from(to);
            node = *NODES.iter().find(|one| place(**one) == to).unwrap();
            frame = arriving(&run.packet[14..]);
        }
        unreachable!("the loop returns")
    }
}

/// A cluster under random moves, each of which leaves every node that has a flow in its bucket.
fn moved(steps: &[(bool, usize, usize)]) -> Result<(), TestCaseError> {
    let mut cluster = Cluster::new();
    let (mut first, mut second) = (SELF, OTHER);
    cluster.give(first, second);
    let mut flows: Vec<(Vec<u8>, NodeId)> = Vec::new();
    for (number, (swap, arrives, flow)) in steps.iter().enumerate() {
        if *swap {
            (first, second) = (second, first);
        } else if flows.iter().all(|(_, owner)| *owner == first) {
            // Staged: the second has nothing, and makes room.
            second = *NODES
                .iter()
                .find(|one| **one != first && **one != second)
                .unwrap();
        }
        cluster.give(first, second);
        let (client, vip) = pairs()[number % 2];
        let mut client = client;
        client.set_port(1000 + u16::try_from(number).unwrap());
        let inner = datagram(client, vip, b"x");
        let (owner, _) = cluster.deliver(&inner, NODES[*arrives]);
        prop_assert_eq!(owner, first, "a new flow is the first node's");
        flows.push((inner, owner));
        let (old, owner) = &flows[flow % flows.len()];
        for at in NODES {
            prop_assert_eq!(cluster.deliver(old, at).0, *owner);
        }
    }
    Ok(())
}

#[test]
fn flows_stay_with_their_node_whatever_moves() {
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(12)
    };
    let step = (any::<bool>(), 0..NODES.len(), 0..1000_usize);
    let mut runner = proptest::test_runner::TestRunner::new(config);
    runner
        .run(&proptest::collection::vec(step, 1..12), |steps| {
            moved(&steps)
        })
        .unwrap();
}

#[test]
fn a_new_flow_takes_three_tunnels_at_most_and_a_known_one_two() {
    let mut cluster = Cluster::new();
    cluster.give(SELF, OTHER);
    let (client, vip) = pairs()[0];
    let inner = datagram(client, vip, b"x");
    assert_eq!(cluster.deliver(&inner, NEAR), (SELF, 3));
    assert_eq!(cluster.deliver(&inner, NEAR), (SELF, 1));
    assert_eq!(cluster.deliver(&inner, SELF), (SELF, 0));
    cluster.give(OTHER, SELF);
    assert_eq!(cluster.deliver(&inner, NEAR), (SELF, 2));
    assert_eq!(cluster.deliver(&inner, OTHER), (SELF, 1));
}
