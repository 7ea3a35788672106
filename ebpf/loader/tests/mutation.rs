//! Whatever a packet is: the programs end, leave a packet of sensible length, and count it exactly once.
#![allow(clippy::unwrap_used, reason = "a test, its helpers included")]

mod packets;
mod world;

use std::cell::RefCell;

use packets::*;
use postern_ebpf::{Program, Run};
use postern_ebpf_abi::table::NodeId;
use postern_ebpf_abi::verdict::Verdict;
use proptest::prelude::*;
use world::*;

/// Packets tried a test.
const CASES: u32 = 4_000;
/// Most that a frame may grow by: the tunnel over IPv6.
const GROWTH_MAX: usize = 76;
/// Shortest frame that the kernel runs programs on.
const FRAME_BYTES_MIN: usize = 14;

/// Frames of every kind that the programs know.
fn frames() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for (client, vip) in pairs() {
        let v4 = client.is_ipv4();
        let inners = [
            segment(client, vip, SYN),
            segment(client, vip, ACK),
            datagram(client, vip, b"datagram"),
            datagram(client, vip, &[7; 1450]),
            icmp(
                client.ip(),
                vip.ip(),
                if v4 { 8 } else { 128 },
                0,
                [1; 4],
                b"echo",
            ),
            icmp(
                client.ip(),
                vip.ip(),
                if v4 { 3 } else { 2 },
                4,
                [0; 4],
                &segment(vip, client, ACK),
            ),
        ];
        for (number, inner) in inners.into_iter().enumerate() {
            let protocol = if number == 2 || number == 3 { UDP } else { TCP };
            let hash = flow_hash(client, vip, protocol);
            for (from, next) in [(OTHER, NEAR), (OTHER_V6, NodeId::NOBODY), (OTHER_V6, OTHER)] {
                let hops = match (next, protocol) {
                    (NodeId::NOBODY, _) => 0,
                    (_, UDP) => 2,
                    _ => 1,
                };
                let chain = chain(0, hops, [from, SELF, next], hash);
                let to = (own(place(from)), TUNNEL_PORT).into();
                frames.push(arriving(&gue(
                    (place(from), 50_000).into(),
                    to,
                    &chain,
                    &inner,
                )));
            }
            frames.push(arriving(&inner));
        }
    }
    frames
}

#[derive(Debug, Clone)]
enum Change {
    Set(usize, u8),
    Flip(usize, u8),
    Cut(usize),
    Insert(usize, u8),
    Append(Vec<u8>),
    Double(usize, usize),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => (0..160_usize, any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        4 => (0..160_usize, 0..8_u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        1 => (0..200_usize).prop_map(Change::Cut),
        1 => (0..120_usize, any::<u8>()).prop_map(|(at, byte)| Change::Insert(at, byte)),
        1 => proptest::collection::vec(any::<u8>(), 0..64).prop_map(Change::Append),
        1 => (0..120_usize, 1..40_usize).prop_map(|(at, bytes)| Change::Double(at, bytes)),
    ]
}

fn changed(mut frame: Vec<u8>, changes: Vec<Change>) -> Vec<u8> {
    for change in changes {
        let length = frame.len();
        match change {
            Change::Set(at, byte) => frame[at % length] = byte,
            Change::Flip(at, bit) => frame[at % length] ^= 1 << bit,
            Change::Cut(at) => frame.truncate(at.max(FRAME_BYTES_MIN)),
            Change::Insert(at, byte) => frame.insert(at % length, byte),
            Change::Append(bytes) => frame.extend(bytes),
            Change::Double(at, bytes) => {
                let start = at % length;
                let piece = frame[start..(start + bytes).min(length)].to_vec();
                frame.splice(start..start, piece);
            }
        }
    }
    frame
}

/// Runs one packet; the verdict that was counted, if exactly one was.
fn verdict_of(world: &World, program: Program, frame: &[u8]) -> Result<Verdict, TestCaseError> {
    let before = world.programs.counts().unwrap();
    let Run {
        returned, packet, ..
    } = world.programs.run(program, frame, 1).unwrap();
    let after = world.programs.counts().unwrap();
    let mut counted = Verdict::ALL.iter().copied().filter(|verdict| {
        let at = *verdict as usize;
        before[at].packets != after[at].packets
    });
    let verdict = counted.next();
    prop_assert!(
        verdict.is_some() && counted.next().is_none(),
        "counted once"
    );
    let verdict = verdict.unwrap();
    let at = verdict as usize;
    prop_assert_eq!(after[at].packets - before[at].packets, 1);
    prop_assert_eq!(after[at].bytes - before[at].bytes, frame.len() as u64);
    prop_assert_eq!(returned, code(verdict.action()));
    prop_assert!(packet.len() <= frame.len() + GROWTH_MAX);
    if verdict == Verdict::TooBigAnswered {
        prop_assert!([576 + 14, 1280 + 14].contains(&packet.len()));
    } else {
        prop_assert!(packet.len() + GROWTH_MAX >= frame.len());
    }
    Ok(verdict)
}

/// Tries changed packets under three tables, where everything goes somewhere else.
fn try_changed(program: Program) {
    let mut worlds = Vec::new();
    for (first, second) in [(SELF, NodeId::NOBODY), (SELF, OTHER), (OTHER, OTHER_V6)] {
        let mut world = World::new();
        world.give(first, second);
        world.draft.settings().syn_interval_ns = 1_000_000;
        world.draft.settings().syn_burst_ns = 5_000_000;
        world.draft.settings().sources = 1;
        world.put();
        worlds.push(world);
    }
    let seen = RefCell::new(std::collections::BTreeSet::new());
    let frames = frames();
    let strategy = (
        0..worlds.len(),
        0..frames.len(),
        proptest::collection::vec(change(), 0..6),
    );
    let config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(CASES)
    };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    runner
        .run(&strategy, |(world, frame, changes)| {
            let frame = changed(frames[frame].clone(), changes);
            let verdict = verdict_of(&worlds[world], program, &frame)?;
            seen.borrow_mut().insert(verdict.name());
            Ok(())
        })
        .unwrap();
    // Changes that reach few verdicts would show little.
    let seen = seen.into_inner();
    assert!(seen.len() >= 8, "{seen:?}");
}

#[test]
fn any_packet_to_steer_is_counted_once() {
    try_changed(Program::Steer);
}

#[test]
fn any_packet_to_redirect_is_counted_once() {
    try_changed(Program::Redirect);
}
