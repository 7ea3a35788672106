//! What a limit has counted: doubling waits, token buckets, and bounded tables of them.

use std::collections::BTreeMap;

use postern_access::UnixSeconds;

use super::{FORGET_S_MAX, FREE_FAILURES, TRUST_S, WAIT_S_MAX};

/// Users, sources and pairs that are remembered, so many of each.
pub const TRACKED_MAX: usize = 16 * 1024;

/// A full table is searched for entries to forget at most once in this many seconds.
const SWEEP_S: u64 = 5;

/// One limit's state for one key; a new one has counted nothing.
pub(super) trait Meter: Default {
    /// How long the next attempt has to wait.
    fn wait_s(&self, now: UnixSeconds) -> u64;

    /// Counts one attempt.
    fn count(&mut self, now: UnixSeconds);

    /// Bounds what lies ahead of `now`, so that a clock that was set back locks nobody out.
    fn rebase(&mut self, now: UnixSeconds);

    /// True when a new meter would say the same.
    fn is_forgotten(&self, now: UnixSeconds) -> bool;
}

/// Waits that double with each failure.
#[derive(Debug, Default)]
pub(super) struct BackOff {
    failures: u32,
    blocked_until: UnixSeconds,
    forgotten_at: UnixSeconds,
    pub(super) trusted_until: UnixSeconds,
}

impl BackOff {
    /// No failures, and trust.
    pub(super) fn trusted_until(trusted_until: UnixSeconds) -> Self {
        Self {
            trusted_until,
            ..Self::default()
        }
    }
}

impl Meter for BackOff {
    fn wait_s(&self, now: UnixSeconds) -> u64 {
        now.until(self.blocked_until)
    }

    fn count(&mut self, now: UnixSeconds) {
        self.failures = if now < self.forgotten_at {
            self.failures.saturating_add(1)
        } else {
            1
        };
        let doubled = |unit_s: u64, times: u32| unit_s.saturating_mul(1 << times.min(32));
        if let Some(over) = self.failures.checked_sub(FREE_FAILURES) {
            self.blocked_until = now.plus(doubled(1, over).min(WAIT_S_MAX));
        }
        self.forgotten_at = now.plus(doubled(60, self.failures).min(FORGET_S_MAX));
    }

    fn rebase(&mut self, now: UnixSeconds) {
        self.blocked_until = self.blocked_until.min(now.plus(WAIT_S_MAX));
        self.forgotten_at = self.forgotten_at.min(now.plus(FORGET_S_MAX));
        self.trusted_until = self.trusted_until.min(now.plus(TRUST_S));
    }

    /// Trust alone does not keep an entry: without it a user is only more limited.
    fn is_forgotten(&self, now: UnixSeconds) -> bool {
        self.forgotten_at <= now
    }
}

/// A token bucket of `BURST` tokens, one more every `REFILL_S`, kept as the time at which it is full.
#[derive(Debug, Default)]
pub(super) struct Bucket<const BURST: u64, const REFILL_S: u64> {
    full_at: UnixSeconds,
}

impl<const BURST: u64, const REFILL_S: u64> Bucket<BURST, REFILL_S> {
    pub(super) fn give_back(&mut self) {
        self.full_at = UnixSeconds(self.full_at.0.saturating_sub(REFILL_S));
    }
}

impl<const BURST: u64, const REFILL_S: u64> Meter for Bucket<BURST, REFILL_S> {
    fn wait_s(&self, now: UnixSeconds) -> u64 {
        let spent_s = now.until(self.full_at);
        (spent_s + REFILL_S).saturating_sub(BURST * REFILL_S)
    }

    fn count(&mut self, now: UnixSeconds) {
        self.full_at = self.full_at.max(now).plus(REFILL_S);
    }

    fn rebase(&mut self, now: UnixSeconds) {
        self.full_at = self.full_at.min(now.plus(BURST * REFILL_S));
    }

    fn is_forgotten(&self, now: UnixSeconds) -> bool {
        self.full_at <= now
    }
}

/// Meters by key, at most [`TRACKED_MAX`].
///
/// INVARIANT: an entry goes only once it says no more than a new one would: filling the table
/// resets nobody. Keys that find no room share one meter.
#[derive(Debug)]
pub(super) struct Table<K, M> {
    pub(super) meters: BTreeMap<K, M>,
    shared: M,
    swept_at: UnixSeconds,
}

impl<K, M: Default> Default for Table<K, M> {
    fn default() -> Self {
        Self {
            meters: BTreeMap::new(),
            shared: M::default(),
            swept_at: UnixSeconds(0),
        }
    }
}

impl<K: Ord, M: Meter> Table<K, M> {
    pub(super) fn tracked(&mut self, key: &K, now: UnixSeconds) -> Option<&mut M> {
        let meter = self.meters.get_mut(key)?;
        meter.rebase(now);
        Some(meter)
    }

    /// The key's meter, a new one where there is room.
    pub(super) fn track(&mut self, key: K, now: UnixSeconds) -> Option<&mut M> {
        if !self.meters.contains_key(&key) && !self.has_room(now) {
            return None;
        }
        let meter = self.meters.entry(key).or_default();
        meter.rebase(now);
        Some(meter)
    }

    pub(super) fn track_or_share(&mut self, key: K, now: UnixSeconds) -> &mut M {
        if self.meters.contains_key(&key) || self.has_room(now) {
            return self.meters.entry(key).or_default();
        }
        self.shared.rebase(now);
        &mut self.shared
    }

    /// How long `key` has to wait. Asking tracks nothing, so that refused attempts fill no table.
    pub(super) fn wait_s(&mut self, key: &K, now: UnixSeconds) -> u64 {
        if let Some(meter) = self.tracked(key, now) {
            return meter.wait_s(now);
        }
        if self.has_room(now) {
            return 0;
        }
        self.shared.rebase(now);
        self.shared.wait_s(now)
    }

    /// Looks for entries to forget when the table is full, but not at every call.
    fn has_room(&mut self, now: UnixSeconds) -> bool {
        let swept_lately = self.swept_at <= now && now < self.swept_at.plus(SWEEP_S);
        if self.meters.len() >= TRACKED_MAX && !swept_lately {
            self.swept_at = now;
            self.meters.retain(|_, meter| {
                meter.rebase(now);
                !meter.is_forgotten(now)
            });
        }
        self.meters.len() < TRACKED_MAX
    }
}
