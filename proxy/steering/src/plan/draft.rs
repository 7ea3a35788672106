//! A plan in the making: who has too much, who has too little, and the passes over the buckets.

use super::{Cut, Plan, Situation, Step, StepKind};
use crate::dwell::{Dwell, DwellPolicy};
use crate::flows::Flows;
use crate::member::State;
use crate::quota::{Share, quotas};
use crate::table::{Bucket, Entry, Table};
use crate::{BUCKETS, BucketIndex, NodeId};

/// A node may have so much more than its quota for a while, as a part of it, when it takes the new
/// connections of a bucket that can't go elsewhere.
const TOLERANCE_PART: i64 = 32;

/// One node in the making of a plan.
#[derive(Debug, Clone, Copy)]
struct Node {
    state: State,
    /// It takes new connections.
    takes: bool,
    is_overloaded: bool,
    quota: u32,
    /// Buckets that it has more than its quota; those that are on their way to it are counted.
    surplus: i64,
}

const STRANGER: Node = Node {
    state: State::Gone,
    takes: false,
    is_overloaded: false,
    quota: 0,
    surplus: 0,
};

pub(super) struct Draft<'a, F> {
    table: &'a Table,
    dwell: &'a Dwell,
    policy: &'a DwellPolicy,
    situation: &'a Situation<'a, F>,
    /// By number.
    nodes: Vec<Node>,
    members: Vec<Entry>,
    takers: Takers,
    /// Buckets that make a step, or wait for the second half of one.
    busy: Vec<bool>,
    steps: Vec<Step>,
    cuts: Vec<Cut>,
    withheld: Vec<Cut>,
}

/// Nodes with too little, in turn, so that nobody gets a run of neighbours.
struct Takers {
    nodes: Vec<NodeId>,
    at: usize,
}

/// What makes room for a node that is staged, the cheapest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    /// Nobody is there, or somebody who is not coming back.
    Vacant,
    /// A node without a living connection.
    Settled,
    /// A node whose connections are cut.
    Forced,
}

impl<'a, F: Flows> Draft<'a, F> {
    /// `None` where nobody takes new connections.
    pub fn new(
        table: &'a Table,
        dwell: &'a Dwell,
        policy: &'a DwellPolicy,
        situation: &'a Situation<'a, F>,
    ) -> Option<Self> {
        let standings = situation.members;
        let highest = |numbers: &mut dyn Iterator<Item = NodeId>| {
            numbers.map(NodeId::index).max().unwrap_or_default()
        };
        let known = highest(&mut standings.iter().map(|one| one.node));
        let old = highest(&mut table.members().iter().map(|entry| entry.node));
        let mut nodes = vec![STRANGER; known.max(old) + 1];
        for standing in standings {
            let node = &mut nodes[standing.node.index()];
            node.state = standing.state;
            node.is_overloaded = standing.is_overloaded;
        }
        // Nodes that drain are better than none.
        let is = |wanted: State| standings.iter().any(|one| one.state == wanted);
        let taking = [State::Up, State::Draining]
            .into_iter()
            .find(|wanted| is(*wanted))?;

        let mut shares: Vec<Share> = standings
            .iter()
            .filter(|one| one.state == taking && one.weight > 0)
            .map(|one| Share {
                node: one.node,
                weight: one.weight,
                has: table.first_of(one.node),
            })
            .collect();
        shares.sort_unstable_by_key(|share| share.node);
        for (share, quota) in shares.iter().zip(quotas(&shares)) {
            let node = &mut nodes[share.node.index()];
            node.takes = true;
            node.quota = quota;
        }
        for (number, node) in nodes.iter_mut().enumerate() {
            let id = u16::try_from(number).ok().and_then(NodeId::new);
            let has = id.map_or(0, |id| table.first_of(id));
            node.surplus = i64::from(has) - i64::from(node.quota);
        }
        let members = entries(standings, &shares);
        let takers = Takers::new(&shares, &nodes);
        (!shares.is_empty()).then(|| Self {
            table,
            dwell,
            policy,
            situation,
            nodes,
            members,
            takers,
            busy: vec![false; BUCKETS],
            steps: Vec::new(),
            cuts: Vec::new(),
            withheld: Vec::new(),
        })
    }

    fn node(&self, id: NodeId) -> &Node {
        self.nodes.get(id.index()).unwrap_or(&STRANGER)
    }

    fn is_lost(&self, id: NodeId) -> bool {
        matches!(self.node(id).state, State::Failed { .. } | State::Gone)
    }

    /// True where a first hop does not answer, or any hop is gone.
    pub fn has_lost_nodes(&self) -> bool {
        self.table.members().iter().any(|entry| {
            let is_gone = self.node(entry.node).state == State::Gone;
            is_gone || self.is_lost(entry.node) && self.table.first_of(entry.node) > 0
        })
    }

    pub fn has_steps(&self) -> bool {
        !self.steps.is_empty()
    }

    pub fn has_surplus(&self) -> bool {
        self.nodes.iter().any(|node| node.surplus > 0)
    }

    /// Takes new connections away from nodes that can't have them, without regard to what is late: a
    /// late node would send them to nobody.
    pub fn replace_lost(&mut self) {
        let table = self.table;
        for (index, hops) in BucketIndex::all().zip(table.buckets()) {
            let keeps = |node: NodeId, of: &Self| of.node(node).state != State::Gone;
            if !self.is_lost(hops.first) {
                if let Some(second) = hops.second.filter(|second| !keeps(*second, self)) {
                    self.note_cut(index, second);
                    self.step(index, StepKind::Replace, hops.first, None);
                }
                continue;
            }
            let failed = Some(hops.first).filter(|first| keeps(*first, self));
            match hops.second {
                // It stays a hop, and may be on its way back: nothing is lost that isn't lost already.
                Some(second) if self.node(second).takes => {
                    let kind = if failed.is_some() {
                        StepKind::Swap
                    } else {
                        self.note_cut(index, hops.first);
                        StepKind::Replace
                    };
                    self.step(index, kind, second, failed);
                }
                second => {
                    let living = second.filter(|second| {
                        !self.is_lost(*second) && !self.is_settled(index, *second)
                    });
                    let second = living
                        .or(failed)
                        .or(second.filter(|second| keeps(*second, self)));
                    let excluded = [Some(hops.first), hops.second];
                    if let Some(taker) = self.anybody(excluded) {
                        self.note_cut(index, hops.first);
                        self.step(index, StepKind::Replace, taker, second);
                    }
                }
            }
        }
    }

    /// Buckets whose first hop has too much and whose second has too little; of an overloaded first hop
    /// also those whose second can bear it until it gives something away.
    pub fn swap_to_takers(&mut self) {
        let table = self.table;
        for (index, hops) in BucketIndex::all().zip(table.buckets()) {
            if self.node(hops.first).surplus <= 0 || self.busy[index.at()] {
                continue;
            }
            let from = *self.node(hops.first);
            let is_hasty = from.is_overloaded && from.surplus > tolerance(from.quota);
            let Some(second) = hops.second.filter(|second| {
                let second = self.node(*second);
                let bears = !second.is_overloaded && second.surplus < tolerance(second.quota);
                second.takes && (second.surplus < 0 || is_hasty && bears)
            }) else {
                continue;
            };
            if self.dwell.may_swap(index) {
                self.step(index, StepKind::Swap, second, Some(hops.first));
            } else {
                // It was staged for this, and is on its way.
                self.busy[index.at()] = true;
                self.nodes[hops.first.index()].surplus -= 1;
                self.nodes[second.index()].surplus += 1;
            }
        }
    }

    /// Puts those who have too little behind those who have too much, where there is room.
    pub fn stage_takers(&mut self) {
        let rooms = [Room::Vacant, Room::Settled, Room::Forced];
        let forced = usize::from(self.situation.may_cut);
        for room in rooms.into_iter().take(2 + forced) {
            let table = self.table;
            for (index, hops) in BucketIndex::all().zip(table.buckets()) {
                let from = self.node(hops.first);
                if from.surplus <= 0 || self.busy[index.at()] {
                    continue;
                }
                // Where the new connections could go to the second hop at once nobody is cut for them.
                let can_wait = from.takes || hops.second.is_some_and(|node| self.node(node).takes);
                if room == Room::Forced && can_wait || !self.has_room(index, hops.second, room) {
                    continue;
                }
                let Some(taker) = self
                    .takers
                    .next(&self.nodes, [Some(hops.first), hops.second])
                else {
                    // Somebody else's bucket may still do for who is left.
                    if self.takers.is_empty() {
                        return;
                    }
                    continue;
                };
                if let Some(second) = hops.second {
                    self.note_cut(index, second);
                }
                self.nodes[hops.first.index()].surplus -= 1;
                self.nodes[taker.index()].surplus += 1;
                self.push(index, StepKind::Stage, hops.first, Some(taker));
            }
        }
    }

    /// Buckets that must leave their first hop and can go to their second alone, for connections live
    /// there: it takes the new ones, too, and gives another bucket away later.
    pub fn swap_away(&mut self) {
        let table = self.table;
        for (index, hops) in BucketIndex::all().zip(table.buckets()) {
            let from = self.node(hops.first);
            if from.surplus <= 0 || self.busy[index.at()] {
                continue;
            }
            let Some(second) = hops.second else {
                continue;
            };
            let to = self.node(second);
            if !to.takes {
                if !from.takes && !self.is_settled(index, second) {
                    self.withheld.extend(self.cut(index, second));
                }
                continue;
            }
            let is_pressing = !from.takes || from.surplus > tolerance(from.quota);
            let has_room = !from.takes || to.surplus < tolerance(to.quota);
            let can_stage = !self.takers.is_empty() && self.is_settled(index, second);
            if is_pressing && has_room && !can_stage && self.dwell.may_swap(index) {
                self.step(index, StepKind::Swap, second, Some(hops.first));
            }
        }
    }

    fn has_room(&self, index: BucketIndex, second: Option<NodeId>, room: Room) -> bool {
        let Some(rests_since) = self.dwell.rests_since(index) else {
            return false;
        };
        let Some(second) = second else {
            return room == Room::Vacant;
        };
        let now = self.situation.now;
        match (self.node(second).state, room) {
            (State::Gone, _) => true,
            (State::Failed { since }, _) => {
                let hold = self.policy.failed_ms;
                now.since(since) >= hold && now.since(rests_since) >= hold
            }
            (_, Room::Vacant) => false,
            (_, Room::Settled) => self.is_settled(index, second),
            (_, Room::Forced) => true,
        }
    }

    fn is_settled(&self, index: BucketIndex, second: NodeId) -> bool {
        let Situation { flows, now, .. } = self.situation;
        self.dwell
            .is_settled(index, second, *flows, *now, self.policy)
    }

    /// Who has most room, whether too little or not.
    fn anybody(&mut self, excluded: [Option<NodeId>; 2]) -> Option<NodeId> {
        if let Some(taker) = self.takers.next(&self.nodes, excluded) {
            return Some(taker);
        }
        let taking = self.members.iter().map(|entry| entry.node);
        taking
            .filter(|node| self.node(*node).takes && !excluded.contains(&Some(*node)))
            .min_by_key(|node| (self.node(*node).surplus, *node))
    }

    /// A step that moves new connections to `first`.
    fn step(&mut self, bucket: BucketIndex, kind: StepKind, first: NodeId, second: Option<NodeId>) {
        let from = self.table.bucket(bucket);
        if let Some(node) = self.nodes.get_mut(from.first.index()) {
            node.surplus -= 1;
        }
        self.nodes[first.index()].surplus += 1;
        self.push(bucket, kind, first, second);
    }

    fn push(&mut self, bucket: BucketIndex, kind: StepKind, first: NodeId, second: Option<NodeId>) {
        self.busy[bucket.at()] = true;
        self.steps.push(Step {
            bucket,
            kind,
            from: self.table.bucket(bucket),
            to: Bucket { first, second },
        });
    }

    /// What is lost of `bucket` when `node` is a hop no more.
    fn cut(&self, bucket: BucketIndex, node: NodeId) -> Option<Cut> {
        if matches!(self.node(node).state, State::Failed { .. }) {
            return None;
        }
        let flows = self.situation.flows.at(node, bucket).map(|seen| seen.flows);
        (flows != Some(0)).then_some(Cut {
            bucket,
            node,
            flows,
        })
    }

    fn note_cut(&mut self, bucket: BucketIndex, node: NodeId) {
        let is_second = self.table.bucket(bucket).second == Some(node);
        if !(is_second && self.is_settled(bucket, node)) {
            self.cuts.extend(self.cut(bucket, node));
        }
    }

    pub fn into_plan(self) -> Option<Plan> {
        let nodes =
            |entries: &[Entry]| -> Vec<NodeId> { entries.iter().map(|entry| entry.node).collect() };
        let is_same = nodes(&self.members) == nodes(self.table.members());
        (!self.steps.is_empty() || !is_same).then(|| Plan {
            generation: self.table.generation().next(),
            members: self.members,
            steps: self.steps,
            cuts: self.cuts,
            withheld: self.withheld,
        })
    }
}

impl Takers {
    fn new(shares: &[Share], nodes: &[Node]) -> Self {
        let mut takers: Vec<NodeId> = shares.iter().map(|share| share.node).collect();
        takers.retain(|node| nodes[node.index()].surplus < 0);
        Self {
            nodes: takers,
            at: 0,
        }
    }

    fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    fn next(&mut self, nodes: &[Node], excluded: [Option<NodeId>; 2]) -> Option<NodeId> {
        let mut tried = 0;
        while tried < self.nodes.len() {
            self.at %= self.nodes.len();
            let node = self.nodes[self.at];
            if nodes[node.index()].surplus >= 0 {
                self.nodes.remove(self.at);
            } else {
                self.at += 1;
                tried += 1;
                if !excluded.contains(&Some(node)) {
                    return Some(node);
                }
            }
        }
        None
    }
}

/// Members of the next table, those without a share included.
fn entries(standings: &[super::Standing], shares: &[Share]) -> Vec<Entry> {
    let mut entries: Vec<Entry> = standings
        .iter()
        .filter(|one| one.state != State::Gone)
        .map(|one| {
            let share = shares.binary_search_by_key(&one.node, |share| share.node);
            Entry {
                node: one.node,
                weight: share.map_or(0, |at| shares[at].weight),
            }
        })
        .collect();
    entries.sort_unstable_by_key(|entry| entry.node);
    entries
}

/// Buckets that a node may have above its quota.
fn tolerance(quota: u32) -> i64 {
    1 + i64::from(quota) / TOLERANCE_PART
}
