//! Carries a live desktop: two directions that differ, their timers, and the end.
//!
//! Browser → target frames are masked and must be touched; target → browser needs a header only.
//! Memory is fixed: one buffer each way, and a reader that stalls stops the writer behind it.

use std::cell::Cell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::time::{Duration, Instant};

use futures_lite::future::or;
use futures_lite::io::{ReadHalf, WriteHalf, split};
use futures_lite::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use postern_access::Permit;
use postern_snapshot::Limits;
use postern_snapshot::limits::RELAY_BUFFER_BYTES;
use postern_wire::websocket::{self, Decoder, Event, Opcode};

use crate::account::Traffic;
use crate::close::{briefly, linger};
use crate::core::send;
use crate::inbox::Inbox;
use crate::replies::{Replies, Reply};
use crate::{Core, Outcome, Stop};

/// Room in front of a payload for the longest header that a relay buffer can need.
const HEADER_BYTES: usize = 4;

const _: () = assert!(
    RELAY_BUFFER_BYTES <= u16::MAX as usize,
    "a frame's length fits two bytes"
);

/// A desktop that is ready to be carried.
pub(crate) struct Desktop<B, T> {
    pub(crate) browser: B,
    pub(crate) inbox: Inbox,
    pub(crate) decoder: Decoder,
    pub(crate) target: T,
}

/// How long a session may live, from its start on the monotonic clock: a wall clock that jumps
/// ends nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Durations {
    /// Until the permit ends.
    pub(crate) absolute: Duration,
    /// Without input from the browser; zero = for ever.
    pub(crate) idle: Duration,
}

impl Durations {
    pub(crate) fn of(permit: &Permit, unix_ms: u64) -> Self {
        let until_ms = permit.valid_until().0.saturating_mul(1000);
        Self {
            absolute: Duration::from_millis(until_ms.saturating_sub(unix_ms)),
            idle: Duration::from_secs(permit.application().session.idle_s),
        }
    }
}

/// What both directions and the watch share, on one core.
struct Flow<'a, C> {
    core: &'a C,
    limits: &'a Limits,
    replies: Replies,
    traffic: Cell<Traffic>,
    /// Last time that input came from the browser.
    input_at: Cell<Instant>,
    /// Last time that anything came from the browser.
    heard_at: Cell<Instant>,
    /// Since when a write waits for the browser or the target.
    browser_write_since: Cell<Option<Instant>>,
    target_write_since: Cell<Option<Instant>>,
}

/// Which part of a relay ended first.
enum First {
    Watch(Outcome),
    Up(Outcome),
    Down(Outcome),
}

/// Carries a desktop until it ends, and says how and what it carried.
pub(crate) async fn run<C, B, T>(
    core: &C,
    limits: &Limits,
    desktop: Desktop<B, T>,
    durations: Durations,
    stop: &Stop,
) -> (Outcome, Traffic)
where
    C: Core,
    B: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    let flow = Flow {
        core,
        limits,
        replies: Replies::default(),
        traffic: Cell::default(),
        input_at: Cell::new(core.now()),
        heard_at: Cell::new(core.now()),
        browser_write_since: Cell::new(None),
        target_write_since: Cell::new(None),
    };
    let Desktop {
        browser,
        mut inbox,
        decoder,
        target,
    } = desktop;
    let (mut from_browser, to_browser) = split(browser);
    let (from_target, to_target) = split(target);
    let outcome = {
        let mut up =
            pin!(flow.browser_to_target(&mut from_browser, &mut inbox, decoder, to_target));
        let mut down = pin!(flow.target_to_browser(from_target, to_browser));
        let mut watch = pin!(flow.watch(durations, stop));
        let first = or(
            async { First::Watch(watch.as_mut().await) },
            or(async { First::Up(up.as_mut().await) }, async {
                First::Down(down.as_mut().await)
            }),
        )
        .await;
        match first {
            First::Watch(outcome) => {
                flow.replies.close(&outcome);
                briefly(core, down).await;
                outcome
            }
            First::Up(outcome) => {
                // The browser has said good-bye; the target may still have something to say, unless
                // it is the target that is gone or the browser that broke the protocol.
                let half_open = matches!(outcome, Outcome::BrowserClosed | Outcome::BrowserLost);
                let ended = half_open && flow.half_close(down.as_mut(), watch.as_mut()).await;
                if !ended {
                    flow.replies.close(&outcome);
                    briefly(core, down).await;
                }
                outcome
            }
            First::Down(outcome) => {
                if outcome == Outcome::TargetClosed {
                    flow.half_close(up.as_mut(), watch.as_mut()).await;
                }
                outcome
            }
        }
    };
    linger(core, &mut from_browser).await;
    (outcome, flow.traffic.get())
}

impl<C: Core> Flow<'_, C> {
    /// Browser → target: decode, unmask in place, write. Returns when the browser is done, lost or
    /// wrong, or the target takes nothing more.
    async fn browser_to_target<B, T>(
        &self,
        browser: &mut ReadHalf<B>,
        inbox: &mut Inbox,
        mut decoder: Decoder,
        mut target: WriteHalf<T>,
    ) -> Outcome
    where
        B: AsyncRead + AsyncWrite + Unpin,
        T: AsyncRead + AsyncWrite + Unpin,
    {
        let outcome = loop {
            let arrived = self.core.now();
            match self.forward(inbox, &mut decoder, &mut target).await {
                Ok(0) => {}
                Ok(_) => self.forwarded(arrived),
                Err(outcome) => break outcome,
            }
            match inbox.fill(browser).await {
                Ok(0) | Err(_) => break Outcome::BrowserLost,
                Ok(_) => self.heard_at.set(self.core.now()),
            }
        };
        if matches!(outcome, Outcome::BrowserClosed | Outcome::BrowserLost) {
            // The target learns that no input will follow; it may still be sending.
            self.target_write_since.set(Some(self.core.now()));
            // A target that is gone already needs no telling.
            let _ = target.close().await;
            self.target_write_since.set(None);
        }
        outcome
    }

    /// Everything that can be decoded now goes to the target; the payload bytes that did.
    async fn forward<T: AsyncRead + AsyncWrite + Unpin>(
        &self,
        inbox: &mut Inbox,
        decoder: &mut Decoder,
        target: &mut WriteHalf<T>,
    ) -> Result<u64, Outcome> {
        let mut sent = 0;
        loop {
            let filled = inbox.filled();
            let step = decoder
                .next(filled)
                .map_err(|error| Outcome::FrameRefused(error.close_code(), error.label()))?;
            let Some(event) = step.event else {
                inbox.consume(step.consumed);
                break;
            };
            match event {
                Event::Data { payload, last, .. } => {
                    let bytes = &filled[payload];
                    self.target_write_since.set(Some(self.core.now()));
                    target
                        .write_all(bytes)
                        .await
                        .map_err(|_| Outcome::TargetLost)?;
                    sent += bytes.len() as u64;
                    let mut traffic = self.traffic.get();
                    traffic.bytes_up += bytes.len() as u64;
                    traffic.messages_up += u64::from(last);
                    self.traffic.set(traffic);
                    self.core.measure(|metrics| {
                        metrics.bytes_up += bytes.len() as u64;
                        metrics.messages_up += u64::from(last);
                    });
                    self.input_at.set(self.core.now());
                }
                Event::Ping(payload) => self.replies.pong(&filled[payload]),
                Event::Pong(_) => {}
                Event::Close(_) => return Err(Outcome::BrowserClosed),
            }
            inbox.consume(step.consumed);
        }
        if sent > 0 {
            target.flush().await.map_err(|_| Outcome::TargetLost)?;
        }
        self.target_write_since.set(None);
        Ok(sent)
    }

    /// Target → browser: one header in front of as much as has arrived. The only writer to the
    /// browser, so that control frames never cut a data frame in two.
    async fn target_to_browser<T, B>(
        &self,
        mut target: ReadHalf<T>,
        mut browser: WriteHalf<B>,
    ) -> Outcome
    where
        B: AsyncRead + AsyncWrite + Unpin,
        T: AsyncRead + AsyncWrite + Unpin,
    {
        enum Next {
            Reply(Reply),
            Read(std::io::Result<usize>),
        }
        let mut buffer = vec![0; HEADER_BYTES + RELAY_BUFFER_BYTES].into_boxed_slice();
        loop {
            let payload = &mut buffer[HEADER_BYTES..];
            let next = or(async { Next::Reply(self.replies.next().await) }, async {
                Next::Read(target.read(payload).await)
            })
            .await;
            let end = match next {
                Next::Read(Ok(bytes @ 1..)) => {
                    let arrived = self.core.now();
                    let mut header = [0; 10];
                    let header_bytes =
                        websocket::frame_header(Opcode::Binary, true, bytes, &mut header);
                    let start = HEADER_BYTES - header_bytes;
                    buffer[start..HEADER_BYTES].copy_from_slice(&header[..header_bytes]);
                    if !self
                        .write(&mut browser, &buffer[start..HEADER_BYTES + bytes])
                        .await
                    {
                        return Outcome::BrowserLost;
                    }
                    self.returned(arrived, bytes as u64);
                    continue;
                }
                Next::Reply(Reply::Frame(bytes)) => {
                    if !self.write(&mut browser, &bytes).await {
                        return Outcome::BrowserLost;
                    }
                    continue;
                }
                Next::Reply(Reply::Close(outcome)) => outcome,
                // RDP servers close TCP without a TLS good-bye; that ends the session all the same.
                Next::Read(Ok(0)) => Outcome::TargetClosed,
                Next::Read(Err(error)) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                    Outcome::TargetClosed
                }
                Next::Read(_) => Outcome::TargetLost,
            };
            let meaning = end.meaning();
            if meaning.close != 0 {
                let goodbye = websocket::close_frame(meaning.close, meaning.label);
                if self.write(&mut browser, &goodbye).await {
                    // The close frame is what counts; TLS and TCP may end as they like.
                    let _ = browser.close().await;
                }
            }
            return end;
        }
    }

    /// Lets the other direction finish; whether it did in its time.
    async fn half_close(
        &self,
        rest: Pin<&mut impl Future<Output = Outcome>>,
        watch: Pin<&mut impl Future<Output = Outcome>>,
    ) -> bool {
        let time = Duration::from_millis(self.limits.half_close_ms_max);
        let cut = async {
            or(async { drop(watch.await) }, self.core.sleep(time)).await;
            false
        };
        let finished = async {
            rest.await;
            true
        };
        or(cut, finished).await
    }

    async fn write<B: AsyncRead + AsyncWrite + Unpin>(
        &self,
        browser: &mut WriteHalf<B>,
        bytes: &[u8],
    ) -> bool {
        self.browser_write_since.set(Some(self.core.now()));
        let written = send(browser, bytes).await.is_ok();
        self.browser_write_since.set(None);
        written
    }

    fn forwarded(&self, arrived: Instant) {
        let us = micros(self.core.now().saturating_duration_since(arrived));
        self.core
            .measure(|metrics| metrics.relay_latency.record(us));
    }

    fn returned(&self, arrived: Instant, bytes: u64) {
        let us = micros(self.core.now().saturating_duration_since(arrived));
        let mut traffic = self.traffic.get();
        traffic.bytes_down += bytes;
        traffic.messages_down += 1;
        self.traffic.set(traffic);
        self.core.measure(|metrics| {
            metrics.bytes_down += bytes;
            metrics.messages_down += 1;
            metrics.relay_latency.record(us);
        });
    }

    /// Ends the session from outside: stop, absolute and idle time, silence, stalled peers.
    async fn watch(&self, durations: Durations, stop: &Stop) -> Outcome {
        or(stop.raised(), self.watch_time(durations)).await
    }

    async fn watch_time(&self, durations: Durations) -> Outcome {
        let Durations {
            absolute: expiry,
            idle,
        } = durations;
        let began = self.core.now();
        let ping = Duration::from_millis(self.limits.ping_ms);
        let stall = Duration::from_millis(self.limits.stall_ms_max);
        let mut pinged_at = began;
        loop {
            let now = self.core.now();
            let since = |at: Instant| now.saturating_duration_since(at);
            let waits = |since_: &Cell<Option<Instant>>| since_.get().map_or(Duration::ZERO, since);
            if since(began) >= expiry {
                return Outcome::Expired;
            }
            if !idle.is_zero() && since(self.input_at.get()) >= idle {
                return Outcome::Idle;
            }
            if waits(&self.browser_write_since) >= stall {
                return Outcome::BrowserStalled;
            }
            if waits(&self.target_write_since) >= stall {
                return Outcome::TargetStalled;
            }
            let silence = since(self.heard_at.get());
            let busy =
                self.browser_write_since.get().is_some() || self.target_write_since.get().is_some();
            if silence >= ping * 2 && !busy {
                return Outcome::BrowserSilent;
            }
            if silence >= ping && since(pinged_at) >= ping {
                pinged_at = now;
                self.replies.ping();
            }
            let mut next = ping
                .saturating_sub(silence.min(since(pinged_at)))
                .max(ping / 4);
            next = next.min(expiry.saturating_sub(since(began)));
            if !idle.is_zero() {
                next = next.min(idle.saturating_sub(since(self.input_at.get())));
            }
            self.core.sleep(next.max(Duration::from_millis(1))).await;
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
