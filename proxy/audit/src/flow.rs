//! What the kernel counted of one end of a TCP connection, and what it could not count.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Who began the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowSide {
    /// The remote end: it came to a port that somebody here listened on.
    Accepted,
    /// This end.
    Dialled,
    /// The kernel's programs saw no beginning.
    Unknown,
}

/// Why the kernel's account of a flow was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowEnding {
    /// Its socket was closed.
    Over,
    /// Nothing was heard of it for long; its next packet began another account.
    Idle,
    /// It was over, and another began between the same addresses and ports.
    Replaced,
}

/// One end of a TCP connection as the kernel's programs saw it.
///
/// The same connection may have more than one of these after each other: one that was idle is closed,
/// and goes on in another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelFlow {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub side: FlowSide,
    /// Bytes of the stream, each once, without the FIN.
    pub payload_in: u64,
    pub payload_out: u64,
    /// Payload of all packets, what came or went twice included.
    pub carried_in: u64,
    pub carried_out: u64,
    pub packets_in: u64,
    pub packets_out: u64,
    /// IP packets with their headers.
    pub wire_bytes_in: u64,
    pub wire_bytes_out: u64,
    /// Unix time in milliseconds of the first and the last packet, exact to a tick of the kernel.
    pub first_ms: u64,
    pub last_ms: u64,
    pub ending: FlowEnding,
    /// It lacks its beginning: the connection was older than the account.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopted: bool,
}

/// What is in no flow's account, since the loss that was told before; and what belongs to no connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FlowLoss {
    /// Connections that found no room.
    pub flows: u64,
    /// Closed flows that found no room when their addresses and ports were used again.
    pub replaced: u64,
    pub packets: u64,
    pub wire_bytes: u64,
    /// Counted by packet: what came twice ahead of a hole is counted twice.
    pub payload_in: u64,
    pub payload_out: u64,
    /// Packets of no connection: handshakes, resets to closed ports. No loss.
    pub apart_packets: u64,
    pub apart_wire_bytes: u64,
}

impl FlowLoss {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            flows: self.flows.saturating_add(other.flows),
            replaced: self.replaced.saturating_add(other.replaced),
            packets: self.packets.saturating_add(other.packets),
            wire_bytes: self.wire_bytes.saturating_add(other.wire_bytes),
            payload_in: self.payload_in.saturating_add(other.payload_in),
            payload_out: self.payload_out.saturating_add(other.payload_out),
            apart_packets: self.apart_packets.saturating_add(other.apart_packets),
            apart_wire_bytes: self.apart_wire_bytes.saturating_add(other.apart_wire_bytes),
        }
    }

    /// Whether the kernel has counted everything.
    #[must_use]
    pub fn is_none(&self) -> bool {
        (self.flows, self.replaced, self.packets) == (0, 0, 0)
    }
}
