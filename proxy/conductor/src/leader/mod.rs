//! The deciding node: founds or takes over a cluster's table, and says what is to be published next.
//!
//! It is told what nodes say and what time it is, and it is asked five times a second. What it wants to
//! publish counts only when the store has taken it; when that fails, the leader is thrown away, and
//! whoever leads then begins with what the store has.

mod show;

use std::collections::BTreeMap;

use postern_steering::{
    Cluster, FACTOR_FULL, Generation, Millis, NodeId, Place, Plan, Policy, Publication, Roster,
    State, StepKind, Table, Weight,
};

pub use show::members;

use crate::nodes::{Heard, Known, Nodes};
use crate::values::Intent;

/// A cluster without a table waits this long for its nodes, so that the first table has them all.
const FOUNDING_MS: u64 = 3_000;

/// Whom the table has and who is not registered when a term begins is awaited for so long: after a loss of
/// the store all register again, and whoever died has lost its lease before.
const UNREGISTERED_MS_MAX: u64 = 3_000;

/// Between two tables.
const PUBLICATION_MS_MIN: u64 = 1_000;

/// What the leader wants.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    Nothing,
    /// To be written to the store; then [`Leader::committed`].
    Publish(Publication),
    /// Others know more: one of them should lead.
    Resign(&'static str),
}

/// What becomes of a publication that was taken.
#[derive(Debug, Clone, PartialEq)]
enum Step {
    /// The leader's own beginning.
    Begin,
    /// Everybody has to know new addresses first.
    Roster,
    Plan(Box<Plan>),
}

/// What publications have done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Moves {
    pub publications: u64,
    pub swaps: u64,
    pub stages: u64,
    pub replaces: u64,
    /// Connections that were cut on sound nodes; one where it is not known how many.
    pub cuts: u64,
}

impl Moves {
    pub fn add(&mut self, other: Self) {
        self.publications += other.publications;
        self.swaps += other.swaps;
        self.stages += other.stages;
        self.replaces += other.replaces;
        self.cuts += other.cuts;
    }

    fn of(plan: &Plan) -> Self {
        let count = |kind: StepKind| {
            let steps = plan.steps().iter().filter(|step| step.kind == kind);
            steps.count() as u64
        };
        Self {
            publications: 0,
            swaps: count(StepKind::Swap),
            stages: count(StepKind::Stage),
            replaces: count(StepKind::Replace),
            cuts: flows_of(plan),
        }
    }
}

/// Connections that a plan cuts.
fn flows_of(plan: &Plan) -> u64 {
    let cuts = plan.cuts().iter();
    cuts.map(|cut| u64::from(cut.flows.unwrap_or(1))).sum()
}

/// The table, once there is one.
#[derive(Debug, Clone)]
struct Deciding {
    cluster: Cluster,
    roster: Roster,
    /// The store has this table.
    is_published: bool,
    /// Buckets that waited when a plan was made last.
    waiting: u64,
}

/// One term of a leader.
#[derive(Debug, Clone)]
pub struct Leader {
    policy: Policy,
    began_at: Millis,
    /// No table may have a lower number.
    floor: Generation,
    deciding: Option<Deciding>,
    published_at: Option<Millis>,
    pending: Option<(Publication, Step)>,
}

impl Leader {
    /// Begins with the newest table that this node has, which may be the store's or newer, or with none.
    /// `floor` is the newest that this node has heard of.
    #[must_use]
    pub fn new(
        policy: Policy,
        publication: Option<&Publication>,
        is_published: bool,
        floor: Generation,
        nodes: &Nodes,
        now: Millis,
    ) -> Self {
        let deciding = publication.map(|publication| Deciding {
            is_published,
            ..Deciding::of(publication, policy, nodes, now)
        });
        Self {
            policy,
            began_at: now,
            floor,
            deciding,
            published_at: None,
            pending: None,
        }
    }

    /// Takes what a node says.
    pub fn hear(&mut self, heard: &Heard, nodes: &Nodes, now: Millis) {
        let Some(deciding) = &mut self.deciding else {
            return;
        };
        match heard {
            Heard::Heartbeat(node, heartbeat) => {
                // A load that makes no sense was told of; that the node lives counts all the same.
                let _ = deciding.cluster.heard(*node, &spoken(heartbeat), now);
            }
            Heard::Registration(node) | Heard::Intent(node, _) => deciding.follow(*node, nodes),
            Heard::Nothing => {}
        }
    }

    /// Its service was tried.
    pub fn probed(&mut self, node: NodeId, is_good: bool) {
        if let Some(deciding) = &mut self.deciding {
            // It may have left since.
            let _ = deciding.cluster.probed(node, is_good);
        }
    }

    /// What is to be done now.
    pub fn tick(&mut self, nodes: &Nodes, now: Millis) -> Decision {
        let is_early = |at: Millis| now.since(at) < PUBLICATION_MS_MIN;
        if self.pending.is_some() || self.published_at.is_some_and(is_early) {
            return Decision::Nothing;
        }
        let newest = nodes.newest().max(self.floor);
        let Some(deciding) = &mut self.deciding else {
            return self.found(nodes, newest, now);
        };
        let table = deciding.cluster.table();
        if nodes.newest_in_force() > table.generation() {
            return Decision::Resign("a node has a newer table");
        }
        if !deciding.is_published {
            let generation = newest.max(table.generation()).next();
            let table = table.clone().renumbered(generation);
            return match Publication::new(deciding.roster.clone(), table) {
                Ok(publication) => self.propose(publication, Step::Begin),
                Err(_) => Decision::Resign("its table does not hold"),
            };
        }
        if let Some(roster) = deciding.next_roster(nodes) {
            let plan = Plan::again(table);
            return self.propose_after(roster, Step::Roster, &plan);
        }
        deciding.admit(nodes, now);
        let Some(plan) = deciding.cluster.tick(now, nodes.reports()) else {
            return Decision::Nothing;
        };
        deciding.waiting = plan.withheld().len() as u64;
        let roster = deciding.roster.clone();
        self.propose_after(roster, Step::Plan(Box::new(plan.clone())), &plan)
    }

    /// The first table of a cluster.
    fn found(&mut self, nodes: &Nodes, newest: Generation, now: Millis) -> Decision {
        if now.since(self.began_at) < FOUNDING_MS {
            return Decision::Nothing;
        }
        if nodes.newest_in_force() > Generation::default() {
            return Decision::Resign("a node has a table");
        }
        let mut roster = Roster::new();
        let mut members = Vec::new();
        for (node, registration) in nodes.registered() {
            if let Some(weight) = registration.weight()
                && reaches_all(&registration.place(), &roster)
            {
                roster.insert(node, registration.place());
                members.push((node, weight));
            }
        }
        let made = Table::initial(newest.next(), &members)
            .and_then(|table| Publication::new(roster, table));
        match made {
            Ok(publication) => self.propose(publication, Step::Begin),
            // Nobody is there yet.
            Err(_) => Decision::Nothing,
        }
    }

    fn propose_after(&mut self, roster: Roster, step: Step, plan: &Plan) -> Decision {
        let deciding = self.deciding.as_ref().expect("a plan was made by it");
        let made = deciding
            .cluster
            .table()
            .after(plan)
            .and_then(|table| Publication::new(roster, table));
        match made {
            Ok(publication) => self.propose(publication, step),
            Err(_) => Decision::Resign("its own plan does not hold"),
        }
    }

    fn propose(&mut self, publication: Publication, step: Step) -> Decision {
        self.pending = Some((publication.clone(), step));
        Decision::Publish(publication)
    }

    /// The store has taken what was proposed last.
    pub fn committed(&mut self, nodes: &Nodes, now: Millis) -> Moves {
        let Some((publication, step)) = self.pending.take() else {
            return Moves::default();
        };
        self.published_at = Some(now);
        let once = Moves {
            publications: 1,
            ..Moves::default()
        };
        match (step, &mut self.deciding) {
            (Step::Plan(plan), Some(deciding)) => {
                let mut moves = Moves::of(&plan);
                moves.add(once);
                deciding
                    .cluster
                    .commit(&plan)
                    .expect("nothing was committed since the plan was made");
                moves
            }
            (Step::Roster, Some(deciding)) => {
                let plan = Plan::again(deciding.cluster.table());
                deciding
                    .cluster
                    .commit(&plan)
                    .expect("it follows the table in force");
                deciding.roster = publication.roster().clone();
                deciding.admit(nodes, now);
                once
            }
            (_, deciding) => {
                *deciding = Some(Deciding::of(&publication, self.policy, nodes, now));
                once
            }
        }
    }

    /// True while the store has not answered for the last proposal.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.pending.is_some()
    }

    /// The table that was decided last.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.deciding
            .as_ref()
            .map(|deciding| deciding.cluster.table().generation())
            .unwrap_or_default()
    }

    /// Whom to try, and where.
    #[must_use]
    pub fn roster(&self) -> BTreeMap<NodeId, Place> {
        self.deciding
            .as_ref()
            .map(|deciding| deciding.roster.clone())
            .unwrap_or_default()
    }

    /// How many connections end when `node` is taken out now, and in how many buckets; `None` where it
    /// is no member.
    #[must_use]
    pub fn preview_removal(
        &self,
        node: NodeId,
        nodes: &Nodes,
        now: Millis,
    ) -> Option<(u64, usize)> {
        let cluster = &self.deciding.as_ref()?.cluster;
        cluster.member(node)?;
        let plan = cluster.preview(node, State::Gone, now, nodes.reports());
        Some(plan.map_or((0, 0), |plan| (flows_of(&plan), plan.cuts().len())))
    }
}

/// True where a node at `place` and everybody of `roster` have a family in common.
fn reaches_all(place: &Place, roster: &Roster) -> bool {
    roster
        .values()
        .all(|other| other.reached_from(place).is_some())
}

fn spoken(heartbeat: &crate::values::Heartbeat) -> postern_steering::Heartbeat {
    postern_steering::Heartbeat {
        generation: heartbeat.generation(),
        load: heartbeat.load(),
    }
}

impl Deciding {
    fn of(publication: &Publication, policy: Policy, nodes: &Nodes, now: Millis) -> Self {
        let mut deciding = Self {
            cluster: Cluster::new(publication.table().clone(), policy),
            roster: publication.roster().clone(),
            is_published: true,
            waiting: 0,
        };
        // Whoever the table has is a member until it is silent.
        for entry in publication.table().members() {
            let registered = nodes.get(entry.node).and_then(|known| known.registration);
            let scaled = (entry.weight / FACTOR_FULL).max(1);
            let weight = registered
                .and_then(|registration| registration.weight())
                .or_else(|| Weight::new(scaled).ok());
            let silent_ms = match registered {
                Some(_) => 0,
                None => policy
                    .health
                    .silence_ms_max
                    .saturating_sub(UNREGISTERED_MS_MAX),
            };
            let heard_at = Millis(now.0.saturating_sub(silent_ms));
            if let Some(weight) = weight {
                // The entries of a table are each once there, and not too many.
                let _ = deciding.cluster.admit(entry.node, weight, heard_at);
            }
        }
        for (node, known) in nodes.all() {
            deciding.follow(node, nodes);
            deciding.replay(node, known);
        }
        deciding
    }

    /// What was heard of a node before it became a member.
    fn replay(&mut self, node: NodeId, known: &Known) {
        if let Some((heartbeat, at)) = &known.heartbeat
            && known.registration.is_some()
        {
            let _ = self.cluster.heard(node, &spoken(heartbeat), *at);
        }
    }

    /// Does what is wanted of a node; nothing where it is no member.
    fn follow(&mut self, node: NodeId, nodes: &Nodes) {
        if self.cluster.member(node).is_none() {
            return;
        }
        let registration = nodes.get(node).and_then(|known| known.registration);
        if let Some(weight) = registration.and_then(|registration| registration.weight()) {
            let _ = self.cluster.reweigh(node, weight);
        }
        let done = match nodes.intent(node) {
            Intent::Serve => self.cluster.intend(node, postern_steering::Intent::Serve),
            Intent::Drain => self.cluster.intend(node, postern_steering::Intent::Drain),
            Intent::Remove => self.cluster.remove(node),
        };
        done.expect("it is a member");
    }

    /// Takes in who has a place that everybody knows.
    fn admit(&mut self, nodes: &Nodes, now: Millis) {
        for (node, registration) in nodes.registered() {
            let is_known = self.roster.get(&node) == Some(&registration.place());
            if let Some(weight) = registration.weight()
                && is_known
                && self.cluster.member(node).is_none()
                && self.cluster.admit(node, weight, now).is_ok()
            {
                self.follow(node, nodes);
                if let Some(known) = nodes.get(node) {
                    self.replay(node, known);
                }
            }
        }
    }

    /// The roster that should be: `None` where it is.
    fn next_roster(&self, nodes: &Nodes) -> Option<Roster> {
        let mut roster = self.roster.clone();
        roster.retain(|node, _| {
            nodes.intent(*node) != Intent::Remove || self.cluster.table().entry(*node).is_some()
        });
        for (node, registration) in nodes.registered() {
            let place = registration.place();
            let before = roster.remove(&node);
            let is_full = roster.len() >= postern_steering::MEMBERS_MAX;
            if reaches_all(&place, &roster) && !is_full {
                roster.insert(node, place);
            } else if let Some(before) = before {
                roster.insert(node, before);
            }
        }
        (roster != self.roster).then_some(roster)
    }
}

#[cfg(test)]
mod tests;
