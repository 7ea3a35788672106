//! The one loop that everything meets in: what the store tells, what was measured, what is asked; and the time.
//!
//! It holds the whole state and does no waiting. Whatever takes time (etcd, probes, counting sockets)
//! runs beside it, at most one of a kind, and comes back as an [`Outcome`].

mod answer;
mod begin;
mod beside;
mod explain;
mod lead;
mod measure;
mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use postern_steering::{BucketIndex, Generation, Load, Millis, NodeId, Publication, Seal};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::Secret;
use crate::admin::{Request, Response};
use crate::kernel::{self, Kernel, Keys};
use crate::leader::{Leader, Moves};
use crate::links::Links;
use crate::membership::Membership;
use crate::nodes::Nodes;
use crate::probe::{Probe, ProbeError};
use crate::station::{Station, Surroundings};
use crate::store::{Commit, Etcd, Revision, StoreError};
use crate::values::{Boot, FlowsReport};

/// Between two looks at everything.
const TICK: Duration = Duration::from_millis(200);

const LOAD_PERIOD: Duration = Duration::from_secs(1);
const COUNT_PERIOD: Duration = Duration::from_secs(5);
/// An older count is not said to hold.
const COUNT_AGE_MAX: Duration = Duration::from_secs(7);
const PROBE_PERIOD: Duration = Duration::from_secs(1);
/// Services that are tried at a time.
const PROBES_MAX: usize = 64;
/// Routes and addresses of the link change seldom.
const LINKS_PERIOD: Duration = Duration::from_secs(10);

/// Outcomes that may wait; whoever has one waits then.
const OUTCOMES_MAX: usize = 256;

/// Requests of administrators that may wait.
pub const ASKED_MAX: usize = 32;

/// Keys whose refusal was told once.
const TOLD_MAX: usize = 1024;

/// What came of something that took time.
#[derive(Debug)]
enum Outcome {
    Campaigned(Result<Commit, StoreError>),
    /// And in which term.
    Published(u64, Result<Commit, StoreError>),
    Probed(NodeId, Result<(), ProbeError>),
    /// Nothing where it failed: no connections would be another thing.
    Counted(Option<Vec<(BucketIndex, u32)>>),
    Measured(Option<Load>),
}

/// A question and where its answer goes.
pub type Asked = (Request, oneshot::Sender<Response>);

/// What a node that steers begins with.
pub struct Beginning {
    pub settings: postern_steering::Settings,
    pub secret: Secret,
    pub kernel: Box<dyn Kernel>,
    pub installed: Installed,
    pub ethernet: [u8; 6],
    pub state_directory: PathBuf,
    pub admin_socket: PathBuf,
}

/// How the interface runs the programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    pub mode: String,
    pub native_refused: Option<String>,
}

/// Who leads, as the store says.
#[derive(Debug, Clone, Copy, Default)]
struct Seat {
    holder: Option<(NodeId, Boot)>,
    created: Revision,
    /// Of the key; 0: it is not there.
    modified: Revision,
}

/// The table of the store.
#[derive(Debug, Clone, Default)]
struct Stored {
    /// The last good one.
    publication: Option<Publication>,
    /// Of whatever lies there, which who publishes next writes over; 0: nothing.
    modified: Revision,
    /// The last good one is what is there.
    is_good: bool,
}

/// This node leads.
struct Term {
    number: u64,
    leader: Leader,
    /// When the leader's key came to be: it is still the same one.
    created: Revision,
    /// Of the table that the store has.
    table: Revision,
}

/// What was counted since the start.
#[derive(Debug, Clone, Default)]
struct Counts {
    moves: Moves,
    refused: BTreeMap<&'static str, u64>,
    probe_failures: BTreeMap<NodeId, u64>,
    terms: u64,
}

/// When something was done last.
struct Times {
    load: Instant,
    count: Instant,
    probe: Instant,
    links: Instant,
}

/// The conductor of a node that steers.
pub struct Conductor {
    settings: postern_steering::Settings,
    keys: Keys,
    seal: Seal,
    boot: Boot,
    installed: Installed,
    admin_socket: PathBuf,
    kernel: Box<dyn Kernel>,
    links: Links,
    station: Station,
    around: Surroundings,
    nodes: Nodes,
    /// With etcd alone.
    etcd: Option<Etcd>,
    membership: Option<Membership>,
    seat: Seat,
    stored: Stored,
    term: Option<Term>,
    rest_until: Instant,
    is_campaigning: bool,
    /// In the kernel: generation and isolation.
    applied: Option<(Generation, bool)>,
    is_apply_failing: bool,
    probe: Probe,
    probing: BTreeSet<NodeId>,
    /// Probes at a time.
    seats: Arc<Semaphore>,
    is_counting: bool,
    is_measuring: bool,
    meter: Arc<tokio::sync::Mutex<crate::load::Meter>>,
    load: Option<Load>,
    /// The last count, and its number.
    counted: Option<Arc<FlowsReport>>,
    counted_at: Instant,
    counts: Counts,
    told: BTreeSet<String>,
    times: Times,
    began: Instant,
    keeper: watch::Sender<Option<Arc<Vec<u8>>>>,
    outcomes: mpsc::Sender<Outcome>,
    beside: JoinSet<()>,
}

/// What ends the loop, and what it is asked.
pub struct Wires {
    pub asked: mpsc::Receiver<Asked>,
    /// New settings.
    pub settings: mpsc::Receiver<postern_steering::Settings>,
    pub end: oneshot::Receiver<()>,
}

/// Steers until it is told to end.
///
/// # Errors
/// What was configured can't be.
pub async fn run(beginning: Beginning, mut wires: Wires) -> Result<(), crate::ConductorError> {
    let (sender, mut outcomes) = mpsc::channel(OUTCOMES_MAX);
    let (mut conductor, mut source) = Conductor::new(beginning, sender).await?;
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            told = source.next() => conductor.hear(told),
            Some(outcome) = outcomes.recv() => conductor.finish(outcome),
            Some((request, reply)) = wires.asked.recv() => conductor.answer(request, reply),
            Some(settings) = wires.settings.recv() => conductor.change(settings),
            _ = ticks.tick() => conductor.tick(),
            _ = &mut wires.end => break,
        }
    }
    conductor.end().await;
    Ok(())
}

impl Conductor {
    /// The monotonic clock, as the deciding side counts it.
    fn now(&self) -> Millis {
        Millis(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn tick(&mut self) {
        if self.times.links.elapsed() >= LINKS_PERIOD {
            self.times.links = Instant::now();
            let links = Links::of(&self.settings.interface);
            if links != self.links {
                self.links = links;
                self.applied = None;
            }
        }
        match self.kernel.newest_seen() {
            Ok(newest) => self.around.newest_seen = Generation(newest),
            Err(error) => tracing::debug!(error = error.in_full(), "no newest generation"),
        }
        self.look_at_membership();
        self.judge();
        self.lead();
        self.measure();
        self.speak();
    }

    /// Puts in force what should be.
    fn judge(&mut self) {
        if self.station.judge(&self.around) {
            if self.station.is_isolated() {
                tracing::warn!(
                    own = %self.station.generation(),
                    seen = %self.around.newest_seen,
                    "the cluster went on without this node: it keeps the connections that it has and drops all else"
                );
            } else {
                tracing::info!("this node steers again");
            }
        }
        let Some(publication) = self.station.in_force() else {
            return;
        };
        let wanted = (publication.generation(), self.station.is_isolated());
        if self.applied == Some(wanted) {
            return;
        }
        let place = self.station.place();
        let put = kernel::draft(
            &self.settings,
            self.keys,
            place,
            &self.links,
            publication,
            wanted.1,
        )
        .and_then(|draft| self.kernel.put_table(&draft));
        match put {
            Ok(()) => {
                tracing::debug!(generation = %wanted.0, isolated = wanted.1, "in force");
                self.applied = Some(wanted);
                self.is_apply_failing = false;
            }
            Err(error) => {
                if !self.is_apply_failing {
                    let error = error.in_full();
                    tracing::error!(error, generation = %wanted.0, "the kernel does not take the table; the last one stays");
                }
                self.is_apply_failing = true;
            }
        }
    }

    /// The table that the kernel steers by.
    fn steers_by(&self) -> Generation {
        self.applied
            .map(|(generation, _)| generation)
            .unwrap_or_default()
    }

    fn look_at_membership(&mut self) {
        let Some(membership) = &self.membership else {
            return;
        };
        let standing = membership.standing();
        let is_registered = standing.held(Instant::now()).is_some();
        if is_registered != self.around.is_registered {
            tracing::info!(is_registered, "membership");
        }
        self.around.is_registered = is_registered;
        self.around.refused = standing.refused;
        self.around.intent = self.nodes.intent(self.settings.node);
    }

    /// Takes what can be changed while it runs.
    fn change(&mut self, settings: postern_steering::Settings) {
        self.station.trust(settings.peers.clone());
        self.nodes.trust(settings.peers.clone());
        if let Err(error) = self.kernel.set_sources(&settings.sources) {
            tracing::error!(
                error = error.in_full(),
                "the list of sources is not as it should be"
            );
        }
        if let Some(membership) = &self.membership {
            let place = self.station.place();
            let registration = crate::values::Registration::new(place, settings.weight, self.boot);
            membership.registration.send_if_modified(|before| {
                let is_news = *before != registration;
                *before = registration;
                is_news
            });
        }
        self.settings = settings;
        self.applied = None;
        self.judge();
    }

    fn finish(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Campaigned(result) => self.campaigned(result),
            Outcome::Published(term, result) => self.was_published(term, result),
            Outcome::Probed(node, result) => self.probed(node, result),
            Outcome::Counted(flows) => self.count(flows),
            Outcome::Measured(load) => {
                self.is_measuring = false;
                self.load = load;
            }
        }
    }

    async fn end(mut self) {
        if let Some(term) = self.term.take() {
            self.give_up_seat(term.created).await;
        }
        if let Some(membership) = self.membership.take() {
            membership.end().await;
        }
        self.beside.shutdown().await;
    }
}

#[cfg(test)]
mod tests;
