//! What we are compared with: hashes that look a session's node up anew for every packet, without a second hop.

use super::random::mix;
use postern_steering::BUCKETS;

/// Schemes that are compared with ours.
pub const SCHEMES: usize = 3;

/// Entries of the paper's smaller Maglev table, about as many as ours has buckets, and of its larger
/// one; both prime.
const MAGLEV_ENTRIES: usize = 65_537;
const MAGLEV_ENTRIES_LARGE: usize = 655_373;

/// Nodes with their weights, 0 of those that take nothing.
type Weights = [u32];

pub trait Scheme {
    fn name(&self) -> &'static str;
    /// The node of a session; 0 is nobody.
    fn node(&self, hash: u64) -> u16;
    /// Takes new weights, and returns how many entries changed.
    fn rebuild(&mut self, weights: &Weights) -> usize;
    /// Entries of each node, and of how many.
    fn entries(&self) -> &[u16];
}

/// Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, §3.4,
/// without its connection table; weights by turns.
#[derive(Debug)]
pub struct Maglev {
    name: &'static str,
    entries: Vec<u16>,
}

impl Maglev {
    pub fn small() -> Self {
        Self {
            name: "maglev",
            entries: vec![0; MAGLEV_ENTRIES],
        }
    }

    pub fn large() -> Self {
        Self {
            name: "maglev-large",
            entries: vec![0; MAGLEV_ENTRIES_LARGE],
        }
    }
}

impl Scheme for Maglev {
    fn name(&self) -> &'static str {
        self.name
    }

    fn node(&self, hash: u64) -> u16 {
        self.entries[(hash % self.entries.len() as u64) as usize]
    }

    fn rebuild(&mut self, weights: &Weights) -> usize {
        let count = self.entries.len();
        let heaviest = weights.iter().copied().max().unwrap_or_default();
        if heaviest == 0 {
            return 0;
        }
        /// A node's permutation of the entries, and where it is in it.
        struct Turn {
            node: u16,
            at: usize,
            skip: usize,
            weight: u32,
            credit: u32,
        }
        let mut turns: Vec<Turn> = (0_u16..)
            .zip(weights)
            .filter(|(_, weight)| **weight > 0)
            .map(|(node, weight)| {
                let hash = mix(u64::from(node));
                Turn {
                    node,
                    at: (hash % count as u64) as usize,
                    skip: 1 + (mix(hash) % (count as u64 - 1)) as usize,
                    weight: *weight,
                    credit: 0,
                }
            })
            .collect();
        let mut entries = vec![0_u16; count];
        let mut left = count;
        while left > 0 {
            for turn in &mut turns {
                turn.credit += turn.weight;
                if turn.credit < heaviest || left == 0 {
                    continue;
                }
                turn.credit -= heaviest;
                while entries[turn.at] != 0 {
                    turn.at += turn.skip;
                    if turn.at >= count {
                        turn.at -= count;
                    }
                }
                entries[turn.at] = turn.node;
                left -= 1;
            }
        }
        replace(&mut self.entries, entries)
    }

    fn entries(&self) -> &[u16] {
        &self.entries
    }
}

/// Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998, weighted: the
/// node with the least −ln(hash)/weight, for as many keys as our table has buckets.
#[derive(Debug)]
pub struct Rendezvous {
    weights: Vec<u32>,
    entries: Vec<u16>,
    costs: Vec<f64>,
}

impl Rendezvous {
    pub fn new(nodes: u16) -> Self {
        Self {
            weights: vec![0; usize::from(nodes) + 1],
            entries: vec![0; BUCKETS],
            costs: vec![f64::INFINITY; BUCKETS],
        }
    }

    /// The best of all nodes for one key.
    fn choose(&mut self, key: usize) {
        let (mut best, mut least) = (0, f64::INFINITY);
        for (node, weight) in (0_u16..).zip(&self.weights) {
            let cost = cost(key, node, *weight);
            if cost < least {
                (best, least) = (node, cost);
            }
        }
        (self.entries[key], self.costs[key]) = (best, least);
    }
}

impl Scheme for Rendezvous {
    fn name(&self) -> &'static str {
        "rendezvous"
    }

    fn node(&self, hash: u64) -> u16 {
        self.entries[(hash >> 48) as usize]
    }

    fn rebuild(&mut self, weights: &Weights) -> usize {
        let before = self.entries.clone();
        let changed: Vec<u16> = (0_u16..)
            .zip(weights.iter().zip(&self.weights))
            .filter(|(_, (new, old))| new != old)
            .map(|(node, _)| node)
            .collect();
        let old = std::mem::replace(&mut self.weights, weights.to_vec());
        for node in changed {
            let (new, old) = (weights[usize::from(node)], old[usize::from(node)]);
            for key in 0..BUCKETS {
                if self.entries[key] == node && new < old {
                    self.choose(key);
                } else if new > old {
                    let cost = cost(key, node, new);
                    if cost < self.costs[key] {
                        (self.entries[key], self.costs[key]) = (node, cost);
                    }
                }
            }
        }
        let after = std::mem::replace(&mut self.entries, before);
        replace(&mut self.entries, after)
    }

    fn entries(&self) -> &[u16] {
        &self.entries
    }
}

fn cost(key: usize, node: u16, weight: u32) -> f64 {
    if weight == 0 {
        return f64::INFINITY;
    }
    let hash = mix((key as u64) << 16 | u64::from(node));
    let part = ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -part.ln() / f64::from(weight)
}

/// Puts new entries in force, and returns how many differ.
fn replace(entries: &mut Vec<u16>, new: Vec<u16>) -> usize {
    let changed = entries.iter().zip(&new).filter(|(old, new)| old != new);
    let changed = changed.count();
    *entries = new;
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_follow_weights_and_few_entries_change() {
        let schemes: [Box<dyn Scheme>; SCHEMES] = [
            Box::new(Maglev::small()),
            Box::new(Maglev::large()),
            Box::new(Rendezvous::new(20)),
        ];
        for mut scheme in schemes {
            let mut weights = vec![100_u32; 21];
            weights[0] = 0;
            weights[7] = 200;
            scheme.rebuild(&weights);
            let share = |scheme: &dyn Scheme, node: u16| {
                let entries = scheme.entries();
                let has = entries.iter().filter(|entry| **entry == node).count();
                has as f64 / entries.len() as f64
            };
            for (node, weight) in (0_u16..).zip(&weights) {
                let (found, expected) = (share(&*scheme, node), f64::from(*weight) / 2_100.0);
                assert!(
                    (found - expected).abs() < 0.004,
                    "{node}: {found} {expected}"
                );
            }
            weights[3] = 0;
            let part = scheme.rebuild(&weights) as f64 / scheme.entries().len() as f64;
            assert!((0.04..0.12).contains(&part), "{part}");
            assert_eq!(share(&*scheme, 3), 0.0);
            assert_eq!(scheme.rebuild(&weights), 0);
        }
    }
}
