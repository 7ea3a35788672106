//! The command line's way into a running control: one JSON line asks, one answers.

mod client;
mod server;

use std::collections::BTreeMap;

use postern_access::Fingerprint;
use postern_snapshot::LiveSession;
use postern_snapshot::message::KillSelector;
use serde::{Deserialize, Serialize};

pub use crate::store::Revoked;
pub use client::{AdminError, Client};
pub(crate) use server::{reload, serve};

/// Longest request line.
const REQUEST_BYTES_MAX: u64 = 64 * 1024;

/// Longest answer line: a list of all live sessions.
const RESPONSE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// What an administrator asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "command", content = "of")]
pub enum Request {
    Sessions,
    Kill(KillSelector),
    Revoke(Revoked),
    /// Read the configuration file again.
    Reload,
    Status,
    Pins,
    ForgetPin(String),
    /// How busy the engine is.
    Load,
}

/// What control answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "answer", content = "of")]
pub enum Response {
    Sessions(Vec<LiveSession>),
    Status(Box<Status>),
    Pins(BTreeMap<String, Fingerprint>),
    Load(Load),
    /// What was done, in words.
    Done(String),
    /// Why it was not, in words.
    Refused(String),
}

/// How control stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the program.
    pub program: String,
    pub snapshot_version: u64,
    /// In force on every core.
    pub snapshot_version_applied: u64,
    pub engine_up: bool,
    pub live_sessions: usize,
    pub applications: usize,
    pub users: usize,
    pub pins: usize,
    pub checkpoint: u64,
    /// Unix seconds.
    pub certificate_expires_at: u64,
}

/// How busy the engine is, for the conductor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Live sessions on the node.
    pub sessions: u64,
    /// As many may live.
    pub sessions_max: u64,
    /// TLS handshakes with browsers under way, on all cores.
    pub handshakes: u64,
    /// As many may be under way.
    pub handshakes_max: u64,
}

#[cfg(test)]
mod tests;
