//! The machine with a simulated kernel, which does what it likes and checks what it is asked for.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use postern_relay::flow::{Framing, Line};
use postern_relay::memory::RECEIVE_BYTES_MAX;
use postern_relay::{Ended, Times};
use postern_wire::websocket::{self, Decoder, DecoderLimits, Opcode, TextPolicy};
use proptest::prelude::*;

use super::*;

const GOODBYE: Goodbye = Goodbye {
    code: 4242,
    reason: "so long",
};

/// What the kernel and a peer do in between; numbers choose flows, bytes and ends.
#[derive(Debug, Clone)]
enum Step {
    Deeds(usize),
    Bring(usize, Leg, usize),
    EndReceive(usize, Leg, ReceiveEnd),
    Take(usize, Leg, usize),
    TakeNothing(usize, Leg),
    BuffersBack,
    Splice(usize, Leg, usize),
    Unsplice(usize, Leg),
    Stop(usize),
    Abort(usize),
    Stale(usize, Leg),
    Time(u64),
    /// Rounds in which everybody does what he can at once, so that lanes become bulky.
    Rush(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Passthrough,
    WebSocket,
}

/// What a peer will do.
#[derive(Debug, Clone)]
struct Script {
    /// Payload, message by message.
    messages: Vec<usize>,
    /// The connection breaks after this many bytes on the wire.
    resets_after: Option<usize>,
}

/// A peer, its socket and what is under way there.
#[derive(Default)]
struct Peer {
    /// What it writes, and how much of it the machine has got.
    says: Vec<u8>,
    said: usize,
    /// The payload of `says`.
    payload: Vec<u8>,
    resets_after: Option<usize>,
    heard: Vec<u8>,
    armed: Option<Armed>,
    starved: bool,
    sending: Option<Sending>,
    shut: bool,
    /// Its lane is spliced.
    spliced: bool,
}

#[derive(Default)]
struct Armed {
    brought: usize,
    cancelled: bool,
}

struct Sending {
    bytes: Vec<u8>,
    at: *const u8,
    cancelled: bool,
}

struct Carried {
    key: Key,
    kind: Kind,
    peers: [Peer; 2],
    stopped: bool,
    aborted: bool,
    report: Option<Report>,
}

/// A kernel that does what the steps say, and checks that it is asked for nothing wrong.
struct Kernel {
    machine: Machine,
    flows: Vec<Carried>,
    now: Moment,
}

impl Peer {
    fn new(kind: Kind, leg: Leg, script: &Script) -> Self {
        let mut peer = Self {
            resets_after: script.resets_after,
            ..Self::default()
        };
        for (number, &length) in script.messages.iter().enumerate() {
            let message: Vec<u8> = (0..length).map(|at| (at * 7 + number) as u8).collect();
            match (kind, leg) {
                (Kind::WebSocket, Leg::Client) => {
                    let key = [number as u8, 2, 3, 4];
                    let frame = websocket::client_frame(Opcode::Binary, true, key, &message);
                    peer.says.extend(frame);
                }
                _ => peer.says.extend(&message),
            }
            peer.payload.extend(message);
        }
        if (kind, leg) == (Kind::WebSocket, Leg::Client) {
            let close =
                websocket::client_frame(Opcode::Close, true, [9; 4], &1000_u16.to_be_bytes());
            peer.says.extend(close);
        }
        peer
    }

    /// What is left to say before the connection ends or breaks.
    fn rest(&self) -> usize {
        let end = self.resets_after.unwrap_or(usize::MAX).min(self.says.len());
        end.saturating_sub(self.said)
    }

    fn is_broken(&self) -> bool {
        self.resets_after.is_some_and(|after| self.said >= after)
    }

    fn next_bytes(&mut self, bytes: usize) -> Vec<u8> {
        let bytes = bytes.min(self.rest());
        self.said += bytes;
        self.says[self.said - bytes..self.said].to_vec()
    }
}

impl Kernel {
    fn new(flows: &[(Kind, Script, Script)], times: Times) -> Self {
        let mut kernel = Self {
            machine: Machine::new(),
            flows: Vec::new(),
            now: Moment(1000),
        };
        kernel.machine.set_now(kernel.now);
        for (kind, client, target) in flows {
            let flow = match kind {
                Kind::Passthrough => Flow::passthrough(times),
                Kind::WebSocket => framed(times),
            };
            let scripts = [(Leg::Client, client), (Leg::Target, target)];
            let carried = Carried {
                key: kernel.machine.add(flow),
                kind: *kind,
                peers: scripts.map(|(leg, script)| Peer::new(*kind, leg, script)),
                stopped: false,
                aborted: false,
                report: None,
            };
            kernel.flows.push(carried);
        }
        kernel
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Deeds(deeds) => self.perform(deeds),
            Step::Bring(flow, leg, bytes) => self.bring(flow, leg, bytes),
            Step::EndReceive(flow, leg, end) => self.end_receive(flow, leg, end),
            Step::Take(flow, leg, bytes) => self.take(flow, leg, bytes),
            Step::TakeNothing(flow, leg) => self.take(flow, leg, 0),
            Step::BuffersBack => {
                for peer in self.flows.iter_mut().flat_map(|flow| &mut flow.peers) {
                    peer.starved = false;
                }
                self.machine.buffers_back();
            }
            Step::Splice(flow, leg, bytes) => self.splice(flow, leg, bytes),
            Step::Unsplice(flow, leg) => {
                let (machine, key, peer, _) = self.parts(flow, leg);
                if peer.spliced && peer.armed.take().is_some() {
                    peer.spliced = false;
                    machine.end_splice(key, leg);
                }
            }
            Step::Stop(flow) => {
                let carried = self.carried(flow);
                carried.stopped = true;
                let key = carried.key;
                self.machine.stop(key, GOODBYE);
            }
            Step::Abort(flow) => {
                let carried = self.carried(flow);
                carried.aborted = true;
                let key = carried.key;
                self.machine.abort(key);
            }
            Step::Stale(flow, leg) => self.say_stale_things(flow, leg),
            Step::Time(ms) => {
                self.now = self.now.plus_ms(ms);
                self.machine.set_now(self.now);
                self.machine.tick();
            }
            Step::Rush(rounds) => (0..rounds).for_each(|_| self.rush()),
        }
    }

    fn rush(&mut self) {
        self.perform(1000);
        for flow in 0..self.flows.len() {
            for leg in Leg::BOTH {
                self.bring(flow, leg, usize::MAX);
                self.end_receive(flow, leg, ReceiveEnd::Spent);
                self.take(flow, leg, usize::MAX);
                self.splice(flow, leg, 50_000);
            }
        }
    }

    fn carried(&mut self, flow: usize) -> &mut Carried {
        let flows = self.flows.len();
        &mut self.flows[flow % flows]
    }

    /// The machine, the key, the peer at `leg` and the other one.
    fn parts(&mut self, flow: usize, leg: Leg) -> (&mut Machine, Key, &mut Peer, &mut Peer) {
        let flows = self.flows.len();
        let Carried { key, peers, .. } = &mut self.flows[flow % flows];
        let [client, target] = peers;
        match leg {
            Leg::Client => (&mut self.machine, *key, client, target),
            Leg::Target => (&mut self.machine, *key, target, client),
        }
    }

    fn perform(&mut self, deeds: usize) {
        for _ in 0..deeds {
            let Some(deed) = self.machine.next_deed() else {
                return;
            };
            let (Deed::Receive(key, _)
            | Deed::CancelReceive(key, _)
            | Deed::Send(key, _)
            | Deed::CancelSend(key, _)
            | Deed::ShutDown(key, _)
            | Deed::Close(key)) = deed;
            let carried = self
                .flows
                .iter_mut()
                .find(|carried| carried.key == key)
                .expect("a flow of ours");
            assert!(carried.report.is_none(), "a deed for a dead flow: {deed:?}");
            carried.perform(deed, &mut self.machine);
        }
    }

    fn bring(&mut self, flow: usize, leg: Leg, bytes: usize) {
        let (machine, key, peer, _) = self.parts(flow, leg);
        let Some(armed) = peer.armed.as_ref().filter(|_| !peer.spliced) else {
            return;
        };
        let bytes = bytes.min(RECEIVE_BYTES_MAX - armed.brought);
        let mut brought = peer.next_bytes(bytes);
        if let Some(armed) = &mut peer.armed {
            armed.brought += brought.len();
        }
        machine.received(key, leg, &mut brought);
    }

    fn end_receive(&mut self, flow: usize, leg: Leg, wanted: ReceiveEnd) {
        let (machine, key, peer, _) = self.parts(flow, leg);
        let Some(armed) = peer.armed.take() else {
            return;
        };
        let is_at_end = peer.rest() == 0;
        let end = match wanted {
            _ if is_at_end && peer.is_broken() => ReceiveEnd::Broken,
            ReceiveEnd::Finished if is_at_end => ReceiveEnd::Finished,
            ReceiveEnd::Cancelled if armed.cancelled => ReceiveEnd::Cancelled,
            ReceiveEnd::NoBuffers if !peer.spliced => ReceiveEnd::NoBuffers,
            ReceiveEnd::Spent if !peer.spliced => ReceiveEnd::Spent,
            // It goes on.
            _ => {
                peer.armed = Some(armed);
                return;
            }
        };
        peer.starved = end == ReceiveEnd::NoBuffers;
        peer.spliced = false;
        machine.receive_ended(key, leg, end);
    }

    fn take(&mut self, flow: usize, leg: Leg, bytes: usize) {
        let (machine, key, peer, _) = self.parts(flow, leg);
        let Some(sending) = peer.sending.take() else {
            return;
        };
        let outgoing = machine.outgoing(key, leg);
        if !outgoing.is_empty() {
            assert_eq!(
                outgoing.as_ptr(),
                sending.at,
                "bytes moved under the kernel"
            );
            assert!(
                outgoing.starts_with(&sending.bytes),
                "bytes changed under the kernel"
            );
        }
        if peer.is_broken() {
            machine.sent(key, leg, Err(()));
            return;
        }
        let bytes = bytes.min(sending.bytes.len());
        peer.heard.extend(&sending.bytes[..bytes]);
        machine.sent(key, leg, Ok(bytes));
    }

    fn splice(&mut self, flow: usize, leg: Leg, bytes: usize) {
        let (machine, key, peer, other) = self.parts(flow, leg);
        if !peer.spliced && machine.bulk(key, leg) {
            assert!(
                peer.armed.is_none(),
                "a lane is spliced while a receive is armed"
            );
            assert!(
                other.sending.is_none(),
                "a lane is spliced while a send is under way"
            );
            machine.begin_splice(key, leg);
            peer.spliced = true;
            peer.armed = Some(Armed::default());
        }
        if !peer.spliced {
            return;
        }
        if other.is_broken() {
            peer.spliced = false;
            peer.armed = None;
            machine.sent(key, leg.other(), Err(()));
            machine.receive_ended(key, leg, ReceiveEnd::Cancelled);
            return;
        }
        let moved = peer.next_bytes(bytes);
        other.heard.extend(&moved);
        machine.spliced(key, leg, moved.len(), moved.len());
    }

    /// News of a flow that is gone, or never was.
    fn say_stale_things(&mut self, flow: usize, leg: Leg) {
        let key = self.carried(flow).key;
        let stale = Key {
            generation: key.generation.wrapping_sub(1),
            ..key
        };
        self.machine.received(stale, leg, &mut [0xEE; 100]);
        self.machine.receive_ended(stale, leg, ReceiveEnd::Broken);
        self.machine.sent(stale, leg, Err(()));
        self.machine.spliced(stale, leg, 100, 100);
        self.machine.stop(stale, GOODBYE);
        self.machine.abort(stale);
        assert!(self.machine.outgoing(stale, leg).is_empty());
    }

    /// Lets everything happen that still can.
    fn run_out(&mut self) {
        for _ in 0..20_000 {
            self.perform(1000);
            if self.machine.live() == 0 {
                return;
            }
            for flow in 0..self.flows.len() {
                for leg in Leg::BOTH {
                    self.splice(flow, leg, usize::MAX);
                    self.bring(flow, leg, usize::MAX);
                    self.end_receive(flow, leg, ReceiveEnd::Cancelled);
                    self.end_receive(flow, leg, ReceiveEnd::Finished);
                    self.end_receive(flow, leg, ReceiveEnd::Spent);
                    self.take(flow, leg, usize::MAX);
                }
            }
            self.step(&Step::BuffersBack);
            self.step(&Step::Time(10));
        }
        panic!("flows never end");
    }
}

impl Carried {
    fn perform(&mut self, deed: Deed, machine: &mut Machine) {
        match deed {
            Deed::Receive(_, leg) => {
                let peer = &mut self.peers[leg.index()];
                assert!(peer.armed.is_none(), "two receives at once");
                assert!(!peer.starved, "a receive without buffers");
                peer.armed = Some(Armed::default());
            }
            Deed::CancelReceive(_, leg) => {
                let armed = self.peers[leg.index()].armed.as_mut();
                let armed = armed.expect("only what is armed is cancelled");
                assert!(
                    !std::mem::replace(&mut armed.cancelled, true),
                    "cancelled twice"
                );
            }
            Deed::Send(key, leg) => {
                let lane_is_spliced = self.peers[leg.other().index()].spliced;
                let peer = &mut self.peers[leg.index()];
                let outgoing = machine.outgoing(key, leg);
                assert!(peer.sending.is_none(), "two sends at once");
                assert!(!peer.shut, "a send after the shutdown");
                assert!(!lane_is_spliced, "a send into a spliced lane");
                assert!(!outgoing.is_empty(), "a send of nothing");
                peer.sending = Some(Sending {
                    bytes: outgoing.to_vec(),
                    at: outgoing.as_ptr(),
                    cancelled: false,
                });
            }
            Deed::CancelSend(_, leg) => {
                let sending = self.peers[leg.index()].sending.as_mut();
                let sending = sending.expect("only what is under way is cancelled");
                assert!(
                    !std::mem::replace(&mut sending.cancelled, true),
                    "cancelled twice"
                );
            }
            Deed::ShutDown(_, leg) => {
                let peer = &mut self.peers[leg.index()];
                assert!(peer.sending.is_none(), "a shutdown under a send");
                assert!(!std::mem::replace(&mut peer.shut, true), "two shutdowns");
            }
            Deed::Close(key) => {
                for peer in &self.peers {
                    assert!(peer.armed.is_none(), "closed under a receive");
                    assert!(peer.sending.is_none(), "closed under a send");
                }
                self.report = Some(machine.remove(key));
            }
        }
    }

    /// Every byte came once and in order, as far as it came; and all of them, unless the report says why not.
    fn check(&self) {
        let report = self.report.as_ref().expect("it has ended");
        let [client, target] = &self.peers;
        assert!(
            client.payload.starts_with(&target.heard),
            "client to target"
        );
        let (heard, close) = match self.kind {
            Kind::Passthrough => (client.heard.clone(), None),
            Kind::WebSocket => unframed(&client.heard),
        };
        assert!(target.payload.starts_with(&heard), "target to client");

        let is_whole = !self.stopped
            && !self.aborted
            && client.resets_after.is_none()
            && target.resets_after.is_none();
        if self.kind == Kind::Passthrough && is_whole {
            assert!(matches!(
                report.ended,
                Ended::ClientClosed | Ended::TargetClosed
            ));
            assert_eq!(target.heard.len(), client.payload.len());
            assert_eq!(heard.len(), target.payload.len());
            assert!(client.shut && target.shut);
        }
        if is_whole {
            match report.ended {
                Ended::ClientClosed => assert_eq!(target.heard.len(), client.payload.len()),
                Ended::TargetClosed => assert_eq!(heard.len(), target.payload.len()),
                _ => panic!("{report:?}"),
            }
        }
        if self.kind == Kind::WebSocket && is_whole {
            assert!(close.is_some(), "the client was told the end");
        }
        if self.kind == Kind::WebSocket
            && report.ended == Ended::Stopped
            && !self.aborted
            && client.resets_after.is_none()
        {
            assert_eq!(close, Some(GOODBYE.code));
        }
        assert!(report.traffic.bytes_up <= client.payload.len() as u64);
        assert!(report.traffic.bytes_down <= target.payload.len() as u64);
        if is_whole && self.kind == Kind::Passthrough {
            assert_eq!(report.traffic.bytes_up, target.heard.len() as u64);
            assert_eq!(report.traffic.bytes_down, heard.len() as u64);
        }
    }
}

fn framing() -> Framing {
    let limits = DecoderLimits {
        frame_bytes_max: 1 << 20,
    };
    let decoder = Decoder::new(limits, TextPolicy::Refuse);
    Framing::WebSocket(Box::new(decoder))
}

fn framed(times: Times) -> Flow {
    let goodbye = |_: &Ended| Goodbye {
        code: 1000,
        reason: "",
    };
    Flow::framed(Line::Plain, Line::Plain, framing(), times, goodbye)
}

/// The payload of a server's data frames, whole or not, and the code of its close frame.
fn unframed(mut bytes: &[u8]) -> (Vec<u8>, Option<u16>) {
    let mut payload = Vec::new();
    let mut close = None;
    while let [first, second, rest @ ..] = bytes {
        assert!(close.is_none(), "something follows the close frame");
        assert_eq!(second & 0x80, 0, "a server masks nothing");
        let (length, rest) = match (second & 0x7f, rest) {
            (126, [a, b, rest @ ..]) => (usize::from(u16::from_be_bytes([*a, *b])), rest),
            (127, [_, _, _, _, a, b, c, d, rest @ ..]) => {
                (u32::from_be_bytes([*a, *b, *c, *d]) as usize, rest)
            }
            (126 | 127, _) => break,
            (length, rest) => (usize::from(length), rest),
        };
        let (content, rest) = rest.split_at(length.min(rest.len()));
        match first {
            0x82 => payload.extend(content),
            0x88 if content.len() == length => {
                close = Some(u16::from_be_bytes([content[0], content[1]]));
            }
            0x88..=0x8a => {}
            other => panic!("a frame that begins with {other:#x}"),
        }
        bytes = rest;
    }
    (payload, close)
}

fn leg() -> impl Strategy<Value = Leg> {
    prop_oneof![Just(Leg::Client), Just(Leg::Target)]
}

fn end() -> impl Strategy<Value = ReceiveEnd> {
    prop_oneof![
        Just(ReceiveEnd::Spent),
        Just(ReceiveEnd::NoBuffers),
        Just(ReceiveEnd::Cancelled),
        Just(ReceiveEnd::Finished),
    ]
}

fn amount() -> impl Strategy<Value = usize> {
    prop_oneof![1..200_usize, 1..70_000_usize, Just(usize::MAX)]
}

fn script() -> impl Strategy<Value = Script> {
    let message =
        prop_oneof![4 => 1..300_usize, 4 => 1..100_000_usize, 1 => 300_000..900_000_usize];
    let messages = prop::collection::vec(message, 0..6);
    let resets_after = prop::option::weighted(0.2, 0..100_000_usize);
    (messages, resets_after).prop_map(|(messages, resets_after)| Script {
        messages,
        resets_after,
    })
}

fn flow() -> impl Strategy<Value = (Kind, Script, Script)> {
    let kind = prop_oneof![Just(Kind::Passthrough), Just(Kind::WebSocket)];
    (kind, script(), script())
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (1..6_usize).prop_map(Step::Deeds),
        20 => (0..4_usize, leg(), amount()).prop_map(|(f, l, n)| Step::Bring(f, l, n)),
        20 => (0..4_usize, leg(), end()).prop_map(|(f, l, e)| Step::EndReceive(f, l, e)),
        20 => (0..4_usize, leg(), amount()).prop_map(|(f, l, n)| Step::Take(f, l, n)),
        2 => (0..4_usize, leg()).prop_map(|(f, l)| Step::TakeNothing(f, l)),
        8 => Just(Step::BuffersBack),
        8 => (0..4_usize, leg(), amount()).prop_map(|(f, l, n)| Step::Splice(f, l, n)),
        2 => (0..4_usize, leg()).prop_map(|(f, l)| Step::Unsplice(f, l)),
        1 => (0..4_usize).prop_map(Step::Stop),
        1 => (0..4_usize).prop_map(Step::Abort),
        3 => (0..4_usize, leg()).prop_map(|(f, l)| Step::Stale(f, l)),
        3 => (1..50_u64).prop_map(Step::Time),
        3 => (1..12_usize).prop_map(Step::Rush),
    ]
}

fn run(flows: &[(Kind, Script, Script)], steps: &[Step], times: Times) -> Kernel {
    let mut kernel = Kernel::new(flows, times);
    for step in steps {
        kernel.step(step);
    }
    kernel.run_out();
    assert_eq!(kernel.machine.live(), 0);
    assert_eq!(kernel.machine.blocks_lent(), 0, "memory is missing");
    assert_eq!(kernel.machine.next_deed(), None);
    assert_eq!(
        kernel.machine.next_wake(),
        None,
        "a dead flow has a deadline"
    );
    kernel
}

#[test]
fn a_panic_in_one_flow_ends_this_one_only() {
    let script = Script {
        messages: vec![100],
        resets_after: None,
    };
    let flows = [(Kind::WebSocket, script.clone(), script)];
    let mut kernel = Kernel::new(&flows, Times::default());
    let explosive = |_: &Ended| panic!("a panic of the test's own");
    let flow = Flow::framed(
        Line::Plain,
        Line::Plain,
        framing(),
        Times::default(),
        explosive,
    );
    let key = kernel.machine.add(flow);
    let machine = &mut kernel.machine;
    while let Some(deed) = machine.next_deed() {
        match deed {
            Deed::Receive(armed, Leg::Client) if armed == key => {
                machine.received(key, Leg::Client, &mut [0x82]);
                machine.receive_ended(key, Leg::Client, ReceiveEnd::Finished);
            }
            Deed::CancelReceive(armed, leg) if armed == key => {
                machine.receive_ended(key, leg, ReceiveEnd::Cancelled);
            }
            Deed::Close(closed) if closed == key => {
                assert_eq!(machine.remove(key).ended, Ended::TargetLost);
            }
            Deed::Receive(other, leg) => {
                let carried = kernel.flows.iter_mut().find(|carried| carried.key == other);
                let peer = &mut carried.expect("the other").peers[leg.index()];
                peer.armed = Some(Armed::default());
            }
            deed => panic!("{deed:?}"),
        }
    }
    assert_eq!(machine.live(), 1);
    kernel.run_out();
    kernel.flows.iter().for_each(Carried::check);
    assert_eq!(kernel.machine.blocks_lent(), 0);
}

/// Counts the allocations of each thread, so that tests beside each other don't count for each other.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the memory came from `alloc` above, with this layout.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// Carries `rounds` messages in each direction of each flow, and lets time pass.
fn exchange(machine: &mut Machine, keys: &[Key], frame: &mut [u8], rounds: u64, now: &mut Moment) {
    let mut payload = [0x55; 512];
    for _ in 0..rounds {
        *now = now.plus_ms(1);
        machine.set_now(*now);
        for &key in keys {
            machine.received(key, Leg::Client, frame);
            machine.receive_ended(key, Leg::Client, ReceiveEnd::Spent);
            machine.received(key, Leg::Target, &mut payload);
            machine.receive_ended(key, Leg::Target, ReceiveEnd::NoBuffers);
        }
        machine.tick();
        machine.buffers_back();
        while let Some(deed) = machine.next_deed() {
            match deed {
                Deed::Send(key, leg) => {
                    let bytes = machine.outgoing(key, leg).len();
                    assert!(bytes > 0);
                    machine.sent(key, leg, Ok(bytes));
                }
                Deed::Receive(..) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn carrying_allocates_nothing() {
    // They hold two blocks each at once: so many stay in the pool.
    const FLOWS: u64 = 300;
    let mut machine = Machine::new();
    let times = Times {
        idle_ms: 20,
        stall_ms: 5,
        ..Times::default()
    };
    let keys: Vec<Key> = (0..FLOWS).map(|_| machine.add(framed(times))).collect();
    while machine.next_deed().is_some() {}
    let mut now = Moment(0);
    // Its mask changes nothing, so that it can be received again.
    let mut frame = websocket::client_frame(Opcode::Binary, true, [0; 4], &[0x55; 512]);
    exchange(&mut machine, &keys, &mut frame, 100, &mut now);
    let before = ALLOCATIONS.get();
    exchange(&mut machine, &keys, &mut frame, 1000, &mut now);
    assert_eq!(ALLOCATIONS.get(), before);
    assert_eq!(machine.live(), FLOWS as usize);
    assert_eq!(machine.tally().messages_up, FLOWS * 1100);
    assert_eq!(machine.tally().messages_down, FLOWS * 1100);
}

#[test]
fn flows_take_turns() {
    let mut machine = Machine::new();
    let busy = machine.add(Flow::passthrough(Times::default()));
    let quiet = machine.add(Flow::passthrough(Times::default()));
    let mut turns = Vec::new();
    for _ in 0..8 {
        let Some(Deed::Receive(key, leg)) = machine.next_deed() else {
            panic!("both want bytes");
        };
        turns.push(key);
        if key == busy {
            // Its receives end as soon as they are armed.
            machine.receive_ended(key, leg, ReceiveEnd::Spent);
        }
    }
    assert_eq!(turns, [busy, busy, quiet, quiet, busy, busy, busy, busy]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn every_byte_arrives_once_and_in_order_or_the_report_says_why_not(
        flows in prop::collection::vec(flow(), 1..4),
        steps in prop::collection::vec(step(), 0..300),
    ) {
        let kernel = run(&flows, &steps, Times::default());
        kernel.flows.iter().for_each(Carried::check);
    }

    #[test]
    fn nobody_is_cut_short_whom_nothing_ends(
        flows in prop::collection::vec(flow(), 1..4),
        mut steps in prop::collection::vec(step(), 0..300),
    ) {
        let flows: Vec<_> = flows
            .into_iter()
            .map(|(kind, mut client, mut target)| {
                (client.resets_after, target.resets_after) = (None, None);
                (kind, client, target)
            })
            .collect();
        steps.retain(|step| !matches!(step, Step::Stop(_) | Step::Abort(_)));
        let kernel = run(&flows, &steps, Times::default());
        kernel.flows.iter().for_each(Carried::check);
    }

    #[test]
    fn time_limits_leave_nothing_behind(
        flows in prop::collection::vec(flow(), 1..4),
        steps in prop::collection::vec(step(), 0..300),
        limit in 1..300_u64,
    ) {
        let times = Times {
            absolute_ms: limit * 3,
            idle_ms: limit,
            ping_ms: limit,
            stall_ms: limit,
            half_close_ms: limit,
            goodbye_ms: limit,
        };
        run(&flows, &steps, times);
    }
}
