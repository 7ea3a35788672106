//! A node's load to the part of its weight that it gets: down within seconds, up within minutes, still in between.

use crate::{Error, Millis};

/// The whole weight, as a factor.
pub const FACTOR_FULL: u32 = 64;

/// Load above this is all the same.
const PRESSURE_MAX: f64 = 2.0;
/// A gap between reports counts as no more than this, so that one report after a silence decides nothing.
const GAP_MS_MAX: u64 = 5_000;
/// Above this part a factor is whole.
const WHOLE: f64 = 0.97;
/// Keeps the way down from taking for ever where there is hardly a reason for it.
const OVER_MIN: f64 = 0.01;

/// How load becomes a factor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoadPolicy {
    /// Up to this pressure a node has its whole weight.
    pub relaxed: f64,
    /// From this pressure on it has the least.
    pub full: f64,
    /// The least factor: more than nothing, so that shares exist when all are full.
    pub least: f64,
    /// Over this time reports are averaged.
    pub smooth_ms: u64,
    /// Time constant of the way down from a pressure that is full; slower where it is less.
    pub fall_ms: u64,
    /// Time constant of the way up; twice as long each time that a rise was answered by a fall.
    pub rise_ms: u64,
    /// The longest of these.
    pub rise_ms_max: u64,
    /// A factor that differs by less from the one in force is not worth moving buckets for.
    pub hysteresis: f64,
}

impl Default for LoadPolicy {
    fn default() -> Self {
        Self {
            relaxed: 0.70,
            full: 0.95,
            least: 1.0 / 16.0,
            smooth_ms: 2_000,
            fall_ms: 500,
            rise_ms: 60_000,
            rise_ms_max: 960_000,
            hysteresis: 0.15,
        }
    }
}

/// What a node reports of itself; each number by what it can carry.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// Of all cores, 0 to 1.
    pub cpu: f64,
    pub sessions: u32,
    pub sessions_max: u32,
    /// Connections that wait for their handshake.
    pub handshakes: u32,
    pub handshakes_max: u32,
}

/// The scarcest of a node's resources: 1 is used up.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Pressure(f64);

impl Pressure {
    /// # Errors
    /// The processor's load is no number, or negative.
    pub fn of(load: &Load) -> Result<Self, Error> {
        if !load.cpu.is_finite() || load.cpu < 0.0 {
            return Err(Error::Load(load.cpu));
        }
        let part = |used: u32, of: u32| f64::from(used) / f64::from(of.max(1));
        let scarcest = load
            .cpu
            .max(part(load.sessions, load.sessions_max))
            .max(part(load.handshakes, load.handshakes_max));
        Ok(Self(scarcest.min(PRESSURE_MAX)))
    }
}

/// One node's factor.
#[derive(Debug, Clone, PartialEq)]
pub struct Damper {
    smoothed: f64,
    factor: f64,
    /// What is in force: of [`FACTOR_FULL`].
    in_force: u32,
    last: Option<Millis>,
    /// When what is in force last rose.
    rose_at: Option<Millis>,
    /// How often the time of the way up is doubled.
    caution: u32,
}

impl Default for Damper {
    fn default() -> Self {
        Self {
            smoothed: 0.0,
            factor: 1.0,
            in_force: FACTOR_FULL,
            last: None,
            rose_at: None,
            caution: 0,
        }
    }
}

impl Damper {
    /// Of [`FACTOR_FULL`]; never 0.
    #[must_use]
    pub fn factor(&self) -> u32 {
        self.in_force
    }

    /// Takes a report.
    pub fn observe(&mut self, pressure: Pressure, now: Millis, policy: &LoadPolicy) {
        let Some(last) = self.last.replace(now) else {
            self.smoothed = pressure.0;
            return;
        };
        let dt = now.since(last).min(GAP_MS_MAX) as f64;
        let lag = |constant: u64| dt / (constant as f64 + dt).max(1.0);
        self.smoothed += (pressure.0 - self.smoothed) * lag(policy.smooth_ms);
        let over = policy.over(self.smoothed);
        let goal = 1.0 - over * (1.0 - policy.least);
        let constant = if goal < self.factor {
            policy.fall_ms as f64 / (over * over).max(OVER_MIN)
        } else {
            policy.rise_ms(self.caution) as f64
        };
        self.factor += (goal - self.factor) * dt / (constant + dt).max(1.0);
        self.put_in_force(now, policy);
    }

    fn put_in_force(&mut self, now: Millis, policy: &LoadPolicy) {
        let full = f64::from(FACTOR_FULL);
        let before = self.in_force;
        // The end is taken exactly, or the last step up would never be made.
        if self.factor >= WHOLE {
            self.in_force = FACTOR_FULL;
        } else if (self.factor - f64::from(before) / full).abs() >= policy.hysteresis {
            let rounded = (self.factor * full).round() as u32;
            self.in_force = rounded.clamp(1, FACTOR_FULL);
        }
        let since_rise = self.rose_at.map(|rose_at| now.since(rose_at));
        if self.in_force > before {
            self.rose_at = Some(now);
        } else if self.in_force < before {
            // A fall soon after a rise says that the rise was too much.
            let is_answer = since_rise.is_some_and(|ms| ms < policy.rise_ms_max);
            if is_answer && policy.rise_ms(self.caution) < policy.rise_ms_max {
                self.caution += 1;
            } else if !is_answer {
                self.caution = 0;
            }
        }
    }
}

impl LoadPolicy {
    /// How far a pressure is from relaxed (0) to full (1).
    fn over(&self, pressure: f64) -> f64 {
        let width = (self.full - self.relaxed).max(f64::EPSILON);
        ((pressure - self.relaxed) / width).clamp(0.0, 1.0)
    }

    fn rise_ms(&self, caution: u32) -> u64 {
        let doubled = self.rise_ms.saturating_mul(1 << caution.min(32));
        doubled.min(self.rise_ms_max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(cpu: f64, sessions: u32, handshakes: u32) -> Load {
        Load {
            cpu,
            sessions,
            sessions_max: 100,
            handshakes,
            handshakes_max: 10,
        }
    }

    #[test]
    fn the_scarcest_resource_is_the_pressure() {
        let check = |load: Load, expected: f64| {
            assert_eq!(Pressure::of(&load), Ok(Pressure(expected)), "{load:?}");
        };
        check(load(0.5, 10, 1), 0.5);
        check(load(0.5, 80, 1), 0.8);
        check(load(0.5, 80, 9), 0.9);
        check(load(50.0, 80, 9), 2.0);
        let nothing = Load {
            sessions_max: 0,
            ..load(0.1, 0, 0)
        };
        check(nothing, 0.1);
        for cpu in [f64::NAN, f64::INFINITY, -0.1] {
            assert!(Pressure::of(&load(cpu, 0, 0)).is_err(), "{cpu}");
        }
    }

    /// Seconds until the factor in force is as told, under the same pressure all the time.
    fn seconds(damper: &mut Damper, now: &mut u64, cpu: f64, until: impl Fn(u32) -> bool) -> u64 {
        let pressure = Pressure::of(&load(cpu, 0, 0)).unwrap();
        (1..600)
            .find(|_| {
                *now += 1_000;
                damper.observe(pressure, Millis(*now), &LoadPolicy::default());
                until(damper.factor())
            })
            .unwrap()
    }

    #[test]
    fn an_overloaded_node_loses_its_weight_in_seconds_and_gets_it_back_in_minutes() {
        let (mut damper, mut now) = (Damper::default(), 0);
        seconds(&mut damper, &mut now, 0.4, |factor| factor == FACTOR_FULL);
        let down = seconds(&mut damper, &mut now, 1.0, |factor| {
            factor <= FACTOR_FULL / 3
        });
        assert!(down <= 8, "{down}");
        let up = seconds(&mut damper, &mut now, 0.4, |factor| factor == FACTOR_FULL);
        assert!((60..400).contains(&up), "{up}");
    }

    #[test]
    fn a_short_peak_changes_nothing() {
        let (mut damper, mut now) = (Damper::default(), 0);
        seconds(&mut damper, &mut now, 0.4, |factor| factor == FACTOR_FULL);
        let pressure = Pressure::of(&load(1.0, 0, 0)).unwrap();
        damper.observe(pressure, Millis(now + 1_000), &LoadPolicy::default());
        assert_eq!(damper.factor(), FACTOR_FULL);
    }
}
