//! One case on one way: its contestants in turn, round by round, and the findings.

use std::time::Instant;

use anyhow::{Context as _, Result};

use super::pace::Allowance;
use super::sample::{self, Sample};
use super::{Outcome, Unit};
use super::{packets, simulation};
use crate::cases::{Metric, Path, Task};
use crate::load::{Direction, Latency, Measured, SelfCheck, Work};
use crate::micro::{self, Micro};
use crate::peers::{Ground, OURS, Relay};
use crate::report::{Finding, Recorded, Values};

/// Runs one unit; its rows go to `outcome`.
///
/// # Errors
/// Ours cannot be measured.
pub(super) fn run(
    unit: &Unit,
    ground: Option<&Ground<'_>>,
    allowance: &Allowance,
    outcome: &mut Outcome,
) -> Result<()> {
    if let Task::Micro(micro) = unit.case.task {
        return run_micro(unit, micro, allowance, outcome);
    }
    if unit.case.task == Task::Simulation {
        return simulation::run(unit, allowance.pace.is_quick, outcome);
    }
    if unit.case.task == Task::Packets {
        return packets::run(unit, allowance, outcome);
    }
    let ground = ground.context("relays need a ground to stand on")?;
    let mut contest = Contest::prepare(unit, ground, outcome)?;
    let scale = contest.warm_up(allowance, outcome)?;
    if matches!(unit.case.task, Task::Load(_)) {
        outcome
            .notes
            .extend(contest.self_check(allowance.pace.warm_up_scale)?);
    }
    let mut done = 0;
    while allowance.goes_on(done) {
        contest.round(Stage::Measured, scale, outcome)?;
        done += 1;
    }
    contest.conclude(outcome);
    Ok(())
}

/// Those who take part, and what they share.
struct Contest<'a> {
    unit: &'a Unit,
    ground: &'a Ground<'a>,
    relays: Vec<Relay>,
    contestants: Vec<Contestant>,
}

/// One column of figures.
struct Contestant {
    name: String,
    work: Work,
    doer: Doer,
    /// A row a round, in the order of [`sample::columns`].
    rounds: Vec<Vec<f64>>,
    latency: Latency,
    warm_up: Option<Measured>,
    out: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doer {
    Relay(usize),
    /// Bare rustls and the kernel, in one thread of ours.
    Floor,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    WarmUp,
    Measured,
}

impl Contestant {
    fn new(name: impl Into<String>, work: &Work, doer: Doer) -> Self {
        Self {
            name: name.into(),
            work: work.clone(),
            doer,
            rounds: Vec::new(),
            latency: Latency::default(),
            warm_up: None,
            out: false,
        }
    }

    fn column(&self, number: usize) -> Vec<f64> {
        self.rounds.iter().map(|round| round[number]).collect()
    }
}

impl<'a> Contest<'a> {
    /// Starts the relays. A peer that does not start is left out, and a note says so.
    fn prepare(unit: &'a Unit, ground: &'a Ground<'a>, outcome: &mut Outcome) -> Result<Self> {
        let mut contest = Self {
            unit,
            ground,
            relays: vec![Relay::ours(unit.way, ground)?],
            contestants: Vec::new(),
        };
        let ours = Doer::Relay(0);
        match &unit.case.task {
            Task::Load(work) => {
                contest.contestants.push(Contestant::new(OURS, work, ours));
                for peer in &unit.peers {
                    match Relay::peer(*peer, unit.way, ground) {
                        Ok(relay) => {
                            let doer = Doer::Relay(contest.relays.len());
                            contest.relays.push(relay);
                            let one = Contestant::new(peer.name(), work, doer);
                            contest.contestants.push(one);
                        }
                        Err(error) => outcome.notes.push(format!("{}: {error:#}", unit.case.name)),
                    }
                }
            }
            Task::Series(works) => {
                for work in works {
                    let one = Contestant::new(sample::label(work), work, ours);
                    contest.contestants.push(one);
                }
            }
            Task::Floor(works) => {
                for work in works {
                    let label = sample::label(work);
                    let one = Contestant::new(label, work, ours);
                    contest.contestants.push(one);
                    let floor = Contestant::new("floor", work, Doer::Floor);
                    contest.contestants.push(floor);
                }
            }
            Task::Micro(_) | Task::Packets | Task::Simulation => {}
        }
        Ok(contest)
    }

    /// Everybody once, and nothing of it counts; the scale of the rounds that do. Where sessions are what
    /// is measured it would take as long as those: of a series only the first warms up, and memory is
    /// that of relays that were just started.
    fn warm_up(&mut self, allowance: &Allowance, outcome: &mut Outcome) -> Result<f64> {
        if self.unit.case.metric == Metric::MemoryPerSession {
            return Ok(1.0);
        }
        let scale = allowance.pace.warm_up_scale;
        let begin = Instant::now();
        let all = self.contestants.len() as u32;
        let few = match self.unit.case.task {
            Task::Series(_) => 1,
            _ => all,
        };
        self.turns(few as usize, Stage::WarmUp, scale, outcome)?;
        Ok(allowance.scale(begin.elapsed() * all / few))
    }

    /// Everybody once, one after the other.
    fn round(&mut self, stage: Stage, scale: f64, outcome: &mut Outcome) -> Result<()> {
        self.turns(self.contestants.len(), stage, scale, outcome)
    }

    /// The first `count` of them, once.
    fn turns(
        &mut self,
        count: usize,
        stage: Stage,
        scale: f64,
        outcome: &mut Outcome,
    ) -> Result<()> {
        for number in 0..count {
            if self.contestants[number].out {
                continue;
            }
            match self.turn(number, scale) {
                Ok(sample) => {
                    let contestant = &mut self.contestants[number];
                    if stage == Stage::Measured {
                        contestant
                            .rounds
                            .push(sample.figures(&self.unit.case, &contestant.work));
                        contestant.latency.add(&sample.measured.latency);
                    } else {
                        contestant.warm_up = Some(sample.measured);
                    }
                }
                Err(error) if self.is_ours(number) => {
                    return Err(
                        error.context(format!("{stage:?} of {}", self.contestants[number].name))
                    );
                }
                Err(error) => {
                    let one = &mut self.contestants[number];
                    one.out = true;
                    outcome.notes.push(format!(
                        "{} {:?}: {} is left out: {error:#}",
                        self.unit.case.name, self.unit.way, one.name
                    ));
                }
            }
        }
        Ok(())
    }

    fn is_ours(&self, number: usize) -> bool {
        self.contestants[number].doer == Doer::Relay(0)
    }

    /// One contestant's work.
    fn turn(&mut self, number: usize, scale: f64) -> Result<Sample> {
        let Contestant { work, doer, .. } = &self.contestants[number];
        let work = sample::scaled(work, scale);
        match *doer {
            Doer::Floor => floor(&work),
            Doer::Relay(relay) => {
                let memory = self.unit.case.metric == Metric::MemoryPerSession;
                if memory {
                    // Memory that an earlier round's sessions have left free would not count again.
                    self.restart(relay)?;
                }
                let relay = &mut self.relays[relay];
                sample::take(relay, &work, self.ground, memory).with_context(|| relay.complaint())
            }
        }
    }

    fn restart(&mut self, number: usize) -> Result<()> {
        let name = self.relays[number].name;
        let peer = self.unit.peers.iter().find(|peer| peer.name() == name);
        self.relays[number] = match peer {
            Some(peer) => Relay::peer(*peer, self.unit.way, self.ground)?,
            None => Relay::ours(self.unit.way, self.ground)?,
        };
        Ok(())
    }

    /// The same work without a relay: a remark where the load was what held ours back.
    fn self_check(&self, scale: f64) -> Result<Option<String>> {
        let throughput = matches!(
            self.unit.case.metric,
            Metric::CpuPerGigabyte | Metric::CpuPerMessage
        );
        let Some(relayed) = self.contestants[0].warm_up.as_ref().filter(|_| throughput) else {
            return Ok(None);
        };
        let work = sample::scaled(&self.contestants[0].work, scale);
        let target = self.relays[0].target(1)?;
        let direct = sample::straight(&work, &target, self.ground)?;
        let check = SelfCheck::new(relayed, &direct);
        let Unit { case, way, .. } = self.unit;
        let verdict = if check.is_bottleneck {
            "; the load is the bottleneck, throughput is a lower bound"
        } else {
            ""
        };
        Ok(Some(format!(
            "{} {way:?}: straight, without a relay, the load is {:.1} times as fast as through ours{verdict}",
            case.name, check.headroom
        )))
    }

    fn conclude(self, outcome: &mut Outcome) {
        let Unit { case, way, .. } = self.unit;
        for (number, column) in sample::columns(case).iter().enumerate() {
            let mut rows = |name: &str, ours: &Contestant, peer: Option<&Contestant>| {
                let metric = if case.paths.len() > 1 {
                    format!("{name}, {}", path_name(*way))
                } else {
                    name.to_owned()
                };
                let values = peer.map(|peer| (peer, peer.column(number)));
                let values = values.as_ref().map(|(peer, rounds)| Values {
                    name: &peer.name,
                    rounds,
                });
                let found = Finding::new(
                    case.name,
                    &metric,
                    column.unit,
                    &ours.column(number),
                    values,
                );
                outcome.findings.extend(found);
            };
            let part = |of: &Contestant| format!("{}, {}", column.metric, of.name);
            match &case.task {
                Task::Series(_) => {
                    let (first, others) =
                        self.contestants.split_first().expect("a series has works");
                    rows(&part(first), first, None);
                    for one in others {
                        rows(&part(one), one, Some(first));
                    }
                }
                Task::Floor(_) => {
                    for pair in self.contestants.chunks_exact(2) {
                        rows(&part(&pair[0]), &pair[0], Some(&pair[1]));
                    }
                }
                Task::Load(_) | Task::Micro(_) | Task::Packets | Task::Simulation => {
                    let (ours, peers) = self.contestants.split_first().expect("ours takes part");
                    let mut peers = peers.iter().filter(|peer| !peer.out).peekable();
                    if peers.peek().is_none() {
                        rows(column.metric, ours, None);
                    }
                    for peer in peers {
                        rows(column.metric, ours, Some(peer));
                    }
                }
            }
        }
        let latencies = self
            .contestants
            .into_iter()
            .filter(|one| !one.latency.is_empty());
        outcome.recorded.extend(latencies.map(|one| Recorded {
            name:
                format!("{}-{}-{}", case.name, path_name(*way), one.name).replace([' ', ','], "-"),
            latency: one.latency,
        }));
    }
}

fn path_name(way: Path) -> &'static str {
    match way {
        Path::Passthrough => "passthrough",
        Path::Tls => "tls",
        Path::Ws => "ws",
        Path::Wss => "wss",
        Path::Rdp => "rdp",
        Path::InProcess => "in-process",
    }
}

/// The same bytes through bare rustls and the kernel.
fn floor(work: &Work) -> Result<Sample> {
    let Work::Bulk {
        direction,
        flows,
        bytes_per_flow,
    } = work
    else {
        anyhow::bail!("the floor is one of bytes: {work:?}");
    };
    let bytes = bytes_per_flow * *flows as u64;
    let seconds_per_gigabyte = micro::floor(*direction == Direction::Up, bytes)?;
    Ok(Sample::of_floor(bytes, seconds_per_gigabyte))
}

fn run_micro(
    unit: &Unit,
    micro: Micro,
    allowance: &Allowance,
    outcome: &mut Outcome,
) -> Result<()> {
    let case = &unit.case;
    micro::run(micro)?;
    let mut rounds = Vec::new();
    while allowance.goes_on(rounds.len()) {
        rounds.push(micro::run(micro)?);
    }
    let first = rounds.first().context("a micro-benchmark runs")?;
    let column =
        |number: usize| -> Vec<f64> { rounds.iter().map(|round| round[number].value).collect() };
    let reference = first.iter().position(|figure| figure.is_reference);
    for (number, figure) in first.iter().enumerate() {
        let metric = if figure.variant.is_empty() {
            "time".to_owned()
        } else {
            format!("time, {}", figure.variant)
        };
        let against = reference.filter(|reference| *reference != number);
        let values = against.map(|reference| (&first[reference].variant, column(reference)));
        let values = values
            .as_ref()
            .map(|(name, rounds)| Values { name, rounds });
        outcome.findings.extend(Finding::new(
            case.name,
            &metric,
            case.unit,
            &column(number),
            values,
        ));
    }
    Ok(())
}
