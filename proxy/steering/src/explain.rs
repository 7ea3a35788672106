//! Why a bucket is where it is, in words for an operator.

use std::fmt;

use crate::dwell::Dwell;
use crate::flows::{Flows, Seen};
use crate::member::State;
use crate::plan::{Situation, Standing};
use crate::{BucketIndex, Generation, Millis, NodeId, Table};

/// Everything that decides about one bucket.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    bucket: BucketIndex,
    generation: Generation,
    ordered: Generation,
    rests_since: Option<Millis>,
    first: Hop,
    second: Option<Hop>,
    now: Millis,
}

#[derive(Debug, Clone, PartialEq)]
struct Hop {
    node: NodeId,
    state: State,
    weight: u32,
    buckets: u32,
    seen: Option<Seen>,
}

impl Explanation {
    /// Of one bucket of `table`.
    #[must_use]
    pub fn new<F: Flows>(
        table: &Table,
        dwell: &Dwell,
        situation: &Situation<'_, F>,
        bucket: BucketIndex,
    ) -> Self {
        let hop = |node: NodeId| {
            let standing = situation.members.iter().find(|one| one.node == node);
            Hop {
                node,
                state: standing.map_or(State::Gone, |one: &Standing| one.state),
                weight: standing.map_or(0, |one| one.weight),
                buckets: table.first_of(node),
                seen: situation.flows.at(node, bucket),
            }
        };
        let hops = table.bucket(bucket);
        Self {
            bucket,
            generation: table.generation(),
            ordered: dwell.ordered(bucket),
            rests_since: dwell.rests_since(bucket),
            first: hop(hops.first),
            second: hops.second.map(hop),
            now: situation.now,
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "bucket {:#06x} of {}", self.bucket.0, self.generation)?;
        write!(out, "  new connections: {}", self.first)?;
        match &self.second {
            Some(second) => write!(out, "\n  those it doesn't know: {second}")?,
            None => write!(
                out,
                "\n  those it doesn't know: refused, there is no second hop"
            )?,
        }
        write!(out, "\n  as it is since {}", self.ordered)?;
        match self.rests_since {
            Some(since) => {
                let seconds = self.now.since(since) / 1_000;
                write!(out, ", which every node has had for {seconds} s")
            }
            None => write!(out, ", which not every node has yet"),
        }
    }
}

impl fmt::Display for Hop {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Joining => "joining",
            State::Up => "up",
            State::Draining => "draining",
            State::Failed { .. } => "failed",
            State::Gone => "gone",
        };
        write!(
            out,
            "{} ({state}, weight {}, {} buckets",
            self.node, self.weight, self.buckets
        )?;
        match self.seen {
            Some(seen) => write!(out, ", {} connections here)", seen.flows),
            None => write!(out, ", has not told its connections)"),
        }
    }
}
