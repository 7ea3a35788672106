//! How long a bucket must rest: until its second hop has no connection left and every node knows its last step.

use std::collections::VecDeque;

use crate::flows::Flows;
use crate::plan::{Plan, StepKind};
use crate::{BUCKETS, BucketIndex, Generation, Millis, NodeId, Table};

/// Acknowledgements that are remembered: the oldest are forgotten first, which makes buckets rest longer.
const ACKNOWLEDGEMENTS_MAX: usize = 16_384;

/// When a second hop is empty.
///
/// A node's own count of its connections decides, because it is exact: desktops end after minutes or
/// after ten hours, and nobody wants to wait for the longest. Where a node doesn't report, time decides:
/// no session may be longer than `session_ms_max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DwellPolicy {
    /// The longest session that policies allow.
    pub session_ms_max: u64,
    /// From a first packet to a connection that is counted, at most: the kernel repeats a SYN-ACK for 63 s,
    /// and a SYN cookie leaves nothing to count until it comes back.
    pub embryo_ms: u64,
    /// A second hop that has failed may come back with its connections for this long.
    pub failed_ms: u64,
}

impl Default for DwellPolicy {
    fn default() -> Self {
        Self {
            session_ms_max: 12 * 3_600 * 1_000,
            embryo_ms: 64_000,
            failed_ms: 60_000,
        }
    }
}

/// Last steps of one bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rest {
    /// Table since which it has had these two hops, in any order.
    paired: Generation,
    /// Table since which they have had this order.
    ordered: Generation,
}

/// The last steps of every bucket, and when everybody knew of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dwell {
    rests: Vec<Rest>,
    /// INVARIANT: ascending in both.
    acknowledged: VecDeque<(Generation, Millis)>,
}

impl Dwell {
    /// Of a table whose past is not known: every bucket counts as moved just now.
    #[must_use]
    pub fn new(table: &Table) -> Self {
        let rest = Rest {
            paired: table.generation(),
            ordered: table.generation(),
        };
        Self {
            rests: vec![rest; BUCKETS],
            acknowledged: VecDeque::new(),
        }
    }

    /// Notes that every node that steers has `generation` or a later one.
    pub fn acknowledge(&mut self, generation: Generation, now: Millis) {
        if self.acknowledged() < Some(generation) {
            self.acknowledged.push_back((generation, now));
            if self.acknowledged.len() > ACKNOWLEDGEMENTS_MAX {
                self.acknowledged.pop_front();
            }
        }
    }

    /// Notes the steps of a plan that is in force.
    pub fn note(&mut self, plan: &Plan) {
        for step in plan.steps() {
            let rest = &mut self.rests[step.bucket.at()];
            rest.ordered = plan.generation();
            if step.kind != StepKind::Swap {
                rest.paired = plan.generation();
            }
        }
    }

    /// What everybody who steers has.
    pub(crate) fn acknowledged(&self) -> Option<Generation> {
        self.acknowledged.back().map(|(generation, _)| *generation)
    }

    /// True where every node has both hops, so that they may change places.
    pub(crate) fn may_swap(&self, bucket: BucketIndex) -> bool {
        self.acknowledged() >= Some(self.rests[bucket.at()].paired)
    }

    /// Since when every node has the bucket as it is.
    pub(crate) fn rests_since(&self, bucket: BucketIndex) -> Option<Millis> {
        let ordered = self.rests[bucket.at()].ordered;
        let at = self
            .acknowledged
            .partition_point(|(generation, _)| *generation < ordered);
        self.acknowledged.get(at).map(|(_, moment)| *moment)
    }

    /// True where no connection of the bucket can live at `node`, its second hop.
    pub(crate) fn is_settled(
        &self,
        bucket: BucketIndex,
        node: NodeId,
        flows: &impl Flows,
        now: Millis,
        policy: &DwellPolicy,
    ) -> bool {
        let Some(since) = self.rests_since(bucket) else {
            return false;
        };
        if now.since(since) >= policy.session_ms_max.saturating_add(policy.embryo_ms) {
            return true;
        }
        let quiet = since.plus(policy.embryo_ms);
        // The count is asked for last: it may be dear.
        now >= quiet
            && flows
                .at(node, bucket)
                .is_some_and(|seen| seen.flows == 0 && seen.taken_at >= quiet)
    }

    /// The generation of the bucket's last step.
    pub(crate) fn ordered(&self, bucket: BucketIndex) -> Generation {
        self.rests[bucket.at()].ordered
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Seen, Weight};

    /// What a second hop says.
    struct Says(Option<Seen>);

    impl Flows for Says {
        fn at(&self, _: NodeId, _: BucketIndex) -> Option<Seen> {
            self.0
        }
    }

    const POLICY: DwellPolicy = DwellPolicy {
        session_ms_max: 100_000,
        embryo_ms: 10_000,
        failed_ms: 0,
    };

    #[test]
    fn a_second_hop_is_empty_when_it_says_so_late_enough_or_no_session_is_that_long() {
        let members = [1, 2].map(|number| {
            let node = NodeId::new(number).expect("it is not 0");
            (node, Weight::new(1).expect("it is in range"))
        });
        let table = Table::initial(Generation(5), &members).expect("it has members");
        let check = |acknowledged: u64, now: u64, said: Option<(u32, u64)>, expected: bool| {
            let mut dwell = Dwell::new(&table);
            dwell.acknowledge(Generation(acknowledged), Millis(1_000));
            let says = Says(said.map(|(flows, taken_at)| Seen {
                flows,
                taken_at: Millis(taken_at),
            }));
            let (bucket, node) = (BucketIndex(0), members[1].0);
            let settled = dwell.is_settled(bucket, node, &says, Millis(now), &POLICY);
            assert_eq!(settled, expected, "{acknowledged} {now} {said:?}");
        };
        check(5, 12_000, Some((0, 11_000)), true);
        check(6, 12_000, Some((0, 11_000)), true);
        // A connection lives.
        check(5, 12_000, Some((1, 11_000)), false);
        // Somebody still sends new connections there.
        check(4, 12_000, Some((0, 11_000)), false);
        // Connections may be on their way that were not counted yet.
        check(5, 12_000, Some((0, 10_999)), false);
        check(5, 10_999, Some((0, 10_999)), false);
        // It doesn't say.
        check(5, 12_000, None, false);
        check(5, 110_999, None, false);
        check(5, 111_000, None, true);
        check(4, 111_000, None, false);
    }
}
