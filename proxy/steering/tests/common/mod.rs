//! A cluster with its nodes and desktops, in which packets are followed through the tables that nodes have.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "a part of the tests: every user takes what it needs"
)]

use std::collections::{BTreeMap, HashMap};

use postern_steering::{
    Bucket, BucketIndex, Cluster, Error, Flows, Generation, Heartbeat, Intent, Member, Millis,
    NodeId, Plan, Policy, Seen, State, Table, Weight,
};

pub fn node(number: u16) -> NodeId {
    NodeId::new(number).unwrap()
}

pub fn weight(weight: u32) -> Weight {
    Weight::new(weight).unwrap()
}

/// A desktop that lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Desktop {
    pub bucket: BucketIndex,
    pub node: NodeId,
    /// Its node was taken for failed: it may be lost, though it need not be.
    pub is_given_up: bool,
}

/// A machine, whatever the cluster thinks of it.
#[derive(Debug, Clone, Copy)]
pub struct Machine {
    pub is_alive: bool,
    /// It is alive, nobody hears it, and it hears nobody.
    pub is_silent: bool,
    /// It has lost its lease: it steers nothing, answers for what it knows, and drops the rest.
    pub is_fenced: bool,
    pub has: Generation,
}

/// Living desktops, as their nodes report them.
#[derive(Debug, Default, Clone)]
pub struct Desktops {
    living: Vec<Desktop>,
    counts: HashMap<(NodeId, BucketIndex), u32>,
    pub now: Millis,
}

impl Desktops {
    pub fn living(&self) -> &[Desktop] {
        &self.living
    }

    pub fn add(&mut self, desktop: Desktop) {
        self.living.push(desktop);
        *self
            .counts
            .entry((desktop.node, desktop.bucket))
            .or_default() += 1;
    }

    pub fn give_up(&mut self, is_lost: impl Fn(NodeId) -> bool) {
        for desktop in &mut self.living {
            desktop.is_given_up |= is_lost(desktop.node);
        }
    }

    pub fn retain(&mut self, mut lives: impl FnMut(&Desktop) -> bool) {
        let counts = &mut self.counts;
        self.living.retain(|desktop| {
            let lives = lives(desktop);
            if !lives {
                *counts.entry((desktop.node, desktop.bucket)).or_default() -= 1;
            }
            lives
        });
    }
}

impl Flows for Desktops {
    fn at(&self, node: NodeId, bucket: BucketIndex) -> Option<Seen> {
        Some(Seen {
            flows: self
                .counts
                .get(&(node, bucket))
                .copied()
                .unwrap_or_default(),
            taken_at: self.now,
        })
    }
}

pub struct World {
    pub cluster: Cluster,
    pub machines: BTreeMap<NodeId, Machine>,
    pub desktops: Desktops,
    /// Tables that a node may still have.
    pub tables: BTreeMap<Generation, Table>,
    pub plans: Vec<Plan>,
}

/// Where a packet ends.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    Arrived,
    /// Nobody answers; it is sent again, and finds a newer table.
    Lost,
    /// A node that doesn't know the connection resets it.
    Reset,
}

impl World {
    pub fn new(weights: &[u32], policy: Policy) -> Self {
        let members: Vec<_> = (1..)
            .zip(weights)
            .map(|(number, of)| (node(number), weight(*of)))
            .collect();
        let table = Table::initial(Generation(1), &members).unwrap();
        let mut cluster = Cluster::new(table.clone(), policy);
        let mut machines = BTreeMap::new();
        for (id, weight) in members {
            cluster.admit(id, weight, Millis(0)).unwrap();
            machines.insert(id, Machine::new(Generation(1)));
        }
        Self {
            cluster,
            machines,
            desktops: Desktops::default(),
            tables: BTreeMap::from([(Generation(1), table)]),
            plans: Vec::new(),
        }
    }

    /// One second: heartbeats, judgement, and a new table where there is a plan.
    pub fn second(&mut self) {
        self.desktops.now.0 += 1_000;
        let now = self.desktops.now;
        for (id, machine) in &self.machines {
            if machine.is_alive && !machine.is_silent {
                let heartbeat = Heartbeat {
                    generation: machine.has,
                    load: None,
                };
                let heard = self.cluster.heard(*id, &heartbeat, now);
                assert!(matches!(heard, Ok(()) | Err(Error::NotAMember(_))));
            }
        }
        if let Some(plan) = self.cluster.tick(now, &self.desktops) {
            let before = self.cluster.table().clone();
            self.cluster.commit(&plan).unwrap();
            assert_eq!(before.after(&plan).as_ref(), Ok(self.cluster.table()));
            let table = self.cluster.table();
            self.tables.insert(table.generation(), table.clone());
            self.plans.push(plan);
        }
        let cluster = &self.cluster;
        self.desktops.give_up(|node| {
            let member = cluster.member(node);
            member.is_none_or(|one| matches!(one.state(), State::Failed { .. }))
        });
        for (id, machine) in &mut self.machines {
            let state = self.cluster.member(*id).map(Member::state);
            let takes_part = matches!(state, Some(State::Up | State::Draining));
            machine.is_fenced = machine.is_silent || !takes_part;
        }
        // Who is fenced for a moment may steer again before it is missed.
        let takes_part = |id: &NodeId| {
            let state = self.cluster.member(*id).map(Member::state);
            matches!(state, Some(State::Up | State::Draining))
        };
        let machines = self.machines.iter().filter(|(id, _)| takes_part(id));
        let oldest = machines.map(|(_, machine)| machine.has).min();
        let newest = self.cluster.table().generation();
        self.tables
            .retain(|generation, _| Some(*generation) >= oldest || *generation == newest);
    }

    /// Seconds in which every machine has the newest table at once.
    pub fn seconds(&mut self, count: u32) {
        for _ in 0..count {
            self.second();
            self.deliver_tables(|_| true);
        }
    }

    /// The newest table comes to the machines that are chosen.
    pub fn deliver_tables(&mut self, chosen: impl Fn(NodeId) -> bool) {
        let newest = self.cluster.table().generation();
        for (id, machine) in &mut self.machines {
            if machine.is_alive && !machine.is_silent && chosen(*id) {
                machine.has = newest;
            }
        }
    }

    /// Machines that packets may come in at.
    pub fn steering(&self) -> impl Iterator<Item = (NodeId, &Machine)> {
        self.machines.iter().filter_map(|(id, machine)| {
            let state = self.cluster.member(*id)?.state();
            // Who has just started has no table yet, and steers nothing.
            let steers = matches!(state, State::Up | State::Draining) && machine.has.0 > 0;
            (steers && machine.is_alive && !machine.is_fenced).then_some((*id, machine))
        })
    }

    /// A new desktop, whose first packet comes in at one of the steering machines.
    pub fn open(&mut self, at: usize, bucket: BucketIndex) {
        let machines: Vec<_> = self.steering().map(|(_, machine)| machine.has).collect();
        let Some(has) = machines.get(at % machines.len().max(1)) else {
            return;
        };
        let first = self.tables[has].bucket(bucket).first;
        let machine = self.machines.get(&first);
        if machine.is_some_and(Machine::takes) {
            let desktop = Desktop {
                bucket,
                node: first,
                is_given_up: false,
            };
            self.desktops.add(desktop);
        }
    }

    pub fn crash(&mut self, id: NodeId) {
        if let Some(machine) = self.machines.get_mut(&id) {
            machine.is_alive = false;
            self.desktops.retain(|desktop| desktop.node != id);
        }
    }

    pub fn intend(&mut self, id: NodeId, intent: Intent) {
        let done = self.cluster.intend(id, intent);
        assert!(matches!(done, Ok(()) | Err(Error::NotAMember(_))));
    }

    pub fn follow(&self, hops: Bucket, owner: NodeId) -> End {
        for hop in [Some(hops.first), hops.second].into_iter().flatten() {
            let Some(machine) = self.machines.get(&hop) else {
                return End::Lost;
            };
            if hop == owner {
                return End::Arrived;
            }
            if !machine.takes() {
                return End::Lost;
            }
        }
        End::Reset
    }

    /// Desktops that a packet from some machine would not reach, their nodes being sound.
    pub fn resets(&self) -> Vec<(Desktop, Generation)> {
        let mut generations: Vec<_> = self.steering().map(|(_, machine)| machine.has).collect();
        generations.sort_unstable();
        generations.dedup();
        let mut resets = Vec::new();
        for desktop in self.desktops.living() {
            if desktop.is_given_up {
                continue;
            }
            for generation in &generations {
                let hops = self.tables[generation].bucket(desktop.bucket);
                if self.follow(hops, desktop.node) == End::Reset {
                    resets.push((*desktop, *generation));
                }
            }
        }
        resets
    }
}

impl Machine {
    /// It takes packets from tunnels. Who has just started has no table, and so nothing that would.
    fn takes(&self) -> bool {
        self.is_alive && !self.is_fenced && self.has.0 > 0
    }

    pub fn new(has: Generation) -> Self {
        Self {
            is_alive: true,
            is_silent: false,
            is_fenced: false,
            has,
        }
    }
}
