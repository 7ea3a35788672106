//! A leader with nodes that say what they should, or late, or nothing: time is an argument, nobody waits.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use postern_steering::{Bucket, BucketIndex};

use super::*;
use crate::values::{Boot, Change, FlowsReport, Heartbeat, Registration};

const TICK_MS: u64 = 200;

fn node(number: u16) -> NodeId {
    NodeId::new(number).unwrap()
}

fn place(last: u8) -> Place {
    Place {
        v4: Some(Ipv4Addr::new(10, 0, 0, last)),
        v6: None,
        ethernet: [0; 6],
    }
}

/// A node that lives.
#[derive(Clone, Copy)]
struct Machine {
    place: Place,
    /// It takes no table after this one.
    stuck_at: Option<Generation>,
    has: Generation,
    connections: u32,
}

/// A store that takes everything, and its nodes.
struct World {
    now: Millis,
    nodes: Nodes,
    leader: Leader,
    machines: BTreeMap<NodeId, Machine>,
    published: Vec<(Millis, Publication)>,
    resigned: Option<&'static str>,
    sequence: u64,
    moves: Moves,
}

impl World {
    fn of(numbers: &[u16]) -> Self {
        let nodes = Nodes::new(vec![
            "10.0.0.0/24".parse().unwrap(),
            "fd00::/64".parse().unwrap(),
        ]);
        let leader = Leader::new(
            Policy::default(),
            None,
            true,
            Generation(0),
            &nodes,
            Millis(0),
        );
        let mut world = Self {
            now: Millis(0),
            nodes,
            leader,
            machines: BTreeMap::new(),
            published: Vec::new(),
            resigned: None,
            sequence: 0,
            moves: Moves::default(),
        };
        for number in numbers {
            let last = u8::try_from(*number).unwrap();
            world.start(*number, place(last));
        }
        world
    }

    /// One that has its first table, which all have.
    fn founded(numbers: &[u16]) -> Self {
        let mut world = Self::of(numbers);
        world.run(10_000);
        assert_eq!(
            world.table().generation(),
            world.machines[&node(numbers[0])].has
        );
        world
    }

    fn tell(&mut self, change: Change) {
        if let Ok(heard) = self.nodes.apply(change, self.now) {
            self.leader.hear(&heard, &self.nodes, self.now);
        }
    }

    fn register(&mut self, number: u16, place: Place) {
        let boot = Boot(number.into());
        let registration = Registration::new(place, Weight::new(100).unwrap(), boot);
        self.tell(Change::Registration(node(number), Some(registration)));
    }

    fn start(&mut self, number: u16, place: Place) {
        self.register(number, place);
        let machine = Machine {
            place,
            stuck_at: None,
            has: Generation(0),
            connections: 0,
        };
        self.machines.insert(node(number), machine);
    }

    fn kill(&mut self, number: u16) {
        self.machines.remove(&node(number));
        self.tell(Change::Registration(node(number), None));
    }

    fn want(&mut self, number: u16, intent: Intent) {
        self.tell(Change::Intent(node(number), Some(intent)));
    }

    fn newest(&self) -> Option<&Publication> {
        self.published.last().map(|(_, publication)| publication)
    }

    fn table(&self) -> &Table {
        self.newest().expect("something was published").table()
    }

    fn first_of(&self, number: u16) -> u32 {
        self.table().first_of(node(number))
    }

    /// Everybody takes the newest table and says so.
    fn speak(&mut self) {
        self.sequence += 1;
        let newest = self.newest().cloned();
        let said: Vec<_> = self
            .machines
            .iter_mut()
            .map(|(node, machine)| {
                if let Some(newest) = &newest
                    && newest.roster().get(node) == Some(&machine.place)
                    && machine.stuck_at.is_none()
                {
                    machine.has = newest.generation();
                }
                (*node, *machine)
            })
            .collect();
        for (node, machine) in said {
            let boot = Boot(node.get().into());
            let heartbeat = Heartbeat::new(boot, self.sequence, machine.has, Generation(0), None);
            self.tell(Change::Heartbeat(node, Some(heartbeat)));
            let flows = BucketIndex::all()
                .filter(|_| machine.connections > 0)
                .map(|bucket| (bucket, machine.connections))
                .collect();
            let sequence = self.sequence;
            let report = FlowsReport {
                boot,
                sequence,
                flows,
            };
            self.tell(Change::Flows(node, Some(report)));
        }
    }

    fn tick(&mut self) {
        self.now = self.now.plus(TICK_MS);
        if self.now.0.is_multiple_of(1_000) {
            self.speak();
        }
        match self.leader.tick(&self.nodes, self.now) {
            Decision::Nothing => {}
            Decision::Publish(publication) => {
                self.published.push((self.now, publication));
                let moves = self.leader.committed(&self.nodes, self.now);
                self.moves.add(moves);
            }
            Decision::Resign(why) => self.resigned = Some(why),
        }
    }

    fn run(&mut self, ms: u64) {
        let end = self.now.plus(ms);
        while self.now < end && self.resigned.is_none() {
            self.tick();
        }
    }

    /// Another leader takes over with what the store has.
    fn elect(&mut self, publication: Option<Publication>, is_published: bool) {
        let policy = Policy::default();
        let publication = publication.as_ref();
        let floor = Generation(0);
        self.leader = Leader::new(
            policy,
            publication,
            is_published,
            floor,
            &self.nodes,
            self.now,
        );
    }
}

#[test]
fn a_cluster_is_founded_once_its_nodes_had_time_to_come() {
    let mut world = World::of(&[1, 2]);
    world.run(FOUNDING_MS - 2 * TICK_MS);
    assert!(world.published.is_empty());
    world.start(3, place(3));
    world.run(1_000);
    assert_eq!(world.table().generation(), Generation(1));
    let shares = [1, 2, 3].map(|number| world.first_of(number));
    assert_eq!(shares.iter().sum::<u32>(), 65_536);
    assert!(
        shares.iter().all(|share| (21_845..=21_846).contains(share)),
        "{shares:?}"
    );
    assert!(
        world
            .table()
            .buckets()
            .iter()
            .all(|bucket| bucket.second.is_some())
    );
}

#[test]
fn nothing_is_founded_without_a_node_or_over_a_table_that_somebody_has() {
    let mut world = World::of(&[]);
    world.run(10_000);
    assert!(world.published.is_empty() && world.resigned.is_none());
    let mut world = World::of(&[1, 2]);
    world.machines.get_mut(&node(2)).unwrap().has = Generation(40);
    world.run(10_000);
    assert!(world.published.is_empty());
    assert_eq!(world.resigned, Some("a node has a table"));
}

#[test]
fn who_has_no_family_in_common_with_the_others_is_not_taken() {
    let mut world = World::of(&[1, 2]);
    let v6 = Place {
        v4: None,
        v6: Some(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 3)),
        ethernet: [0; 6],
    };
    world.start(3, v6);
    world.run(20_000);
    assert!(!world.newest().unwrap().roster().contains_key(&node(3)));
    assert_eq!(world.first_of(3), 0);
}

#[test]
fn a_newcomers_address_is_known_to_all_before_a_bucket_names_it() {
    let mut world = World::founded(&[1, 2, 3]);
    world.machines.get_mut(&node(3)).unwrap().stuck_at = Some(Generation(1));
    let before = world.published.len();
    world.start(4, place(4));
    world.run(15_000);
    // Node 3 is late with the table that has the address.
    let late: Vec<_> = world.published[before..].to_vec();
    assert!(!late.is_empty());
    let (_, first) = &late[0];
    assert_eq!(first.roster().get(&node(4)), Some(&place(4)));
    let names = |publication: &Publication| {
        let mut buckets = publication.table().buckets().iter();
        buckets.any(|bucket| bucket.reaches(node(4)))
    };
    assert!(late.iter().all(|(_, publication)| !names(publication)));
    world.machines.get_mut(&node(3)).unwrap().stuck_at = None;
    // Buckets whose second hop may have had connections rest for a while first.
    world.run(120_000);
    assert_eq!(world.first_of(4), 16_384);
    assert_eq!(world.moves.cuts, 0);
}

#[test]
fn tables_come_at_most_once_a_second_and_one_after_the_other() {
    let mut world = World::founded(&[1, 2, 3]);
    world.start(4, place(4));
    world.want(1, Intent::Drain);
    world.run(100_000);
    assert!(world.published.len() > 4, "{}", world.published.len());
    for pair in world.published.windows(2) {
        let [(earlier, one), (later, other)] = pair else {
            unreachable!("windows of two");
        };
        assert!(later.since(*earlier) >= PUBLICATION_MS_MIN);
        assert_eq!(other.generation(), one.generation().next());
    }
}

#[test]
fn a_drained_node_gets_nothing_new_keeps_what_it_has_and_comes_back() {
    let mut world = World::founded(&[1, 2, 3]);
    world.machines.get_mut(&node(1)).unwrap().connections = 1;
    world.want(1, Intent::Drain);
    world.run(10_000);
    assert_eq!(world.first_of(1), 0);
    let reaches = |bucket: &&Bucket| bucket.reaches(node(1));
    assert!(world.table().buckets().iter().filter(reaches).count() > 21_000);
    // Its connections hold their buckets for as long as they live.
    world.run(300_000);
    assert!(world.table().buckets().iter().filter(reaches).count() > 21_000);
    world.want(1, Intent::Serve);
    world.run(10_000);
    assert_eq!(world.first_of(1), 21_845);
    assert_eq!(world.moves.cuts, 0);
}

#[test]
fn a_dead_nodes_new_connections_go_elsewhere_within_seconds() {
    let mut world = World::founded(&[1, 2, 3]);
    world.kill(2);
    world.run(8_000);
    assert_eq!(world.first_of(2), 0);
    assert_eq!(world.moves.cuts, 0);
    // It may come back with what it has: its place stays known.
    assert!(world.newest().unwrap().roster().contains_key(&node(2)));
}

#[test]
fn a_service_that_fails_its_probes_takes_its_node_out_of_the_first_hops() {
    let mut world = World::founded(&[1, 2, 3]);
    for _ in 0..5 {
        for number in [1, 2, 3] {
            world.leader.probed(node(number), number != 3);
        }
        world.run(1_000);
    }
    assert_eq!(world.first_of(3), 0);
}

#[test]
fn what_a_removal_would_end_is_told_before_and_a_removed_node_comes_back_only_when_wanted() {
    let mut world = World::founded(&[1, 2, 3]);
    world.machines.get_mut(&node(3)).unwrap().connections = 2;
    world.run(2_000);
    let preview = |world: &World, number| {
        world
            .leader
            .preview_removal(node(number), &world.nodes, world.now)
    };
    let (flows, buckets) = preview(&world, 3).unwrap();
    assert!(
        flows == 2 * buckets as u64 && buckets > 21_000,
        "{flows} {buckets}"
    );
    assert_eq!(preview(&world, 9), None);

    world.want(3, Intent::Remove);
    world.run(20_000);
    let publication = world.newest().unwrap();
    assert!(!publication.roster().contains_key(&node(3)));
    assert!(publication.table().entry(node(3)).is_none());
    assert_eq!(world.moves.cuts, flows);
    // It is still registered, and speaks: nobody takes it in.
    world.run(60_000);
    assert!(!world.newest().unwrap().roster().contains_key(&node(3)));
    world.want(3, Intent::Serve);
    world.run(120_000);
    assert!(world.first_of(3) > 21_000);
}

#[test]
fn a_new_leader_goes_on_where_the_table_is_and_moves_nothing_for_it() {
    let mut world = World::founded(&[1, 2, 3]);
    let before = world.newest().unwrap().clone();
    world.elect(Some(before.clone()), true);
    world.run(30_000);
    assert_eq!(world.newest().unwrap(), &before);
    // One that died with the last leader is found out.
    world.kill(1);
    world.elect(Some(before), true);
    world.run(5_000);
    assert_eq!(world.first_of(1), 0);
}

#[test]
fn who_registers_again_shortly_after_the_store_was_lost_loses_nothing() {
    let mut world = World::founded(&[1, 2, 3]);
    let before = world.newest().unwrap().clone();
    for number in [2, 3] {
        world.tell(Change::Registration(node(number), None));
    }
    world.elect(Some(before.clone()), true);
    world.run(2_000);
    for number in [2, 3] {
        world.register(number, place(u8::try_from(number).unwrap()));
    }
    world.run(30_000);
    assert_eq!(world.newest().unwrap(), &before);
}

#[test]
fn an_intent_from_before_the_election_is_followed() {
    let mut world = World::founded(&[1, 2, 3]);
    let published = world.newest().unwrap().clone();
    world
        .nodes
        .apply(Change::Intent(node(2), Some(Intent::Drain)), world.now)
        .unwrap();
    world.elect(Some(published), true);
    world.run(10_000);
    assert_eq!(world.first_of(2), 0);
}

#[test]
fn who_has_an_older_table_than_a_node_steers_by_gives_the_lead_away() {
    let mut world = World::founded(&[1, 2, 3]);
    let old = world.newest().unwrap().clone();
    world.want(2, Intent::Drain);
    world.run(5_000);
    world.elect(Some(old), true);
    world.run(5_000);
    assert_eq!(world.resigned, Some("a node has a newer table"));
}

#[test]
fn a_table_that_the_store_has_lost_is_published_again_above_all_that_was_heard_of() {
    let mut world = World::founded(&[1, 2, 3]);
    let own = world.newest().unwrap().clone();
    world.elect(Some(own.clone()), false);
    world.leader.floor = Generation(90);
    world.run(2_000);
    let again = world.newest().unwrap();
    assert_eq!(again.generation(), Generation(91));
    assert_eq!(again.roster(), own.roster());
    assert_eq!(again.table().buckets(), own.table().buckets());
    world.run(10_000);
    assert_eq!(world.machines[&node(3)].has, world.table().generation());
}

#[test]
fn a_node_that_has_moved_is_told_of_without_a_bucket_moving() {
    let mut world = World::founded(&[1, 2, 3]);
    let before = world.table().buckets().to_vec();
    world.machines.get_mut(&node(3)).unwrap().place = place(33);
    world.register(3, place(33));
    world.run(3_000);
    let publication = world.newest().unwrap();
    assert_eq!(publication.roster()[&node(3)], place(33));
    assert_eq!(publication.table().buckets(), before);
}

#[test]
fn nothing_is_decided_before_the_store_has_answered() {
    let mut world = World::founded(&[1, 2, 3]);
    world.want(1, Intent::Drain);
    let now = world.now.plus(2_000);
    let Decision::Publish(publication) = world.leader.tick(&world.nodes, now) else {
        panic!("a drain is published");
    };
    for later in 1..20 {
        let decision = world.leader.tick(&world.nodes, now.plus(later * 1_000));
        assert_eq!(decision, Decision::Nothing);
    }
    assert_ne!(world.leader.generation(), publication.generation());
    world.leader.committed(&world.nodes, now);
    assert_eq!(world.leader.generation(), publication.generation());
}
