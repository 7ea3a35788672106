//! One core's worker: joins sessions and engine. Everything in it belongs to that core alone.

mod load;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use postern_access::{Fingerprint, Permit, RefusalKind, UnixSeconds, Verified};
use postern_audit::Record;
use postern_engine::clock;
use postern_engine::doorbell::Doorbell;
use postern_engine::front::{self, Kind};
use postern_engine::net::{self, Listener, Stream};
use postern_engine::relay::Relay;
use postern_relay::{Flow, Meter, Tally};
use postern_session::{AuditUnavailable, Core, Full, Outcome, Seat, State, Stop};
use postern_snapshot::message::KillSelector;
use postern_snapshot::{CoreMetrics, Histogram, LiveSession, ToControl};
use ring::rand::{SecureRandom as _, SystemRandom};

use super::carriage::Carriage;
use super::spool::Spool;
use super::{Command, Node, ledger};

/// After a failed accept (out of descriptors, say) the listener rests this long.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// A cheap handle on the core's worker; what sessions see of it.
#[derive(Clone)]
pub(super) struct Worker(Rc<Inner>);

struct Inner {
    core: usize,
    node: Arc<Node>,
    metrics: RefCell<CoreMetrics>,
    verified: RefCell<Verified>,
    spool: Spool,
    relay: Relay,
    connections: Cell<u64>,
    handshakes: Cell<u32>,
    /// By site, as the ledger has it; a site without handshakes is not in here.
    handshakes_by_source: RefCell<HashMap<IpAddr, u32>>,
    live: RefCell<HashMap<String, Live>>,
    pin_requests: Cell<u64>,
    pin_answers: RefCell<HashMap<u64, PinAnswer>>,
    random: SystemRandom,
    /// Every connection of the core, to be cut off when the core ends.
    stops: RefCell<HashMap<u64, Rc<Stop>>>,
    stops_made: Cell<u64>,
    listeners: RefCell<Vec<Weak<Listener>>>,
}

struct Live {
    session: LiveSession,
    permit: Permit,
    stop: Rc<Stop>,
}

enum PinAnswer {
    Awaited(Option<Waker>),
    Given(Option<Fingerprint>),
}

/// Gives something back when it is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

impl Worker {
    pub(super) fn new(core: usize, node: Arc<Node>, spool: Spool, relay: Relay) -> Self {
        Self(Rc::new(Inner {
            core,
            node,
            metrics: RefCell::new(CoreMetrics {
                core,
                ..CoreMetrics::default()
            }),
            verified: RefCell::default(),
            spool,
            relay,
            connections: Cell::new(0),
            handshakes: Cell::new(0),
            handshakes_by_source: RefCell::default(),
            live: RefCell::default(),
            pin_requests: Cell::new(0),
            pin_answers: RefCell::default(),
            random: SystemRandom::new(),
            stops: RefCell::default(),
            stops_made: Cell::new(0),
            listeners: RefCell::default(),
        }))
    }

    /// Accepts connections until the node drains.
    pub(super) async fn accept(&self, listener: &Listener) {
        loop {
            match listener.accept().await {
                _ if self.0.node.draining.load(Ordering::Relaxed) => return,
                Ok((stream, source, local)) => {
                    let worker = self.clone();
                    // A socket of both families shows IPv4 peers, and itself, as mapped addresses.
                    let [source, local] = [source, local]
                        .map(|one| SocketAddr::new(one.ip().to_canonical(), one.port()));
                    front::spawn(async move { worker.serve(stream, source, local).await });
                }
                Err(error) => {
                    tracing::warn!(core = self.0.core, %error, "a connection could not be accepted");
                    clock::sleep(ACCEPT_REST).await;
                }
            }
        }
    }

    async fn serve(&self, stream: Stream, source: SocketAddr, local: SocketAddr) {
        let number = self.0.stops_made.get();
        self.0.stops_made.set(number + 1);
        let stop = Rc::new(Stop::default());
        self.0.stops.borrow_mut().insert(number, stop.clone());
        postern_session::serve(self, stream, source, local, &stop).await;
        self.0.stops.borrow_mut().remove(&number);
    }

    /// Does what it is asked from outside until it is asked to end.
    pub(super) async fn obey(&self, mut doorbell: Doorbell, commands: &Receiver<Command>) {
        while doorbell.rung().await.is_ok() {
            while let Ok(command) = commands.try_recv() {
                match command {
                    Command::StateChanged(done) => {
                        self.judge_again();
                        // Control may have stopped waiting.
                        let _ = done.send(());
                    }
                    Command::Kill(selector) => self.kill(&selector),
                    Command::Pin { request, stored } => self.answer_pin(request, stored),
                    Command::Metrics(reply) => {
                        let mut metrics = self.0.metrics.borrow().clone();
                        metrics.tls_handshakes_live = self.0.handshakes.get().into();
                        self.0.spool.measure(&mut metrics);
                        add_relay(&mut metrics, &self.0.relay.tally());
                        // The link may have stopped waiting.
                        let _ = reply.send(metrics);
                    }
                    Command::Announce(announcer) => {
                        let worker = self.clone();
                        front::spawn(async move { worker.announce(*announcer).await });
                    }
                    Command::Drain => {
                        for live in self.0.live.borrow().values() {
                            live.stop.raise(Outcome::Draining);
                        }
                        return;
                    }
                }
            }
        }
    }

    /// Connections that have not ended.
    pub(super) fn connections(&self) -> u64 {
        self.0.metrics.borrow().connections_live
    }

    /// Cuts every connection that is left; each still writes its record.
    pub(super) fn end(&self) {
        self.0
            .stops
            .borrow()
            .values()
            .for_each(|stop| stop.raise(Outcome::Draining));
    }

    /// Sessions that have not ended.
    pub(super) fn sessions(&self) -> usize {
        self.0.live.borrow().len()
    }

    pub(super) fn spool(&self) -> &Spool {
        &self.0.spool
    }

    fn judge_again(&self) {
        let state = self.state();
        let now = UnixSeconds(self.unix_ms() / 1000);
        for live in self.0.live.borrow().values() {
            if let Err(refusal) = state.rules.recheck(&live.permit, now) {
                live.stop.raise(match refusal.kind {
                    RefusalKind::Revoked => Outcome::Revoked,
                    RefusalKind::TokenExpired => Outcome::Expired,
                    _ => Outcome::PolicyChanged,
                });
            }
        }
    }

    fn kill(&self, selector: &KillSelector) {
        for live in self.0.live.borrow().values() {
            let meant = match selector {
                KillSelector::Session(id) => live.session.id == *id,
                KillSelector::User(user) => {
                    live.session.user == *user || live.session.email == *user
                }
                KillSelector::Application(name) => live.session.application == *name,
                KillSelector::All => true,
            };
            if meant {
                live.stop.raise(Outcome::Killed);
            }
        }
    }

    fn answer_pin(&self, request: u64, stored: Option<Fingerprint>) {
        // Requests carry their core: another core's answer is not in this table.
        if let Some(answer) = self.0.pin_answers.borrow_mut().get_mut(&request)
            && let PinAnswer::Awaited(Some(waker)) =
                std::mem::replace(answer, PinAnswer::Given(stored))
        {
            waker.wake();
        }
    }
}

impl Worker {
    /// On io_uring the sockets of a flow live in the ring's own table, on epoll they stay the
    /// process's: then the flow goes on counting as one that holds descriptors.
    fn place_without_descriptors(&self) -> Option<Seat> {
        if front::kind() == Kind::Epoll {
            return None;
        }
        let node = self.0.node.clone();
        node.ledger.carried();
        Some(Box::new(OnDrop(move || node.ledger.carried_no_more())))
    }
}

/// What the relay has measured of a core.
fn add_relay(metrics: &mut CoreMetrics, tally: &Tally) {
    metrics.bytes_up = tally.bytes_up;
    metrics.bytes_down = tally.bytes_down;
    metrics.messages_up = tally.messages_up;
    metrics.messages_down = tally.messages_down;
    metrics.relay_latency = Histogram {
        buckets: tally.latency.to_vec(),
        sum_us: tally.latency_sum_us,
    };
}

impl Core for Worker {
    type Stream = Stream;
    type Carriage = Carriage;

    fn state(&self) -> Arc<State> {
        self.0.node.state.load_full()
    }

    fn verified(&self) -> &RefCell<Verified> {
        &self.0.verified
    }

    fn measure(&self, change: impl FnOnce(&mut CoreMetrics)) {
        change(&mut self.0.metrics.borrow_mut());
    }

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn unix_ms(&self) -> u64 {
        postern_control::clock::unix_ms()
    }

    fn random(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        self.0
            .random
            .fill(&mut bytes)
            .expect("the kernel has random bytes");
        bytes
    }

    async fn sleep(&self, duration: Duration) {
        clock::sleep(duration).await;
    }

    fn carry(&self, client: Stream, target: Stream, flow: Flow) -> Carriage {
        let given = client
            .into_descriptor()
            .and_then(|client| Ok((client, target.into_descriptor()?)));
        let (client, target) = match given {
            Ok(descriptors) => descriptors,
            Err(error) => {
                tracing::warn!(core = self.0.core, %error, "a session can't be given to the relay");
                return Carriage::lost();
            }
        };
        let place = self.place_without_descriptors();
        Carriage::of(self.0.relay.carry(client, target, flow), place)
    }

    fn meter(&self, stream: &Stream) -> Rc<Meter> {
        stream.meter()
    }

    fn local_address(&self, stream: &Stream) -> Option<SocketAddr> {
        stream.local_address().ok()
    }

    async fn connect(&self, address: SocketAddr) -> io::Result<Stream> {
        net::connect(address).await
    }

    async fn connect_unix(&self, path: &Path) -> io::Result<Stream> {
        net::connect_unix(path).await
    }

    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        net::resolve(host.to_owned(), port).await
    }

    fn connection_number(&self) -> u64 {
        self.0.connections.set(self.0.connections.get() + 1);
        self.0.connections.get()
    }

    fn admit(&self, source: IpAddr) -> Result<Seat, Full> {
        self.0.node.ledger.admit(source, &self.state().limits)?;
        let node = self.0.node.clone();
        Ok(Box::new(OnDrop(move || node.ledger.leave(source))))
    }

    fn begin_handshake(&self, source: IpAddr) -> Result<Seat, Full> {
        let limits = self.state().limits;
        if self.0.handshakes.get() >= limits.handshakes_per_core_max {
            return Err(Full::Handshakes);
        }
        let site = ledger::site(source);
        let mut by_source = self.0.handshakes_by_source.borrow_mut();
        let of_source = by_source.entry(site).or_default();
        if *of_source >= limits.handshakes_per_source_max {
            return Err(Full::HandshakesOfSource);
        }
        *of_source += 1;
        self.0.handshakes.set(self.0.handshakes.get() + 1);
        let worker = self.clone();
        Ok(Box::new(OnDrop(move || {
            worker.0.handshakes.set(worker.0.handshakes.get() - 1);
            ledger::give_back(&mut worker.0.handshakes_by_source.borrow_mut(), &site);
        })))
    }

    fn enter(
        &self,
        mut session: LiveSession,
        permit: &Permit,
        stop: Rc<Stop>,
    ) -> Result<Seat, Full> {
        session.core = self.0.core;
        self.0
            .node
            .ledger
            .enter(session.clone(), &self.state().limits)?;
        self.report(ToControl::Opened(session.clone()));
        let id = session.id.clone();
        let live = Live {
            session,
            permit: permit.clone(),
            stop,
        };
        self.0.live.borrow_mut().insert(id.clone(), live);
        let worker = self.clone();
        Ok(Box::new(OnDrop(move || {
            worker.0.live.borrow_mut().remove(&id);
            worker.0.node.ledger.end(&id);
        })))
    }

    fn lease_holds(&self) -> bool {
        self.0.node.lease_holds()
    }

    async fn record_durably(&self, record: Record) -> Result<(), AuditUnavailable> {
        let written = self.0.spool.write_durably(&record).await;
        match written {
            Err(_) if !self.state().snapshot.audit.fail_closed => Ok(()),
            written => written.map_err(|error| AuditUnavailable(error.to_string())),
        }
    }

    fn record(&self, record: Record) {
        self.0.spool.write(&record);
    }

    async fn pin(&self, application: &str, seen: Fingerprint) -> Option<Fingerprint> {
        self.0.pin_requests.set(self.0.pin_requests.get() + 1);
        let request = (self.0.core as u64) << 48 | self.0.pin_requests.get();
        self.0
            .pin_answers
            .borrow_mut()
            .insert(request, PinAnswer::Awaited(None));
        let worker = self.clone();
        let _forget = OnDrop(move || {
            worker.0.pin_answers.borrow_mut().remove(&request);
        });
        self.report(ToControl::Pin {
            request,
            application: application.to_owned(),
            sha256: seen,
        });
        std::future::poll_fn(
            |cx| match self.0.pin_answers.borrow_mut().get_mut(&request) {
                Some(PinAnswer::Given(stored)) => Poll::Ready(*stored),
                Some(PinAnswer::Awaited(waker)) => {
                    *waker = Some(cx.waker().clone());
                    Poll::Pending
                }
                None => Poll::Ready(None),
            },
        )
        .await
    }

    fn report(&self, message: ToControl) {
        self.0.node.tell_control(message);
    }
}
