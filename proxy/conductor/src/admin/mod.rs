//! The way into a running conductor: one JSON line asks, one answers.
//!
//! Control asks `{"command":"metrics"}` and is answered `{"answer":"text","of":"…"}`; it asks
//! `{"command":"announce"}` and is answered `{"answer":"announcement","of":{"is_announced":…,"why":"…"}}`.

mod client;
mod server;
mod status;

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

pub use client::{AdminError, Client};
pub(crate) use server::{Answers, listen, serve};
pub use status::{Accounting, MemberStatus, Status, Steering};

/// Longest request line.
const REQUEST_BYTES_MAX: u64 = 64 * 1024;

/// Longest answer line: the status and the metrics of as many members as a table has.
const RESPONSE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "command", content = "of")]
pub enum Request {
    Status,
    /// No new connections for a node, by its number.
    Drain(u16),
    Undrain(u16),
    /// Takes a node out of the cluster; without `yes` it is only told what that would end.
    Remove {
        node: u16,
        yes: bool,
    },
    /// Where the packets of a connection go, and why.
    Explain(Tuple),
    /// Read the settings again.
    Reload,
    /// Measurements, as Prometheus reads them, without an end mark.
    Metrics,
    /// Whether routers should send packets of the services here.
    Announce,
}

/// A connection, seen from its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tuple {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub protocol: Protocol,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "answer", content = "of")]
pub enum Response {
    Status(Box<Status>),
    Text(String),
    Announcement(Announcement),
    /// What was done, in words.
    Done(String),
    /// Why it was not, in words.
    Refused(String),
}

/// Whether the address of the services should be announced from this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    pub is_announced: bool,
    /// In words, also when it should.
    pub why: String,
}
