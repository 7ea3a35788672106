//! Nodes that steer by different tables still deliver, whatever happens to the cluster meanwhile.
#![allow(clippy::unwrap_used, reason = "a test, its scenes included")]

mod common;

use common::{World, node};
use postern_steering::{BucketIndex, DwellPolicy, Intent, Policy, State, StepKind};
use proptest::prelude::*;

/// Short times, so that much happens within a short test.
fn policy() -> Policy {
    Policy {
        dwell: DwellPolicy {
            embryo_ms: 2_000,
            failed_ms: 5_000,
            ..DwellPolicy::default()
        },
        retry_ms: 1_000,
        ..Policy::default()
    }
}

#[derive(Debug, Clone)]
enum Event {
    Drain(u16),
    Serve(u16),
    Crash(u16),
    Start(u16),
    /// Nobody hears it for a while.
    Fence(u16),
    Unfence(u16),
    Admit(u16),
    Reweigh(u16, u32),
    /// Desktops whose first packets come in anywhere.
    Open(Vec<(usize, u16)>),
    /// Every so-manieth desktop ends.
    Close(usize),
    Seconds(u8),
}

const NODES: u16 = 7;

fn event() -> impl Strategy<Value = Event> {
    let node = 1..=NODES;
    let open = prop::collection::vec((0_usize..8, any::<u16>()), 1..40);
    prop_oneof![
        2 => node.clone().prop_map(Event::Drain),
        2 => node.clone().prop_map(Event::Serve),
        1 => node.clone().prop_map(Event::Crash),
        2 => node.clone().prop_map(Event::Start),
        1 => node.clone().prop_map(Event::Fence),
        2 => node.clone().prop_map(Event::Unfence),
        1 => node.clone().prop_map(Event::Admit),
        3 => (node, 1_u32..200).prop_map(|(node, weight)| Event::Reweigh(node, weight)),
        6 => open.prop_map(Event::Open),
        2 => (1_usize..4).prop_map(Event::Close),
        6 => (1_u8..12).prop_map(Event::Seconds),
    ]
}

fn happen(world: &mut World, event: &Event, late: u16) {
    match event {
        Event::Drain(number) => world.intend(node(*number), Intent::Drain),
        Event::Serve(number) => world.intend(node(*number), Intent::Serve),
        Event::Crash(number) => world.crash(node(*number)),
        Event::Start(number) => {
            if let Some(machine) = world.machines.get_mut(&node(*number))
                && !machine.is_alive
            {
                *machine = common::Machine::new(postern_steering::Generation(0));
            }
        }
        Event::Fence(number) | Event::Unfence(number) => {
            if let Some(machine) = world.machines.get_mut(&node(*number)) {
                machine.is_silent = matches!(event, Event::Fence(_));
                machine.is_fenced |= machine.is_silent;
            }
        }
        Event::Admit(number) => {
            let now = world.desktops.now;
            let id = node(*number);
            if world.cluster.admit(id, common::weight(100), now).is_ok() {
                let machine = common::Machine::new(postern_steering::Generation(0));
                world.machines.entry(id).or_insert(machine);
            }
        }
        Event::Reweigh(number, weight) => {
            let _ = world
                .cluster
                .reweigh(node(*number), common::weight(*weight));
        }
        Event::Open(desktops) => {
            for (at, bucket) in desktops {
                world.open(*at, BucketIndex(*bucket));
            }
        }
        Event::Close(step) => {
            let mut number = 0;
            world.desktops.retain(|_| {
                number += 1;
                number % (step + 1) != 0
            });
        }
        Event::Seconds(count) => {
            for second in 0..u16::from(*count) {
                world.second();
                // One node at a time is late with its table, by some seconds.
                world.deliver_tables(|id| (id.get() + second) % NODES != late % NODES);
                assert_eq!(world.resets(), Vec::new());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(120))]

    #[test]
    fn no_desktop_of_a_sound_node_is_ever_reset(
        events in prop::collection::vec(event(), 10..60),
        late in 0..NODES,
    ) {
        let mut world = World::new(&[100, 100, 50, 200, 100], policy());
        for event in &events {
            happen(&mut world, event, late);
            prop_assert_eq!(world.resets(), Vec::new());
        }
        for plan in &world.plans {
            prop_assert_eq!(plan.cuts(), &[]);
        }
    }
}

/// A world in which plans were made while one node had an old table, and what it has.
fn with_a_late_node(plans: usize) -> World {
    let mut world = World::new(&[100, 100, 100], policy());
    world.seconds(10);
    // There is no stand-in that could take over at once: the move needs both of its steps.
    let now = world.desktops.now;
    world
        .cluster
        .admit(node(4), common::weight(100), now)
        .unwrap();
    let machine = common::Machine::new(postern_steering::Generation(0));
    world.machines.insert(node(4), machine);
    for _ in 0..200 {
        let made = world.plans.len();
        world.second();
        world.deliver_tables(|id| id != node(1));
        let stages = |world: &World| {
            let steps = world.plans.iter().flat_map(|plan| plan.steps());
            steps.filter(|step| step.kind == StepKind::Stage).count()
        };
        if stages(&world) == 0 {
            world.deliver_tables(|_| true);
        } else if world.plans.len() > made {
            break;
        }
    }
    for _ in 0..plans.saturating_sub(1) {
        world.seconds(1);
    }
    world
}

#[test]
fn a_node_that_is_late_holds_up_the_second_step_and_nothing_else() {
    let mut world = with_a_late_node(1);
    let is_stage = |step: &postern_steering::Step| step.kind == StepKind::Stage;
    let staged = world.plans.last().unwrap().steps().to_vec();
    assert!(staged.len() > 10_000 && staged.iter().all(is_stage));
    for _ in 0..20 {
        world.second();
        world.deliver_tables(|id| id != node(1));
    }
    assert_eq!(world.cluster.table().first_of(node(4)), 0, "nobody moved");
    for number in 0..=u16::MAX {
        world.open(usize::from(number), BucketIndex(number));
    }
    assert_eq!(world.resets(), Vec::new());

    // Now it has the table, and the buckets move.
    world.seconds(5);
    let share = world.cluster.table().first_of(node(4));
    assert_eq!(share, 16_384);
}

#[test]
fn tables_that_are_two_steps_of_a_bucket_apart_would_not_deliver_and_never_meet() {
    let mut world = with_a_late_node(1);
    let old = world.tables.values().next().unwrap().clone();
    world.seconds(5);
    let new = world.cluster.table().clone();
    // Who took new connections by the new table is unknown to the old one …
    let lost = BucketIndexes::differ(&old, &new);
    assert!(lost > 10_000, "{lost}");
    // … and so no machine has the old table any more.
    let oldest = world.steering().map(|(_, machine)| machine.has).min();
    assert!(oldest > Some(old.generation()));
}

struct BucketIndexes;

impl BucketIndexes {
    /// Buckets whose first hop of the new table is no hop of the old one.
    fn differ(old: &postern_steering::Table, new: &postern_steering::Table) -> usize {
        let pairs = old.buckets().iter().zip(new.buckets());
        pairs.filter(|(old, new)| !old.reaches(new.first)).count()
    }
}

#[test]
fn a_node_that_was_only_silent_comes_back_with_its_desktops() {
    let mut world = World::new(&[100, 100, 100, 100], policy());
    world.seconds(10);
    for number in 0..2_000 {
        world.open(0, BucketIndex(number * 31));
    }
    let before = world.desktops.living().to_vec();
    world.machines.get_mut(&node(2)).unwrap().is_silent = true;
    world.seconds(9);
    assert_eq!(world.cluster.table().first_of(node(2)), 0);
    world.machines.get_mut(&node(2)).unwrap().is_silent = false;
    world.seconds(20);
    assert_eq!(world.cluster.table().first_of(node(2)), 16_384);
    assert_eq!(world.desktops.living().len(), before.len());
    for desktop in before {
        let hops = world.cluster.table().bucket(desktop.bucket);
        assert_eq!(world.follow(hops, desktop.node), common::End::Arrived);
    }
}

#[test]
fn a_node_that_comes_back_takes_no_part_before_everybody_knows_where_its_buckets_went() {
    let mut world = World::new(&[100; 4], policy());
    world.seconds(10);
    let state = |world: &World| world.cluster.member(node(1)).unwrap().state();
    world.machines.get_mut(&node(1)).unwrap().is_silent = true;
    let step = |world: &mut World, seconds: u32| {
        for _ in 0..seconds {
            world.second();
            world.deliver_tables(|id| id != node(3));
        }
    };
    step(&mut world, 8);
    world.machines.get_mut(&node(1)).unwrap().is_silent = false;
    step(&mut world, 15);
    assert_eq!(state(&world), State::Joining, "node 3 has an old table");
    world.seconds(3);
    assert_eq!(state(&world), State::Up);
}
