//! Whether a node is fit, from its heartbeats and from probes of its service: quick to doubt, slow to trust again.

use crate::Millis;

/// When a node's health changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthPolicy {
    /// A node whose last heartbeat is older has failed.
    pub silence_ms_max: u64,
    /// So many probes in a row that fail are a failure.
    pub failures: u32,
    /// So many probes in a row that succeed are needed to be fit again.
    pub successes: u32,
    /// A node must be without fault for this long to be fit again; twice as long for each failure that
    /// it had shortly before.
    pub calm_ms: u64,
    /// The longest of these times.
    pub calm_ms_max: u64,
    /// A fit node is forgiven one earlier failure after each of these times.
    pub forgive_ms: u64,
}

impl Default for HealthPolicy {
    fn default() -> Self {
        Self {
            silence_ms_max: 6_000,
            failures: 3,
            successes: 2,
            calm_ms: 5_000,
            calm_ms_max: 300_000,
            forgive_ms: 600_000,
        }
    }
}

/// What is thought of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing was heard of it yet.
    Unknown,
    Fit,
    Failed {
        since: Millis,
    },
}

/// One node's history, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    verdict: Verdict,
    heard_at: Option<Millis>,
    /// Probes in a row with the same outcome.
    streak: u32,
    is_streak_good: bool,
    /// Since when there has been no fault.
    calm_since: Option<Millis>,
    /// Failures that are not forgiven yet, and when one was forgiven or added last.
    faults: u32,
    faults_at: Millis,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            verdict: Verdict::Unknown,
            heard_at: None,
            streak: 0,
            is_streak_good: true,
            calm_since: None,
            faults: 0,
            faults_at: Millis(0),
        }
    }
}

impl Health {
    /// Fit, as if it had just been heard.
    #[must_use]
    pub fn presumed(now: Millis) -> Self {
        Self {
            verdict: Verdict::Fit,
            heard_at: Some(now),
            calm_since: Some(now),
            faults_at: now,
            ..Self::default()
        }
    }

    #[must_use]
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// The node was heard.
    pub fn heard(&mut self, now: Millis) {
        self.heard_at = Some(now);
    }

    /// Its service was tried from outside.
    pub fn probed(&mut self, is_good: bool) {
        if is_good == self.is_streak_good {
            self.streak = self.streak.saturating_add(1);
        } else {
            self.is_streak_good = is_good;
            self.streak = 1;
        }
    }

    /// The verdict now; `is_behind` tells that the node steers by a table which is too old.
    pub fn judge(&mut self, now: Millis, is_behind: bool, policy: &HealthPolicy) -> Verdict {
        let Some(heard_at) = self.heard_at else {
            return self.verdict;
        };
        let is_silent = now.since(heard_at) > policy.silence_ms_max;
        let is_failing = !self.is_streak_good && self.streak >= policy.failures;
        let is_faulty = is_silent || is_failing || is_behind;
        if is_faulty {
            self.calm_since = None;
        } else if self.calm_since.is_none() {
            self.calm_since = Some(now);
        }
        match self.verdict {
            Verdict::Fit if is_faulty => {
                self.verdict = Verdict::Failed { since: now };
                self.faults = self.faults.saturating_add(1);
                self.faults_at = now;
            }
            Verdict::Fit => {
                if self.faults > 0 && now.since(self.faults_at) >= policy.forgive_ms {
                    self.faults -= 1;
                    self.faults_at = now;
                }
            }
            Verdict::Unknown | Verdict::Failed { .. } => {
                if self.is_fit_again(now, policy) {
                    self.verdict = Verdict::Fit;
                    self.faults_at = now;
                }
            }
        }
        self.verdict
    }

    fn is_fit_again(&self, now: Millis, policy: &HealthPolicy) -> bool {
        let Some(calm_since) = self.calm_since else {
            return false;
        };
        let doublings = self.faults.saturating_sub(1).min(32);
        let calm_ms = policy.calm_ms.saturating_mul(1 << doublings);
        // Who was never probed is judged by heartbeats alone.
        let is_probed = self.streak == 0 || self.is_streak_good && self.streak >= policy.successes;
        is_probed && now.since(calm_since) >= calm_ms.min(policy.calm_ms_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: HealthPolicy = HealthPolicy {
        silence_ms_max: 3_000,
        failures: 3,
        successes: 2,
        calm_ms: 5_000,
        calm_ms_max: 20_000,
        forgive_ms: 60_000,
    };

    /// Seconds that pass with a heartbeat each, and what became of the node.
    fn beat(health: &mut Health, now: &mut u64, seconds: u64) -> Verdict {
        for _ in 0..seconds {
            *now += 1_000;
            health.heard(Millis(*now));
            health.judge(Millis(*now), false, &POLICY);
        }
        health.verdict()
    }

    fn silence(health: &mut Health, now: &mut u64, seconds: u64) -> Verdict {
        *now += seconds * 1_000;
        health.judge(Millis(*now), false, &POLICY)
    }

    /// Seconds of heartbeats until the node is fit.
    fn seconds_until_fit(health: &mut Health, now: &mut u64) -> u64 {
        (1..)
            .find(|_| beat(health, now, 1) == Verdict::Fit)
            .unwrap()
    }

    #[test]
    fn a_new_node_is_unknown_until_it_was_heard_for_a_while() {
        let (mut health, mut now) = (Health::default(), 0);
        assert_eq!(silence(&mut health, &mut now, 100), Verdict::Unknown);
        assert_eq!(beat(&mut health, &mut now, 5), Verdict::Unknown);
        assert_eq!(beat(&mut health, &mut now, 1), Verdict::Fit);
    }

    #[test]
    fn silence_is_a_failure_and_one_lost_heartbeat_is_none() {
        let (mut health, mut now) = (Health::default(), 0);
        beat(&mut health, &mut now, 10);
        assert_eq!(silence(&mut health, &mut now, 3), Verdict::Fit);
        let failed = silence(&mut health, &mut now, 1);
        assert_eq!(failed, Verdict::Failed { since: Millis(now) });
    }

    #[test]
    fn failing_probes_outweigh_heartbeats_and_one_success_is_not_enough() {
        let (mut health, mut now) = (Health::default(), 0);
        beat(&mut health, &mut now, 10);
        for _ in 0..2 {
            health.probed(false);
        }
        assert_eq!(beat(&mut health, &mut now, 1), Verdict::Fit);
        health.probed(false);
        assert_ne!(beat(&mut health, &mut now, 1), Verdict::Fit);
        health.probed(true);
        assert_ne!(beat(&mut health, &mut now, 10), Verdict::Fit);
        health.probed(true);
        assert_eq!(beat(&mut health, &mut now, 10), Verdict::Fit);
    }

    #[test]
    fn a_node_with_an_old_table_has_failed() {
        let (mut health, mut now) = (Health::default(), 0);
        beat(&mut health, &mut now, 10);
        let verdict = health.judge(Millis(now), true, &POLICY);
        assert_eq!(verdict, Verdict::Failed { since: Millis(now) });
    }

    #[test]
    fn who_flaps_waits_longer_each_time_and_is_forgiven_later() {
        let (mut health, mut now) = (Health::default(), 0);
        beat(&mut health, &mut now, 10);
        let mut waits = Vec::new();
        for _ in 0..4 {
            silence(&mut health, &mut now, 10);
            waits.push(seconds_until_fit(&mut health, &mut now));
        }
        assert_eq!(waits, [6, 11, 21, 21]);
        beat(&mut health, &mut now, 300);
        silence(&mut health, &mut now, 10);
        assert_eq!(seconds_until_fit(&mut health, &mut now), 6);
    }
}
