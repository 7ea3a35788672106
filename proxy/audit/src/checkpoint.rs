//! Signed statements of where all chains stood: what a cut-off tail is found by.

use serde::{Deserialize, Serialize};

use crate::Head;

/// `typ` of the JWS that carries a checkpoint; keeps it apart from access tokens.
pub const CHECKPOINT_TYPE: &str = "postern-checkpoint+jws";

/// The payload of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Unix time in milliseconds.
    pub time_ms: u64,
    /// Grows by one with every checkpoint.
    pub number: u64,
    pub heads: Vec<Head>,
}

impl Checkpoint {
    /// The head of `chain`, where this checkpoint speaks of it.
    #[must_use]
    pub fn head(&self, chain: &str) -> Option<&Head> {
        self.heads.iter().find(|head| head.chain == chain)
    }
}
