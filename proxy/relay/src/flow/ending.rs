//! How a flow ends: who may still speak when one side has ended, last words, and the wait until they are heard.

use postern_wire::websocket::{ControlFrame, Opcode};

use super::clock::after;
use super::side::{Input, Load, Output};
use super::{Ended, Finish, Flow, Goodbye, Leg};
use crate::record::RecordError;
use crate::tally::Tally;
use crate::{Context, Moment};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not begun.
    New,
    Open,
    /// This leg sends nothing more, and the other has been told; it may go on.
    HalfClosed(Leg),
    /// Nothing is forwarded any more; what is queued still goes out.
    Parting,
    /// Everything is said to a WebSocket client. What it still sends is read and dropped: closing a
    /// socket with unread input resets it, and a reset overtakes what was written.
    Lingering,
    Over,
}

impl Flow {
    /// Ends the flow from outside, with these last words to a WebSocket client.
    pub fn stop(&mut self, goodbye: Goodbye, cx: &mut Context<'_>) {
        self.part(Ended::Stopped, Some(goodbye), cx);
        self.settle(cx);
    }

    /// Ends the flow without a word.
    pub fn abort(&mut self) {
        self.ended.get_or_insert(Ended::Stopped);
        self.phase = Phase::Over;
    }

    /// Whether what comes from `leg` is sent on.
    pub(super) fn forwards(&self, leg: Leg) -> bool {
        matches!(self.phase, Phase::Open | Phase::HalfClosed(_))
            && !self.side(leg).has_said_all
            && self.side(leg.other()).output == Output::Open
    }

    /// What an orderly end of `leg` is called.
    pub(super) fn closed(&self, leg: Leg) -> Ended {
        match leg {
            // [RFC 6455 §7.1.5] A WebSocket that ends without a close frame ends abnormally.
            Leg::Client if self.frames.is_some() => Ended::ClientLost,
            Leg::Client => Ended::ClientClosed,
            Leg::Target => Ended::TargetClosed,
        }
    }

    /// `leg` sends nothing more that could be sent on.
    pub(super) fn said_all(&mut self, leg: Leg, cause: Ended, cx: &mut Context<'_>) {
        if std::mem::replace(&mut self.side_mut(leg).has_said_all, true) {
            return;
        }
        match (self.phase, &self.frames) {
            (Phase::Open, None) => {
                self.ended = Some(cause);
                self.phase = Phase::HalfClosed(leg);
                self.pass_end_on(leg, cx);
            }
            (Phase::Open, Some(_)) => {
                let goodbye = (self.goodbye)(&cause);
                self.ended = Some(cause);
                self.phase = Phase::HalfClosed(leg);
                if leg == Leg::Target {
                    self.say(goodbye, cx);
                }
                self.side_mut(leg.other()).farewell(true, cx);
            }
            (Phase::HalfClosed(_), None) => {
                // Both have ended; what is queued may take the time that it takes.
                self.pass_end_on(leg, cx);
                self.phase = Phase::Parting;
                self.clock.until = None;
            }
            // It is told how the second of both ended.
            (Phase::HalfClosed(_), Some(_)) => {
                let half_close = self.clock.until;
                let goodbye = (self.goodbye)(&cause);
                self.part(cause, Some(goodbye), cx);
                // The target was given that time to say what is queued.
                self.clock.until = self
                    .clock
                    .until
                    .map(|until| until.max(half_close.unwrap_or(until)));
            }
            _ => {}
        }
    }

    /// The other leg is told that `leg` has ended; politely unless something may be missing.
    fn pass_end_on(&mut self, leg: Leg, cx: &mut Context<'_>) {
        let is_whole = self.side(leg).has_ended_whole();
        self.side_mut(leg.other()).farewell(is_whole, cx);
    }

    /// Ends a flow that is not ending yet: nothing more is forwarded, and a WebSocket client is told
    /// why. The first cause stands.
    pub(super) fn part(&mut self, cause: Ended, goodbye: Option<Goodbye>, cx: &mut Context<'_>) {
        match self.phase {
            Phase::Open | Phase::HalfClosed(_) => {}
            Phase::New => return self.abort(),
            Phase::Parting if self.frames.is_none() => return self.abort(),
            Phase::Parting | Phase::Lingering | Phase::Over => return,
        }
        let cause = self.ended.get_or_insert(cause);
        let goodbye = goodbye.unwrap_or_else(|| (self.goodbye)(cause));
        if self.frames.is_none() {
            return self.abort();
        }
        self.say(goodbye, cx);
        for side in &mut self.sides {
            side.farewell(true, cx);
        }
        self.phase = Phase::Parting;
        self.clock.until = after(cx.now, self.times.goodbye_ms);
    }

    /// `leg` broke the rules of its line: it is told so, and the other that it is lost.
    pub(super) fn refuse(&mut self, leg: Leg, error: &RecordError, cx: &mut Context<'_>) {
        self.side_mut(leg).refuse(error, cx);
        self.broken(leg, cx);
    }

    /// Nothing can be sent to `leg` any more.
    pub(super) fn lost(&mut self, leg: Leg, cx: &mut Context<'_>) {
        self.side_mut(leg).lose();
        // An end that is known already comes first, once all before it is sent on.
        let is_ending = matches!(self.side(leg).input, Input::Finishing(_));
        if self.phase == Phase::Open && !is_ending {
            self.broken(leg, cx);
        }
    }

    /// `leg` is gone: nothing of what it sends is sent on, and what is queued for the other still is.
    fn broken(&mut self, leg: Leg, cx: &mut Context<'_>) {
        let cause = match leg {
            Leg::Client => Ended::ClientLost,
            Leg::Target => Ended::TargetLost,
        };
        self.side_mut(leg).has_said_all = true;
        if self.frames.is_some() {
            return self.part(cause, None, cx);
        }
        if matches!(self.phase, Phase::Open | Phase::HalfClosed(_)) {
            self.ended.get_or_insert(cause);
            // Without a TLS close the other can tell that something is missing.
            self.side_mut(leg.other()).farewell(false, cx);
            self.side_mut(leg).farewell(false, cx);
            self.phase = Phase::Parting;
            self.clock.until = after(cx.now, self.times.goodbye_ms);
        }
    }

    /// The time of the phase is over.
    pub(super) fn pass(&mut self, cx: &mut Context<'_>) {
        match self.phase {
            Phase::HalfClosed(_) => self.part(Ended::Stopped, None, cx),
            Phase::Parting if self.frames.is_some() => self.linger(cx.now),
            _ => self.abort(),
        }
    }

    /// Does what follows from what has happened.
    pub(super) fn settle(&mut self, cx: &mut Context<'_>) {
        while let Some((leg, finish)) = self.next_finish() {
            self.side_mut(leg).input = Input::Finished;
            match finish {
                Finish::Ended | Finish::Closed => self.said_all(leg, self.closed(leg), cx),
                Finish::Broken => self.reset(leg, cx),
            }
        }
        for leg in Leg::BOTH {
            if !self.forwards(leg) {
                self.side_mut(leg).drop_input(cx.pool);
            }
        }
        self.speak(cx);
        for side in &mut self.sides {
            side.say_owed_close(cx);
        }
        self.advance(cx);
    }

    /// A leg whose end can take effect: all that came before it is sent on, or never will be.
    fn next_finish(&self) -> Option<(Leg, Finish)> {
        Leg::BOTH.into_iter().find_map(|leg| match self.side(leg) {
            side if side.is_blocked && self.forwards(leg) => None,
            side => match side.input {
                Input::Finishing(finish) => Some((leg, finish)),
                _ => None,
            },
        })
    }

    /// The socket of `leg` failed while we received from it.
    fn reset(&mut self, leg: Leg, cx: &mut Context<'_>) {
        match (&self.frames, leg) {
            // What the target still has to say may reach a client that only failed to end well.
            (Some(_), Leg::Client) => self.said_all(leg, Ended::ClientLost, cx),
            (Some(_), Leg::Target) => {
                self.side_mut(leg).lose();
                self.said_all_lost(cx);
            }
            (None, _) => {
                self.side_mut(leg).lose();
                self.broken(leg, cx);
            }
        }
    }

    /// The target of a WebSocket client is gone, perhaps after the client has ended.
    fn said_all_lost(&mut self, cx: &mut Context<'_>) {
        if std::mem::replace(&mut self.side_mut(Leg::Target).has_said_all, true) {
            return;
        }
        let goodbye = (self.goodbye)(&Ended::TargetLost);
        self.part(Ended::TargetLost, Some(goodbye), cx);
    }

    /// Says what is to be said beside data.
    fn speak(&mut self, cx: &mut Context<'_>) {
        if !matches!(self.phase, Phase::Open | Phase::HalfClosed(_)) {
            return;
        }
        for side in &mut self.sides {
            side.answer(cx);
        }
        let Some(frames) = &mut self.frames else {
            return;
        };
        let client = &mut self.sides[Leg::Client.index()];
        if frames
            .pong
            .as_ref()
            .is_some_and(|pong| client.speak(pong, cx))
        {
            frames.pong = None;
        }
        if frames.owes_ping && client.speak(&ControlFrame::new(Opcode::Ping, &[]), cx) {
            frames.owes_ping = false;
        }
    }

    fn say(&mut self, goodbye: Goodbye, cx: &mut Context<'_>) {
        let client = self.side_mut(Leg::Client);
        if goodbye.code != 0 && client.output == Output::Open {
            let frame = ControlFrame::close(goodbye.code, goodbye.reason);
            // A line that can't be sealed any more is ended without it.
            let _ = client.say(&frame, cx);
        }
    }

    /// Goes on to the next phase when what the present one waits for has happened.
    fn advance(&mut self, cx: &mut Context<'_>) {
        match self.phase {
            Phase::HalfClosed(first) if self.side(first.other()).has_nothing_to_send() => {
                if self.side(first).output == Output::Lost {
                    // What the other still says has no hearer.
                    self.broken(first, cx);
                    return self.advance(cx);
                } else if self.clock.until.is_none() {
                    self.clock.until = after(cx.now, self.times.half_close_ms);
                }
            }
            Phase::Parting
                if self.frames.is_some() && self.side(Leg::Client).has_nothing_to_send() =>
            {
                self.linger(cx.now);
            }
            _ => {}
        }
        self.end_if_done();
    }

    fn linger(&mut self, now: Moment) {
        self.phase = Phase::Lingering;
        self.clock.until = after(now, self.times.goodbye_ms);
    }

    /// Both legs are done with.
    pub(super) fn end_if_done(&mut self) {
        let is_settled = self.sides.iter().all(|side| side.is_settled());
        let is_done = match self.phase {
            Phase::Parting => self.frames.is_none() && is_settled,
            Phase::Lingering => is_settled && self.side(Leg::Client).input == Input::Finished,
            _ => false,
        };
        if is_done {
            self.phase = Phase::Over;
        }
    }

    /// The kernel has taken all that was queued for `leg`.
    pub(super) fn delivered(&mut self, leg: Leg, cx: &mut Context<'_>) {
        let (load, arrived) = self.side_mut(leg).unload();
        if let Some(arrived) = arrived {
            cx.tally.record_latency(cx.now.since_us(arrived));
        }
        let owes_ping = self.frames.as_ref().is_some_and(|frames| frames.owes_ping);
        if leg == Leg::Client && !owes_ping {
            self.clock.all_said(cx.now);
        }
        self.count(leg, load, cx.tally);
    }

    /// Payload has gone to `to`.
    pub(super) fn count(&mut self, to: Leg, load: Load, tally: &mut Tally) {
        let Load { bytes, messages } = load;
        match to {
            Leg::Target => {
                self.traffic.bytes_up += bytes;
                self.traffic.messages_up += messages;
                tally.bytes_up += bytes;
                tally.messages_up += messages;
            }
            Leg::Client => {
                self.traffic.bytes_down += bytes;
                self.traffic.messages_down += messages;
                tally.bytes_down += bytes;
                tally.messages_down += messages;
            }
        }
    }
}
