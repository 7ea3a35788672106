//! The state of one established flow, driven by events: what arrived, what the kernel took, what time it is.
//!
//! After every event a driver does what the flow wants (`wants_bytes`, `outgoing`, `wants_shutdown`,
//! `deadline`, `is_over`) and nothing else; events may come in any order that a kernel can produce.

use postern_wire::websocket::Decoder;

use crate::record::Records;
use crate::{Context, Moment};

/// The two peers of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Leg {
    /// Who connected to us.
    Client,
    /// Whom we connected to.
    Target,
}

/// How a leg's bytes are protected.
pub enum Line {
    Plain,
    Tls(Box<Records>),
}

/// What becomes of the bytes on their way.
pub enum Framing {
    /// They pass as they are.
    None,
    /// The client speaks WebSocket; the target gets and gives the payload of binary messages.
    WebSocket(Box<Decoder>),
}

/// Time limits; 0 = none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Times {
    /// From the flow's beginning to its end.
    pub absolute_ms: u64,
    /// Without input from the client.
    pub idle_ms: u64,
    /// A ping goes out after this long without a byte from the client; twice as long ends the flow.
    /// WebSocket only.
    pub ping_ms: u64,
    /// A peer that takes no byte for this long is gone.
    pub stall_ms: u64,
    /// After one side has closed, the other may go on for this long.
    pub half_close_ms: u64,
    /// The last words and the wait until they are heard take this long each.
    pub goodbye_ms: u64,
}

/// How a flow ended; the first cause counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    ClientClosed,
    ClientLost,
    ClientSilent,
    ClientStalled,
    TargetClosed,
    TargetLost,
    TargetStalled,
    /// The client broke the WebSocket protocol: close code and label.
    FrameRefused(u16, &'static str),
    Expired,
    Idle,
    /// [`Flow::stop`] was called.
    Stopped,
}

/// Last words to a WebSocket client: close code and reason; code 0 = none are said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Goodbye {
    pub code: u16,
    pub reason: &'static str,
}

/// Payload counts of a flow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    pub bytes_up: u64,
    pub bytes_down: u64,
    pub messages_up: u64,
    pub messages_down: u64,
}

/// What is left of a flow when it is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub ended: Ended,
    pub traffic: Traffic,
}

/// How a peer ended its sending side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// End of stream.
    Ended,
    /// Reset, or any other error of the socket.
    Broken,
}

impl Leg {
    pub const BOTH: [Self; 2] = [Self::Client, Self::Target];

    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Client => Self::Target,
            Self::Target => Self::Client,
        }
    }

    /// 0 for the client, 1 for the target.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}
