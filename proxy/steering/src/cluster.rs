//! All members and the table in force: what comes in from outside, and the plan that follows from it.

use std::collections::BTreeSet;

use crate::dwell::{Dwell, DwellPolicy};
use crate::explain::Explanation;
use crate::flows::Flows;
use crate::health::HealthPolicy;
use crate::load::LoadPolicy;
use crate::member::{Heartbeat, Intent, Member, State, Weight};
use crate::plan::{Plan, Situation, Standing, plan};
use crate::{BucketIndex, Error, Generation, Millis, NodeId, Table};

/// Everything that can be set.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Policy {
    pub health: HealthPolicy,
    pub load: LoadPolicy,
    pub dwell: DwellPolicy,
    /// A node that steers by an old table for longer has failed: it holds up everybody.
    pub behind_ms_max: u64,
    /// Where nothing has changed, buckets that wait are looked at again after this.
    pub retry_ms: u64,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            health: HealthPolicy::default(),
            load: LoadPolicy::default(),
            dwell: DwellPolicy::default(),
            behind_ms_max: 30_000,
            retry_ms: 10_000,
        }
    }
}

/// The deciding side of the cluster.
#[derive(Debug, Clone)]
pub struct Cluster {
    policy: Policy,
    /// By number.
    members: Vec<Option<Member>>,
    /// Taken out, and perhaps still in the table.
    leaving: BTreeSet<NodeId>,
    table: Table,
    dwell: Dwell,
    /// What the last plan was made from.
    planned: Option<(Vec<Standing>, Generation, Millis)>,
}

impl Cluster {
    /// Takes a table over, its past unknown: no bucket rests yet, and members are as they will be heard.
    #[must_use]
    pub fn new(table: Table, policy: Policy) -> Self {
        Self {
            policy,
            members: Vec::new(),
            leaving: BTreeSet::new(),
            dwell: Dwell::new(&table),
            table,
            planned: None,
        }
    }

    #[must_use]
    pub fn table(&self) -> &Table {
        &self.table
    }

    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().flatten()
    }

    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.members.get(node.index())?.as_ref()
    }

    fn member_mut(&mut self, node: NodeId) -> Result<&mut Member, Error> {
        let place = self.members.get_mut(node.index());
        place
            .and_then(Option::as_mut)
            .ok_or(Error::NotAMember(node))
    }

    /// A node that may take part once it is heard; one that the table has already does so at once.
    ///
    /// # Errors
    /// It is there already, or there are as many as a table can have.
    pub fn admit(&mut self, node: NodeId, weight: Weight, now: Millis) -> Result<(), Error> {
        if self.member(node).is_some() {
            return Err(Error::AlreadyAMember(node));
        }
        let count = self.members().count();
        if count >= crate::MEMBERS_MAX {
            return Err(Error::TooManyMembers(count + 1));
        }
        if self.members.len() <= node.index() {
            self.members.resize(node.index() + 1, None);
        }
        let is_in_force = self.table.entry(node).is_some() && !self.leaving.contains(&node);
        self.members[node.index()] = Some(if is_in_force {
            Member::presumed(node, weight, now)
        } else {
            Member::new(node, weight)
        });
        self.leaving.remove(&node);
        Ok(())
    }

    /// Takes a node out: it is no hop of the next table. What that cuts is in [`Self::preview`].
    ///
    /// # Errors
    /// It is not a member.
    pub fn remove(&mut self, node: NodeId) -> Result<(), Error> {
        self.member_mut(node)?;
        self.members[node.index()] = None;
        self.leaving.insert(node);
        Ok(())
    }

    /// # Errors
    /// It is not a member.
    pub fn intend(&mut self, node: NodeId, intent: Intent) -> Result<(), Error> {
        self.member_mut(node)?.intent = intent;
        Ok(())
    }

    /// # Errors
    /// It is not a member.
    pub fn reweigh(&mut self, node: NodeId, weight: Weight) -> Result<(), Error> {
        self.member_mut(node)?.weight = weight;
        Ok(())
    }

    /// # Errors
    /// It is not a member, or its load makes no sense.
    pub fn heard(&mut self, node: NodeId, heartbeat: &Heartbeat, now: Millis) -> Result<(), Error> {
        let policy = self.policy.load;
        self.member_mut(node)?.heard(heartbeat, now, &policy)
    }

    /// # Errors
    /// It is not a member.
    pub fn probed(&mut self, node: NodeId, is_good: bool) -> Result<(), Error> {
        self.member_mut(node)?.probed(is_good);
        Ok(())
    }

    /// Judges everybody, and plans where that could lead to another plan than the last time.
    pub fn tick(&mut self, now: Millis, flows: &impl Flows) -> Option<Plan> {
        let newest = self.table.generation();
        let steers = |member: &Member| matches!(member.state(), State::Up | State::Draining);
        let floor = if self.members().any(steers) {
            self.dwell.acknowledged().unwrap_or_default()
        } else {
            newest
        };
        let Policy {
            health,
            behind_ms_max,
            ..
        } = self.policy;
        for member in self.members.iter_mut().flatten() {
            member.judge(now, newest, floor, &health, behind_ms_max);
        }
        let acknowledged = self.acknowledged();
        self.dwell.acknowledge(acknowledged, now);
        let standings = self.standings();
        if let Some((before, known, at)) = &self.planned
            && *before == standings
            && *known == acknowledged
            && now.since(*at) < self.policy.retry_ms
        {
            return None;
        }
        let plan = self.plan(&standings, flows, now, false);
        self.planned = Some((standings, acknowledged, now));
        plan
    }

    /// The plan if `node` were in `state` now, with what it cuts; nothing changes.
    #[must_use]
    pub fn preview(
        &self,
        node: NodeId,
        state: State,
        now: Millis,
        flows: &impl Flows,
    ) -> Option<Plan> {
        let mut standings = self.standings();
        let one = standings.iter_mut().find(|one| one.node == node)?;
        one.state = state;
        self.plan(&standings, flows, now, false)
    }

    /// The plan that doesn't wait for connections between two nodes that drain; what it cuts is in it.
    #[must_use]
    pub fn forced(&self, now: Millis, flows: &impl Flows) -> Option<Plan> {
        self.plan(&self.standings(), flows, now, true)
    }

    fn plan(
        &self,
        standings: &[Standing],
        flows: &impl Flows,
        now: Millis,
        may_cut: bool,
    ) -> Option<Plan> {
        let situation = Situation {
            members: standings,
            flows,
            now,
            may_cut,
        };
        plan(&self.table, &self.dwell, &self.policy.dwell, &situation)
    }

    /// The plan is in force: the store has taken its table.
    ///
    /// # Errors
    /// It was made for another table.
    pub fn commit(&mut self, plan: &Plan) -> Result<(), Error> {
        self.table.apply(plan)?;
        self.dwell.note(plan);
        let table = &self.table;
        self.leaving.retain(|node| table.entry(*node).is_some());
        self.planned = None;
        Ok(())
    }

    #[must_use]
    pub fn explain(&self, bucket: BucketIndex, now: Millis, flows: &impl Flows) -> Explanation {
        let standings = self.standings();
        let situation = Situation {
            members: &standings,
            flows,
            now,
            may_cut: false,
        };
        Explanation::new(&self.table, &self.dwell, &situation, bucket)
    }

    /// The oldest table that a node steers by.
    /// 0 while one of them hasn't told.
    #[must_use]
    pub fn acknowledged(&self) -> Generation {
        self.members()
            .filter(|member| matches!(member.state(), State::Up | State::Draining))
            .map(Member::acknowledged)
            .min()
            .unwrap_or_default()
    }

    fn standings(&self) -> Vec<Standing> {
        let members = self.members().map(|member| Standing {
            node: member.id,
            state: member.state(),
            weight: member.target_weight(),
            is_overloaded: member.is_overloaded(),
        });
        let leaving = self.leaving.iter().map(|node| Standing {
            node: *node,
            state: State::Gone,
            weight: 0,
            is_overloaded: false,
        });
        members.chain(leaving).collect()
    }
}
