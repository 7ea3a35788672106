//! How often a login may be tried: per user and source together, per user, per source.
//!
//! An attempt is counted before the password is looked at, so that many at once do not slip
//! through while the first is being hashed; a success gives its count back.

use std::net::{IpAddr, Ipv6Addr};

use postern_access::UnixSeconds;
use ring::digest::{SHA256, digest};

mod meter;

pub use meter::TRACKED_MAX;
use meter::{BackOff, Bucket, Meter as _, Table};

/// Failures of one user from one source before waiting begins.
pub const FREE_FAILURES: u32 = 5;

/// The wait doubles with each further failure, up to this.
pub const WAIT_S_MAX: u64 = 300;

/// Many failures of one user from one source are forgotten after this long; few, sooner.
pub const FORGET_S_MAX: u64 = 60 * 60;

/// Attempts that one source may make at once.
pub const SOURCE_BURST: u64 = 30;

/// A source that has made them may make one more in this time.
pub const SOURCE_REFILL_S: u64 = 6;

/// Attempts on one user from everywhere at once.
pub const USER_BURST: u64 = 60;

/// After them, one more in this time.
pub const USER_REFILL_S: u64 = 60;

/// A source from which a user has logged in does not wait because of what others try on that
/// user, for this long: nobody is locked out from afar.
pub const TRUST_S: u64 = 30 * 24 * 60 * 60;

const _: () = assert!(
    WAIT_S_MAX < FORGET_S_MAX,
    "nothing is forgotten while it still waits"
);

/// Whether an attempt may be made now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Allowed,
    /// Try again after so many seconds, at least one.
    Wait {
        seconds: u64,
    },
}

/// Counts attempts. A clock that is set back shortens waits, never prolongs them.
#[derive(Debug, Default)]
pub struct RateLimiter {
    pairs: Table<(UserKey, SourceKey), BackOff>,
    users: Table<UserKey, Bucket<USER_BURST, USER_REFILL_S>>,
    sources: Table<SourceKey, Bucket<SOURCE_BURST, SOURCE_REFILL_S>>,
}

impl RateLimiter {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks before an attempt on `user`, known or not; what is allowed counts as a failure until
    /// [`Self::succeeded`].
    pub fn attempt(&mut self, user: &str, source: IpAddr, now: UnixSeconds) -> Answer {
        let (user, source) = (user_key(user), source_key(source));
        let pair = self.pairs.tracked(&(user, source), now);
        let trusted = pair.as_ref().is_some_and(|pair| now < pair.trusted_until);
        let pair_s = pair.map_or(0, |pair| pair.wait_s(now));
        let user_s = if trusted {
            0
        } else {
            self.users.wait_s(&user, now)
        };
        let seconds = pair_s.max(user_s).max(self.sources.wait_s(&source, now));
        if seconds > 0 {
            return Answer::Wait { seconds };
        }
        // A pair that finds no room is held back by its user's and its source's limit alone.
        if let Some(pair) = self.pairs.track((user, source), now) {
            pair.count(now);
        }
        self.users.track_or_share(user, now).count(now);
        self.sources.track_or_share(source, now).count(now);
        Answer::Allowed
    }

    /// After an attempt that was allowed has proved right: forgets the failures of this user from
    /// this source. The source's and the user's other attempts stay counted.
    pub fn succeeded(&mut self, user: &str, source: IpAddr, now: UnixSeconds) {
        let (user, source) = (user_key(user), source_key(source));
        if let Some(pair) = self.pairs.tracked(&(user, source), now) {
            *pair = BackOff::trusted_until(now.plus(TRUST_S));
        }
        self.users.track_or_share(user, now).give_back();
        self.sources.track_or_share(source, now).give_back();
    }
}

/// A hash, so that a long name takes no more room; letter case does not make another user.
type UserKey = [u8; 32];

fn user_key(user: &str) -> UserKey {
    let digest = digest(&SHA256, user.trim().to_lowercase().as_bytes());
    digest.as_ref().try_into().expect("SHA-256 is 32 bytes")
}

/// An IPv4 address, or the /64 that an IPv6 client has to itself.
type SourceKey = IpAddr;

fn source_key(source: IpAddr) -> SourceKey {
    match source.to_canonical() {
        IpAddr::V6(address) => {
            IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)))
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixSeconds = UnixSeconds(1_800_000_000);

    fn source(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// The address number `n` of a network with room for all.
    fn nth(n: usize) -> IpAddr {
        IpAddr::V4(std::net::Ipv4Addr::from_bits(
            0x0a00_0000 + u32::try_from(n).expect("small"),
        ))
    }

    /// How many attempts of `attempts` are allowed at `now`.
    fn allowed(attempts: impl IntoIterator<Item = Answer>) -> usize {
        attempts
            .into_iter()
            .filter(|answer| *answer == Answer::Allowed)
            .count()
    }

    #[test]
    fn waits_double_after_a_few_failures_of_one_user_from_one_source() {
        let mut limiter = RateLimiter::new();
        let mut now = NOW;
        let mut waits = Vec::new();
        for _ in 0..16 {
            if let Answer::Wait { seconds } = limiter.attempt("alice", nth(1), now) {
                waits.push(seconds);
                now = now.plus(seconds - 1);
                assert_eq!(
                    limiter.attempt("alice", nth(1), now),
                    Answer::Wait { seconds: 1 }
                );
                now = now.plus(1);
                assert_eq!(limiter.attempt("alice", nth(1), now), Answer::Allowed);
            }
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(limiter.attempt("bob", nth(1), now), Answer::Allowed);
        assert_eq!(limiter.attempt("alice", nth(2), now), Answer::Allowed);
    }

    #[test]
    fn letter_case_and_address_form_make_no_other_user_or_source() {
        let mut limiter = RateLimiter::new();
        let names = ["alice", "ALICE", " alice", "Alice ", "aLICE"];
        for name in names {
            assert_eq!(
                limiter.attempt(name, source("192.0.2.1"), NOW),
                Answer::Allowed
            );
        }
        let mapped = limiter.attempt("alice", source("::ffff:192.0.2.1"), NOW);
        assert_eq!(mapped, Answer::Wait { seconds: 1 });

        for host in 1..=5 {
            let address = source(&format!("2001:db8::{host}"));
            assert_eq!(limiter.attempt("bob", address, NOW), Answer::Allowed);
        }
        let neighbour = limiter.attempt("bob", source("2001:db8::ffff:0:0:6"), NOW);
        assert_eq!(neighbour, Answer::Wait { seconds: 1 });
        assert_eq!(
            limiter.attempt("bob", source("2001:db8:0:1::1"), NOW),
            Answer::Allowed
        );
    }

    #[test]
    fn a_source_that_tries_many_users_is_slowed_down() {
        let mut limiter = RateLimiter::new();
        let mut spray = |now: UnixSeconds, from: usize, to: usize| {
            allowed((from..to).map(|n| limiter.attempt(&format!("user-{n}"), nth(1), now)))
        };
        assert_eq!(spray(NOW, 0, 100), 30);
        assert_eq!(spray(NOW.plus(60), 100, 200), 10);
    }

    #[test]
    fn a_user_tried_from_everywhere_is_protected_but_not_locked_out_where_known() {
        let mut limiter = RateLimiter::new();
        assert_eq!(limiter.attempt("alice", nth(0), NOW), Answer::Allowed);
        limiter.succeeded("alice", nth(0), NOW);

        let flood = allowed((1..1_000).map(|n| limiter.attempt("alice", nth(n), NOW)));
        assert_eq!(flood, 60);
        let stranger = limiter.attempt("alice", nth(2_000), NOW);
        assert_eq!(
            stranger,
            Answer::Wait {
                seconds: USER_REFILL_S
            }
        );
        assert_eq!(limiter.attempt("alice", nth(0), NOW), Answer::Allowed);
    }

    #[test]
    fn a_success_resets_the_pair_and_neither_source_nor_user() {
        let mut limiter = RateLimiter::new();
        // An attacker with an account of their own logs in between guesses.
        let mut guesses = 0;
        for _ in 0..200 {
            if limiter.attempt("mallory", nth(1), NOW) == Answer::Allowed {
                limiter.succeeded("mallory", nth(1), NOW);
            }
            if limiter.attempt(&format!("user-{guesses}"), nth(1), NOW) == Answer::Allowed {
                guesses += 1;
            }
        }
        assert_eq!(guesses, 30);

        let mut limiter = RateLimiter::new();
        for _ in 0..5 {
            assert_eq!(limiter.attempt("alice", nth(1), NOW), Answer::Allowed);
        }
        limiter.succeeded("alice", nth(1), NOW);
        let again = allowed((0..10).map(|_| limiter.attempt("alice", nth(1), NOW)));
        assert_eq!(again, 5);
    }

    #[test]
    fn attempts_at_the_same_moment_are_all_counted() {
        let mut limiter = RateLimiter::new();
        let at_once = allowed((0..100).map(|_| limiter.attempt("alice", nth(1), NOW)));
        assert_eq!(at_once, FREE_FAILURES as usize);
    }

    #[test]
    fn failures_are_forgotten_in_time() {
        let mut limiter = RateLimiter::new();
        for _ in 0..5 {
            limiter.attempt("alice", nth(1), NOW);
        }
        let later = NOW.plus(FORGET_S_MAX);
        let anew = allowed((0..10).map(|_| limiter.attempt("alice", nth(1), later)));
        assert_eq!(anew, 5);
    }

    #[test]
    fn a_clock_that_was_set_back_locks_nobody_out() {
        let mut limiter = RateLimiter::new();
        for _ in 0..100 {
            limiter.attempt("alice", nth(1), NOW);
            limiter.attempt("bob", nth(1), NOW);
        }
        let back = UnixSeconds(NOW.0 - 7_200);
        let Answer::Wait { seconds } = limiter.attempt("alice", nth(1), back) else {
            return;
        };
        assert!(seconds <= WAIT_S_MAX);
        assert_eq!(
            limiter.attempt("alice", nth(1), back.plus(seconds)),
            Answer::Allowed
        );
    }

    /// Fills every table with attempts that count, each from its own source on its own user.
    fn flood(limiter: &mut RateLimiter, now: UnixSeconds) {
        for n in 0..TRACKED_MAX + 1_000 {
            limiter.attempt(&format!("flood-{n}"), nth(0x10_0000 + n), now);
        }
    }

    #[test]
    fn a_flood_of_names_resets_nobody() {
        let mut limiter = RateLimiter::new();
        for _ in 0..6 {
            limiter.attempt("alice", nth(1), NOW);
        }
        for n in 0..40 {
            limiter.attempt(&format!("user-{n}"), nth(1), NOW);
        }
        flood(&mut limiter, NOW);
        assert_eq!(
            limiter.attempt("alice", nth(2), NOW),
            Answer::Wait { seconds: 6 },
            "shared"
        );
        assert!(
            matches!(limiter.attempt("user-99", nth(1), NOW), Answer::Wait { .. }),
            "source"
        );
        assert!(
            matches!(limiter.attempt("alice", nth(1), NOW), Answer::Wait { .. }),
            "pair"
        );
        for (tracked, name) in [
            (limiter.pairs.meters.len(), "pairs"),
            (limiter.users.meters.len(), "users"),
            (limiter.sources.meters.len(), "sources"),
        ] {
            assert!(tracked <= TRACKED_MAX, "{tracked} {name}");
        }
    }

    #[test]
    fn room_comes_back_once_a_flood_is_over() {
        let mut limiter = RateLimiter::new();
        flood(&mut limiter, NOW);
        let later = NOW.plus(USER_REFILL_S);
        assert_eq!(limiter.attempt("alice", nth(1), later), Answer::Allowed);
        assert_eq!(limiter.users.meters.len(), 1);
    }

    #[test]
    fn refused_attempts_fill_no_table() {
        let mut limiter = RateLimiter::new();
        for n in 0..10_000 {
            limiter.attempt(&format!("user-{n}"), nth(1), NOW);
        }
        assert_eq!(limiter.users.meters.len(), 30);
        assert_eq!(limiter.sources.meters.len(), 1);
    }
}
