//! The loop: tick by tick, machines report, the cluster plans, tables travel, and sessions come and go.

mod watch;

use std::collections::{HashMap, VecDeque};

use anyhow::Result;
use postern_steering::{
    Bucket, BucketIndex, Cluster, DwellPolicy, Generation, Heartbeat, Intent, Millis, NodeId, Plan,
    Policy, State, StepKind, Table,
};

use super::Scale;
use super::fleet::{After, Draining, Machine};
use super::hashing::{Maglev, Rendezvous, SCHEMES, Scheme};
use super::ledger::{Ledger, Tally};
use super::random::Random;
use super::sessions::Sessions;
use super::trace::{self, Arrivals, Event, TICK_MS, TICKS_PER_HOUR};

/// How often shares are looked at.
const SAMPLE_TICKS: u64 = TICKS_PER_HOUR / 2;
/// Busy beyond this a machine must lose new sessions.
const OVERLOAD_PART: f64 = 0.9;

pub struct Week {
    scale: Scale,
    tick: u64,
    events: VecDeque<(u64, u16, Event)>,
    arrivals: Arrivals,
    random: Random,
    /// By number; nobody is 0.
    machines: Vec<Machine>,
    cluster: Cluster,
    sessions: Sessions,
    schemes: [Box<dyn Scheme>; SCHEMES],
    /// Weights that the hashes have.
    hashed_weights: Vec<u32>,
    /// What buckets were before each table that somebody may not have yet.
    history: VecDeque<(Generation, HashMap<BucketIndex, Bucket>)>,
    /// Sessions whose first packets found nobody, and since when.
    waiting: Vec<(u32, u64)>,
    ledger: Ledger,
}

impl Week {
    pub fn new(scale: Scale) -> Result<Self> {
        let mut random = Random::new(scale.seed);
        let events = trace::events(scale, &mut random).into();
        let arrivals = Arrivals::new(scale);
        // A node in four is twice as large.
        let weights = f64::from(scale.nodes) * 125.0;
        let peak_per_weight = arrivals.peak(scale) / weights;
        let mut machines: Vec<Machine> = (0..=scale.nodes)
            .map(|number| Machine::new(number, peak_per_weight))
            .collect();
        let members = (1..=trace::initial_nodes(scale))
            .map(|number| Ok((id(number), machines[usize::from(number)].weight()?)));
        let members: Vec<_> = members.collect::<Result<_>>()?;
        let table = Table::initial(Generation(1), &members)?;
        let policy = Policy {
            dwell: DwellPolicy {
                session_ms_max: 10 * 3_600 * 1_000,
                ..DwellPolicy::default()
            },
            ..Policy::default()
        };
        let mut cluster = Cluster::new(table, policy);
        for (node, weight) in members {
            cluster.admit(node, weight, Millis(0))?;
            let machine = &mut machines[usize::from(node.get())];
            machine.start();
            machine.is_member = true;
            machine.has = Generation(1);
        }
        let schemes: [Box<dyn Scheme>; SCHEMES] = [
            Box::new(Maglev::small()),
            Box::new(Maglev::large()),
            Box::new(Rendezvous::new(scale.nodes)),
        ];
        let tally = |name| Tally {
            name,
            ..Tally::default()
        };
        let ledger = Ledger {
            ours: tally("postern"),
            peers: schemes.iter().map(|scheme| tally(scheme.name())).collect(),
            ..Ledger::default()
        };
        let mut week = Self {
            scale,
            tick: 0,
            events,
            arrivals,
            random,
            machines,
            cluster,
            sessions: Sessions::new(scale.nodes, scale.hours * TICKS_PER_HOUR),
            schemes,
            hashed_weights: Vec::new(),
            history: VecDeque::new(),
            waiting: Vec::new(),
            ledger,
        };
        week.rehash();
        for tally in &mut week.ledger.peers {
            tally.moves = 0;
        }
        Ok(week)
    }

    pub fn run(mut self) -> Result<Ledger> {
        for tick in 0..self.scale.hours * TICKS_PER_HOUR {
            self.tick = tick;
            self.sessions.now = self.now();
            while let Some((_, number, event)) = self.events.pop_front_if(|next| next.0 <= tick) {
                self.happen(number, event)?;
            }
            self.sessions.end(tick);
            self.report()?;
            if let Some(plan) = self.cluster.tick(self.now(), &self.sessions) {
                self.put_in_force(&plan)?;
            }
            let acknowledged = self.cluster.acknowledged();
            self.history
                .retain(|(generation, _)| *generation > acknowledged);
            self.rehash();
            self.admit_sessions();
            self.watch()?;
            if tick % SAMPLE_TICKS == SAMPLE_TICKS - 1 {
                self.sample();
            }
        }
        Ok(self.ledger)
    }

    fn now(&self) -> Millis {
        Millis((self.tick + 1) * TICK_MS)
    }

    fn state(&self, number: u16) -> Option<State> {
        let member = self.cluster.member(NodeId::new(number)?)?;
        Some(member.state())
    }

    fn happen(&mut self, number: u16, event: Event) -> Result<()> {
        let tick = self.tick;
        let now = self.now();
        let machine = &mut self.machines[usize::from(number)];
        if event == Event::Join {
            self.cluster.admit(id(number), machine.weight()?, now)?;
            machine.start();
            machine.is_member = true;
            self.ledger.joined += 1;
            return Ok(());
        }
        if !machine.is_member || !machine.is_alive {
            return Ok(());
        }
        match event {
            Event::Join => {}
            Event::Maintain | Event::Leave if machine.draining.is_none() => {
                machine.draining = Some(Draining {
                    since: tick,
                    had: self.cluster.table().first_of(id(number)),
                    is_relieved: false,
                    is_closed: false,
                    after: if event == Event::Leave {
                        After::Leave
                    } else {
                        After::StartAnew
                    },
                });
                machine.overloaded = None;
                self.ledger.drains += 1;
                self.cluster.intend(id(number), Intent::Drain)?;
            }
            Event::Maintain | Event::Leave => {}
            Event::Crash { ticks } => {
                machine.down_until = tick + ticks;
                self.ledger.crashes += 1;
                self.crash(number);
            }
            Event::Silence { ticks } => {
                machine.silent_until = tick + ticks;
                self.ledger.silences += 1;
            }
            Event::Late { ticks } => {
                machine.late_until = tick + ticks;
                self.ledger.delays += 1;
            }
            Event::Busy { part, ticks } => {
                machine.busy = part;
                machine.busy_until = tick + ticks;
                let has = self.cluster.table().first_of(id(number));
                if part >= OVERLOAD_PART && machine.draining.is_none() {
                    machine.overloaded = Some((tick, has));
                }
            }
        }
        Ok(())
    }

    /// Its sessions are lost under every scheme, and come again.
    fn crash(&mut self, number: u16) {
        let machine = &mut self.machines[usize::from(number)];
        machine.is_alive = false;
        machine.overloaded = None;
        for session in self.sessions.of_node(id(number)) {
            self.ledger.ours.lost_with_node += 1;
            self.come_again(session);
        }
        for session in self.sessions.all_mut() {
            for (hashed, tally) in session.hashed.iter_mut().zip(&mut self.ledger.peers) {
                if *hashed == number {
                    *hashed = 0;
                    tally.lost_with_node += 1;
                }
            }
        }
    }

    fn come_again(&mut self, session: u32) {
        self.sessions.settle(session, None);
        self.waiting.push((session, self.tick));
    }

    /// Machines start, take tables and say how they are.
    fn report(&mut self) -> Result<()> {
        let (tick, now) = (self.tick, self.now());
        let newest = self.cluster.table().generation();
        for (number, machine) in (0_u16..).zip(&mut self.machines).skip(1) {
            if !machine.is_member {
                continue;
            }
            if !machine.is_alive && tick >= machine.down_until {
                machine.start();
                self.cluster.intend(id(number), Intent::Serve)?;
            }
            machine.receive(newest, tick, &mut self.random);
            if machine.is_heard(tick) {
                let sessions = self.sessions.on_node[usize::from(number)];
                let heartbeat = Heartbeat {
                    generation: machine.has,
                    load: Some(machine.load(sessions, tick, &mut self.random)),
                };
                self.cluster.heard(id(number), &heartbeat, now)?;
            }
        }
        Ok(())
    }

    /// The store has taken the plan. Who the new table doesn't reach any more is cut.
    fn put_in_force(&mut self, plan: &Plan) -> Result<()> {
        self.cluster.commit(plan)?;
        let ledger = &mut self.ledger;
        ledger.tables += 1;
        ledger.ours.moves += plan.moves() as u64;
        let stages = plan.steps().iter();
        let stages = stages.filter(|step| step.kind == StepKind::Stage).count();
        ledger.stages += stages as u64;
        ledger.withheld_max = ledger.withheld_max.max(plan.withheld().len());
        let before = plan.steps().iter().map(|step| (step.bucket, step.from));
        self.history
            .push_back((plan.generation(), before.collect()));
        for step in plan.steps() {
            let sessions: Vec<u32> = self.sessions.of_bucket(step.bucket).collect();
            for session in sessions {
                let Some(node) = self.sessions.get(session).node else {
                    continue;
                };
                if !step.to.reaches(node) {
                    self.cut(session, node);
                }
            }
        }
        Ok(())
    }

    fn cut(&mut self, session: u32, node: NodeId) {
        if matches!(self.state(node.get()), Some(State::Failed { .. })) {
            self.ledger.ours.given_up += 1;
        } else {
            self.ledger.ours.cut_elsewhere += 1;
        }
        self.come_again(session);
    }

    /// New sessions, and those that have found nobody so far.
    fn admit_sessions(&mut self) {
        for (session, since) in std::mem::take(&mut self.waiting) {
            if self.sessions.is_current(session, self.tick) {
                self.place(session, since);
            }
        }
        for _ in 0..self.arrivals.count(self.tick, &mut self.random) {
            self.ledger.sessions += 1;
            let hash = self.random.next();
            let ends_at = self.tick + trace::lifetime(&mut self.random);
            let hashed = std::array::from_fn(|scheme| {
                let node = self.schemes[scheme].node(hash);
                if self.machines[usize::from(node)].is_alive {
                    node
                } else {
                    0
                }
            });
            let session = self.sessions.open(hash, hashed, ends_at);
            self.place(session, self.tick);
        }
    }

    /// The first packet comes in at any machine that steers, and goes to the first hop of its table.
    fn place(&mut self, session: u32, since: u64) {
        let bucket = self.sessions.get(session).bucket();
        let Some(has) = self.entrance() else {
            self.waiting.push((session, since));
            return;
        };
        let hops = self.hops(bucket);
        let of = hops.iter().find(|(generation, _)| *generation <= has);
        let node = of.map_or(hops[0].1.first, |(_, hops)| hops.first);
        if !self.machines[usize::from(node.get())].is_heard(self.tick) {
            self.waiting.push((session, since));
            return;
        }
        if self.tick > since {
            self.ledger.waited += 1;
            let seconds = ((self.tick - since) * TICK_MS) as f64 / 1e3;
            self.ledger.waited_s_max = self.ledger.waited_s_max.max(seconds);
        }
        self.sessions.settle(session, Some(node));
        // Its next packet may come in at any other machine, on any table that is in use.
        let resets = |hops: &Bucket| {
            let mut all = [Some(hops.first), hops.second].into_iter().flatten();
            let answers = |hop: NodeId| self.machines[usize::from(hop.get())].is_heard(self.tick);
            !hops.reaches(node) && all.all(answers)
        };
        if hops.iter().any(|(_, hops)| resets(hops)) {
            self.cut(session, node);
        }
    }

    /// The table of a machine that a packet comes in at.
    fn entrance(&mut self) -> Option<Generation> {
        const TRIES: usize = 64;
        (0..TRIES).find_map(|_| {
            let number = 1 + self.random.below(usize::from(self.scale.nodes)) as u16;
            let machine = &self.machines[usize::from(number)];
            let steers = machine.steers(id(number), &self.cluster, self.tick);
            steers.then_some(machine.has)
        })
    }

    /// The bucket in every table that a machine may steer by, each with its first generation; the
    /// newest first.
    fn hops(&self, bucket: BucketIndex) -> Vec<(Generation, Bucket)> {
        let mut hops = Vec::with_capacity(2);
        let mut current = self.cluster.table().bucket(bucket);
        for (generation, before) in self.history.iter().rev() {
            if let Some(before) = before.get(&bucket) {
                hops.push((*generation, current));
                current = *before;
            }
        }
        hops.push((Generation(0), current));
        hops
    }

    /// The hashes follow who is up. They get no load: what follows load cuts more.
    fn rehash(&mut self) {
        let tick = self.tick;
        let weight = |number: u16| match self.state(number) {
            Some(State::Up) => self.machines[usize::from(number)].weight,
            // Before the first tick nobody is judged yet.
            Some(_) if tick == 0 => self.machines[usize::from(number)].weight,
            _ => 0,
        };
        let weights: Vec<u32> = (0..=self.scale.nodes).map(weight).collect();
        if weights == self.hashed_weights {
            return;
        }
        for (scheme, tally) in self.schemes.iter_mut().zip(&mut self.ledger.peers) {
            tally.moves += scheme.rebuild(&weights) as u64;
        }
        self.hashed_weights = weights;
        for session in self.sessions.all_mut() {
            for (at, hashed) in session.hashed.iter_mut().enumerate() {
                let node = self.schemes[at].node(session.hash);
                let old = std::mem::replace(hashed, node);
                if old == node || old == 0 {
                    continue;
                }
                let state = NodeId::new(old).and_then(|old| self.cluster.member(old));
                let state = state.map(postern_steering::Member::state);
                let tally = &mut self.ledger.peers[at];
                if matches!(state, Some(State::Failed { .. })) {
                    tally.given_up += 1;
                } else {
                    tally.cut_elsewhere += 1;
                }
            }
        }
    }
}

fn id(number: u16) -> NodeId {
    NodeId::new(number).expect("machines are numbered from 1")
}
