//! When a flow must be looked at again though nothing happens: time limits, pings, peers that stall.

use super::ending::Phase;
use super::{Ended, Flow, Leg};
use crate::{Context, Moment};

/// What a flow remembers about time.
#[derive(Debug, Default)]
pub(super) struct Clock {
    began: Moment,
    /// Last time that payload came from the client.
    pub(super) input_at: Moment,
    /// Last time that anything came from the client.
    heard_at: Moment,
    /// How the client is asked for a sign of life.
    ping: Ping,
    /// When the phase that the flow is in ends.
    pub(super) until: Option<Moment>,
}

/// A client that is silent is asked once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Ping {
    #[default]
    Unasked,
    /// Asked, but the kernel has not taken the question.
    Asked,
    Sent(Moment),
}

/// What is due at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Alarm {
    /// The phase is over.
    Until,
    Absolute,
    Idle,
    Stall(Leg),
    Ping,
    Silence,
}

impl Clock {
    pub(super) fn begin(&mut self, now: Moment) {
        (self.began, self.input_at, self.heard_at) = (now, now, now);
    }

    /// Something came from the client.
    pub(super) fn hear(&mut self, now: Moment) {
        self.heard_at = now;
        self.ping = Ping::Unasked;
    }

    /// The kernel has taken all that was said to the client.
    pub(super) fn all_said(&mut self, now: Moment) {
        if self.ping == Ping::Asked {
            self.ping = Ping::Sent(now);
        }
    }
}

impl Flow {
    /// When [`Self::woken`] must be called, if nothing happens before.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        self.next_alarm().map(|(at, _)| at)
    }

    /// Time has passed. The deadline lies in the future afterwards.
    pub fn woken(&mut self, cx: &mut Context<'_>) {
        while let Some((at, alarm)) = self.next_alarm()
            && at <= cx.now
        {
            self.ring(alarm, cx);
        }
    }

    /// Every alarm that is rung is put off or ends a phase, and no phase comes twice.
    fn ring(&mut self, alarm: Alarm, cx: &mut Context<'_>) {
        match alarm {
            Alarm::Until => self.pass(cx),
            Alarm::Absolute => self.part(Ended::Expired, None, cx),
            Alarm::Idle => self.part(Ended::Idle, None, cx),
            Alarm::Silence => self.part(Ended::ClientSilent, None, cx),
            Alarm::Stall(Leg::Client) => self.part(Ended::ClientStalled, None, cx),
            Alarm::Stall(Leg::Target) => self.part(Ended::TargetStalled, None, cx),
            Alarm::Ping => {
                self.clock.ping = Ping::Asked;
                if let Some(frames) = &mut self.frames {
                    frames.owes_ping = true;
                }
            }
        }
        self.settle(cx);
    }

    /// The earliest of what is to come.
    fn next_alarm(&self) -> Option<(Moment, Alarm)> {
        let until = self.clock.until.map(|at| (at, Alarm::Until));
        let stalls = Leg::BOTH.map(|leg| {
            let since = self.side(leg).waits_since?;
            after(since, self.times.stall_ms).map(|at| (at, Alarm::Stall(leg)))
        });
        let [client_stall, target_stall] = stalls;
        let alarms = match self.phase {
            Phase::New | Phase::Over => [None; 7],
            Phase::Parting if self.frames.is_none() => {
                [until, client_stall, target_stall, None, None, None, None]
            }
            Phase::Parting | Phase::Lingering => [until, None, None, None, None, None, None],
            Phase::Open | Phase::HalfClosed(_) => {
                let absolute = after(self.clock.began, self.times.absolute_ms);
                let idle = after(self.clock.input_at, self.times.idle_ms)
                    .filter(|_| !self.side(Leg::Client).has_said_all);
                [
                    until,
                    client_stall,
                    target_stall,
                    absolute.map(|at| (at, Alarm::Absolute)),
                    idle.map(|at| (at, Alarm::Idle)),
                    self.ping_at().map(|at| (at, Alarm::Ping)),
                    self.silence_at().map(|at| (at, Alarm::Silence)),
                ]
            }
        };
        alarms.into_iter().flatten().min_by_key(|(at, _)| *at)
    }

    fn ping_at(&self) -> Option<Moment> {
        let is_due = self.asks_for_life() && self.clock.ping == Ping::Unasked;
        after(self.clock.heard_at, self.times.ping_ms).filter(|_| is_due)
    }

    /// A client is not silent while it, or the target behind it, keeps a write waiting, and not before
    /// it has had the time to answer a ping.
    fn silence_at(&self) -> Option<Moment> {
        let Ping::Sent(sent) = self.clock.ping else {
            return None;
        };
        let is_busy = self.sides.iter().any(|side| side.waits_since.is_some());
        let ping_ms = self.times.ping_ms;
        let answered_by = after(sent, ping_ms)?;
        let heard_by = after(self.clock.heard_at, ping_ms.saturating_mul(2))?;
        (self.asks_for_life() && !is_busy).then_some(answered_by.max(heard_by))
    }

    fn asks_for_life(&self) -> bool {
        self.frames.is_some() && self.phase == Phase::Open
    }
}

/// The moment `ms` after `since`; 0 = never.
pub(super) fn after(since: Moment, ms: u64) -> Option<Moment> {
    (ms > 0).then(|| since.plus_ms(ms))
}
