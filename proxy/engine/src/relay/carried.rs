//! One flow on its core: what of it is under way in the kernel, and what it wants done next.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use postern_relay::flow::Finish;
use postern_relay::{Context, Ended, Flow, Leg, Moment, Pool, Report, Traffic};

use super::bulk::Bulk;
use super::machine::{Deed, Key, ReceiveEnd};

/// A flow and what is under way of it.
pub struct Carried {
    pub flow: Flow,
    sides: [Side; 2],
    fate: Fate,
    /// It stands in the machine's queue of flows that may want something.
    pub dirty: bool,
    /// It stands in the machine's list of flows that wait for buffers.
    pub starved: bool,
}

/// One turn of a flow: each of its receives and sends is given out once in it.
#[derive(Debug, Default)]
pub struct Turn {
    received: [bool; 2],
    sent: [bool; 2],
}

/// What a flow's turn brings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    Deed(Deed),
    /// The turn is over.
    Nothing,
    /// The turn is over, and the flow wants another one.
    Again,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Lives,
    Aborted,
    /// One of its events panicked: nothing of it is asked any more.
    Panicked,
    /// Its close was given out.
    Closing {
        panicked: bool,
    },
}

/// What is under way at one leg, and what its lane (from this leg to the other) moved lately.
#[derive(Debug, Clone, Copy)]
struct Side {
    receive: Receive,
    send: Sending,
    shut: bool,
    /// The driver splices from this leg to the other: its receive counts as armed until it stops.
    spliced: bool,
    bulk: Bulk,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Receive {
    Off,
    On,
    Cancelling,
    /// Waits for buffers.
    Starved,
    /// Nothing more comes from this peer.
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sending {
    Idle,
    UnderWay,
    Cancelling,
    /// This peer takes nothing more.
    Broken,
}

impl Carried {
    pub fn new(flow: Flow) -> Self {
        Self {
            flow,
            sides: [Side::NEW; 2],
            fate: Fate::Lives,
            dirty: false,
            starved: false,
        }
    }

    pub fn is_over(&self) -> bool {
        self.fate != Fate::Lives || self.flow.is_over()
    }

    pub fn is_closing(&self) -> bool {
        matches!(self.fate, Fate::Closing { .. })
    }

    pub fn abort(&mut self) {
        if self.fate == Fate::Lives {
            self.fate = Fate::Aborted;
        }
    }

    /// Tells the flow of `event`; returns its deadline, none when it is over. A panic ends this flow and no other.
    pub fn happen(
        &mut self,
        context: &mut Context,
        event: impl FnOnce(&mut Flow, &mut Context),
    ) -> Option<Moment> {
        if self.fate != Fate::Lives {
            return None;
        }
        let flow = &mut self.flow;
        let happened = catch_unwind(AssertUnwindSafe(|| {
            event(flow, context);
            flow.deadline().filter(|_| !flow.is_over())
        }));
        happened.unwrap_or_else(|panic| {
            self.panicked(panic.as_ref());
            None
        })
    }

    /// What the kernel may still read; nothing after a panic, as nothing is sent then.
    pub fn outgoing(&self, leg: Leg) -> &[u8] {
        match self.fate {
            Fate::Panicked | Fate::Closing { panicked: true } => &[],
            _ => self.flow.outgoing(leg),
        }
    }

    /// Whether a receive from `leg` is under way, so that it may bring bytes; they count for its lane.
    pub fn receives(&mut self, leg: Leg, bytes: usize) -> bool {
        let side = self.side(leg);
        let armed = side.is_receiving() && !side.spliced;
        if armed {
            side.bulk.received(bytes);
        }
        armed
    }

    /// The receive under way is over; what the flow is to be told of it. `None`: there was none.
    pub fn receive_ended(&mut self, leg: Leg, end: ReceiveEnd) -> Option<Option<Finish>> {
        let over = self.is_over();
        let side = self.side(leg);
        if !side.is_receiving() {
            return None;
        }
        side.spliced = false;
        let (receive, finish) = match end {
            ReceiveEnd::NoBuffers if !over => (Receive::Starved, None),
            ReceiveEnd::Spent | ReceiveEnd::Cancelled | ReceiveEnd::NoBuffers => {
                (Receive::Off, None)
            }
            ReceiveEnd::Finished => (Receive::Done, Some(Finish::Ended)),
            ReceiveEnd::Closed => (Receive::Done, Some(Finish::Closed)),
            ReceiveEnd::Broken => (Receive::Done, Some(Finish::Broken)),
        };
        side.receive = receive;
        Some(finish)
    }

    pub fn is_starved(&self) -> bool {
        self.sides
            .iter()
            .any(|side| side.receive == Receive::Starved)
    }

    pub fn buffers_back(&mut self) {
        for side in &mut self.sides {
            if side.receive == Receive::Starved {
                side.receive = Receive::Off;
            }
        }
    }

    /// The send under way is over; whether there was one.
    pub fn send_ended(&mut self, leg: Leg, works: bool) -> bool {
        let spliced = self.sides[leg.other().index()].spliced;
        let side = self.side(leg);
        let ended = side.is_sending() || (spliced && !works);
        if ended {
            side.send = if works {
                Sending::Idle
            } else {
                Sending::Broken
            };
        }
        ended
    }

    pub fn is_spliced(&self, leg: Leg) -> bool {
        self.sides[leg.index()].spliced
    }

    pub fn can_splice(&self, leg: Leg) -> bool {
        let side = &self.sides[leg.index()];
        if self.is_over() {
            return false;
        }
        if side.spliced {
            return side.receive == Receive::On && side.bulk.stays_spliced();
        }
        side.receive == Receive::Off
            && side.bulk.is_bulky()
            && self.flow.is_transparent()
            && self.is_drained(leg)
            && self.flow.wants_bytes(leg)
    }

    pub fn begin_splice(&mut self, leg: Leg) {
        let side = self.side(leg);
        side.spliced = true;
        side.receive = Receive::On;
    }

    /// Whether `bytes` may have been spliced from `leg`; they count for its lane.
    pub fn spliced(&mut self, leg: Leg, bytes: usize) -> bool {
        let side = self.side(leg);
        if side.spliced {
            side.bulk.spliced(bytes);
        }
        side.spliced
    }

    /// The lane from `leg` begins to be judged anew; whether it was spliced.
    pub fn end_splice(&mut self, leg: Leg) -> bool {
        let side = self.side(leg);
        if side.spliced {
            side.bulk = Bulk::NEW;
        }
        side.spliced
    }

    /// The next thing to do in this turn.
    pub fn next(&mut self, key: Key, turn: &mut Turn) -> Next {
        if self.is_closing() {
            return Next::Nothing;
        }
        if self.is_over() {
            return self.next_at_end(key);
        }
        let next = catch_unwind(AssertUnwindSafe(|| {
            let deed = Leg::BOTH
                .into_iter()
                .find_map(|leg| self.deed_at(key, leg, turn));
            deed.map_or_else(|| self.after(turn), Next::Deed)
        }));
        next.unwrap_or_else(|panic| {
            self.panicked(panic.as_ref());
            Next::Again
        })
    }

    /// The flow's report; its memory goes back.
    pub fn released(self, pool: &mut Pool) -> Report {
        let panicked = matches!(self.fate, Fate::Panicked | Fate::Closing { panicked: true });
        match catch_unwind(AssertUnwindSafe(|| self.flow.released(pool))) {
            Ok(report) if !panicked => report,
            Ok(report) => Report {
                ended: Ended::TargetLost,
                ..report
            },
            Err(panic) => {
                report_panic(panic.as_ref());
                Report {
                    ended: Ended::TargetLost,
                    traffic: Traffic::default(),
                    streams: None,
                }
            }
        }
    }

    fn side(&mut self, leg: Leg) -> &mut Side {
        &mut self.sides[leg.index()]
    }

    /// Whether the lane from `leg` holds nothing that was received and not yet sent.
    fn is_drained(&self, leg: Leg) -> bool {
        let towards = leg.other();
        !self.sides[towards.index()].is_sending() && self.flow.outgoing(towards).is_empty()
    }

    /// What a flow that goes on wants at `leg`.
    fn deed_at(&mut self, key: Key, leg: Leg, turn: &mut Turn) -> Option<Deed> {
        let at = leg.index();
        if !turn.sent[at] && self.wants_send(leg) {
            turn.sent[at] = true;
            self.sides[at].send = Sending::UnderWay;
            return Some(Deed::Send(key, leg));
        }
        if !turn.received[at] && self.wants_receive(leg) {
            turn.received[at] = true;
            let side = &mut self.sides[at];
            side.receive = Receive::On;
            if side.bulk.is_bulky() {
                side.bulk.declined();
            }
            return Some(Deed::Receive(key, leg));
        }
        if self.wants_shutdown(leg) {
            self.sides[at].shut = true;
            self.flow.shut_down(leg);
            return Some(Deed::ShutDown(key, leg));
        }
        None
    }

    /// Whether something is wanted that this turn gave out already.
    fn after(&self, turn: &Turn) -> Next {
        let again = Leg::BOTH.into_iter().any(|leg| {
            (turn.received[leg.index()] && self.wants_receive(leg))
                || (turn.sent[leg.index()] && self.wants_send(leg))
        });
        if again { Next::Again } else { Next::Nothing }
    }

    fn wants_receive(&self, leg: Leg) -> bool {
        let side = &self.sides[leg.index()];
        side.receive == Receive::Off && self.flow.wants_bytes(leg) && !self.runs_dry(leg)
    }

    /// A lane that could be spliced is let run dry first, so that the driver can begin.
    fn runs_dry(&self, leg: Leg) -> bool {
        self.sides[leg.index()].bulk.is_bulky()
            && self.flow.is_transparent()
            && !self.is_drained(leg)
    }

    fn wants_send(&self, leg: Leg) -> bool {
        let side = &self.sides[leg.index()];
        side.send == Sending::Idle
            && !side.shut
            && !self.sides[leg.other().index()].spliced
            && !self.flow.outgoing(leg).is_empty()
    }

    fn wants_shutdown(&self, leg: Leg) -> bool {
        let side = &self.sides[leg.index()];
        side.send == Sending::Idle && !side.shut && self.flow.wants_shutdown(leg)
    }

    /// What is left to do for a flow that is over: end what is under way, then close.
    fn next_at_end(&mut self, key: Key) -> Next {
        for leg in Leg::BOTH {
            let side = self.side(leg);
            if side.receive == Receive::On {
                side.receive = Receive::Cancelling;
                return Next::Deed(Deed::CancelReceive(key, leg));
            }
            if side.send == Sending::UnderWay {
                side.send = Sending::Cancelling;
                return Next::Deed(Deed::CancelSend(key, leg));
            }
        }
        if self
            .sides
            .iter()
            .any(|side| side.is_receiving() || side.is_sending())
        {
            return Next::Nothing;
        }
        self.fate = Fate::Closing {
            panicked: self.fate == Fate::Panicked,
        };
        Next::Deed(Deed::Close(key))
    }

    fn panicked(&mut self, panic: &(dyn Any + Send)) {
        self.fate = Fate::Panicked;
        report_panic(panic);
    }
}

impl Side {
    const NEW: Self = Self {
        receive: Receive::Off,
        send: Sending::Idle,
        shut: false,
        spliced: false,
        bulk: Bulk::NEW,
    };

    fn is_receiving(&self) -> bool {
        matches!(self.receive, Receive::On | Receive::Cancelling)
    }

    fn is_sending(&self) -> bool {
        matches!(self.send, Sending::UnderWay | Sending::Cancelling)
    }
}

fn report_panic(panic: &(dyn Any + Send)) {
    let why = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    tracing::error!(why, "an event of a flow panicked; the flow ends");
}
