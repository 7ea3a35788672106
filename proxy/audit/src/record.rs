//! One audit record, a line of JSON.

use serde::{Deserialize, Serialize};

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
        }
    }
}
