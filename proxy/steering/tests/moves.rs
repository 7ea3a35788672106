//! The fewest buckets move, shares are exact, and what would be cut is told before.

mod common;

use common::{World, node, weight};
use postern_steering::{
    BUCKETS, BucketIndex, DwellPolicy, Intent, Millis, Policy, Share, State, StepKind, quotas,
};
use proptest::prelude::*;

fn policy() -> Policy {
    Policy {
        dwell: DwellPolicy {
            embryo_ms: 2_000,
            failed_ms: 4_000,
            ..DwellPolicy::default()
        },
        retry_ms: 1_000,
        ..Policy::default()
    }
}

fn firsts(world: &World) -> Vec<u32> {
    let members = world.cluster.members();
    members
        .map(|one| world.cluster.table().first_of(one.id))
        .collect()
}

/// The fewest moves from what is there to any rounding of exact shares.
fn fewest_moves(has: &[u32], weights: &[u32]) -> u64 {
    let sum: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    let (mut over, mut under) = (0, 0);
    for (has, weight) in has.iter().zip(weights) {
        let product = u64::from(*weight) * BUCKETS as u64;
        over += u64::from(*has).saturating_sub(product.div_ceil(sum));
        under += (product / sum).saturating_sub(u64::from(*has));
    }
    over.max(under)
}

fn moves(world: &World) -> u64 {
    world.plans.iter().map(|plan| plan.moves() as u64).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn new_weights_move_as_few_buckets_as_possible(
        before in prop::collection::vec(1_u32..100, 2..12),
        after in prop::collection::vec(1_u32..100, 12),
    ) {
        let mut world = World::new(&before, policy());
        world.seconds(10);
        let has = firsts(&world);
        for (number, new) in (1..).zip(&after[..before.len()]) {
            world.cluster.reweigh(node(number), weight(*new)).unwrap();
        }
        let made = moves(&world);
        world.seconds(20);
        prop_assert_eq!(moves(&world) - made, fewest_moves(&has, &after[..before.len()]));
        let shares: Vec<Share> = (1..).zip(after.iter().zip(firsts(&world))).take(before.len())
            .map(|(number, (weight, has))| Share { node: node(number), weight: *weight, has }).collect();
        prop_assert_eq!(quotas(&shares), firsts(&world));
    }

    #[test]
    fn quotas_are_within_one_bucket_of_exact_shares(
        weights in prop::collection::vec(0_u32..640_000, 1..600),
        seed: u32,
    ) {
        let sum: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        prop_assume!(sum > 0);
        let has = |at: usize| (seed.rotate_left(u32::try_from(at % 32).unwrap())) % 300;
        let shares: Vec<Share> = weights.iter().enumerate().map(|(at, weight)| Share {
            node: node(u16::try_from(at + 1).unwrap()), weight: *weight, has: has(at),
        }).collect();
        let quotas = quotas(&shares);
        prop_assert_eq!(quotas.iter().map(|quota| *quota as usize).sum::<usize>(), BUCKETS);
        for (quota, weight) in quotas.iter().zip(&weights) {
            let product = u64::from(*weight) * BUCKETS as u64;
            prop_assert!((product / sum..=product.div_ceil(sum)).contains(&u64::from(*quota)));
        }
    }
}

#[test]
fn a_new_node_takes_its_share_and_nothing_else_moves() {
    let mut world = World::new(&[100; 4], policy());
    world.seconds(10);
    let now = world.desktops.now;
    world.cluster.admit(node(5), weight(100), now).unwrap();
    let machine = common::Machine::new(postern_steering::Generation(0));
    world.machines.insert(node(5), machine);
    world.seconds(20);
    let mut shares = firsts(&world);
    shares.sort_unstable();
    assert_eq!(shares, [13_107, 13_107, 13_107, 13_107, 13_108]);
    assert!((13_107..=13_108).contains(&moves(&world)));
}

#[test]
fn when_a_node_fails_its_buckets_move_and_no_other() {
    let mut world = World::new(&[100; 5], policy());
    world.seconds(10);
    let lost = world.cluster.table().first_of(node(3));
    world.crash(node(3));
    while world.plans.is_empty() {
        world.seconds(1);
    }
    let steps = world.plans[0].steps();
    let is_its = |step: &postern_steering::Step| step.from.first == node(3);
    assert_eq!(
        (steps.len(), steps.iter().all(is_its)),
        (lost as usize, true)
    );

    // Stand-ins took over at once, and give on what is more than their share.
    world.seconds(60);
    assert_eq!(firsts(&world), [16_384, 16_384, 0, 16_384, 16_384]);
    let beyond = moves(&world) - u64::from(lost);
    assert!(beyond < u64::from(lost) / 4, "{beyond}");
}

#[test]
fn drained_nodes_get_nothing_new_keep_what_they_have_and_come_back_at_once() {
    let mut world = World::new(&[100; 4], policy());
    world.seconds(10);
    for number in 0..4_000 {
        world.open(0, BucketIndex(number * 16));
    }
    let before = world.desktops.living().to_vec();
    world.intend(node(1), Intent::Drain);
    world.seconds(5);
    assert_eq!(world.cluster.table().first_of(node(1)), 0);
    world.seconds(60);
    assert_eq!(
        (world.desktops.living().to_vec(), world.resets()),
        (before, Vec::new())
    );

    let made = world.plans.len();
    world.intend(node(1), Intent::Serve);
    world.seconds(1);
    // It is still the second hop of most of its buckets: one step brings it back.
    let plan = &world.plans[made];
    let swaps = plan
        .steps()
        .iter()
        .filter(|step| step.kind == StepKind::Swap);
    assert!(swaps.count() > 10_000);
    world.seconds(60);
    assert_eq!(firsts(&world), [16_384; 4]);
    assert_eq!(world.resets(), Vec::new());
}

#[test]
fn buckets_rest_while_old_desktops_live_and_move_when_they_have_ended() {
    let mut world = World::new(&[100; 3], policy());
    world.seconds(10);
    for number in 0..=u16::MAX {
        world.open(0, BucketIndex(number));
    }
    world.intend(node(1), Intent::Drain);
    world.seconds(10);
    for number in 0..=u16::MAX {
        world.open(0, BucketIndex(number));
    }
    // Wherever node 2 stands beside node 1 both have desktops: neither may be dropped.
    world.intend(node(2), Intent::Drain);
    world.seconds(30);
    let waiting = world.cluster.table().first_of(node(2));
    assert!(waiting > 1_000, "{waiting}");
    let plan = world
        .cluster
        .forced(world.desktops.now, &world.desktops)
        .unwrap();
    assert_eq!(plan.cuts().len(), waiting as usize);
    assert!(
        plan.cuts()
            .iter()
            .all(|cut| cut.node == node(1) && cut.flows == Some(1))
    );
    assert_eq!(world.resets(), Vec::new());

    world.desktops.retain(|desktop| desktop.node != node(1));
    world.seconds(10);
    assert_eq!(world.cluster.table().first_of(node(2)), 0);
    assert_eq!(world.resets(), Vec::new());
}

#[test]
fn without_reports_time_decides() {
    struct Silence;
    impl postern_steering::Flows for Silence {
        fn at(
            &self,
            _: postern_steering::NodeId,
            _: BucketIndex,
        ) -> Option<postern_steering::Seen> {
            None
        }
    }
    let check = |seconds: u64, moves: bool| {
        let members = [1, 2, 3].map(|number| (node(number), weight(100)));
        let table = postern_steering::Table::initial(postern_steering::Generation(1), &members);
        let mut cluster = postern_steering::Cluster::new(table.unwrap(), policy());
        for (id, weight) in members {
            cluster.admit(id, weight, Millis(0)).unwrap();
        }
        let hear = |cluster: &mut postern_steering::Cluster, now: u64| {
            for (id, _) in members {
                let heartbeat = postern_steering::Heartbeat {
                    generation: cluster.table().generation(),
                    load: None,
                };
                cluster.heard(id, &heartbeat, Millis(now)).unwrap();
            }
            cluster.tick(Millis(now), &Silence)
        };
        hear(&mut cluster, 1_000);
        cluster.reweigh(node(1), weight(1)).unwrap();
        cluster.reweigh(node(2), weight(1)).unwrap();
        // What stand-ins can do, they do; the rest needs a second hop that is empty.
        for second in 0..4 {
            if let Some(plan) = hear(&mut cluster, 1_000 + second * 1_000) {
                cluster.commit(&plan).unwrap();
            }
        }
        let plan = hear(&mut cluster, seconds * 1_000);
        let staged = plan.is_some_and(|plan| {
            let mut steps = plan.steps().iter();
            steps.any(|step| step.kind == StepKind::Stage)
        });
        assert_eq!(staged, moves, "after {seconds} s");
    };
    let longest = policy().dwell.session_ms_max / 1_000;
    check(3_600, false);
    check(longest + 60, true);
}

#[test]
fn what_taking_a_node_out_would_cut_is_told_before() {
    let mut world = World::new(&[100; 3], policy());
    world.seconds(10);
    for number in 0..300 {
        world.open(0, BucketIndex(number * 200));
    }
    let desktops = world.desktops.living().iter();
    let of_two = desktops.filter(|desktop| desktop.node == node(2)).count();
    let now = world.desktops.now;
    let preview = |world: &World, state| {
        let plan = world.cluster.preview(node(2), state, now, &world.desktops);
        plan.map_or(0, |plan| plan.cuts().len())
    };
    assert!(of_two > 50);
    assert_eq!(preview(&world, State::Gone), of_two);
    assert_eq!(preview(&world, State::Draining), 0);
    assert_eq!(
        preview(&world, State::Failed { since: now }),
        0,
        "it is lost already"
    );
}

#[test]
fn with_nobody_left_the_table_stays() {
    let mut world = World::new(&[100; 2], policy());
    world.seconds(10);
    let before = world.cluster.table().clone();
    for number in [1, 2] {
        world.crash(node(number));
    }
    world.seconds(60);
    let shares: u32 = [1, 2]
        .map(|number| world.cluster.table().first_of(node(number)))
        .iter()
        .sum();
    assert_eq!(shares as usize, BUCKETS);
    assert!(world.cluster.table().generation().0 <= before.generation().0 + 1);
}

#[test]
fn whoever_takes_a_table_over_takes_nobody_s_buckets_away() {
    let mut world = World::new(&[100; 4], policy());
    world.seconds(10);
    let table = world.cluster.table().clone();
    let mut cluster = postern_steering::Cluster::new(table.clone(), policy());
    for number in 1..=4 {
        cluster
            .admit(node(number), weight(100), world.desktops.now)
            .unwrap();
    }
    world.cluster = cluster;
    // The first heartbeats come one after the other.
    for fenced in [[2, 3, 4].as_slice(), &[3, 4], &[4], &[]] {
        for (id, machine) in &mut world.machines {
            machine.is_silent = fenced.contains(&id.get());
        }
        world.seconds(1);
    }
    world.seconds(10);
    assert_eq!(world.cluster.table(), &table);
}

#[test]
fn the_same_inputs_make_the_same_plans() {
    let run = || {
        let mut world = World::new(&[100, 70, 30, 200], policy());
        world.seconds(8);
        for number in 0..1_000 {
            world.open(usize::from(number), BucketIndex(number * 61));
        }
        world.crash(node(2));
        world.intend(node(3), Intent::Drain);
        world.seconds(30);
        world.plans
    };
    assert_eq!(run(), run());
}

#[test]
fn a_bucket_is_explained() {
    let mut world = World::new(&[100; 3], policy());
    world.seconds(10);
    world.open(0, BucketIndex(0));
    world.intend(node(1), Intent::Drain);
    world.seconds(5);
    let text = world
        .cluster
        .explain(BucketIndex(0), world.desktops.now, &world.desktops)
        .to_string();
    for expected in [
        "bucket 0x0000 of generation",
        "node 1 (draining",
        "1 connections here",
        "every node has had",
    ] {
        assert!(text.contains(expected), "{expected} is not in {text}");
    }
}
