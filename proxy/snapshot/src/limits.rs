//! Every limit that is set for the whole engine, in one place.

use serde::{Deserialize, Serialize};

/// Limits of the engine. Times in milliseconds, sizes in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections accepted and not yet closed, on the whole node.
    pub connections_max: u32,
    /// The same from one source address.
    pub connections_per_source_max: u32,
    /// TLS handshakes under way on one core; more are closed before any cryptography.
    pub handshakes_per_core_max: u32,
    /// TLS handshakes under way on one core with one source: an IPv4 address or an IPv6 /64.
    pub handshakes_per_source_max: u32,
    /// Live sessions on the node.
    pub sessions_max: u32,
    /// Live sessions of one user.
    pub sessions_per_user_max: u32,
    /// From accept to the end of the TLS handshake.
    pub handshake_ms_max: u64,
    /// From the end of the TLS handshake to the end of the request head.
    pub head_ms_max: u64,
    /// Request head, without what follows it.
    pub head_bytes_max: usize,
    /// From the 101 to a complete `RDCleanPath` request.
    pub cleanpath_ms_max: u64,
    /// The `RDCleanPath` request.
    pub cleanpath_bytes_max: usize,
    /// Name look-up and TCP connect to a target, each address.
    pub dial_ms_max: u64,
    /// X.224 and TLS handshake with a target.
    pub negotiate_ms_max: u64,
    /// Payload of one WebSocket frame from a browser.
    pub frame_bytes_max: u64,
    /// A ping goes out after this long without a byte from the browser; twice as long ends the session.
    pub ping_ms: u64,
    /// After one side has closed, the other may go on for this long.
    pub half_close_ms_max: u64,
    /// A peer that takes no byte for this long is gone.
    pub stall_ms_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 8_000,
            connections_per_source_max: 2_000,
            handshakes_per_core_max: 256,
            handshakes_per_source_max: 64,
            sessions_max: 4_000,
            sessions_per_user_max: 20,
            handshake_ms_max: 10_000,
            head_ms_max: 10_000,
            head_bytes_max: 16 * 1024,
            cleanpath_ms_max: 5_000,
            cleanpath_bytes_max: 16 * 1024,
            dial_ms_max: 10_000,
            negotiate_ms_max: 10_000,
            frame_bytes_max: 4 * 1024 * 1024,
            ping_ms: 20_000,
            half_close_ms_max: 30_000,
            stall_ms_max: 120_000,
        }
    }
}
