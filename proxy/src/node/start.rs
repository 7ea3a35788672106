//! Start and end of the engine process.

use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::{Receiver, channel, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use arc_swap::ArcSwap;
use futures_lite::future::or;
use postern_engine::doorbell::{self, Doorbell, Wire};
use postern_engine::front::{Kind, Wanted};
use postern_engine::net::Listener;
use postern_engine::{clock, front, relay, resources};
use postern_relay::record::Library;
use postern_session::{Outcome, State, Stop};
use postern_snapshot::{Driver, EngineInfo};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::link::{self, Messages};
use super::placement::{self, Choice};
use super::spool::Spool;
use super::worker::Worker;
use super::{Command, CoreHandle, Cores, EngineArguments, Ledger, Node};

/// Messages that may wait for control while it is away.
const OUTBOX_MESSAGES_MAX: usize = 65_536;

/// Sessions that are told of a drain have this long to say good-bye.
const DRAIN_MAX: Duration = Duration::from_secs(4);

/// What is left then is cut off, and has this long to write its records.
const END_MAX: Duration = Duration::from_millis(500);

/// Between looks at what is left while draining.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// Runs the engine until it is told to end.
///
/// # Errors
/// When the machine or the configuration does not let it start.
pub fn run(arguments: &EngineArguments) -> Result<()> {
    postern_access::provider::install();
    let link_path = arguments.run_directory.join("link.sock");
    let (messages, snapshot) = loop {
        let mut messages = Messages::new(link::connect(&link_path));
        if let Some(snapshot) = messages.snapshot() {
            break (messages, snapshot);
        }
    };
    let kind = front::choose(wanted(snapshot.driver))?;
    let limits = snapshot.limits;
    let descriptors = resources::prepare(kind, limits.connections_max, limits.sessions_max)?;
    let cores = chosen_cores(&snapshot.cores)?;
    let listen = snapshot.listen.clone();
    listen
        .iter()
        .try_for_each(|address| front::claim(*address))?;
    let (outbox, to_control) = sync_channel(OUTBOX_MESSAGES_MAX);
    let state = State::compile(snapshot, None).context("the first snapshot can't be used")?;
    let node = Arc::new(Node {
        state: ArcSwap::from_pointee(state),
        ledger: Ledger::new(descriptors),
        info: OnceLock::new(),
        outbox,
        outbox_losses: AtomicU64::new(0),
        began: Instant::now(),
        lease_until_ms: AtomicU64::new(0),
        draining: AtomicBool::new(false),
    });
    node.renew_lease();
    let (handles, threads, sockets) = start_cores(&node, kind, &cores, &listen)?;
    let placement = place(&node, &cores, &handles, &sockets, &listen);
    // A listener that nobody accepts from would go on taking connections.
    drop(sockets);
    node.info.get_or_init(|| EngineInfo {
        driver: kind.name().to_owned(),
        kernel_tls: match relay::ktls::available() {
            Ok(()) => "yes",
            Err(_) => "no",
        }
        .to_owned(),
        placement: placement.label().to_owned(),
    });
    let (driver, records) = (kind.name(), Library::in_use().name());
    tracing::info!(driver, records, ?cores, ?listen, "the engine is up");
    end_on_signal(node.clone(), handles.clone())?;
    std::thread::Builder::new()
        .name("link".to_owned())
        .spawn(move || {
            // The first link has read its snapshot already; it stays the link.
            link::serve(&node, &handles, &link_path, Some(messages), &to_control);
        })?;
    // A core that fails takes its own sessions with it; the others go on to their end.
    let ends: Vec<Result<()>> = threads.into_iter().map(end_of).collect();
    ends.into_iter().collect()
}

fn wanted(driver: Driver) -> Wanted {
    match driver {
        Driver::Auto => Wanted::Auto,
        Driver::IoUring => Wanted::IoUring,
        Driver::Epoll => Wanted::Epoll,
    }
}

fn end_of(thread: CoreThread) -> Result<()> {
    let ended = match thread.join() {
        Ok(result) => result.map_err(Into::into),
        Err(_) => Err(anyhow!("a core's thread panicked")),
    };
    ended.inspect_err(|error| tracing::error!(%error, "a core has failed"))
}

fn chosen_cores(wanted: &[usize]) -> Result<Vec<usize>> {
    let available = resources::cores();
    ensure!(!available.is_empty(), "the process may run on no core");
    for core in wanted {
        ensure!(
            available.contains(core),
            "listen.cores names core {core}, but the process may run on {available:?} only"
        );
    }
    Ok(if wanted.is_empty() {
        available
    } else {
        wanted.to_vec()
    })
}

type CoreThread = std::thread::JoinHandle<Result<(), postern_engine::EngineError>>;

/// Lets the kernel place new connections by load, where that is configured.
fn place(
    node: &Node,
    cores: &[usize],
    handles: &Cores,
    sockets: &[OwnedFd],
    listen: &[SocketAddr],
) -> Choice {
    let Some(pins) = node.state.load().snapshot.placement.clone() else {
        return Choice::Hash;
    };
    if let [_, others @ ..] = listen
        && !others.is_empty()
    {
        tracing::warn!(
            ?others,
            "the kernel's hash places what comes to other addresses than the first"
        );
    }
    let (choice, announcers) = placement::join(&pins, cores, sockets);
    for (handle, announcer) in handles.iter().zip(announcers) {
        handle.send(Command::Announce(Box::new(announcer)));
    }
    choice
}

/// Starts every core; with them comes a socket of each that listens on the first address.
fn start_cores(
    node: &Arc<Node>,
    kind: Kind,
    cores: &[usize],
    listen: &[SocketAddr],
) -> Result<(Cores, Vec<CoreThread>, Vec<OwnedFd>)> {
    let mut handles = Vec::with_capacity(cores.len());
    let mut threads = Vec::with_capacity(cores.len());
    let (ready, started) = channel();
    for core in cores {
        let (commands, received) = channel();
        let (button, wire) = doorbell::new()?;
        handles.push(CoreHandle { commands, button });
        let life = CoreLife {
            core: *core,
            place: handles.len() - 1,
            node: node.clone(),
            listen: listen.to_vec(),
            audit: node.state.load().snapshot.audit.directory.clone(),
        };
        let ready = ready.clone();
        threads.push(front::start(*core, kind, move || {
            life.live(wire, received, ready)
        })?);
    }
    drop(ready);
    let mut sockets = Vec::with_capacity(cores.len());
    for _ in cores {
        match started.recv() {
            Ok(Ok(socket)) => sockets.push(socket),
            Ok(Err(error)) => return Err(error),
            Err(_) => {
                threads.into_iter().try_for_each(end_of)?;
                return Err(anyhow!("a core ended before it was up"));
            }
        }
    }
    sockets.sort_by_key(|(place, _)| *place);
    let sockets = sockets.into_iter().map(|(_, socket)| socket).collect();
    Ok((Arc::new(handles), threads, sockets))
}

/// A core is up: its place among the cores, and one more descriptor of its first listener.
type Up = (usize, OwnedFd);

/// What one core needs to live.
struct CoreLife {
    core: usize,
    place: usize,
    node: Arc<Node>,
    listen: Vec<SocketAddr>,
    audit: PathBuf,
}

impl CoreLife {
    async fn live(
        self,
        wire: Wire,
        commands: Receiver<Command>,
        ready: std::sync::mpsc::Sender<Result<Up>>,
    ) {
        let relay_lost = Rc::new(Stop::default());
        let opened = self.open(wire, &relay_lost).await.and_then(|opened| {
            let first = opened.1.first().context("no address to listen on")?;
            let socket = first.as_fd().try_clone_to_owned()?;
            Ok((opened, socket))
        });
        let ((worker, listeners, doorbell), socket) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                // The starter waits for one answer a core.
                let _ = ready.send(Err(error));
                return;
            }
        };
        for listener in listeners {
            let (worker, listener) = (worker.clone(), Rc::new(listener));
            worker.listens(&listener);
            front::spawn(async move { worker.accept(&listener).await });
        }
        // As above.
        let _ = ready.send(Ok((self.place, socket)));
        drop(ready);
        let obeyed = worker.obey(doorbell, &commands);
        or(obeyed, async { drop(relay_lost.raised().await) }).await;
        let waited = Instant::now();
        while worker.sessions() > 0 && waited.elapsed() < DRAIN_MAX {
            clock::sleep(DRAIN_LOOK).await;
        }
        let left = worker.connections();
        worker.end();
        let waited = Instant::now();
        while worker.connections() > 0 && waited.elapsed() < END_MAX {
            clock::sleep(DRAIN_LOOK).await;
        }
        tracing::info!(core = self.core, left, "the core has drained");
        worker.spool().settle().await;
    }

    async fn open(
        &self,
        wire: Wire,
        relay_lost: &Rc<Stop>,
    ) -> Result<(Worker, Vec<Listener>, Doorbell)> {
        let spool = Spool::open(&self.audit, self.core)
            .await
            .with_context(|| format!("audit folder {}", self.audit.display()))?;
        let (relay, delivery) = relay::start(self.core, front::kind())?;
        let lost = relay_lost.clone();
        front::spawn(async move {
            if let Err(error) = delivery.run().await {
                tracing::error!(%error, "the core's relay has failed; the core ends");
                lost.raise(Outcome::Internal);
            }
        });
        let worker = Worker::new(self.core, self.node.clone(), spool, relay);
        let segment_bytes_max = self.node.state.load().snapshot.segment_bytes_max;
        let listeners = self
            .listen
            .iter()
            .map(|address| Listener::bind_limited(*address, segment_bytes_max))
            .collect::<Result<_, _>>()?;
        Ok((worker, listeners, wire.connect()?))
    }
}

fn end_on_signal(node: Arc<Node>, cores: Cores) -> Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || {
            if signals.forever().next().is_some() {
                node.drain(&cores);
            }
        })?;
    Ok(())
}
