//! When signing keys are made, used, retired and forgotten. Pure logic over their records.

use postern_access::UnixSeconds;
use serde::{Deserialize, Serialize};

const DAY_S: u64 = 24 * 60 * 60;

/// A key signs for this long.
pub const SIGNING_S: u64 = 6 * 7 * DAY_S;

/// The next key is published for this long before it signs, so that every verifier has it.
pub const AHEAD_S: u64 = DAY_S;

/// A retired key stays published for at least this long.
pub const OVERLAP_S_MIN: u64 = 7 * DAY_S;

const _: () = assert!(
    AHEAD_S < SIGNING_S,
    "a key's successor is made while the key signs"
);

/// What the store knows about a key, without the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRecord {
    pub kid: String,
    pub created_at: UnixSeconds,
    /// Since when it does not sign any more.
    pub retired_at: Option<UnixSeconds>,
}

/// What is to be done with the keys now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The key that signs; none only when a first key has to be made.
    pub sign_with: Option<String>,
    /// The keys to publish, oldest first: retired ones in their overlap, the active, the next.
    pub publish: Vec<String>,
    /// Make a key, record it and plan again.
    pub create: bool,
    /// Record these as retired now; they stay in `publish`.
    pub retire: Vec<String>,
    /// Forget these: nothing that they signed is valid any more.
    pub delete: Vec<String>,
}

/// Plans for `keys` in any order; `token_s_max` is the lifetime of the longest token.
///
/// Retiring the active key by hand makes the next one sign at once.
#[must_use]
pub fn plan(keys: &[KeyRecord], token_s_max: u64, now: UnixSeconds) -> Plan {
    let overlap_s = OVERLAP_S_MIN.max(token_s_max);
    let mut keys: Vec<&KeyRecord> = keys.iter().collect();
    keys.sort_by(|a, b| (a.created_at, &a.kid).cmp(&(b.created_at, &b.kid)));

    let usable: Vec<&KeyRecord> = keys
        .iter()
        .copied()
        .filter(|key| key.retired_at.is_none())
        .collect();
    // The newest key that every verifier has had time to fetch; when none has, the oldest.
    let active = usable
        .iter()
        .rposition(|key| key.created_at.plus(AHEAD_S) <= now)
        .or(if usable.is_empty() { None } else { Some(0) });

    let mut plan = Plan::default();
    for key in &keys {
        match key.retired_at {
            Some(retired_at) if retired_at.plus(overlap_s) <= now => {
                plan.delete.push(key.kid.clone());
            }
            _ => plan.publish.push(key.kid.clone()),
        }
    }
    let Some(active) = active else {
        return Plan {
            create: true,
            ..plan
        };
    };
    plan.sign_with = Some(usable[active].kid.clone());
    plan.retire = usable[..active].iter().map(|key| key.kid.clone()).collect();
    let has_next = active + 1 < usable.len();
    let age_s = usable[active].created_at.until(now);
    plan.create = !has_next && age_s >= SIGNING_S;
    plan
}
