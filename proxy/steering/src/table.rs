//! The table that every node steers by: buckets with two hops each, and who may be a hop.

use crate::quota::{Share, quotas};
use crate::{BUCKETS, BucketIndex, Error, Generation, NodeId, Plan, Weight};

/// Members that a table can have: the encoded table stays well below what stores take as one value.
pub const MEMBERS_MAX: usize = 4_096;

/// Odd, so that every bucket is reached once; far from any small fraction, so that the stand-ins of one
/// node's buckets are spread over all others.
const STRIDE: usize = 40_503;

/// Where connections of a bucket are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bucket {
    /// Takes new connections.
    pub first: NodeId,
    /// Is asked for connections that the first does not know.
    pub second: Option<NodeId>,
}

impl Bucket {
    /// True where connections at `node` are found.
    #[must_use]
    pub fn reaches(self, node: NodeId) -> bool {
        self.first == node || self.second == Some(node)
    }
}

/// A member, as the table knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub node: NodeId,
    /// What the table was made for; 0 of a node that gets no new connections.
    pub weight: u32,
}

/// One generation of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    generation: Generation,
    /// INVARIANT: ascending by node, at least one, each hop of a bucket among them.
    members: Vec<Entry>,
    /// INVARIANT: [`BUCKETS`] of them; no bucket has a node as both hops.
    buckets: Box<[Bucket]>,
    /// INVARIANT: how many buckets a node is the first hop of, by its number.
    firsts: Vec<u32>,
}

impl Table {
    /// The first table of a cluster: shares by weight, and a stand-in for every bucket.
    ///
    /// # Errors
    /// There is no member, or too many, or one of them twice.
    pub fn initial(generation: Generation, members: &[(NodeId, Weight)]) -> Result<Self, Error> {
        let mut entries: Vec<Entry> = members
            .iter()
            .map(|(node, weight)| Entry {
                node: *node,
                weight: weight.get(),
            })
            .collect();
        entries.sort_unstable_by_key(|entry| entry.node);
        let shares: Vec<Share> = entries
            .iter()
            .map(|entry| Share {
                node: entry.node,
                weight: entry.weight,
                has: 0,
            })
            .collect();
        let owners: Vec<NodeId> = shares
            .iter()
            .zip(quotas(&shares))
            .flat_map(|(share, quota)| std::iter::repeat_n(share.node, quota as usize))
            .collect();
        let stand_in = |at: usize| {
            let first = owners[at];
            (0..BUCKETS)
                .map(|step| owners[((at + 1) * STRIDE + step * STRIDE) % BUCKETS])
                .find(|other| *other != first)
        };
        let is_alone = entries.len() < 2;
        let buckets = (0..owners.len())
            .map(|at| Bucket {
                first: owners[at],
                second: if is_alone { None } else { stand_in(at) },
            })
            .collect();
        Self::new(generation, entries, buckets)
    }

    /// A table of parts that came from anywhere.
    ///
    /// # Errors
    /// The parts are not a table.
    pub(crate) fn new(
        generation: Generation,
        members: Vec<Entry>,
        buckets: Vec<Bucket>,
    ) -> Result<Self, Error> {
        if members.is_empty() {
            return Err(Error::NoMembers);
        }
        if members.len() > MEMBERS_MAX {
            return Err(Error::TooManyMembers(members.len()));
        }
        if let Some(pair) = members.windows(2).find(|pair| pair[0].node >= pair[1].node) {
            return Err(Error::MemberOrder(pair[1].node));
        }
        if buckets.len() != BUCKETS {
            return Err(Error::Length {
                found: buckets.len(),
                expected: BUCKETS,
            });
        }
        let last = members.last().map_or(0, |entry| entry.node.index());
        let mut is_member = vec![false; last + 1];
        for entry in &members {
            is_member[entry.node.index()] = true;
        }
        let known = |node: NodeId| is_member.get(node.index()) == Some(&true);
        let mut firsts = vec![0; last + 1];
        for (index, bucket) in BucketIndex::all().zip(&buckets) {
            let hops = [Some(bucket.first), bucket.second];
            if let Some(node) = hops.into_iter().flatten().find(|node| !known(*node)) {
                return Err(Error::UnknownNode {
                    bucket: index.0,
                    node,
                });
            }
            if bucket.second == Some(bucket.first) {
                return Err(Error::SameHops {
                    bucket: index.0,
                    node: bucket.first,
                });
            }
            firsts[bucket.first.index()] += 1;
        }
        Ok(Self {
            generation,
            members,
            buckets: buckets.into_boxed_slice(),
            firsts,
        })
    }

    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    #[must_use]
    pub fn members(&self) -> &[Entry] {
        &self.members
    }

    #[must_use]
    pub fn bucket(&self, index: BucketIndex) -> Bucket {
        self.buckets[index.at()]
    }

    #[must_use]
    pub fn buckets(&self) -> &[Bucket] {
        &self.buckets
    }

    /// Buckets whose new connections go to `node`.
    #[must_use]
    pub fn first_of(&self, node: NodeId) -> u32 {
        self.firsts.get(node.index()).copied().unwrap_or_default()
    }

    #[must_use]
    pub fn entry(&self, node: NodeId) -> Option<&Entry> {
        let at = self.members.binary_search_by_key(&node, |entry| entry.node);
        at.ok().map(|at| &self.members[at])
    }

    /// The same table under another number: it is taken up where newer ones are known and lost.
    #[must_use]
    pub fn renumbered(self, generation: Generation) -> Self {
        Self { generation, ..self }
    }

    /// The next generation, in place.
    ///
    /// # Errors
    /// The plan was made for another generation.
    pub fn apply(&mut self, plan: &Plan) -> Result<(), Error> {
        let planned = plan.generation();
        if planned != self.generation.next() {
            return Err(Error::StalePlan {
                planned,
                current: self.generation,
            });
        }
        self.generation = planned;
        self.members = plan.members().to_vec();
        let last = self.members.last().map_or(0, |entry| entry.node.index());
        // Steps first: a node that leaves still gives up its buckets.
        self.firsts.resize(self.firsts.len().max(last + 1), 0);
        for step in plan.steps() {
            let bucket = &mut self.buckets[step.bucket.at()];
            self.firsts[bucket.first.index()] -= 1;
            self.firsts[step.to.first.index()] += 1;
            *bucket = step.to;
        }
        self.firsts.truncate(last + 1);
        Ok(())
    }

    /// The next generation, beside this one.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn after(&self, plan: &Plan) -> Result<Self, Error> {
        let mut next = self.clone();
        next.apply(plan)?;
        Ok(next)
    }
}
