//! The run: every case, ours and the peers in turn, round by round.

mod machine;
mod pace;
mod packets;
mod sample;
mod simulation;
mod unit;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::cases::{self, Case, Path, Peer, Task};
use crate::load::{Server, Work};
use crate::micro::Micro;
use crate::peers::{Binaries, Certificate, Driver, Ground, Programs};
use crate::report::specification::Promise;
use crate::report::{Finding, Recorded};

use machine::Steal;
use pace::Clock;

pub use machine::Cores;
pub use pace::Pace;

/// What is to be run.
#[derive(Debug)]
pub struct Plan {
    pub cases: Vec<Case>,
    pub pace: Pace,
    pub binaries: Binaries,
    pub driver: Driver,
    /// `postern`, where it does not lie beside this program.
    pub postern: Option<PathBuf>,
    pub promises: Vec<Promise>,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Outcome {
    pub findings: Vec<Finding>,
    pub recorded: Vec<Recorded>,
    /// What a reader of the figures must know.
    pub notes: Vec<String>,
    /// What could not be measured of ours.
    pub failures: Vec<String>,
}

/// The cases that `--only` names, in their own order; all of them without it.
///
/// # Errors
/// A name is unknown.
pub fn choose(only: &[String]) -> Result<Vec<Case>> {
    let mut all = cases::all();
    for name in only {
        if !all.iter().any(|case| case.name == name) {
            let known: Vec<&str> = all.iter().map(|case| case.name).collect();
            bail!(
                "--only {name}: no such case; there are {}",
                known.join(", ")
            );
        }
    }
    all.retain(|case| only.is_empty() || only.iter().any(|name| name == case.name));
    Ok(all)
}

/// The metrics of a case, without their parts.
#[must_use]
pub fn columns(case: &Case) -> Vec<&'static str> {
    let columns = sample::columns(case);
    columns.iter().map(|column| column.metric).collect()
}

/// One case on one way, with those who take part.
#[derive(Debug, Clone)]
struct Unit {
    case: Case,
    way: Path,
    peers: Vec<Peer>,
}

impl Unit {
    /// How long it takes compared with others.
    fn weight(&self) -> f64 {
        match &self.case.task {
            Task::Load(_) => 1.0 + self.peers.len() as f64,
            Task::Series(works) | Task::Floor(works) => 1.5 * works.len() as f64,
            Task::Micro(_) | Task::Packets | Task::Simulation => 1.0,
        }
    }
}

/// Runs the plan. What fails is told in the outcome, and the rest goes on.
///
/// # Errors
/// Nothing can be measured here.
pub fn run(plan: &Plan) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let units = units(plan, &mut outcome.notes);
    let field = units
        .iter()
        .any(|unit| unit.way != Path::InProcess)
        .then(|| Field::prepare(plan))
        .transpose()?;
    outcome.notes.extend(machine::notes());
    let steal = Steal::begin()?;
    let mut clock = Clock::start(plan.pace, units.iter().map(Unit::weight).sum());
    for unit in &units {
        let name = format!("{} {:?}", unit.case.name, unit.way);
        let Some(allowance) = clock.allow(unit.weight()) else {
            let missed = format!("{name}: no time was left");
            if plan.promises(&unit.case) {
                outcome.failures.push(missed);
            } else {
                outcome.notes.push(missed);
            }
            continue;
        };
        let begin = Instant::now();
        let before = Steal::begin()?;
        let ground = field.as_ref().map(|field| field.ground(plan));
        if let Err(error) = unit::run(unit, ground.as_ref(), &allowance, &mut outcome) {
            eprintln!("bench: {name}: {error:#}");
            outcome.failures.push(format!("{name}: {error:#}"));
        }
        eprintln!(
            "bench: {name}: {:.0} s of {:.0} s",
            begin.elapsed().as_secs_f64(),
            allowance.seconds.as_secs_f64()
        );
        outcome.notes.extend(before.note(&name)?);
    }
    outcome.notes.extend(beside_katran(&units));
    outcome.notes.push(steal.summary()?);
    let place = |case: &str| plan.cases.iter().position(|one| one.name == case);
    outcome.findings.sort_by_key(|found| place(&found.row.case));
    Ok(outcome)
}

/// What another balancer's authors measured of theirs, where a packet's cost was measured of ours.
fn beside_katran(units: &[Unit]) -> Option<String> {
    /// Nanoseconds by the kernel's test run, as Katran's documentation has them.
    const TCP_V4: u32 = 101;
    const UDP_V4: u32 = 119;
    let costs = |unit: &Unit| matches!(unit.case.task, Task::Micro(Micro::Steer(_)));
    units.iter().any(costs).then(|| {
        format!(
            "steer-*: Katran's published costs, by the same test run of the kernel: {TCP_V4} ns a TCP packet over IPv4, {UDP_V4} ns of UDP; \
             on another machine, so that they say what is usual and no ratio is taken"
        )
    })
}

impl Plan {
    /// True where SPECIFICATION.md promises something of `case`.
    fn promises(&self, case: &Case) -> bool {
        self.promises
            .iter()
            .any(|promise| promise.case == case.name)
    }
}

/// Cases by way, those with a promise first and then the short ones: time may run out. Peers that are not there, or that a quick run leaves out, fall away.
fn units(plan: &Plan, notes: &mut Vec<String>) -> Vec<Unit> {
    let mut absent: Vec<&str> = Vec::new();
    let mut units = Vec::new();
    for case in &plan.cases {
        for way in case.paths {
            let mut peers = case.peers.to_vec();
            peers.retain(|peer| {
                let carries = !peer.programs(*way).is_empty();
                let have = plan.binaries.have(*peer, *way);
                if carries && !have {
                    absent.push(peer.name());
                }
                have
            });
            if plan.pace.is_quick {
                peers = few(case, &peers, &plan.promises);
            }
            let case = match plan.pace.is_quick {
                true => lighter(case, plan.promises(case)),
                false => case.clone(),
            };
            units.push(Unit {
                case,
                way: *way,
                peers,
            });
        }
    }
    units.sort_by_key(|unit| (!plan.promises(&unit.case), unit.way != Path::InProcess));
    absent.sort_unstable();
    absent.dedup();
    if !absent.is_empty() {
        notes.push(format!("not here, and not compared: {}", absent.join(", ")));
    }
    units
}

/// The peers that a promise of the case names; where none does, the first.
fn few(case: &Case, peers: &[Peer], promises: &[Promise]) -> Vec<Peer> {
    let named: Vec<Peer> = peers
        .iter()
        .copied()
        .filter(|peer| {
            promises
                .iter()
                .any(|promise| promise.case == case.name && promise.names(peer.name()))
        })
        .collect();
    if named.is_empty() {
        peers.iter().copied().take(1).collect()
    } else {
        named
    }
}

/// What takes most of its time to open sessions opens fewer in a quick run: a series is its first and its last, or its second where
/// nothing is promised of it, and memory is that of fewer.
fn lighter(case: &Case, is_promised: bool) -> Case {
    const IDLE_SESSIONS: usize = 300;
    let mut case = case.clone();
    match &mut case.task {
        Task::Series(works) => {
            if !is_promised {
                works.truncate(2);
            }
            let inner = 1..works.len().saturating_sub(1).max(1);
            works.drain(inner);
        }
        Task::Load(Work::Idle { sessions }) => *sessions = IDLE_SESSIONS.min(*sessions),
        Task::Load(_) | Task::Floor(_) | Task::Micro(_) | Task::Packets | Task::Simulation => {}
    }
    case
}

/// What all relays of a run have in common.
struct Field {
    server: Server,
    certificate: Certificate,
    programs: Programs,
    cores: Cores,
    /// INVARIANT: holds the certificate's files.
    _folder: TempDir,
}

impl Field {
    fn prepare(plan: &Plan) -> Result<Self> {
        let cores = Cores::choose()?;
        let folder = tempfile::Builder::new()
            .prefix("postern-bench-")
            .tempdir()?;
        Ok(Self {
            server: Server::start(Some(cores.server)).context("the load's server")?,
            certificate: Certificate::write(folder.path())?,
            programs: Programs::find(plan.postern.clone())?,
            cores,
            _folder: folder,
        })
    }

    fn ground<'a>(&'a self, plan: &'a Plan) -> Ground<'a> {
        Ground {
            cores: self.cores,
            certificate: &self.certificate,
            binaries: &plan.binaries,
            programs: &self.programs,
            server: &self.server.addresses,
            driver: plan.driver,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_cases_are_refused_with_the_known_ones() {
        let chosen = choose(&["decision".to_owned(), "masking".to_owned()]).unwrap();
        assert_eq!(chosen.len(), 2);
        assert_eq!(choose(&[]).unwrap().len(), cases::all().len());
        let message = choose(&["decisions".to_owned()]).unwrap_err().to_string();
        assert!(
            message.contains("decisions: no such case; there are passthrough-bulk-1"),
            "{message}"
        );
    }

    #[test]
    fn a_quick_run_keeps_the_ends_of_a_series() {
        for case in cases::all() {
            let Task::Series(all) = &case.task else {
                continue;
            };
            for (is_promised, last) in [(true, all.last()), (false, all.get(1))] {
                let Task::Series(few) = lighter(&case, is_promised).task else {
                    panic!("{} is a series", case.name);
                };
                assert_eq!([few.first(), few.last()], [all.first(), last]);
                assert_eq!(few.len(), 2);
            }
        }
    }

    #[test]
    fn a_quick_run_keeps_the_peers_that_promises_name() {
        let case = &choose(&["passthrough-ping-64".to_owned()]).unwrap()[0];
        let peers = [Peer::Nginx, Peer::HaProxySplice, Peer::HaProxyCopy];
        let promise = |against: Option<&str>| Promise {
            what: String::new(),
            case: case.name.to_owned(),
            metric: "cpu/message".to_owned(),
            against: against.map(str::to_owned),
            at_most: 1.0,
        };
        let check = |against, expected: &[Peer]| {
            assert_eq!(
                few(case, &peers, &[promise(against)]),
                expected,
                "{against:?}"
            );
        };
        check(Some("haproxy"), &[Peer::HaProxySplice, Peer::HaProxyCopy]);
        check(Some("haproxy-copy"), &[Peer::HaProxyCopy]);
        check(None, &[Peer::Nginx]);
    }
}
