//! The WebSocket side of a flow: frames from the client are decoded where they lie, and what is to be
//! said to it beside data waits here. Bounded: of pings only the newest is answered.

use std::ops::Range;

use postern_wire::websocket::{
    CONTROL_BYTES_MAX, ControlFrame, Decoder, Event, Opcode, ProtocolError,
};

use super::side::{Load, Outlet};
use crate::record::RecordError;

/// Longest part of a frame that must be there as a whole: a masked control frame (RFC 6455 §5.5). The
/// header of a data frame is shorter, and its payload is taken as it comes.
const UNIT_BYTES_MAX: usize = 2 + 4 + CONTROL_BYTES_MAX;

/// Why nothing more is decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Interrupt {
    /// The client has sent its close frame.
    Closed,
    Refused(ProtocolError),
    /// The payload could not be put where it is to go.
    Outlet(RecordError),
}

pub(super) struct Frames {
    decoder: Decoder,
    /// The start of a unit whose rest has not come, still masked.
    carry: [u8; UNIT_BYTES_MAX],
    carried: usize,
    pub(super) pong: Option<ControlFrame>,
    pub(super) owes_ping: bool,
}

impl Frames {
    pub(super) fn new(decoder: Decoder) -> Self {
        Self {
            decoder,
            carry: [0; UNIT_BYTES_MAX],
            carried: 0,
            pong: None,
            owes_ping: false,
        }
    }

    /// Decodes all of `place[bytes]` and puts the payload into `outlet`; `load` says how much it was,
    /// also after an error.
    pub(super) fn decode(
        &mut self,
        place: &mut [u8],
        mut bytes: Range<usize>,
        outlet: &mut Outlet<'_>,
        load: &mut Load,
    ) -> Result<(), Interrupt> {
        bytes.start += self.complete(&place[bytes.clone()], outlet, load)?;
        let (decoder, pong) = (&mut self.decoder, &mut self.pong);
        bytes.start = decode(decoder, place, bytes.clone(), pong, outlet, load)?;
        let rest = &place[bytes];
        if !rest.is_empty() {
            self.join(rest)?;
        }
        Ok(())
    }

    /// Completes the unit that was carried over; how many of `bytes` are done with.
    fn complete(
        &mut self,
        bytes: &[u8],
        outlet: &mut Outlet<'_>,
        load: &mut Load,
    ) -> Result<usize, Interrupt> {
        let carried = self.carried;
        if carried == 0 {
            return Ok(0);
        }
        let joined = bytes.len().min(UNIT_BYTES_MAX - carried);
        self.join(&bytes[..joined])?;
        let unit = 0..self.carried;
        let (decoder, pong) = (&mut self.decoder, &mut self.pong);
        let done = decode(decoder, &mut self.carry, unit, pong, outlet, load)?;
        if done == 0 && joined == bytes.len() {
            return Ok(joined);
        }
        self.carried = 0;
        // A unit that is whole, and none is longer than this, has taken in all that was carried.
        done.checked_sub(carried)
            .ok_or(Interrupt::Refused(ProtocolError::LongControl))
    }

    fn join(&mut self, bytes: &[u8]) -> Result<(), Interrupt> {
        let end = self.carried + bytes.len();
        let space = self.carry.get_mut(self.carried..end);
        // No unit is longer, so that this never happens.
        let space = space.ok_or(Interrupt::Refused(ProtocolError::LongControl))?;
        space.copy_from_slice(bytes);
        self.carried = end;
        Ok(())
    }
}

/// Decodes what is whole in `place[bytes]`; where the first of them is that is not done with.
fn decode(
    decoder: &mut Decoder,
    place: &mut [u8],
    bytes: Range<usize>,
    pong: &mut Option<ControlFrame>,
    outlet: &mut Outlet<'_>,
    load: &mut Load,
) -> Result<usize, Interrupt> {
    let mut done = bytes.start;
    loop {
        let rest = &mut place[done..bytes.end];
        let step = decoder.next(rest).map_err(Interrupt::Refused)?;
        let start = done;
        done += step.consumed;
        match step.event {
            None => return Ok(done),
            Some(Event::Data { payload, last, .. }) => {
                let bytes = payload.len() as u64;
                let payload = start + payload.start..start + payload.end;
                let pushed = outlet.push_from(place, payload);
                pushed.map_err(Interrupt::Outlet)?;
                load.bytes += bytes;
                load.messages += u64::from(last);
            }
            // [RFC 6455 §5.5.3] Only the most recent ping needs an answer.
            Some(Event::Ping(payload)) => {
                *pong = Some(ControlFrame::new(Opcode::Pong, &rest[payload]));
            }
            Some(Event::Pong(_)) => {}
            Some(Event::Close(_)) => return Err(Interrupt::Closed),
        }
    }
}
