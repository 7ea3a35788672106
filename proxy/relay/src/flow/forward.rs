//! The path of the bytes: opened, decoded or framed, and put into the other leg's outbox.

use postern_wire::websocket::{self, Opcode};

use super::batch::{Batch, Stop};
use super::frames::{Frames, Interrupt};
use super::side::{Load, Side};
use super::{Ended, Flow, Leg};
use crate::Context;
use crate::memory::Pool;
use crate::record::RecordError;

impl Flow {
    /// Sends on as much as there is room for of what `leg` keeps and of what `came`; keeps the rest.
    pub(super) fn forward(&mut self, leg: Leg, mut came: &mut [u8], cx: &mut Context<'_>) {
        loop {
            let budget = self.side(leg.other()).capacity();
            let mut batch = Batch::gather(self.side_mut(leg), came, budget, cx.pool);
            let interrupt = self.deliver(leg, &batch, came, cx).err();
            let side = self.side_mut(leg);
            side.inbox.consume(batch.kept_done, cx.pool);
            came = &mut came[batch.came_done..];
            let stop = batch.stop.take();
            if interrupt.is_some() || stop.is_some() {
                side.drop_input(cx.pool);
                return self.stopped(leg, interrupt, stop, cx);
            }
            if batch.has_more {
                continue;
            }
            side.is_blocked = batch.is_blocked;
            if batch.is_blocked {
                side.blocked_since.get_or_insert(cx.now);
                if !side.keep(came, cx.pool) {
                    self.lost(leg, cx);
                }
            } else {
                side.blocked_since = None;
            }
            return;
        }
    }

    /// Sends on what was decrypted before the flow began. Nothing is queued then: there is room.
    pub(super) fn forward_plain(&mut self, leg: Leg, came: &mut [u8], cx: &mut Context<'_>) {
        if let Err(interrupt) = self.deliver(leg, &Batch::whole(came), came, cx) {
            self.stopped(leg, Some(interrupt), None, cx);
        }
        self.settle(cx);
    }

    fn deliver(
        &mut self,
        leg: Leg,
        batch: &Batch,
        came: &mut [u8],
        cx: &mut Context<'_>,
    ) -> Result<(), Interrupt> {
        if batch.bytes == 0 {
            return Ok(());
        }
        let [client, target] = &mut self.sides;
        let (from, to) = match leg {
            Leg::Client => (client, target),
            Leg::Target => (target, client),
        };
        let arrived = from.blocked_since.unwrap_or(cx.now);
        let mut load = Load::default();
        let done = match (&mut self.frames, leg) {
            (Some(frames), Leg::Client) => {
                decode(frames, batch, from, to, came, &mut load, cx.pool)
            }
            (frames, _) => {
                load.bytes = batch.bytes as u64;
                load.messages = u64::from(frames.is_some());
                gather(frames.is_some(), batch, from, to, came, cx.pool).map_err(Interrupt::Outlet)
            }
        };
        to.loaded(load, arrived, cx.now);
        if leg == Leg::Client && load != Load::default() {
            self.clock.input_at = cx.now;
        }
        done
    }

    /// The bytes of `leg` came to an end that lies in themselves.
    fn stopped(
        &mut self,
        leg: Leg,
        interrupt: Option<Interrupt>,
        stop: Option<Stop>,
        cx: &mut Context<'_>,
    ) {
        match (interrupt, stop) {
            (Some(Interrupt::Outlet(_)), _) => self.lost(leg.other(), cx),
            (Some(Interrupt::Closed), _) => self.said_all(leg, Ended::ClientClosed, cx),
            (Some(Interrupt::Refused(error)), _) => {
                let cause = Ended::FrameRefused(error.close_code(), error.label());
                self.part(cause, None, cx);
            }
            (None, Some(Stop::Broken(error))) => self.refuse(leg, &error, cx),
            (None, Some(Stop::Closed)) => {
                let cause = self.closed(leg);
                self.said_all(leg, cause, cx);
            }
            (None, None) => {}
        }
    }
}

/// Client → target: payload of all frames of the batch, in as few records as hold it.
fn decode(
    frames: &mut Frames,
    batch: &Batch,
    from: &mut Side,
    to: &mut Side,
    came: &mut [u8],
    load: &mut Load,
    pool: &mut Pool,
) -> Result<(), Interrupt> {
    let mut outlet = to.outlet(pool).map_err(Interrupt::Outlet)?;
    let decoded = batch.each(from.inbox.filled_mut(), came, |place, piece| {
        frames.decode(place, piece, &mut outlet, load)
    });
    // What came before a frame that ends it all is still sent on.
    outlet.finish().map_err(Interrupt::Outlet)?;
    decoded
}

/// The payload as it is, behind one frame header when the client is to see it framed.
fn gather(
    is_framed: bool,
    batch: &Batch,
    from: &mut Side,
    to: &mut Side,
    came: &mut [u8],
    pool: &mut Pool,
) -> Result<(), RecordError> {
    let mut outlet = to.outlet(pool)?;
    if is_framed {
        let mut header = [0; 10];
        let length = websocket::frame_header(Opcode::Binary, true, batch.bytes, &mut header);
        outlet.push(&header[..length])?;
    }
    batch.each(from.inbox.filled_mut(), came, |place, piece| {
        outlet.push_from(place, piece)
    })?;
    outlet.finish()
}
