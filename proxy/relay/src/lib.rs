//! An established flow, from its first relayed byte to its end: TLS records, WebSocket frames,
//! buffers, timers. No I/O and no clock: a driver of the engine feeds it events and does what it wants.
#![forbid(unsafe_code)]

pub mod flow;
pub mod memory;
pub mod record;
mod stream_bytes;
pub mod tally;

pub use flow::{Ended, Flow, Goodbye, Leg, Report, Times, Traffic};
pub use memory::Pool;
pub use record::{RecordError, Records};
pub use stream_bytes::{Meter, Rest, StreamBytes};
pub use tally::Tally;

/// Time on the driver's monotonic clock, in microseconds since the driver began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Moment(pub u64);

impl Moment {
    /// The moment `ms` milliseconds later.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms.saturating_mul(1000)))
    }

    /// Microseconds since `earlier`, 0 when that is later.
    #[must_use]
    pub fn since_us(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// What every event of a flow may use: memory and measurements of its core, and the time.
pub struct Context<'a> {
    pub pool: &'a mut Pool,
    pub tally: &'a mut Tally,
    pub now: Moment,
}
