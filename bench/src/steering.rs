//! A simulated week of a large cluster on the product's own steering: what is cut, how even shares are, how long a drain takes.

mod fleet;
mod hashing;
mod ledger;
mod random;
mod sessions;
mod trace;
mod week;

use anyhow::Result;

pub use ledger::{Ledger, Tally, mean, quantile};

/// How large a simulation is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scale {
    pub nodes: u16,
    /// Over all of the time.
    pub sessions: u64,
    pub hours: u64,
    /// Of everything that is random.
    pub seed: u64,
}

impl Scale {
    pub const FULL: Self = Self {
        nodes: 1_000,
        sessions: 10_000_000,
        hours: 7 * 24,
        seed: 1,
    };
    /// A tenth of the nodes for a day and a half.
    pub const QUICK: Self = Self {
        nodes: 100,
        sessions: 200_000,
        hours: 36,
        seed: 1,
    };
}

/// Runs the same trace over our table and over the hashes that it is compared with.
///
/// # Errors
/// The steering refuses something that the trace does.
pub fn simulate(scale: Scale) -> Result<Ledger> {
    week::Week::new(scale)?.run()
}

#[cfg(test)]
mod tests;
