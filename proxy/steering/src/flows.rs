//! What nodes say about living connections: how many of a bucket are at a node, and when that was true.

use std::collections::BTreeMap;

use crate::{BucketIndex, Error, Millis, NodeId};

/// Connections of one bucket at one node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub flows: u32,
    /// When they were counted, by the clock of whoever asks.
    pub taken_at: Millis,
}

/// Where the planner learns of living connections.
pub trait Flows {
    /// `None` where the node has not said.
    fn at(&self, node: NodeId, bucket: BucketIndex) -> Option<Seen>;
}

/// The last report of every node: it knows its sessions and computes their buckets as the steering
/// programs do.
#[derive(Debug, Clone, Default)]
pub struct Reports {
    nodes: BTreeMap<NodeId, Report>,
}

#[derive(Debug, Clone)]
struct Report {
    taken_at: Millis,
    /// INVARIANT: ascending by bucket, each once; buckets without a connection are left out.
    flows: Vec<(BucketIndex, u32)>,
}

impl Reports {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a whole report: a bucket that is not in it has no connection at the node.
    ///
    /// # Errors
    /// Its buckets are not ascending. The last report of the node stays.
    pub fn take(
        &mut self,
        node: NodeId,
        taken_at: Millis,
        flows: Vec<(BucketIndex, u32)>,
    ) -> Result<(), Error> {
        // Ascending indices of 16 bits are also the bound of the report's length.
        if let Some(pair) = flows.windows(2).find(|pair| pair[0].0 >= pair[1].0) {
            return Err(Error::ReportOrder(pair[1].0.0));
        }
        self.nodes.insert(node, Report { taken_at, flows });
        Ok(())
    }

    /// The node says that its last report was still true then.
    pub fn confirm(&mut self, node: NodeId, taken_at: Millis) {
        if let Some(report) = self.nodes.get_mut(&node) {
            report.taken_at = report.taken_at.max(taken_at);
        }
    }

    /// All connections of the node's last report.
    #[must_use]
    pub fn total(&self, node: NodeId) -> Option<u64> {
        let report = self.nodes.get(&node)?;
        let flows = report.flows.iter().map(|(_, flows)| u64::from(*flows));
        Some(flows.sum())
    }

    /// Forgets what a node said: it is gone.
    pub fn forget(&mut self, node: NodeId) {
        self.nodes.remove(&node);
    }
}

impl Flows for Reports {
    fn at(&self, node: NodeId, bucket: BucketIndex) -> Option<Seen> {
        let report = self.nodes.get(&node)?;
        let found = report.flows.binary_search_by_key(&bucket, |entry| entry.0);
        Some(Seen {
            flows: found.map_or(0, |at| report.flows[at].1),
            taken_at: report.taken_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_speaks_of_every_bucket_and_a_broken_one_changes_nothing() {
        let [one, other] = [1, 2].map(|number| NodeId::new(number).unwrap());
        let mut reports = Reports::new();
        let flows = vec![(BucketIndex(3), 2), (BucketIndex(9), 1)];
        reports.take(one, Millis(5), flows).unwrap();
        let check = |reports: &Reports, node, bucket, expected: Option<u32>| {
            let seen = reports.at(node, BucketIndex(bucket));
            assert_eq!(seen.map(|seen| seen.flows), expected, "{node} {bucket}");
        };
        check(&reports, one, 3, Some(2));
        check(&reports, one, 4, Some(0));
        check(&reports, other, 3, None);

        let twice = vec![(BucketIndex(9), 1), (BucketIndex(9), 1)];
        let refused = reports.take(one, Millis(6), twice);
        assert_eq!(refused, Err(Error::ReportOrder(9)));
        check(&reports, one, 3, Some(2));
        assert_eq!((reports.total(one), reports.total(other)), (Some(3), None));

        let taken_at = |reports: &Reports| reports.at(one, BucketIndex(3)).unwrap().taken_at;
        reports.confirm(one, Millis(9));
        assert_eq!(taken_at(&reports), Millis(9));
        reports.confirm(one, Millis(8));
        assert_eq!(taken_at(&reports), Millis(9));
        reports.forget(one);
        check(&reports, one, 3, None);
    }
}
