//! Whatever a kernel and two peers do, in any order: every byte arrives once and in order, or the end
//! is reported; memory is bounded and given back.

mod peers;
mod trial;

use postern_relay::Ended;
use postern_relay::flow::{CLOSE_NOTIFY, Finish, Goodbye, Leg};
use postern_wire::websocket::{Opcode, client_frame};
use proptest::collection::vec;
use proptest::prelude::*;
use rustls::CipherSuite;
use trial::{Deed, KEY, TIMES, Trial, frames, kernel, payload, secured, unwrapped};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Passthrough,
    WebSocket,
    Secured,
    Unwrapped,
    /// The client's records are the kernel's.
    Kernel,
}

/// What happens next.
#[derive(Debug, Clone, Copy)]
enum Op {
    /// One of the deeds that can be done, at most this many bytes of it.
    Deed(usize, usize),
    Disarm(Leg),
    Say(Leg, usize),
    /// Short ones, one behind the other.
    SayMany(Leg, usize),
    Read(Leg, bool),
    Ping,
    ChangeKeys(Leg),
    Pass(u64),
    Finish(Leg, Finish),
    CloseFrame,
    CloseNotify(Leg),
    Refuse(Leg),
    Garbage(Leg),
    Stop,
    Abort,
}

/// Two peers at work, and what they have said.
struct Run {
    mode: Mode,
    trial: Trial,
    said: [Vec<u8>; 2],
    /// Who says nothing more.
    has_closed: [bool; 2],
    /// Nothing happened after which bytes may be missing.
    is_orderly: bool,
}

impl Run {
    fn new(mode: Mode) -> Self {
        let suite = CipherSuite::TLS13_CHACHA20_POLY1305_SHA256;
        let trial = match mode {
            Mode::Passthrough => Trial::passthrough(TIMES),
            Mode::WebSocket => Trial::websocket(TIMES),
            Mode::Secured => secured(suite),
            Mode::Unwrapped => unwrapped(suite, TIMES),
            Mode::Kernel => kernel(TIMES),
        };
        Self {
            mode,
            trial,
            said: [Vec::new(), Vec::new()],
            has_closed: [false; 2],
            is_orderly: true,
        }
    }

    fn is_framed(&self) -> bool {
        matches!(self.mode, Mode::WebSocket | Mode::Secured)
    }

    fn has_tls(&self, leg: Leg) -> bool {
        match self.mode {
            Mode::Secured => true,
            Mode::Unwrapped => leg == Leg::Client,
            Mode::Passthrough | Mode::WebSocket | Mode::Kernel => false,
        }
    }

    fn can_speak(&mut self, leg: Leg) -> bool {
        let has_heard_alert = self.trial.peer(leg).heard_alert;
        !self.has_closed[leg.index()] && !has_heard_alert
    }

    fn perform(&mut self, op: Op) {
        match op {
            Op::Deed(pick, bytes) => {
                let deeds = self.trial.deeds();
                if !deeds.is_empty() {
                    self.trial.perform(deeds[pick % deeds.len()], bytes);
                }
            }
            Op::Disarm(leg) => {
                if self.trial.is_armed(leg) {
                    self.trial.perform(Deed::Disarm(leg), 0);
                }
            }
            Op::Say(leg, bytes) => self.say(leg, bytes),
            Op::SayMany(leg, count) => (0..count).for_each(|at| self.say(leg, at % 9)),
            Op::Read(leg, is_reading) => self.trial.peer(leg).is_reading = is_reading,
            Op::Ping => {
                if self.is_framed() && self.can_speak(Leg::Client) {
                    let ping = client_frame(Opcode::Ping, true, KEY, b"are you there");
                    self.trial.client().say(&ping);
                }
            }
            Op::ChangeKeys(leg) => {
                if self.has_tls(leg) && self.can_speak(leg) {
                    self.trial.peer(leg).say_key_update();
                }
            }
            Op::Pass(ms) => {
                let to = self.trial.now.plus_ms(ms);
                self.trial.jump(to);
                // Short times add up to less than any limit.
                self.is_orderly &= ms < 3;
            }
            Op::Finish(leg, finish) => {
                self.trial.peer(leg).finish(finish);
                self.has_closed[leg.index()] = true;
                self.is_orderly &= finish == Finish::Ended;
            }
            Op::CloseFrame => {
                if self.is_framed() && self.can_speak(Leg::Client) {
                    self.trial.client().say_close_frame(1000);
                    self.has_closed[0] = true;
                }
            }
            Op::CloseNotify(leg) => {
                if self.has_tls(leg) && self.can_speak(leg) {
                    self.trial.peer(leg).say_close_notify();
                    self.has_closed[leg.index()] = true;
                } else if self.mode == Mode::Kernel && leg == Leg::Client {
                    self.trial.client().finish(Finish::Closed);
                    self.has_closed[0] = true;
                }
            }
            Op::Refuse(leg) => {
                self.trial.peer(leg).refuses = true;
                self.is_orderly = false;
            }
            Op::Garbage(leg) => {
                // What a passthrough flow is given is never garbage.
                if (self.has_tls(leg) || self.is_framed() && leg == Leg::Client)
                    && self.can_speak(leg)
                {
                    self.trial.peer(leg).say_raw(&[0xff; 300]);
                    self.has_closed[leg.index()] = true;
                    self.is_orderly = false;
                }
            }
            Op::Stop => {
                let goodbye = Goodbye {
                    code: 4000,
                    reason: "stopped",
                };
                self.trial.event(|flow, cx| flow.stop(goodbye, cx));
                self.is_orderly = false;
            }
            Op::Abort => {
                self.trial.event(|flow, _| flow.abort());
                self.is_orderly = false;
            }
        }
    }

    fn say(&mut self, leg: Leg, bytes: usize) {
        if !self.can_speak(leg) {
            return;
        }
        let said = &mut self.said[leg.index()];
        let start = said.len();
        said.extend((start..start + bytes).map(|at| (at ^ (at >> 7)).to_le_bytes()[0]));
        let bytes = said[start..].to_vec();
        match leg {
            Leg::Client if self.is_framed() => self.trial.client().say_message(&bytes),
            _ => self.trial.peer(leg).say(&bytes),
        }
    }

    /// Lets both peers read and end; what they said must have arrived, as far as it may.
    fn finish(mut self) {
        for leg in Leg::BOTH {
            self.perform(Op::Read(leg, true));
        }
        self.trial.run();
        for leg in Leg::BOTH {
            self.perform(Op::Finish(leg, Finish::Ended));
            self.trial.run();
        }
        self.trial.pass_ms(200_000);
        let (mode, ended) = (self.mode, self.trial.ended().cloned());
        let ended = ended.expect("both peers have ended, and all time has passed");
        let heard_up = self.trial.target().heard.clone();
        let mut heard_down = match self.is_framed() {
            true => payload(&self.trial.client().heard),
            false => self.trial.client().heard.clone(),
        };
        let heard_close = self.mode == Mode::Kernel
            && self.trial.client().alerts > 0
            && heard_down.ends_with(&CLOSE_NOTIFY);
        if heard_close {
            heard_down.truncate(heard_down.len() - CLOSE_NOTIFY.len());
        }
        let [said_up, said_down] = &self.said;
        assert!(said_up.starts_with(&heard_up), "{mode:?} {ended:?} up");
        assert!(
            said_down.starts_with(&heard_down),
            "{mode:?} {ended:?} down"
        );
        if !self.is_orderly {
            return;
        }
        assert_eq!(heard_up.len(), said_up.len(), "{mode:?} {ended:?} up");
        assert_eq!(heard_down.len(), said_down.len(), "{mode:?} {ended:?} down");
        let names = [Ended::ClientClosed, Ended::ClientLost, Ended::TargetClosed];
        assert!(names.contains(&ended), "{mode:?} {ended:?}");
        assert!(self.trial.client().heard_end && self.trial.target().heard_end);
        assert_eq!(heard_close, mode == Mode::Kernel, "{ended:?}");
        if self.is_framed() {
            let frames = frames(&self.trial.client().heard);
            assert!(frames.iter().all(|frame| frame.1.is_some()));
            let (last, before) = frames.split_last().expect("a close frame at least");
            assert_eq!(last.0, 8, "{mode:?} {ended:?}");
            assert!(before.iter().all(|frame| matches!(frame.0, 2 | 9 | 10)));
        }
        let traffic = self.trial.report.as_ref().expect("it is over").traffic;
        assert_eq!(traffic.bytes_up, said_up.len() as u64);
        assert_eq!(traffic.bytes_down, said_down.len() as u64);
    }
}

fn leg() -> impl Strategy<Value = Leg> {
    prop_oneof![Just(Leg::Client), Just(Leg::Target)]
}

fn bytes() -> impl Strategy<Value = usize> {
    prop_oneof![
        2 => 1..8_usize,
        2 => 1..600_usize,
        3 => 1..100_000_usize,
    ]
}

fn calm() -> impl Strategy<Value = Op> {
    prop_oneof![
        60 => (any::<usize>(), bytes()).prop_map(|(pick, bytes)| Op::Deed(pick, bytes)),
        14 => (leg(), bytes()).prop_map(|(leg, bytes)| Op::Say(leg, bytes)),
        4 => (leg(), 1..100_usize).prop_map(|(leg, count)| Op::SayMany(leg, count)),
        4 => leg().prop_map(Op::Disarm),
        6 => (leg(), any::<bool>()).prop_map(|(leg, reads)| Op::Read(leg, reads)),
        2 => Just(Op::Ping),
        1 => leg().prop_map(Op::ChangeKeys),
        2 => (0..3_u64).prop_map(Op::Pass),
    ]
}

fn event() -> impl Strategy<Value = Op> {
    let finish = prop_oneof![3 => Just(Finish::Ended), 1 => Just(Finish::Broken)];
    prop_oneof![
        4 => (leg(), finish).prop_map(|(leg, finish)| Op::Finish(leg, finish)),
        2 => Just(Op::CloseFrame),
        2 => leg().prop_map(Op::CloseNotify),
        1 => leg().prop_map(Op::Refuse),
        1 => leg().prop_map(Op::Garbage),
        1 => (0..150_000_u64).prop_map(Op::Pass),
        1 => Just(Op::Stop),
        1 => Just(Op::Abort),
    ]
}

fn script() -> impl Strategy<Value = Vec<Op>> {
    let part = || (event(), vec(calm(), 0..60));
    (vec(calm(), 0..250), vec(part(), 0..4)).prop_map(|(mut ops, parts)| {
        for (event, calm) in parts {
            ops.push(event);
            ops.extend(calm);
        }
        ops
    })
}

fn check(mode: Mode, script: Vec<Op>) {
    let mut run = Run::new(mode);
    for op in script {
        run.perform(op);
    }
    run.finish();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn passthrough_flows_lose_nothing(script in script()) {
        check(Mode::Passthrough, script);
    }

    #[test]
    fn websocket_flows_lose_nothing(script in script()) {
        check(Mode::WebSocket, script);
    }

    #[test]
    fn secured_flows_lose_nothing(script in script()) {
        check(Mode::Secured, script);
    }

    #[test]
    fn unwrapped_flows_lose_nothing(script in script()) {
        check(Mode::Unwrapped, script);
    }

    #[test]
    fn flows_under_the_kernels_tls_lose_nothing(script in script()) {
        check(Mode::Kernel, script);
    }
}
