//! What a load does and over which way: plain data that the bench hands to the process that does it.

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Bytes of a message of [`Work::Ping`] and [`Work::Burst`]: what a key press becomes.
pub const MESSAGE_BYTES: usize = 64;

/// Messages of a burst that are answered by one.
pub const BURST_MESSAGES: usize = 3;

/// What is done. Connections are opened and warmed up before the measured part begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Work {
    /// Every flow carries a fixed number of bytes in one direction, as fast as they go; rounded up to
    /// whole periods of the pattern.
    Bulk {
        direction: Direction,
        flows: usize,
        bytes_per_flow: u64,
    },
    /// A message of [`MESSAGE_BYTES`] there and back, again and again.
    Ping(Ping),
    /// Every `pause_ms` a connection sends [`BURST_MESSAGES`] messages back to back, which one answers.
    Burst {
        connections: usize,
        rounds: u32,
        pause_ms: u64,
    },
    /// The recorded RDP workload: screen updates down, input up.
    Desktop { sessions: usize, seconds: f64 },
    /// Opens a session up to its first echoed message and closes it, again and again.
    Open {
        concurrency: usize,
        seconds: f64,
        /// Whether TLS sessions are resumed.
        resumed: bool,
    },
    /// Opens sessions and leaves them idle until the observer has looked.
    Idle { sessions: usize },
}

/// See [`Work::Ping`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ping {
    pub connections: usize,
    /// So many connections have a message under way at a time; they take turns.
    pub in_flight: usize,
    pub seconds: f64,
    pub pace: Pace,
    /// Beside these, so many connections ask for endless data and never read it.
    pub stalled: usize,
}

/// When the next message goes out.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Pace {
    /// When the last one is back.
    Closed,
    /// So often a second for each in flight, whether or not the last one is back; latency counts from when
    /// it was due.
    Hertz(f64),
}

/// Seen from the client: `Up` is what it sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    Up,
    Down,
}

/// The way from the load's clients to the load's server, through a relay or straight.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// What is connected to.
    pub address: SocketAddr,
    /// What is spoken on the connection, outermost first.
    pub layers: Vec<Layer>,
}

/// One protocol on the way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Layer {
    /// X.224 negotiation that chooses TLS, as a native RDP client does.
    X224,
    Tls {
        name: String,
        groups: Groups,
    },
    /// A WebSocket; connections take the upgrades in turn.
    WebSocket {
        upgrades: Vec<Upgrade>,
    },
    /// The `RDCleanPath` exchange, with the upgrade's `proxy_auth`.
    CleanPath {
        destination: String,
    },
}

/// Key exchange that clients offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Groups {
    /// As browsers do: X25519MLKEM768, and X25519 for servers that don't know it.
    Browser,
    X25519,
}

/// One WebSocket upgrade.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgrade {
    /// Path and query.
    pub path: String,
    pub host: String,
    /// Beyond the ones that every upgrade has: `Origin`, `Cookie`, `Sec-WebSocket-Protocol`.
    pub headers: Vec<(String, String)>,
    /// Token in the `RDCleanPath` request that follows, when one does.
    pub proxy_auth: String,
}

impl Target {
    /// Bytes as they are.
    #[must_use]
    pub fn tcp(address: SocketAddr) -> Self {
        Self {
            address,
            layers: Vec::new(),
        }
    }

    /// TLS alone, for relays that only terminate it.
    #[must_use]
    pub fn tls(address: SocketAddr, name: &str) -> Self {
        Self {
            address,
            layers: vec![Layer::browser_tls(name)],
        }
    }

    #[must_use]
    pub fn ws(address: SocketAddr, upgrades: Vec<Upgrade>) -> Self {
        Self {
            address,
            layers: vec![Layer::WebSocket { upgrades }],
        }
    }

    #[must_use]
    pub fn wss(address: SocketAddr, name: &str, upgrades: Vec<Upgrade>) -> Self {
        Self {
            address,
            layers: vec![Layer::browser_tls(name), Layer::WebSocket { upgrades }],
        }
    }

    /// What a browser's desktop speaks: TLS, WebSocket, `RDCleanPath`.
    #[must_use]
    pub fn rdp(address: SocketAddr, name: &str, upgrades: Vec<Upgrade>, destination: &str) -> Self {
        let mut target = Self::wss(address, name, upgrades);
        target.layers.push(Layer::CleanPath {
            destination: destination.to_owned(),
        });
        target
    }
}

impl Layer {
    fn browser_tls(name: &str) -> Self {
        Self::Tls {
            name: name.to_owned(),
            groups: Groups::Browser,
        }
    }
}

impl Work {
    /// How long it may take in all before it counts as stuck.
    #[must_use]
    pub fn patience(&self) -> Duration {
        let seconds = match self {
            Self::Bulk { .. } => 300.0,
            Self::Idle { .. } => 120.0,
            Self::Ping(Ping { seconds, .. })
            | Self::Desktop { seconds, .. }
            | Self::Open { seconds, .. } => 60.0 + 4.0 * seconds,
            Self::Burst {
                rounds, pause_ms, ..
            } => 60.0 + 4.0 * f64::from(*rounds) * (*pause_ms as f64) / 1000.0,
        };
        Duration::from_secs_f64(seconds)
    }
}
