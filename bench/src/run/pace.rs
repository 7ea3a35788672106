//! How long a run may take, and how its time is dealt out to the cases.

use std::time::{Duration, Instant};

/// A whole run's time and thoroughness.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pace {
    pub is_quick: bool,
    /// Rounds of everybody, beside one to warm up.
    pub rounds: usize,
    pub seconds: Duration,
    /// Part of a case's work that is done while warming up, from which the rest is reckoned.
    pub warm_up_scale: f64,
}

/// Fewer rounds than this say nothing.
pub const ROUNDS_MIN: usize = 3;
/// Least part of a case's work that is worth measuring.
const SCALE_MIN: f64 = 0.02;
/// What is kept back for starting and ending things.
const RESERVE: f64 = 0.95;

impl Pace {
    /// Ends within five minutes.
    pub const QUICK: Self = Self {
        is_quick: true,
        rounds: 3,
        seconds: Duration::from_secs(278),
        warm_up_scale: 0.05,
    };
    /// Ends within forty minutes.
    pub const FULL: Self = Self {
        is_quick: false,
        rounds: 5,
        seconds: Duration::from_secs(37 * 60),
        warm_up_scale: 0.2,
    };
}

/// What is left of a run's time.
#[derive(Debug)]
pub struct Clock {
    pace: Pace,
    end: Instant,
    weight_left: f64,
}

/// What one case may take.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    pub pace: Pace,
    pub seconds: Duration,
    start: Instant,
}

impl Clock {
    #[must_use]
    pub fn start(pace: Pace, weight: f64) -> Self {
        Self {
            pace,
            end: Instant::now() + pace.seconds,
            weight_left: weight,
        }
    }

    /// A share of what is left; `None` when nothing is.
    pub fn allow(&mut self, weight: f64) -> Option<Allowance> {
        let start = Instant::now();
        let left = self.end.checked_duration_since(start)?;
        let part = (weight / self.weight_left.max(weight)).min(1.0);
        self.weight_left -= weight;
        Some(Allowance {
            pace: self.pace,
            seconds: left.mul_f64(part * RESERVE),
            start,
        })
    }
}

impl Allowance {
    /// Part of the case's work for each round, after a warm-up that took `warm_up`.
    #[must_use]
    pub fn scale(&self, warm_up: Duration) -> f64 {
        let left = self.seconds.saturating_sub(self.start.elapsed());
        let round = left.as_secs_f64() / self.pace.rounds as f64;
        let scale = self.pace.warm_up_scale * round / warm_up.as_secs_f64().max(0.001);
        scale.clamp(SCALE_MIN, 1.0)
    }

    /// True while one more round may begin after `done`.
    #[must_use]
    pub fn goes_on(&self, done: usize) -> bool {
        done < ROUNDS_MIN || (done < self.pace.rounds && self.start.elapsed() < self.seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_shared_by_weight_and_what_is_saved_goes_to_the_others() {
        let pace = Pace {
            seconds: Duration::from_secs(100),
            ..Pace::QUICK
        };
        let mut clock = Clock::start(pace, 4.0);
        let first = clock.allow(1.0).unwrap().seconds.as_secs_f64();
        assert!((23.0..24.0).contains(&first), "{first}");
        // Nothing of it was used.
        let second = clock.allow(1.0).unwrap().seconds.as_secs_f64();
        assert!((31.0..32.0).contains(&second), "{second}");
        clock.end = Instant::now() - Duration::from_secs(1);
        assert!(clock.allow(1.0).is_none());
    }

    #[test]
    fn work_is_scaled_to_the_time_and_three_rounds_are_always_run() {
        let allowance = |seconds| Allowance {
            pace: Pace::QUICK,
            seconds: Duration::from_secs(seconds),
            start: Instant::now(),
        };
        // A twentieth took a second: a round of ten seconds has room for half of it.
        let scale = allowance(30).scale(Duration::from_secs(1));
        assert!((scale - 0.5).abs() < 0.01, "{scale}");
        assert_eq!(allowance(3000).scale(Duration::from_secs(1)), 1.0);
        assert_eq!(allowance(0).scale(Duration::from_secs(1)), SCALE_MIN);
        assert!(allowance(0).goes_on(2) && !allowance(0).goes_on(3));
        assert!(!allowance(100).goes_on(Pace::QUICK.rounds));
    }
}
