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

#[cfg(test)]
mod tests {
    use super::*;

    const START: UnixSeconds = UnixSeconds(1_800_000_000);
    const TOKEN_S_MAX: u64 = DAY_S;

    fn key(kid: &str, day: u64, retired_on: Option<u64>) -> KeyRecord {
        KeyRecord {
            kid: kid.to_owned(),
            created_at: START.plus(day * DAY_S),
            retired_at: retired_on.map(|day| START.plus(day * DAY_S)),
        }
    }

    fn check(keys: &[KeyRecord], day: u64, expected: Plan) {
        let plan = plan(keys, TOKEN_S_MAX, START.plus(day * DAY_S));
        assert_eq!(plan, expected, "on day {day}");
    }

    fn kids(kids: &[&str]) -> Vec<String> {
        kids.iter().map(|kid| (*kid).to_owned()).collect()
    }

    fn signs(kid: &str, publish: &[&str]) -> Plan {
        Plan {
            sign_with: Some(kid.to_owned()),
            publish: kids(publish),
            ..Plan::default()
        }
    }

    #[test]
    fn without_a_key_one_is_made_and_signs_at_once() {
        check(
            &[],
            0,
            Plan {
                create: true,
                ..Plan::default()
            },
        );
        check(&[key("a", 0, None)], 0, signs("a", &["a"]));
    }

    #[test]
    fn a_key_is_followed_after_six_weeks_by_one_that_was_published_ahead() {
        let a = key("a", 0, None);
        check(std::slice::from_ref(&a), 41, signs("a", &["a"]));
        check(
            std::slice::from_ref(&a),
            42,
            Plan {
                create: true,
                ..signs("a", &["a"])
            },
        );
        let keys = [key("b", 42, None), a];
        check(&keys, 42, signs("a", &["a", "b"]));
        check(
            &keys,
            43,
            Plan {
                retire: kids(&["a"]),
                ..signs("b", &["a", "b"])
            },
        );
    }

    #[test]
    fn a_retired_key_stays_published_through_the_overlap() {
        let keys = [key("a", 0, Some(43)), key("b", 42, None)];
        check(&keys, 43, signs("b", &["a", "b"]));
        check(&keys, 49, signs("b", &["a", "b"]));
        check(
            &keys,
            50,
            Plan {
                delete: kids(&["a"]),
                ..signs("b", &["b"])
            },
        );
    }

    #[test]
    fn the_overlap_covers_the_longest_token() {
        let keys = [key("a", 0, Some(43)), key("b", 42, None)];
        let month = plan(&keys, 30 * DAY_S, START.plus(72 * DAY_S));
        assert_eq!(month.publish, kids(&["a", "b"]));
        let over = plan(&keys, 30 * DAY_S, START.plus(73 * DAY_S));
        assert_eq!((over.publish, over.delete), (kids(&["b"]), kids(&["a"])));
    }

    #[test]
    fn a_key_retired_by_hand_never_signs_again() {
        let alone = [key("a", 0, Some(5))];
        check(
            &alone,
            5,
            Plan {
                create: true,
                publish: kids(&["a"]),
                ..Plan::default()
            },
        );
        let followed = [key("a", 0, Some(5)), key("b", 5, None)];
        check(&followed, 5, signs("b", &["a", "b"]));
    }

    #[test]
    fn a_clock_that_was_set_back_changes_no_key() {
        let keys = [key("a", 10, None), key("b", 52, None)];
        check(&keys, 0, signs("a", &["a", "b"]));
    }
}
