//! The flows of one core and what is to be done for them: the state machine that every driver drives.
//!
//! A driver tells what the kernel did (`received`, `receive_ended`, `sent`, `tick`, …), then takes
//! [`Deed`]s until there are none. A deed is given out once; the machine remembers what is under way and
//! ignores news of flows that are gone (generations). Safe code, no I/O: tests drive it with a simulated kernel.

use postern_relay::{Flow, Goodbye, Leg, Moment, Report, Tally};

/// Names a flow on its core: the same index is used again, the same generation is not (for 2^24 uses).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    pub index: u32,
    pub generation: u32,
}

/// How an armed receive ended. Bytes that it brought were told before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReceiveEnd {
    /// It brought as much as it may, or the kernel ended it for reasons of its own: arm again if wanted.
    Spent,
    /// There was no buffer to receive into: arm again when there are ([`Machine::buffers_back`]).
    NoBuffers,
    Cancelled,
    /// End of stream.
    Finished,
    /// Reset or another error.
    Broken,
}

/// What a driver must do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Arm a receive: its bytes come by `received`, its end by `receive_ended`.
    Receive(Key, Leg),
    /// End the armed receive; its end still comes by `receive_ended`.
    CancelReceive(Key, Leg),
    /// Send what [`Machine::outgoing`] shows; its end comes by `sent`. The bytes stay where they are until then.
    Send(Key, Leg),
    /// The send under way must end now; its end still comes by `sent`.
    CancelSend(Key, Leg),
    /// Everything was sent: end our sending side.
    ShutDown(Key, Leg),
    /// Nothing of it is under way any more: close both sockets and take its report with [`Machine::remove`].
    Close(Key),
}
