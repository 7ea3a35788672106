//! The state of one established flow, driven by events: what arrived, what the kernel took, what time it is.
//!
//! After every event a driver does what the flow wants (`wants_bytes`, `outgoing`, `wants_shutdown`,
//! `deadline`, `is_over`) and nothing else; events may come in any order that a kernel can produce.

mod batch;
mod clock;
mod ending;
mod forward;
mod frames;
mod kernel;
mod side;

use postern_wire::websocket::Decoder;

use crate::memory::{Pool, RECEIVE_BYTES_MAX};
use crate::record::Records;
use crate::{Context, StreamBytes};

use clock::Clock;
use ending::Phase;
use frames::Frames;
use kernel::Passage;
use side::{Input, Output, Side};

pub use kernel::{CLOSE_NOTIFY, KernelLine};

/// The two peers of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Leg {
    /// Who connected to us.
    Client,
    /// Whom we connected to.
    Target,
}

/// How a leg's bytes are protected.
pub enum Line {
    Plain,
    Tls(Box<Records>),
    /// By TLS in the kernel: what we see is plain.
    Kernel(KernelLine),
}

/// What becomes of the bytes on their way.
pub enum Framing {
    /// They pass as they are.
    None,
    /// The client speaks WebSocket; the target gets and gives the payload of binary messages.
    WebSocket(Box<Decoder>),
}

/// Time limits; 0 = none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    /// From the flow's beginning to its end.
    pub absolute_ms: u64,
    /// Without input from the client.
    pub idle_ms: u64,
    /// A ping goes out after this long without a byte from the client; twice as long ends the flow.
    /// WebSocket only.
    pub ping_ms: u64,
    /// A peer that takes no byte for this long is gone.
    pub stall_ms: u64,
    /// After one side has closed, the other may go on for this long.
    pub half_close_ms: u64,
    /// The last words and the wait until they are heard take this long each.
    pub goodbye_ms: u64,
}

/// How a flow ended; the first cause counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    ClientClosed,
    ClientLost,
    ClientSilent,
    ClientStalled,
    TargetClosed,
    TargetLost,
    TargetStalled,
    /// The client broke the WebSocket protocol: close code and label.
    FrameRefused(u16, &'static str),
    Expired,
    Idle,
    /// [`Flow::stop`] was called.
    Stopped,
}

/// Last words to a WebSocket client: close code and reason; code 0 = none are said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Goodbye {
    pub code: u16,
    pub reason: &'static str,
}

/// Payload counts of a flow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    pub bytes_up: u64,
    pub bytes_down: u64,
    pub messages_up: u64,
    pub messages_down: u64,
}

/// What is left of a flow when it is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub ended: Ended,
    pub traffic: Traffic,
    /// The TCP streams of both legs, the client's first; none where nobody knows: the kernel adds its
    /// records' bytes by itself.
    pub streams: Option<[StreamBytes; 2]>,
}

/// How a peer ended its sending side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// End of stream.
    Ended,
    /// Its TLS has said that nothing more comes, where somebody else opens its records.
    Closed,
    /// Reset, or any other error of the socket.
    Broken,
}

/// An established flow.
pub struct Flow {
    sides: [Side; 2],
    /// `None`: bytes pass as they are.
    frames: Option<Box<Frames>>,
    times: Times,
    goodbye: fn(&Ended) -> Goodbye,
    phase: Phase,
    clock: Clock,
    /// INVARIANT: set once the phase is past [`Phase::Open`], and never changed then.
    ended: Option<Ended>,
    traffic: Traffic,
    streams: [StreamBytes; 2],
    seeds: Option<Box<[Seed; 2]>>,
}

/// What was read of a leg before the flow began.
#[derive(Debug, Default)]
struct Seed {
    plain: Vec<u8>,
    raw: Vec<u8>,
    has_closed: bool,
}

impl Flow {
    /// A flow whose bytes pass as they are.
    #[must_use]
    pub fn passthrough(times: Times) -> Self {
        let silent = |_: &Ended| Goodbye::NONE;
        Self::framed(Line::Plain, Line::Plain, Framing::None, times, silent)
    }

    /// A flow between two lines; `goodbye` says what a WebSocket client is told at which end.
    #[must_use]
    pub fn framed(
        client: Line,
        target: Line,
        framing: Framing,
        times: Times,
        goodbye: fn(&Ended) -> Goodbye,
    ) -> Self {
        Self {
            sides: [Side::new(client), Side::new(target)],
            frames: match framing {
                Framing::None => None,
                Framing::WebSocket(decoder) => Some(Box::new(Frames::new(*decoder))),
            },
            times,
            goodbye,
            phase: Phase::New,
            clock: Clock::default(),
            ended: None,
            traffic: Traffic::default(),
            streams: [StreamBytes::default(); 2],
            seeds: None,
        }
    }

    /// Gives bytes that were read from `leg` before the flow began, as they came; whether they fit.
    /// At most [`RECEIVE_BYTES_MAX`] a leg do, together with [`Self::seed_plain`].
    #[must_use]
    pub fn seed(&mut self, leg: Leg, bytes: &[u8]) -> bool {
        self.seed_with(leg, bytes, |seed| &mut seed.raw)
    }

    /// Gives bytes that were read from `leg` and decrypted before the flow began: what they frame is
    /// still framed. They come before those of [`Self::seed`].
    #[must_use]
    pub fn seed_plain(&mut self, leg: Leg, bytes: &[u8]) -> bool {
        self.seed_with(leg, bytes, |seed| &mut seed.plain)
    }

    /// Tells that the TLS of `leg` had said before the flow began that nothing more comes.
    pub fn seed_close(&mut self, leg: Leg) {
        self.seeds.get_or_insert_default()[leg.index()].has_closed = true;
    }

    fn seed_with(&mut self, leg: Leg, bytes: &[u8], of: fn(&mut Seed) -> &mut Vec<u8>) -> bool {
        let seed = &mut self.seeds.get_or_insert_default()[leg.index()];
        let fits = seed.plain.len() + seed.raw.len() + bytes.len() <= RECEIVE_BYTES_MAX;
        if fits {
            of(seed).extend_from_slice(bytes);
        }
        fits
    }

    /// Tells what the stream of `leg` carried before the flow began.
    pub fn seed_stream(&mut self, leg: Leg, before: StreamBytes) {
        self.streams[leg.index()] = before;
    }

    /// The stream of `leg`, for the driver to count what it receives, sends and leaves behind.
    pub fn stream_mut(&mut self, leg: Leg) -> &mut StreamBytes {
        &mut self.streams[leg.index()]
    }

    /// Starts the clocks and takes in what was read before; called once, before any other event.
    pub fn begin(&mut self, cx: &mut Context<'_>) {
        self.phase = Phase::Open;
        self.clock.begin(cx.now);
        let Some(mut seeds) = self.seeds.take() else {
            return;
        };
        for leg in Leg::BOTH {
            let Seed {
                plain,
                raw,
                has_closed,
            } = &mut seeds[leg.index()];
            if !plain.is_empty() {
                self.forward_plain(leg, plain, cx);
            }
            if !raw.is_empty() {
                self.received(leg, raw, cx);
            }
            if *has_closed {
                self.finished(leg, Finish::Closed, cx);
            }
        }
    }

    /// These bytes came from `leg`. All are taken: what can't be sent on yet is kept.
    pub fn received(&mut self, leg: Leg, bytes: &mut [u8], cx: &mut Context<'_>) {
        if leg == Leg::Client {
            self.clock.hear(cx.now);
        }
        if self.forwards(leg) && self.side(leg).input == Input::Open {
            self.forward(leg, bytes, cx);
            self.settle(cx);
        }
    }

    /// Nothing more will come from `leg`.
    pub fn finished(&mut self, leg: Leg, finish: Finish, cx: &mut Context<'_>) {
        let side = self.side_mut(leg);
        if side.input == Input::Open {
            side.input = Input::Finishing(finish);
            side.has_said_close |= finish == Finish::Closed;
            self.settle(cx);
        }
    }

    /// The kernel took the first `bytes` of what was [`Self::outgoing`] to `leg`.
    pub fn sent(&mut self, leg: Leg, bytes: usize, cx: &mut Context<'_>) {
        let was_deaf = !self.wants_bytes(leg.other());
        self.side_mut(leg).sent(bytes, cx);
        if self.side(leg).outbox.is_empty() {
            self.delivered(leg, cx);
            if leg == Leg::Target && was_deaf {
                // Whom nobody listened to was not silent.
                self.clock.hear(cx.now);
            }
        }
        if self.forwards(leg.other()) && self.side(leg.other()).is_blocked {
            self.forward(leg.other(), &mut [], cx);
        }
        self.wear(leg, bytes as u64, Passage::Sent, cx);
        self.settle(cx);
    }

    /// Nothing more can be sent to `leg`.
    pub fn send_failed(&mut self, leg: Leg, cx: &mut Context<'_>) {
        self.lost(leg, cx);
        self.side_mut(leg).outbox.clear(cx.pool);
        self.settle(cx);
    }

    /// The kernel moved `bytes` from `leg` to the other without us.
    pub fn spliced(&mut self, leg: Leg, bytes: u64, cx: &mut Context<'_>) {
        let load = side::Load { bytes, messages: 0 };
        self.count(leg.other(), load, cx.tally);
        self.side_mut(leg.other()).waits_since = None;
        if leg == Leg::Client {
            self.clock.input_at = cx.now;
        }
        self.wear(leg.other(), bytes, Passage::Spliced, cx);
        self.settle(cx);
    }

    /// The kernel holds bytes from `leg` that the other does not take. It is over when
    /// [`Self::spliced`] tells that some went on.
    pub fn splice_waits(&mut self, leg: Leg, cx: &mut Context<'_>) {
        let sink = self.side_mut(leg.other());
        sink.waits_since.get_or_insert(cx.now);
    }

    /// Whether a receive from `leg` may be armed, which may bring [`RECEIVE_BYTES_MAX`].
    #[must_use]
    pub fn wants_bytes(&self, leg: Leg) -> bool {
        if self.side(leg).input != Input::Open {
            return false;
        }
        match self.phase {
            Phase::New | Phase::Over => false,
            Phase::Open | Phase::HalfClosed(_) if !self.side(leg).has_said_all => {
                !self.side(leg).is_blocked && self.side(leg.other()).takes_a_receive()
            }
            // What a client says after its last word is dropped; but its end is worth knowing.
            _ => leg == Leg::Client && self.frames.is_some(),
        }
    }

    /// What is to be sent to `leg`. It stays where it is until [`Self::sent`]; more may follow it.
    #[must_use]
    pub fn outgoing(&self, leg: Leg) -> &[u8] {
        let side = self.side(leg);
        match (self.phase, side.output) {
            (Phase::Over, _) | (_, Output::Lost | Output::Shut) => &[],
            _ => side.outbox.filled(),
        }
    }

    /// Whether our sending side to `leg` is to be ended now.
    #[must_use]
    pub fn wants_shutdown(&self, leg: Leg) -> bool {
        let side = self.side(leg);
        self.phase != Phase::Over && side.output == Output::Closing && side.outbox.is_empty()
    }

    /// Our sending side to `leg` is ended.
    pub fn shut_down(&mut self, leg: Leg) {
        let side = self.side_mut(leg);
        if side.output == Output::Closing {
            side.output = Output::Shut;
        }
        self.end_if_done();
    }

    /// Nothing is left to do: close both sockets as soon as nothing of them is under way, and take the
    /// report.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// Whether the bytes pass as they are on both legs, so that the kernel may move them by itself.
    #[must_use]
    pub fn is_transparent(&self) -> bool {
        self.frames.is_none() && self.sides.iter().all(|side| side.is_plain())
    }

    /// Gives all memory back, and says how the flow ended and what it carried.
    #[must_use]
    pub fn released(mut self, pool: &mut Pool) -> Report {
        for side in &mut self.sides {
            side.inbox.clear(pool);
            side.outbox.clear(pool);
        }
        let is_counted = !Leg::BOTH.into_iter().any(|leg| self.is_kernel(leg));
        Report {
            ended: self.ended.unwrap_or(Ended::Stopped),
            traffic: self.traffic,
            streams: is_counted.then_some(self.streams),
        }
    }

    fn side(&self, leg: Leg) -> &Side {
        &self.sides[leg.index()]
    }

    fn side_mut(&mut self, leg: Leg) -> &mut Side {
        &mut self.sides[leg.index()]
    }
}

impl Goodbye {
    /// Nothing is said.
    pub const NONE: Self = Self {
        code: 0,
        reason: "",
    };
}

impl Leg {
    pub const BOTH: [Self; 2] = [Self::Client, Self::Target];

    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Target,
            Self::Target => Self::Client,
        }
    }

    /// 0 for the client, 1 for the target.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

// A flow begins on the front's thread and lives on the relay's.
const fn assert_send<T: Send>() {}
const _: () = assert_send::<Flow>();
