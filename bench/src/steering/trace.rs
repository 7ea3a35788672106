//! What happens in the week: sessions that come and how long they last, nodes that come, go, drain, fail and are busy.

use super::Scale;
use super::random::Random;

pub const TICK_MS: u64 = 2_000;
pub const TICKS_PER_HOUR: u64 = 3_600 * 1_000 / TICK_MS;

/// Lifetimes are lognormal around this median …
const LIFETIME_MEDIAN_S: f64 = 75.0 * 60.0;
/// … with this standard deviation of the logarithm …
const LIFETIME_SIGMA: f64 = 1.0;
/// … and drawn again outside of these bounds.
const LIFETIME_S: std::ops::RangeInclusive<f64> = 120.0..=36_000.0;

/// New sessions in each hour of a working day, in any unit.
const DAY: [f64; 24] = [
    2.0, 1.0, 1.0, 1.0, 1.0, 3.0, 8.0, 20.0, 40.0, 36.0, 28.0, 24.0, 20.0, 32.0, 28.0, 24.0, 20.0,
    14.0, 10.0, 8.0, 6.0, 5.0, 4.0, 3.0,
];
/// Of a day at the weekend.
const WEEKEND_PART: f64 = 0.25;

/// Events for each node and week.
const CRASHES: f64 = 0.15;
const SILENCES: f64 = 0.10;
const DRAINS: f64 = 0.30;
const LATE_TABLES: f64 = 0.50;
const BUSY: f64 = 0.40;
/// Part of the nodes that are busy at once, and how often that happens a week.
const BUSY_TOGETHER_PART: f64 = 0.05;
const BUSY_TOGETHER: f64 = 7.0;
/// Parts of the nodes that come and that leave within the time.
const NEW_PART: f64 = 0.03;
const LEAVING_PART: f64 = 0.02;

/// What happens to a node.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Event {
    Join,
    /// Drained for maintenance: started anew when it is empty.
    Maintain,
    /// Drained, and taken out when it is empty.
    Leave,
    /// It and its sessions are lost; it comes back after some time.
    Crash {
        ticks: u64,
    },
    /// Nobody hears it, and its sessions live on.
    Silence {
        ticks: u64,
    },
    /// It is heard, and no table comes to it.
    Late {
        ticks: u64,
    },
    /// Something else takes a part of its processors.
    Busy {
        part: f64,
        ticks: u64,
    },
}

/// The events in the order in which they happen, as (tick, node, event).
pub fn events(scale: Scale, random: &mut Random) -> Vec<(u64, u16, Event)> {
    let ticks = scale.hours * TICKS_PER_HOUR;
    let weeks = scale.hours as f64 / (7.0 * 24.0);
    let nodes = f64::from(scale.nodes);
    let mut events = Vec::new();
    let mut add = |random: &mut Random, count: f64, make: &mut dyn FnMut(&mut Random) -> Event| {
        for _ in 0..count.round() as usize {
            let tick = random.below(ticks as usize) as u64;
            let node = 1 + random.below(usize::from(scale.nodes)) as u16;
            let event = make(random);
            events.push((tick, node, event));
        }
    };
    let minutes = |random: &mut Random, low: f64, high: f64| {
        (random.between(low, high) * 60_000.0) as u64 / TICK_MS
    };
    let each = nodes * weeks;
    add(random, each * CRASHES, &mut |random| Event::Crash {
        ticks: minutes(random, 3.0, 20.0),
    });
    add(random, each * SILENCES, &mut |random| Event::Silence {
        ticks: minutes(random, 0.1, 0.7),
    });
    add(random, each * LATE_TABLES, &mut |random| Event::Late {
        ticks: minutes(random, 0.05, 0.4),
    });
    add(random, each * DRAINS, &mut |_| Event::Maintain);
    add(random, nodes * LEAVING_PART, &mut |_| Event::Leave);
    add(random, each * BUSY, &mut |random| Event::Busy {
        part: random.between(0.3, 1.0),
        ticks: minutes(random, 10.0, 60.0),
    });
    for _ in 0..(BUSY_TOGETHER * weeks).ceil() as usize {
        let tick = random.below(ticks as usize) as u64;
        let busy = (nodes * BUSY_TOGETHER_PART) as u16;
        let first = 1 + random.below(usize::from(scale.nodes - busy)) as u16;
        let lasts = minutes(random, 20.0, 40.0);
        let part = random.between(0.3, 0.8);
        events.extend((first..first + busy).map(|node| {
            let event = Event::Busy { part, ticks: lasts };
            (tick, node, event)
        }));
    }
    events.extend((initial_nodes(scale) + 1..=scale.nodes).map(|node| {
        let tick = random.below(ticks as usize) as u64;
        (tick, node, Event::Join)
    }));
    events.sort_by_key(|(tick, node, _)| (*tick, *node));
    events
}

/// Nodes that are there from the beginning.
pub fn initial_nodes(scale: Scale) -> u16 {
    scale.nodes - (f64::from(scale.nodes) * NEW_PART).round() as u16
}

/// When sessions come, and how long they last.
#[derive(Debug)]
pub struct Arrivals {
    /// New sessions for each unit of [`DAY`] and tick.
    per_unit: f64,
}

impl Arrivals {
    pub fn new(scale: Scale) -> Self {
        let units: f64 = (0..scale.hours).map(unit).sum();
        Self {
            per_unit: scale.sessions as f64 / (units * TICKS_PER_HOUR as f64),
        }
    }

    /// New sessions in a tick.
    pub fn count(&self, tick: u64, random: &mut Random) -> usize {
        let expected = unit(tick / TICKS_PER_HOUR) * self.per_unit;
        (expected + random.part()) as usize
    }

    /// The most sessions that live at a time, about.
    pub fn peak(&self, scale: Scale) -> f64 {
        let busiest = (0..scale.hours).map(unit).fold(0.0, f64::max);
        busiest * self.per_unit * (2.0 * LIFETIME_MEDIAN_S * 1_000.0 / TICK_MS as f64) * 0.6
    }
}

/// Ticks that a new session lasts.
pub fn lifetime(random: &mut Random) -> u64 {
    loop {
        let seconds = LIFETIME_MEDIAN_S * (LIFETIME_SIGMA * random.normal()).exp();
        if LIFETIME_S.contains(&seconds) {
            return (seconds * 1_000.0) as u64 / TICK_MS;
        }
    }
}

/// Of an hour since Monday's first.
fn unit(hour: u64) -> f64 {
    let part = if hour / 24 % 7 < 5 { 1.0 } else { WEEKEND_PART };
    DAY[(hour % 24) as usize] * part
}
