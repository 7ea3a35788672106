//! The machines of the simulated cluster: what they carry, which table they have, and who hears them.

use postern_steering::{Cluster, Generation, Load, NodeId, State, Weight};

use super::random::Random;

/// Part of the machines that have a new table within one tick.
const TABLE_PART: f64 = 0.97;
/// CPU of a machine that nobody uses, and what it reaches at the peak when shares are fair.
const CPU_IDLE: f64 = 0.08;
const CPU_PEAK: f64 = 0.50;
/// Noise of what it reports, to both sides.
const CPU_NOISE: f64 = 0.08;

/// What is to become of a node that drains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    StartAnew,
    Leave,
}

#[derive(Debug, Clone)]
pub struct Machine {
    pub is_member: bool,
    pub weight: u32,
    pub is_alive: bool,
    /// Ticks until which these last.
    pub down_until: u64,
    pub silent_until: u64,
    pub late_until: u64,
    pub busy_until: u64,
    pub busy: f64,
    pub draining: Option<Draining>,
    /// A busy machine that should lose new sessions: since when, and the buckets that it had.
    pub overloaded: Option<(u64, u32)>,
    pub has: Generation,
    sessions_at_peak: f64,
}

#[derive(Debug, Clone, Copy)]
pub struct Draining {
    pub since: u64,
    /// Buckets that it had.
    pub had: u32,
    pub is_relieved: bool,
    pub is_closed: bool,
    pub after: After,
}

impl Machine {
    pub fn new(number: u16, peak_per_weight: f64) -> Self {
        // Two sizes of machines.
        let weight = if number.is_multiple_of(4) { 200 } else { 100 };
        Self {
            is_member: false,
            weight,
            is_alive: false,
            down_until: 0,
            silent_until: 0,
            late_until: 0,
            busy_until: 0,
            busy: 0.0,
            draining: None,
            overloaded: None,
            has: Generation(0),
            sessions_at_peak: peak_per_weight * f64::from(weight),
        }
    }

    pub fn weight(&self) -> anyhow::Result<Weight> {
        Ok(Weight::new(self.weight)?)
    }

    pub fn start(&mut self) {
        self.is_alive = true;
        self.has = Generation(0);
        self.draining = None;
        self.overloaded = None;
        self.busy_until = 0;
    }

    /// True where control hears it and it hears control.
    pub fn is_heard(&self, tick: u64) -> bool {
        self.is_alive && tick >= self.silent_until
    }

    /// True where packets may come in at it: who is taken for failed has stopped announcing the address.
    pub fn steers(&self, node: NodeId, cluster: &Cluster, tick: u64) -> bool {
        let state = cluster.member(node).map(postern_steering::Member::state);
        let takes_part = matches!(state, Some(State::Up | State::Draining));
        self.is_heard(tick) && takes_part && self.has > Generation(0)
    }

    /// A new table comes to most machines at once.
    pub fn receive(&mut self, newest: Generation, tick: u64, random: &mut Random) {
        let receives = self.is_heard(tick) && tick >= self.late_until && self.has < newest;
        if receives && random.part() < TABLE_PART {
            self.has = newest;
        }
    }

    pub fn load(&self, sessions: u32, tick: u64, random: &mut Random) -> Load {
        let carried = f64::from(sessions) / self.sessions_at_peak;
        let busy = if tick < self.busy_until {
            self.busy
        } else {
            0.0
        };
        let cpu = CPU_IDLE + (CPU_PEAK - CPU_IDLE) * carried + busy;
        let noise = 1.0 + random.between(-CPU_NOISE, CPU_NOISE);
        Load {
            cpu: (cpu * noise).clamp(0.0, 1.0),
            sessions,
            sessions_max: (self.sessions_at_peak * 3.0) as u32,
            handshakes: 0,
            handshakes_max: 256,
        }
    }
}
