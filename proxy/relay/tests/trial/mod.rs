//! A flow on a virtual clock between two simulated peers, driven as a driver of the engine does it.
#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "a part of the tests: every user takes what it needs"
)]

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};

use postern_relay::flow::{
    CLOSE_NOTIFY, Finish, Framing, Goodbye, KernelLine, Leg, Line, Report, Times,
};
use postern_relay::memory::RECEIVE_BYTES_MAX;
use postern_relay::{Context, Ended, Flow, Moment, Pool, Records, Tally};
use postern_wire::websocket::{Decoder, DecoderLimits, Opcode, TextPolicy, client_frame};
use rustls::{CipherSuite, Connection};

use crate::peers;

pub const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// [RFC 6455 §5.5.2] A ping without payload, from us.
const PING: [u8; 2] = [0x89, 0];

/// The product's defaults, with generous time for the whole.
pub const TIMES: Times = Times {
    absolute_ms: 3_600_000,
    idle_ms: 0,
    ping_ms: 20_000,
    stall_ms: 120_000,
    half_close_ms: 30_000,
    goodbye_ms: 1_000,
};

/// What the flow's socket buffer holds that the peer has not read.
const SOCKET_BYTES: usize = 16 * 1024;

/// What a client is told, as the product tells it.
pub fn goodbye(ended: &Ended) -> Goodbye {
    let (code, reason) = match *ended {
        Ended::ClientClosed => (1000, "closed_by_browser"),
        Ended::ClientLost | Ended::ClientSilent | Ended::ClientStalled => (0, ""),
        Ended::TargetClosed => (1000, "target_closed"),
        Ended::TargetLost => (4006, "target_lost"),
        Ended::TargetStalled => (4006, "target_stalled"),
        Ended::FrameRefused(code, label) => (code, label),
        Ended::Expired => (4003, "expired"),
        Ended::Idle => (4004, "idle"),
        Ended::Stopped => (4000, "stopped"),
    };
    Goodbye { code, reason }
}

pub fn websocket() -> Framing {
    let limits = DecoderLimits {
        frame_bytes_max: 1 << 20,
    };
    Framing::WebSocket(Box::new(Decoder::new(limits, TextPolicy::Refuse)))
}

/// A socket of the flow, and the peer behind it.
#[derive(Default)]
pub struct Peer {
    tls: Option<Box<Connection>>,
    /// What the peer sent and the flow has not received.
    coming: VecDeque<u8>,
    finish: Option<Finish>,
    finish_is_told: bool,
    /// What the flow sent and the peer has not read.
    socket: VecDeque<u8>,
    pub is_reading: bool,
    pub answers_pings: bool,
    /// Whether what the flow sends fails.
    pub refuses: bool,
    /// Bytes that the armed receive may still bring.
    armed: Option<usize>,
    /// What the send under way was given, and where it lay.
    sending: Option<(Vec<u8>, *const u8)>,
    /// What the peer has read, decrypted.
    pub heard: Vec<u8>,
    /// The flow's TLS has told the peer's what is wrong.
    pub heard_alert: bool,
    /// How many bytes it read, as they came.
    pub heard_bytes: usize,
    /// The flow has ended its sending side, and the peer has read all before.
    pub heard_end: bool,
    /// The peer's TLS was told that nothing more comes.
    pub heard_close_notify: bool,
    /// Sends that were to be an alert of the kernel's.
    pub alerts: u32,
    is_shut: bool,
}

/// What a driver or a peer may do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    Arm(Leg),
    Receive(Leg),
    /// The armed receive ends though it might have brought more.
    Disarm(Leg),
    Finish(Leg),
    Send(Leg),
    Sent(Leg),
    ShutDown(Leg),
    Read(Leg),
}

pub struct Trial {
    flow: Option<Flow>,
    pub pool: Pool,
    pub tally: Tally,
    pub now: Moment,
    peers: [Peer; 2],
    /// Set when the flow is over.
    pub report: Option<Report>,
    pub ended_ms: u64,
}

impl Peer {
    fn new(tls: Option<Connection>) -> Self {
        Self {
            tls: tls.map(Box::new),
            is_reading: true,
            ..Self::default()
        }
    }

    /// The peer sends this.
    pub fn say(&mut self, bytes: &[u8]) {
        assert!(self.finish.is_none());
        match &mut self.tls {
            None => self.coming.extend(bytes),
            Some(tls) => {
                tls.writer().write_all(bytes).unwrap();
                self.write_tls();
            }
        }
    }

    /// The peer sends these bytes past its own TLS.
    pub fn say_raw(&mut self, bytes: &[u8]) {
        self.coming.extend(bytes);
    }

    /// The bytes that are on their way to the flow, taken away.
    pub fn intercept(&mut self) -> Vec<u8> {
        self.coming.drain(..).collect()
    }

    pub fn say_message(&mut self, payload: &[u8]) {
        self.say(&client_frame(Opcode::Binary, true, KEY, payload));
    }

    pub fn say_close_frame(&mut self, code: u16) {
        self.say(&client_frame(Opcode::Close, true, KEY, &code.to_be_bytes()));
    }

    pub fn say_close_notify(&mut self) {
        self.tls.as_mut().unwrap().send_close_notify();
        self.write_tls();
    }

    /// The peer changes its keys and asks for the same.
    pub fn say_key_update(&mut self) {
        let tls = self.tls.as_mut().unwrap();
        tls.refresh_traffic_keys().unwrap();
        self.write_tls();
    }

    /// The peer ends its sending side, or resets the connection.
    pub fn finish(&mut self, finish: Finish) {
        self.finish.get_or_insert(finish);
    }

    pub fn has_finished(&self) -> bool {
        self.finish.is_some()
    }

    fn write_tls(&mut self) {
        let tls = self.tls.as_mut().unwrap();
        let mut bytes = Vec::new();
        while tls.wants_write() {
            tls.write_tls(&mut bytes).unwrap();
        }
        self.coming.extend(bytes);
    }

    /// The peer reads what has come.
    fn read(&mut self) {
        let bytes: Vec<u8> = self.socket.drain(..).collect();
        self.heard_bytes += bytes.len();
        match &mut self.tls {
            None => self.heard.extend(&bytes),
            Some(tls) => {
                let mut rest = bytes.as_slice();
                while !rest.is_empty() {
                    tls.read_tls(&mut rest).unwrap();
                    let Ok(state) = tls.process_new_packets() else {
                        self.heard_alert = true;
                        break;
                    };
                    self.heard_close_notify |= state.peer_has_closed();
                    let mut plain = vec![0; state.plaintext_bytes_to_read()];
                    tls.reader().read_exact(&mut plain).unwrap();
                    self.heard.extend(plain);
                }
                if self.finish.is_none() {
                    self.write_tls();
                }
            }
        }
        self.heard_end = self.is_shut;
        while self.answers_pings && self.heard.ends_with(&PING) {
            self.heard.truncate(self.heard.len() - PING.len());
            if self.finish.is_none() {
                self.say(&client_frame(Opcode::Pong, true, KEY, &[]));
            }
        }
    }
}

impl Trial {
    /// A flow that has begun, between peers that speak TLS where one is given.
    pub fn new(flow: Flow, client: Option<Connection>, target: Option<Connection>) -> Self {
        let mut trial = Self {
            flow: Some(flow),
            pool: Pool::new(),
            tally: Tally::default(),
            // Clocks of drivers do not begin with the flow.
            now: Moment(77_000_000),
            peers: [Peer::new(client), Peer::new(target)],
            report: None,
            ended_ms: 0,
        };
        trial.event(|flow, cx| flow.begin(cx));
        trial
    }

    pub fn passthrough(times: Times) -> Self {
        Self::new(Flow::passthrough(times), None, None)
    }

    /// A WebSocket client and a target, both without TLS.
    pub fn websocket(times: Times) -> Self {
        let flow = Flow::framed(Line::Plain, Line::Plain, websocket(), times, goodbye);
        Self::new(flow, None, None)
    }

    pub fn client(&mut self) -> &mut Peer {
        &mut self.peers[0]
    }

    pub fn target(&mut self) -> &mut Peer {
        &mut self.peers[1]
    }

    pub fn peer(&mut self, leg: Leg) -> &mut Peer {
        &mut self.peers[leg.index()]
    }

    /// Milliseconds since the flow began.
    pub fn elapsed_ms(&self) -> u64 {
        self.now.since_us(Moment(77_000_000)) / 1000
    }

    pub fn ended(&self) -> Option<&Ended> {
        self.report.as_ref().map(|report| &report.ended)
    }

    pub fn flow(&self) -> &Flow {
        self.flow.as_ref().expect("the flow is not over")
    }

    /// Something happens to the flow, if it is not over.
    pub fn event(&mut self, happens: impl FnOnce(&mut Flow, &mut Context<'_>)) {
        let Some(flow) = &mut self.flow else {
            return;
        };
        let mut cx = Context {
            pool: &mut self.pool,
            tally: &mut self.tally,
            now: self.now,
        };
        happens(flow, &mut cx);
        assert!(self.pool.lent() <= 4, "a flow holds a block a queue");
        if !flow.is_over() {
            return;
        }
        assert!(Leg::BOTH.map(|leg| flow.wants_bytes(leg)) == [false; 2]);
        assert!(Leg::BOTH.map(|leg| flow.outgoing(leg).len()) == [0; 2]);
        assert_eq!(flow.deadline(), None);
        let flow = self.flow.take().unwrap();
        self.report = Some(flow.released(&mut self.pool));
        self.ended_ms = self.elapsed_ms();
        assert_eq!(self.pool.lent(), 0, "all memory is given back");
        for peer in &mut self.peers {
            peer.is_shut = true;
            peer.sending = None;
        }
    }

    /// Everything that could be done now.
    pub fn deeds(&self) -> Vec<Deed> {
        let mut deeds = Vec::new();
        for leg in Leg::BOTH {
            let peer = &self.peers[leg.index()];
            if peer.is_reading && (!peer.socket.is_empty() || peer.is_shut && !peer.heard_end) {
                deeds.push(Deed::Read(leg));
            }
            let Some(flow) = &self.flow else {
                continue;
            };
            match &peer.sending {
                Some(_) if peer.refuses || peer.socket.len() < SOCKET_BYTES => {
                    deeds.push(Deed::Sent(leg));
                }
                Some(_) => {}
                None if !flow.outgoing(leg).is_empty() => deeds.push(Deed::Send(leg)),
                None if flow.wants_shutdown(leg) => deeds.push(Deed::ShutDown(leg)),
                None => {}
            }
            match peer.armed {
                Some(_) if !peer.coming.is_empty() => deeds.push(Deed::Receive(leg)),
                Some(_) if peer.finish.is_some() => deeds.push(Deed::Finish(leg)),
                Some(_) => {}
                None if flow.wants_bytes(leg) => deeds.push(Deed::Arm(leg)),
                None => {}
            }
        }
        deeds
    }

    pub fn is_armed(&self, leg: Leg) -> bool {
        self.peers[leg.index()].armed.is_some()
    }

    /// Does one thing; a receive and a send take `bytes` at most.
    pub fn perform(&mut self, deed: Deed, bytes: usize) {
        match deed {
            Deed::Arm(leg) => self.peer(leg).armed = Some(RECEIVE_BYTES_MAX),
            Deed::Disarm(leg) => self.peer(leg).armed = None,
            Deed::Receive(leg) => self.receive(leg, bytes),
            Deed::Finish(leg) => {
                let peer = self.peer(leg);
                peer.armed = None;
                peer.finish_is_told = true;
                let finish = peer.finish.unwrap();
                self.event(|flow, cx| flow.finished(leg, finish, cx));
            }
            Deed::Send(leg) => {
                let bytes = self.flow().outgoing(leg);
                let sending = (bytes.to_vec(), bytes.as_ptr());
                let is_alert = self.flow().says_close(leg);
                assert!(!is_alert || sending.0 == CLOSE_NOTIFY);
                let peer = self.peer(leg);
                peer.alerts += u32::from(is_alert);
                peer.sending = Some(sending);
            }
            Deed::Sent(leg) => self.sent(leg, bytes),
            Deed::ShutDown(leg) => {
                self.peer(leg).is_shut = true;
                self.event(|flow, _| flow.shut_down(leg));
            }
            Deed::Read(leg) => self.peer(leg).read(),
        }
    }

    fn receive(&mut self, leg: Leg, bytes: usize) {
        let peer = self.peer(leg);
        let budget = peer.armed.unwrap();
        let length = bytes.min(budget).min(peer.coming.len());
        let mut bytes: Vec<u8> = peer.coming.drain(..length).collect();
        peer.armed = (length < budget).then_some(budget - length);
        if peer.finish_is_told {
            return;
        }
        self.event(|flow, cx| flow.received(leg, &mut bytes, cx));
    }

    fn sent(&mut self, leg: Leg, bytes: usize) {
        let peer = &mut self.peers[leg.index()];
        let (sending, place) = peer.sending.take().unwrap();
        let still = self.flow.as_ref().unwrap().outgoing(leg);
        // A flow that has given a leg up hides what it holds for it.
        let has_stayed = still.starts_with(&sending) && still.as_ptr() == place;
        assert!(
            still.is_empty() || has_stayed,
            "bytes stay while they are sent"
        );
        if peer.refuses {
            return self.event(|flow, cx| flow.send_failed(leg, cx));
        }
        let room = SOCKET_BYTES - peer.socket.len();
        let is_whole = self.flow.as_ref().unwrap().says_close(leg);
        let taken = match is_whole {
            // An alert is a record: it goes at once or not at all.
            true if room < sending.len() => 0,
            true => sending.len(),
            false => bytes.min(room).min(sending.len()),
        };
        peer.socket.extend(&sending[..taken]);
        self.event(|flow, cx| flow.sent(leg, taken, cx));
    }

    /// Does what can be done until nothing is left.
    pub fn run(&mut self) {
        self.run_in_pieces(usize::MAX);
    }

    /// The same, where no receive brings more than `bytes`.
    pub fn run_in_pieces(&mut self, bytes: usize) {
        loop {
            let deeds = self.deeds();
            if deeds.is_empty() {
                return;
            }
            for deed in deeds {
                if !self.deeds().contains(&deed) {
                    continue;
                }
                match deed {
                    Deed::Receive(_) => self.perform(deed, bytes),
                    _ => self.perform(deed, usize::MAX),
                }
            }
        }
    }

    /// Lets time pass, and everything happen that can.
    pub fn pass_ms(&mut self, ms: u64) {
        let end = self.now.plus_ms(ms);
        self.run();
        while let Some(deadline) = self.flow.as_ref().and_then(Flow::deadline)
            && deadline <= end
        {
            self.jump(deadline);
            self.run();
        }
        self.now = end;
    }

    /// It is this moment, or the present one where that is later; the flow is woken if it wants to be.
    pub fn jump(&mut self, to: Moment) {
        self.now = self.now.max(to);
        if !self.is_due() {
            return;
        }
        self.event(|flow, cx| flow.woken(cx));
        assert!(!self.is_due(), "a flow that was woken wants to sleep");
    }

    fn is_due(&self) -> bool {
        let deadline = self.flow.as_ref().and_then(Flow::deadline);
        deadline.is_some_and(|deadline| deadline <= self.now)
    }
}

/// A line to a TLS client, and that client.
pub fn tls_client(suite: CipherSuite) -> (Line, Connection) {
    let (side, peer) = peers::server(suite);
    let records = Records::server(side.secrets, side.connection).unwrap();
    (Line::Tls(Box::new(records)), peer)
}

/// A line to a TLS target with what its handshake left over, and that target.
pub fn tls_target(suite: CipherSuite) -> (Line, Vec<u8>, Connection) {
    let (side, peer) = peers::client(suite);
    let records = Records::client(side.secrets, side.connection).unwrap();
    (Line::Tls(Box::new(records)), side.leftover, peer)
}

/// The product's own path: a WebSocket client over TLS, a target over TLS.
pub fn secured(suite: CipherSuite) -> Trial {
    let (client, client_peer) = tls_client(suite);
    let (target, tickets, target_peer) = tls_target(suite);
    let mut flow = Flow::framed(client, target, websocket(), TIMES, goodbye);
    assert!(flow.seed(Leg::Target, &tickets));
    Trial::new(flow, Some(client_peer), Some(target_peer))
}

/// A client whose records are the kernel's, and a plain target.
pub fn kernel(times: Times) -> Trial {
    let client = Line::Kernel(KernelLine::new(u64::MAX));
    let flow = Flow::framed(client, Line::Plain, Framing::None, times, goodbye);
    Trial::new(flow, None, None)
}

/// A TLS client whose bytes go to a plain target as they are.
pub fn unwrapped(suite: CipherSuite, times: Times) -> Trial {
    let (client, peer) = tls_client(suite);
    let flow = Flow::framed(client, Line::Plain, Framing::None, times, goodbye);
    assert!(!flow.is_transparent());
    Trial::new(flow, Some(peer), None)
}

/// Splits what a WebSocket client heard in frames: opcode and payload. `None` where the last is cut.
pub fn frames(mut bytes: &[u8]) -> Vec<(u8, Option<&[u8]>)> {
    let mut frames = Vec::new();
    while let [first, second, rest @ ..] = bytes {
        assert_eq!(first & 0xf0, 0x80, "frames are whole messages");
        let (length, rest) = match (second, rest) {
            (126, [high, low, rest @ ..]) => (usize::from(u16::from_be_bytes([*high, *low])), rest),
            (127, rest) if rest.len() >= 8 => {
                let (length, rest) = rest.split_first_chunk::<8>().unwrap();
                (usize::try_from(u64::from_be_bytes(*length)).unwrap(), rest)
            }
            (short @ 0..126, rest) => (usize::from(*short), rest),
            _ => {
                frames.push((first & 0x0f, None));
                return frames;
            }
        };
        frames.push((first & 0x0f, rest.get(..length)));
        bytes = rest.get(length..).unwrap_or_default();
    }
    frames
}

/// The payload of all data frames in what a WebSocket client heard; a frame that is cut counts for nothing.
pub fn payload(bytes: &[u8]) -> Vec<u8> {
    let data = frames(bytes).into_iter().filter(|frame| frame.0 == 2);
    data.flat_map(|frame| frame.1.unwrap_or_default().to_vec())
        .collect()
}
