//! Weights to numbers of buckets: exact to one bucket, and as near as possible to what is there.

use crate::{BUCKETS, NodeId};

/// What one node should have, and has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    pub node: NodeId,
    pub weight: u32,
    /// Buckets that it is the first hop of now.
    pub has: u32,
}

/// Buckets for each node, in the order of `shares`. Each is its exact share rounded down or up, and all
/// together are [`BUCKETS`]; empty where nobody has a weight.
///
/// Whether it is down or up is free, so who has more than its share already is rounded up first: no
/// other rounding needs fewer moves.
#[must_use]
pub fn quotas(shares: &[Share]) -> Vec<u32> {
    let sum: u64 = shares.iter().map(|share| u64::from(share.weight)).sum();
    if sum == 0 {
        return Vec::new();
    }
    let scaled = |share: &Share| u64::from(share.weight) * BUCKETS as u64;
    let mut quotas: Vec<u32> = shares
        .iter()
        .map(|share| {
            u32::try_from(scaled(share) / sum).expect("a part of all buckets fits into a u32")
        })
        .collect();
    let given: u64 = quotas.iter().map(|quota| u64::from(*quota)).sum();
    let left = usize::try_from(BUCKETS as u64 - given).expect("fewer than there are nodes");

    let mut order: Vec<usize> = (0..shares.len())
        .filter(|at| scaled(&shares[*at]) % sum != 0)
        .collect();
    let rank = |at: &usize| {
        let share = &shares[*at];
        let is_above = share.has > quotas[*at];
        let remainder = scaled(share) % sum;
        (!is_above, std::cmp::Reverse(remainder), share.node)
    };
    order.sort_unstable_by_key(rank);
    for at in order.into_iter().take(left) {
        quotas[at] += 1;
    }
    quotas
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(weights: &[u32], has: &[u32]) -> Vec<Share> {
        (1..)
            .zip(weights.iter().zip(has))
            .map(|(number, (weight, has))| Share {
                node: NodeId::new(number).unwrap(),
                weight: *weight,
                has: *has,
            })
            .collect()
    }

    #[test]
    fn quotas_are_exact_shares_and_fill_the_table() {
        let check = |weights: &[u32], expected: &[u32]| {
            let none = vec![0; weights.len()];
            assert_eq!(quotas(&shares(weights, &none)), expected, "{weights:?}");
        };
        check(&[1], &[65_536]);
        check(&[1, 1], &[32_768, 32_768]);
        check(&[1, 3], &[16_384, 49_152]);
        check(&[1, 0, 1], &[32_768, 0, 32_768]);
        check(&[1, 1, 1], &[21_846, 21_845, 21_845]);
        check(&[0, 0], &[]);
        check(&[], &[]);
    }

    #[test]
    fn rounding_favours_what_is_there() {
        let check = |has: [u32; 3], expected: [u32; 3]| {
            assert_eq!(quotas(&shares(&[1, 1, 1], &has)), expected, "{has:?}");
        };
        check([21_845, 21_846, 21_845], [21_845, 21_846, 21_845]);
        check([21_845, 21_845, 21_846], [21_845, 21_845, 21_846]);
        check([0, 0, 65_536], [21_845, 21_845, 21_846]);
    }
}
