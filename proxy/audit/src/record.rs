//! One audit record, a line of JSON.

use serde::{Deserialize, Serialize};

use crate::{FlowLoss, KernelFlow};

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A process began a run; every other record of the run follows it.
    Started,
    /// A policy decision on an upgrade; an allow is durable before the 101.
    Decision,
    /// A connection that was accepted has ended; exactly one for each.
    Connection,
    /// Somebody tried to log in.
    Login,
    /// Somebody logged out, everywhere.
    Logout,
    /// An administrator changed something.
    Administration,
    /// A target's certificate was pinned, or is not the pinned one.
    Certificate,
    /// Records are missing here: they could not be written.
    Gap,
    /// What the kernel counted of one end of a TCP connection.
    Flow,
    /// What the kernel could not count.
    FlowLoss,
}

/// One record. What does not apply is left out of the line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Unix time in milliseconds.
    pub time_ms: u64,
    pub event: Event,
    /// Unique on its core for the life of the process, starting at 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<u64>,
    /// The live session's id, 32 hex digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The user's email as the token has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application: Option<String>,
    /// Name of the policy that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<String>,
    /// Version of the rules that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules_version: Option<u64>,
    /// `allow`, `block`, `success`, `failure`, or what was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<String>,
    /// Metric label of the outcome, e.g. `token_expired`, `idle`, `closed_by_browser`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The reason in words, naming the rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Address and port of the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Host and port that was dialled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// `tls`, `nla` or `nla_ex`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rdp_security: Option<String>,
    /// SHA-256 of the target's leaf certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_certificate: Option<String>,
    /// Payload bytes browser → target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_up: Option<u64>,
    /// Payload bytes target → browser.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_down: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages_up: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages_down: Option<u64>,
    /// From accept to the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// Address and port that the client reached us at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_local: Option<String>,
    /// Bytes of the client's TCP stream, TLS and all: taken in by the kernel, in order, each once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_received: Option<u64>,
    /// The same towards the client: taken by the kernel, without what it dropped when the connection broke.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_sent: Option<u64>,
    /// Of `client_sent`, what had not gone out yet when the socket was closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_unsent: Option<u64>,
    /// Address and port that the target was dialled from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_local: Option<String>,
    /// Address and port that took the connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_remote: Option<String>,
    /// As for the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_received: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_sent: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_unsent: Option<u64>,
    /// What the kernel counted of one end of a TCP connection; of [`Event::Flow`] alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow: Option<Box<KernelFlow>>,
    /// What the kernel could not count since the record before; of [`Event::FlowLoss`] alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow_loss: Option<FlowLoss>,
}

impl Record {
    /// An empty record.
    #[must_use]
    pub fn new(time_ms: u64, event: Event) -> Self {
        Self {
            time_ms,
            event,
            connection: None,
            session: None,
            user: None,
            application: None,
            policy: None,
            rules_version: None,
            decision: None,
            reason: None,
            detail: None,
            source: None,
            target: None,
            rdp_security: None,
            target_certificate: None,
            bytes_up: None,
            bytes_down: None,
            messages_up: None,
            messages_down: None,
            duration_ms: None,
            client_local: None,
            client_received: None,
            client_sent: None,
            client_unsent: None,
            target_local: None,
            target_remote: None,
            target_received: None,
            target_sent: None,
            target_unsent: None,
            flow: None,
            flow_loss: None,
        }
    }
}
