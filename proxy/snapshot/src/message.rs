//! The messages between control and the engine, over a UNIX socket, as frames of [`crate::frame`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use postern_access::{Application, Fingerprint, Jwks, Revocations, UnixSeconds};
use serde::{Deserialize, Serialize};

use crate::{CoreMetrics, Driver, EngineInfo, Limits, Secret};

/// All that the engine needs to judge and carry sessions; replaced whole.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Snapshot {
    /// Grows by one with every change.
    pub version: u64,
    pub issued_at: UnixSeconds,
    /// Without a word from control for this long the engine takes no new sessions.
    pub lease_s: u64,
    pub issuer: String,
    /// Addresses to listen on; a change needs a restart of the engine.
    pub listen: Vec<SocketAddr>,
    pub certificates: Vec<Certificate>,
    pub applications: Vec<Application>,
    pub jwks: Jwks,
    pub revocations: Revocations,
    /// First-use pins by application name.
    pub pins: BTreeMap<String, Fingerprint>,
    pub limits: Limits,
    pub audit: AuditSettings,
    /// UNIX socket of control's web server; every connection starts with a PROXY v2 header.
    pub web_socket: PathBuf,
    /// Cores to run on; empty = all that the process may use. A change needs a restart.
    pub cores: Vec<usize>,
    /// What carries the bytes. A change needs a restart.
    pub driver: Driver,
    /// Where the program that places new connections on cores is pinned; none: the kernel's hash does
    /// it. A change needs a restart.
    pub placement: Option<PathBuf>,
    /// Largest TCP segment that browsers are told to send, so that it fits into a tunnel between
    /// nodes; none: what the interface takes. A change needs a restart.
    pub segment_bytes_max: Option<u16>,
}

/// Where and how strictly the engine's cores write audit records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditSettings {
    pub directory: PathBuf,
    /// True (default): without a durable record there is no session. False: go on, count the loss.
    pub fail_closed: bool,
}

/// A server certificate; the first of a snapshot answers when no name matches.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Certificate {
    /// Lower-case host names; one leading `*.` label is a wildcard.
    pub names: Vec<String>,
    pub chain_pem: String,
    pub key_pem: Secret,
}

/// A live session as administrators see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveSession {
    /// 32 hex digits.
    pub id: String,
    pub application: String,
    /// The user's `sub` and email.
    pub user: String,
    pub email: String,
    /// The login that it belongs to.
    pub identity_nonce: String,
    pub source: SocketAddr,
    pub target: String,
    pub core: usize,
    pub opened_at: UnixSeconds,
    /// It ends then at the latest.
    pub valid_until: UnixSeconds,
    /// It ends after this long without input; 0 = never.
    pub idle_s: u64,
}

/// A session that ended or an upgrade that was refused, for the page and the live list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The live session's id; none when it never became one.
    pub session: Option<String>,
    pub application: String,
    /// The login whose page should be told, where known.
    pub identity_nonce: Option<String>,
    /// Metric label, e.g. `killed`, `target_certificate_changed`.
    pub reason: String,
    /// What happened and what to do, for the person at the page.
    pub sentence: String,
    pub at: UnixSeconds,
}

/// Which live sessions a kill means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KillSelector {
    Session(String),
    User(String),
    Application(String),
    All,
}

/// From control.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "body")]
pub enum ToEngine {
    /// The whole state; also renews the lease.
    Snapshot(Box<Snapshot>),
    /// Renews the lease; sent every few seconds.
    Lease,
    Kill {
        selector: KillSelector,
    },
    /// Answers [`ToControl::Pin`]: the pin that now stands in the store.
    Pin {
        request: u64,
        stored: Option<Fingerprint>,
    },
    /// Asks for [`ToControl::Metrics`].
    Metrics {
        request: u64,
    },
    /// Finish live sessions, accept nothing more, exit.
    Drain,
}

/// From the engine.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "body")]
pub enum ToControl {
    /// First message of every link; control may have missed what came before.
    Hello {
        pid: u32,
        cores: usize,
        version: u64,
        info: EngineInfo,
        sessions: Vec<LiveSession>,
    },
    /// A snapshot is in force on every core.
    Applied {
        version: u64,
    },
    Opened(LiveSession),
    Ended(Ended),
    /// A first-use target showed this certificate. Control stores it if there is none yet.
    Pin {
        request: u64,
        application: String,
        sha256: Fingerprint,
    },
    /// A target's certificate is not the pinned one: tell the administrators.
    /// `seen` is absent when the handshake was refused before the certificate was kept.
    CertificateChanged {
        application: String,
        expected: Fingerprint,
        seen: Option<Fingerprint>,
    },
    Metrics {
        request: u64,
        cores: Vec<CoreMetrics>,
    },
}
