//! Packets through cables as rows: what steering carries beside what the kernel carries without it.

use std::time::Duration;

use anyhow::Result;

use super::pace::{Allowance, ROUNDS_MIN};
use super::{Cores, Outcome, Unit, sample};
use crate::packets::{Course, Mode, Traffic, Turn};
use crate::report::{Finding, Values};

/// A turn is not shorter, so that how it begins and ends is little of it; nor does a longer one say more.
const TURN_MIN: Duration = Duration::from_millis(80);
const TURN_MAX: Duration = Duration::from_millis(500);
/// Until caches are as they stay.
const WARM_UP: Duration = Duration::from_millis(30);
/// Of the time for a turn, what attaching and letting go take.
const OVERHEAD: f64 = 0.3;

/// A node that is busy for less of the time has waited for the sender …
const BUSY_MIN: f64 = 0.9;
/// … if it also refused less than this.
const REFUSED_MIN: f64 = 0.01;

/// Runs every traffic in every mode in turn; rows and notes go to `outcome`.
///
/// # Errors
/// Networks cannot be made here, or packets went astray.
pub(super) fn run(unit: &Unit, allowance: &Allowance, outcome: &mut Outcome) -> Result<()> {
    let cores = Cores::choose()?;
    let mut course = Course::set_up(cores.relay, cores.clients)?;
    let mut contests: Vec<Contest> = Traffic::ALL.map(Contest::new).into();
    let turns = contests.iter().map(|contest| contest.traffic.modes().len());
    let turns = turns.sum::<usize>() as u32;
    let rounds = allowance.pace.rounds.max(ROUNDS_MIN) as u32;
    let share = allowance.seconds / (rounds * turns);
    let time = share.mul_f64(1.0 - OVERHEAD).clamp(TURN_MIN, TURN_MAX);
    round(&mut course, &mut contests, WARM_UP)?;
    contests.iter_mut().for_each(Contest::forget);
    let mut done = 0;
    while allowance.goes_on(done) {
        round(&mut course, &mut contests, time)?;
        done += 1;
    }
    let name = unit.case.name;
    for contest in &contests {
        contest.conclude(unit, outcome);
    }
    outcome.notes.push(format!(
        "{name}: a packet has 64 bytes and belongs to one of 16,384 flows; figures are packets in a second of the CPU time of the \
         kernel's thread for the node's interface, held to core {}, while core {} sends; what receives packets that were forwarded \
         works in that thread, too, and is in both figures of a row",
        cores.relay, cores.clients
    ));
    outcome.notes.extend(waits(name, &contests));
    Ok(())
}

/// Everything once. Modes of one traffic follow each other, so that what disturbs one disturbs its neighbours.
fn round(course: &mut Course, contests: &mut [Contest], time: Duration) -> Result<()> {
    for contest in contests {
        for mode in contest.traffic.modes().iter().copied() {
            let turn = course.turn(contest.traffic, mode, time)?;
            contest.turns[mode as usize].push(turn);
        }
    }
    Ok(())
}

/// One traffic, in every mode.
struct Contest {
    traffic: Traffic,
    /// By mode.
    turns: [Vec<Turn>; Mode::ALL.len()],
}

impl Contest {
    fn new(traffic: Traffic) -> Self {
        Self {
            traffic,
            turns: Default::default(),
        }
    }

    fn forget(&mut self) {
        self.turns.iter_mut().for_each(Vec::clear);
    }

    /// In thousands, a round each.
    fn rounds(&self, mode: Mode) -> Vec<f64> {
        let turns = self.turns[mode as usize].iter();
        turns.map(|turn| turn.packets_per_second / 1e3).collect()
    }

    fn conclude(&self, unit: &Unit, outcome: &mut Outcome) {
        let pairs = [
            (Mode::Native, Mode::NativePass),
            (Mode::Generic, Mode::GenericPass),
        ];
        for column in sample::columns(&unit.case) {
            for (mode, pass) in pairs {
                let metric = format!(
                    "{}, {}, {}",
                    column.metric,
                    self.traffic.name(),
                    mode.name()
                );
                let ours = self.rounds(mode);
                let peers = [
                    (self.traffic.without_steering(), self.rounds(Mode::Plain)),
                    (pass.name(), self.rounds(pass)),
                ];
                for (name, rounds) in &peers {
                    let peer = Some(Values { name, rounds });
                    let found = Finding::new(unit.case.name, &metric, column.unit, &ours, peer);
                    outcome.findings.extend(found);
                }
            }
        }
    }

    /// The middle of what `figure` is of a mode's turns.
    fn median(&self, mode: Mode, figure: impl Fn(&Turn) -> f64) -> f64 {
        let mut values: Vec<f64> = self.turns[mode as usize].iter().map(figure).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    }
}

/// A remark on every turn in which the sender did not keep the node busy: batches are then smaller than they would be, and a packet
/// costs more.
fn waits(name: &str, contests: &[Contest]) -> Vec<String> {
    let mut waits = Vec::new();
    for contest in contests {
        for mode in contest.traffic.modes().iter().copied() {
            let busy = contest.median(mode, |turn| turn.busy);
            let refused = contest.median(mode, |turn| turn.refused);
            if busy < BUSY_MIN && refused < REFUSED_MIN {
                waits.push(format!(
                    "{name}: {}, {}: the sender was the bottleneck, the node was busy for {:.0} % of the time; the figure is a lower bound",
                    contest.traffic.name(),
                    mode.name(),
                    100.0 * busy
                ));
            }
        }
    }
    waits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_that_is_too_slow_is_told_and_nothing_else() {
        let check = |busy: f64, refused: f64, count: usize| {
            let mut contest = Contest::new(Traffic::ALL[0]);
            for turns in &mut contest.turns {
                turns.push(Turn {
                    packets_per_second: 1e6,
                    busy,
                    refused,
                });
            }
            let told = waits("steer-pps", &[contest]);
            assert_eq!(told.len(), count, "{told:?}");
        };
        check(0.5, 0.0, Traffic::ALL[0].modes().len());
        check(0.5, 0.2, 0);
        check(0.95, 0.0, 0);
    }
}
