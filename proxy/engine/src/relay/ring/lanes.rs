//! Spliced lanes: when the bytes of one direction go through a pipe, and how they move on.

use std::io;

use postern_relay::Leg;

use super::Running;
use super::operation::{self, Kind, Tag};
use crate::relay::machine::{Key, ReceiveEnd};
use crate::relay::splice::{ITERATIONS_MAX, Progress, State};

impl Running<'_> {
    /// Begins to splice the lane from `leg` if that pays and there is a pipe.
    pub(super) fn promote(&mut self, key: Key, leg: Leg) {
        if !self.machine.bulk(key, leg) {
            return;
        }
        let place = self.sockets.get_mut(key);
        let Some((lane, source, sink)) = place.and_then(|place| place.lane(leg)) else {
            return;
        };
        if lane.conduit.is_some() || lane.is_unfit {
            return;
        }
        // Without a pipe the lane goes on with buffers.
        if let Ok(conduit) = self.pipes.lend(source, sink) {
            lane.conduit = Some(conduit);
            self.machine.begin_splice(key, leg);
            self.ready.push_back((key, leg));
        }
    }

    /// Ends the splicing of a lane, whatever is in its pipe; whether it was spliced.
    pub(super) fn leave_lane(&mut self, key: Key, leg: Leg) -> io::Result<bool> {
        let Some(place) = self.sockets.get_mut(key) else {
            return Ok(false);
        };
        let lane = &mut place.lanes[leg.index()];
        let is_polled = lane.is_polled;
        let Some(conduit) = lane.conduit.take() else {
            return Ok(false);
        };
        self.pipes.give_back(conduit);
        if is_polled {
            self.ask(&operation::cancel(Tag::new(Kind::Ready, key, leg)))?;
        }
        Ok(true)
    }

    /// The kernel answered that a lane may move on, or that nobody asks any more.
    pub(super) fn lane_is_ready(&mut self, key: Key, leg: Leg) {
        if let Some(place) = self.sockets.get_mut(key) {
            let lane = &mut place.lanes[leg.index()];
            lane.is_polled = false;
            if lane.conduit.is_some() {
                self.ready.push_back((key, leg));
            }
        }
    }

    /// Moves the lanes on that were ready when the round began, each once.
    pub(super) fn pump_ready(&mut self) -> io::Result<()> {
        for _ in 0..self.ready.len() {
            if let Some((key, leg)) = self.ready.pop_front() {
                self.pump(key, leg)?;
            }
        }
        Ok(())
    }

    fn pump(&mut self, key: Key, leg: Leg) -> io::Result<()> {
        let place = self.sockets.get_mut(key);
        let Some((lane, source, sink)) = place.and_then(|place| place.lane(leg)) else {
            return Ok(());
        };
        // A question that is under way brings it here again.
        let (Some(conduit), false) = (&mut lane.conduit, lane.is_polled) else {
            return Ok(());
        };
        let Progress {
            taken,
            moved,
            state,
        } = conduit.pump(source, sink, ITERATIONS_MAX);
        let is_empty = conduit.is_empty();
        lane.is_unfit |= state == State::Unfit;
        self.machine.spliced(key, leg, taken, moved);
        match state {
            State::Finished => self.end_lane(key, leg, ReceiveEnd::Finished),
            State::SourceBroken => self.end_lane(key, leg, ReceiveEnd::Broken),
            State::SinkBroken => {
                self.machine.sent(key, leg.other(), Err(()));
                self.end_lane(key, leg, ReceiveEnd::Cancelled)
            }
            State::Unfit => self.demote(key, leg),
            State::Ready | State::Source if is_empty && !self.machine.bulk(key, leg) => {
                self.demote(key, leg)
            }
            State::Ready => {
                self.ready.push_back((key, leg));
                Ok(())
            }
            State::Source => self.poll(key, leg, leg, libc::POLLIN | libc::POLLRDHUP),
            State::Sink => {
                self.machine.splice_waits(key, leg);
                self.poll(key, leg, leg.other(), libc::POLLOUT)
            }
        }
    }

    fn end_lane(&mut self, key: Key, leg: Leg, end: ReceiveEnd) -> io::Result<()> {
        self.leave_lane(key, leg)?;
        self.machine.receive_ended(key, leg, end);
        Ok(())
    }

    fn demote(&mut self, key: Key, leg: Leg) -> io::Result<()> {
        self.leave_lane(key, leg)?;
        self.machine.end_splice(key, leg);
        Ok(())
    }

    fn poll(&mut self, key: Key, lane: Leg, whom: Leg, events: i16) -> io::Result<()> {
        let Some(place) = self.sockets.get_mut(key) else {
            return Ok(());
        };
        place.lanes[lane.index()].is_polled = true;
        place.awaited += 1;
        let entry = place
            .target(whom)
            .poll(events, Tag::new(Kind::Ready, key, lane));
        self.ask(&entry)
    }
}
