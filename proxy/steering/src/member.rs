//! A node of the cluster: what was configured, what it says of itself, and the state that follows.

use crate::health::{Health, HealthPolicy, Verdict};
use crate::load::{Damper, FACTOR_FULL, Load, LoadPolicy, Pressure};
use crate::{Error, Generation, Millis, NodeId};

/// Largest weight: with all factors and members the sum stays far below what a `u64` of products holds.
pub const WEIGHT_MAX: u32 = 10_000;

/// A configured weight, 1 to [`WEIGHT_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Weight(u32);

impl Weight {
    /// # Errors
    /// It is out of range.
    pub fn new(weight: u32) -> Result<Self, Error> {
        if (1..=WEIGHT_MAX).contains(&weight) {
            Ok(Self(weight))
        } else {
            Err(Error::Weight { found: weight })
        }
    }

    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

/// What the operator wants of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Intent {
    Serve,
    /// No new connections; old ones stay.
    Drain,
}

/// What a node is to the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Known, but not fit yet or without the newest table: it is no hop, and steers nothing.
    Joining,
    /// Takes its share of new connections.
    Up,
    /// Keeps what it has.
    Draining,
    /// Silent, broken or behind. It steers nothing: who has lost its lease stops announcing the address,
    /// and drops packets of connections that it doesn't know, until it takes part again. But it stays a
    /// second hop where it is one, and may come back with its connections.
    Failed { since: Millis },
    /// Taken out of the cluster: it is no hop of the next table.
    Gone,
}

/// What a node says of itself, every second or two.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Heartbeat {
    /// The table that it steers by.
    pub generation: Generation,
    /// `None` where it can't tell.
    pub load: Option<Load>,
}

/// One node.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    pub id: NodeId,
    pub weight: Weight,
    pub intent: Intent,
    health: Health,
    damper: Damper,
    acknowledged: Generation,
    /// Since when it has been behind the newest table.
    behind_since: Option<Millis>,
    /// It takes part when everybody who steers has this table: an older one may still have it as a hop
    /// that it isn't any more.
    waits_for: Option<Generation>,
    state: State,
}

impl Member {
    #[must_use]
    pub fn new(id: NodeId, weight: Weight) -> Self {
        Self {
            id,
            weight,
            intent: Intent::Serve,
            health: Health::default(),
            damper: Damper::default(),
            acknowledged: Generation::default(),
            behind_since: None,
            waits_for: None,
            state: State::Joining,
        }
    }

    /// A node that the table in force has as a hop: it is taken for fit until it is silent, or whoever
    /// takes the table over would take everybody's buckets away before the first heartbeats come.
    #[must_use]
    pub fn presumed(id: NodeId, weight: Weight, now: Millis) -> Self {
        Self {
            health: Health::presumed(now),
            state: State::Up,
            ..Self::new(id, weight)
        }
    }

    /// As of the last [`Self::judge`].
    #[must_use]
    pub fn state(&self) -> State {
        self.state
    }

    #[must_use]
    pub fn acknowledged(&self) -> Generation {
        self.acknowledged
    }

    /// The configured weight, by what its load leaves of it.
    #[must_use]
    pub fn target_weight(&self) -> u32 {
        self.weight.get() * self.damper.factor()
    }

    /// True while its load leaves it no more than half of its weight.
    #[must_use]
    pub fn is_overloaded(&self) -> bool {
        2 * self.damper.factor() <= FACTOR_FULL
    }

    /// # Errors
    /// The load makes no sense; the heartbeat counts all the same.
    pub fn heard(
        &mut self,
        heartbeat: &Heartbeat,
        now: Millis,
        policy: &LoadPolicy,
    ) -> Result<(), Error> {
        self.health.heard(now);
        self.acknowledged = heartbeat.generation;
        if let Some(load) = &heartbeat.load {
            let pressure = Pressure::of(load)?;
            self.damper.observe(pressure, now, policy);
        }
        Ok(())
    }

    pub fn probed(&mut self, is_good: bool) {
        self.health.probed(is_good);
    }

    /// The state now, where `newest` is the table in force and everybody who steers has `floor`.
    pub fn judge(
        &mut self,
        now: Millis,
        newest: Generation,
        floor: Generation,
        policy: &HealthPolicy,
        behind_ms_max: u64,
    ) -> State {
        if self.acknowledged >= newest {
            self.behind_since = None;
        } else if self.behind_since.is_none() {
            self.behind_since = Some(now);
        }
        let takes_part = matches!(self.state, State::Up | State::Draining);
        let is_late = |since: Millis| now.since(since) > behind_ms_max;
        // Who goes back behind what all have would lose connections of the others.
        let has_floor = self.acknowledged >= floor;
        let is_behind = takes_part && (!has_floor || self.behind_since.is_some_and(is_late));
        let verdict = self.health.judge(now, is_behind, policy);
        if verdict != Verdict::Fit || takes_part {
            self.waits_for = None;
        }
        let waits_for = *self.waits_for.get_or_insert(newest);
        let joins = has_floor && floor >= waits_for && self.acknowledged > Generation::default();
        self.state = match verdict {
            Verdict::Unknown => State::Joining,
            Verdict::Failed { since } => State::Failed { since },
            Verdict::Fit if !(takes_part || joins) => State::Joining,
            Verdict::Fit if self.intent == Intent::Drain => State::Draining,
            Verdict::Fit => State::Up,
        };
        self.state
    }
}
