//! Targets to steps: the fewest buckets move, none that would cut a living connection, each in the order that late nodes bear.

mod draft;

use crate::dwell::{Dwell, DwellPolicy};
use crate::flows::Flows;
use crate::member::State;
use crate::table::{Bucket, Entry, Table};
use crate::{BucketIndex, Generation, Millis, NodeId};

use draft::Draft;

/// A member, as far as the table cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    pub node: NodeId,
    pub state: State,
    /// Target weight, in any unit that all members share.
    pub weight: u32,
    /// It has lost so much of its weight to load that haste is worth more moves than need be.
    pub is_overloaded: bool,
}

/// What a plan is made from, beside the table and its past.
#[derive(Debug)]
pub struct Situation<'a, F> {
    pub members: &'a [Standing],
    pub flows: &'a F,
    pub now: Millis,
    /// A bucket between two nodes that both take nothing new waits for the connections of one of them to
    /// end. With this it does not.
    pub may_cut: bool,
}

/// What a bucket does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StepKind {
    /// The hops change places.
    Swap,
    /// Another node becomes the second hop.
    Stage,
    /// Another node becomes the first hop, for that one has failed or is gone; or a second hop that is
    /// gone is dropped.
    Replace,
}

/// One bucket's change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    pub bucket: BucketIndex,
    pub kind: StepKind,
    pub from: Bucket,
    pub to: Bucket,
}

/// Connections that a step ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    pub bucket: BucketIndex,
    pub node: NodeId,
    /// How many; `None` where the node hasn't told.
    pub flows: Option<u32>,
}

/// The way from one table to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    generation: Generation,
    members: Vec<Entry>,
    steps: Vec<Step>,
    cuts: Vec<Cut>,
    withheld: Vec<Cut>,
}

impl Plan {
    /// The same table again as the next generation: whoever acknowledges it has heard what went along.
    #[must_use]
    pub fn again(table: &Table) -> Self {
        Self {
            generation: table.generation().next(),
            members: table.members().to_vec(),
            steps: Vec::new(),
            cuts: Vec::new(),
            withheld: Vec::new(),
        }
    }

    /// Of the table that it leads to.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    pub(crate) fn members(&self) -> &[Entry] {
        &self.members
    }

    /// At most one for each bucket.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Buckets whose new connections go elsewhere.
    #[must_use]
    pub fn moves(&self) -> usize {
        let moves = |step: &&Step| step.from.first != step.to.first;
        self.steps.iter().filter(moves).count()
    }

    /// What it ends on nodes that have not failed: nothing, unless cutting was allowed or a node was
    /// taken out with its connections.
    #[must_use]
    pub fn cuts(&self) -> &[Cut] {
        &self.cuts
    }

    /// What it would end if cutting were allowed: buckets that wait.
    #[must_use]
    pub fn withheld(&self) -> &[Cut] {
        &self.withheld
    }
}

/// The next step of the way to the targets; `None` where there is nothing to do or nothing can be done
/// yet. The same inputs always give the same plan.
///
/// With nobody left who could take connections the table stays: the last one may still be right.
#[must_use]
pub fn plan<F: Flows>(
    table: &Table,
    dwell: &Dwell,
    policy: &DwellPolicy,
    situation: &Situation<'_, F>,
) -> Option<Plan> {
    let mut draft = Draft::new(table, dwell, policy, situation)?;
    if draft.has_lost_nodes() {
        draft.replace_lost();
    }
    // What is lost goes first and alone: it is urgent, and shares are not.
    if !draft.has_steps() && draft.has_surplus() {
        draft.swap_to_takers();
        draft.stage_takers();
        draft.swap_away();
    }
    draft.into_plan()
}
