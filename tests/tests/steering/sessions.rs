//! Live desktops whose every byte is looked at, both ways, while nodes come and go.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use postern_parts::wait;
use postern_tests::Browser;
use postern_tests::browserless::{Frame, WebSocket};
use postern_tests::machine::Machine;
use postern_tests::noise::{Digest, Noise, Tally};

/// The application that all open.
pub const APPLICATION: &str = "lab";

/// Threads that open desktops at once.
const OPENERS: usize = 8;

/// Payload of the messages, in turn: a few bytes, more than a packet, several packets.
const MESSAGES_BYTES: [usize; 4] = [64, 1_600, 264, 8_000];

/// Between an echo and the next message.
const PAUSE: Duration = Duration::from_millis(600);

/// A session that nobody answers is given up after this. TCP sends again after 0.2, 0.4, 0.8 s and so
/// on: what a dead node swallows for 13 s comes back within 26.
const ECHO_PATIENCE: Duration = Duration::from_secs(40);

/// Whatever ends has ended after this.
pub const END_PATIENCE: Duration = Duration::from_secs(60);

/// Data flows on every session: so soon after one look there is more.
const FLOW_PATIENCE: Duration = Duration::from_secs(30);

/// One desktop. A thread sends noise through it and holds the echo against it.
pub struct Session {
    /// The browser's end, as the node that has the session knows it.
    pub source: SocketAddr,
    /// Where the browser connected to.
    pub vip: SocketAddr,
    shared: Arc<Shared>,
    thread: JoinHandle<Result<Digest>>,
}

#[derive(Default)]
struct Shared {
    /// Came back, and was right.
    bytes: AtomicU64,
    /// The longest time from a message to the end of its echo.
    slowest_ms: AtomicU64,
    has_ended: AtomicBool,
    is_done: AtomicBool,
}

/// How all of them ended.
#[derive(Default)]
pub struct Ends {
    /// What each sent that ended in order, as a target must have received it.
    pub sent: Vec<Digest>,
    /// The browsers' ends of the others, and why.
    pub broken: Vec<(SocketAddr, String)>,
}

/// All of them.
#[derive(Default)]
pub struct Sessions(Vec<Session>);

impl Sessions {
    /// Opens so many more from `machine`, by all of `browsers` in turn.
    pub fn open(&mut self, machine: &Machine, browsers: &[Browser], number: usize) -> Result<()> {
        let taken = AtomicUsize::new(0);
        let first = self.0.len();
        let open_share = || -> Result<Vec<Session>> {
            let mut share = Vec::new();
            loop {
                let at = taken.fetch_add(1, Ordering::Relaxed);
                if at >= number {
                    return Ok(share);
                }
                let browser = &browsers[at % browsers.len()];
                share.push(Session::open(browser, (first + at) as u64)?);
            }
        };
        let shares = machine.on(|| {
            std::thread::scope(|scope| {
                let openers: Vec<_> = (0..OPENERS).map(|_| scope.spawn(open_share)).collect();
                let joined = openers.into_iter().map(|opener| {
                    let share = opener.join().map_err(|_| anyhow!("an opener panicked"));
                    share.and_then(|share| share)
                });
                joined.collect::<Result<Vec<_>>>()
            })
        })?;
        self.0.extend(shares.into_iter().flatten());
        Ok(())
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The sessions that live.
    pub fn living(&self) -> impl Iterator<Item = &Session> {
        self.0.iter().filter(|session| session.lives())
    }

    /// The browsers' ends of those that have ended.
    pub fn ended(&self) -> BTreeSet<SocketAddr> {
        let ended = self.0.iter().filter(|session| !session.lives());
        ended.map(|session| session.source).collect()
    }

    /// Waits until data have come back on every session that is not in `but`, from now on; none of these
    /// may have ended.
    pub fn flow(&self, but: &BTreeSet<SocketAddr>) -> Result<()> {
        let sound = || self.0.iter().filter(|one| !but.contains(&one.source));
        let marks: Vec<u64> = sound().map(Session::bytes).collect();
        wait::until("data on every session", FLOW_PATIENCE, || {
            if let Some(ended) = sound().find(|session| !session.lives()) {
                bail!("the session of {} has ended", ended.source);
            }
            let flows = sound()
                .zip(&marks)
                .all(|(session, mark)| session.bytes() > *mark);
            Ok(flows.then_some(()))
        })
    }

    /// Bytes that came back so far, and the longest time that an echo took on a session that lives.
    pub fn progress(&self) -> (u64, Duration) {
        let bytes = self.0.iter().map(Session::bytes).sum();
        let slowest = self.living().map(Session::slowest).max();
        (bytes, slowest.unwrap_or_default())
    }

    /// Ends all that live in order.
    pub fn finish(self) -> Result<Ends> {
        for session in &self.0 {
            session.shared.is_done.store(true, Ordering::SeqCst);
        }
        let mut ends = Ends::default();
        for Session { source, thread, .. } in self.0 {
            match thread.join().map_err(|_| anyhow!("a session panicked"))? {
                Ok(digest) => ends.sent.push(digest),
                Err(error) => ends.broken.push((source, format!("{error:#}"))),
            }
        }
        Ok(ends)
    }
}

impl Session {
    fn open(browser: &Browser, seed: u64) -> Result<Self> {
        let desktop = browser.desktop(APPLICATION)?;
        let source = desktop.source;
        let shared = Arc::new(Shared::default());
        let worker = shared.clone();
        let thread = std::thread::Builder::new()
            .name(format!("session {seed}"))
            .spawn(move || {
                let ended = work(desktop, seed, &worker);
                worker.has_ended.store(true, Ordering::SeqCst);
                ended
            })?;
        Ok(Self {
            source,
            vip: browser.gateway(),
            shared,
            thread,
        })
    }

    fn lives(&self) -> bool {
        !self.shared.has_ended.load(Ordering::SeqCst)
    }

    fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::SeqCst)
    }

    fn slowest(&self) -> Duration {
        Duration::from_millis(self.shared.slowest_ms.load(Ordering::SeqCst))
    }
}

/// Exactly so many bytes, however long packets have to be sent again.
fn receive(desktop: &mut WebSocket, bytes: usize) -> Result<Vec<u8>> {
    let mut all = Vec::with_capacity(bytes);
    while all.len() < bytes {
        match desktop.next_within(ECHO_PATIENCE)? {
            Frame::Binary(payload) => all.extend_from_slice(&payload),
            other => bail!("{other:?}"),
        }
    }
    Ok(all)
}

/// Carries noise until it is done; what was sent, all of which came back.
fn work(mut desktop: WebSocket, seed: u64, shared: &Shared) -> Result<Digest> {
    let mut noise = Noise::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let (mut sent, mut echoed) = (Tally::default(), Tally::default());
    for bytes in MESSAGES_BYTES.into_iter().cycle() {
        if shared.is_done.load(Ordering::SeqCst) {
            break;
        }
        let mut message = vec![0; bytes];
        noise.fill(&mut message);
        let start = Instant::now();
        desktop.send(&message).context("sending")?;
        let echo = receive(&mut desktop, bytes).context("waiting for an echo")?;
        ensure!(echo == message, "an echo differs");
        sent.add(&message);
        echoed.add(&echo);
        let took = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        shared.slowest_ms.fetch_max(took, Ordering::SeqCst);
        shared.bytes.fetch_add(bytes as u64, Ordering::SeqCst);
        std::thread::sleep(PAUSE);
    }
    desktop.writer().close(1000)?;
    desktop.closed()?;
    let (sent, echoed) = (sent.digest(), echoed.digest());
    ensure!(
        sent == echoed,
        "{sent:?} was sent, and {echoed:?} came back"
    );
    Ok(sent)
}
