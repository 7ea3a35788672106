//! Policies: include OR and mandatory, require AND, exclude NOT; no match denies.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::selector::Selector;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Allow,
    Block,
}

/// One policy of an application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    pub name: String,
    pub action: Action,
    /// At least one must match.
    pub include: Vec<Selector>,
    /// All must match.
    pub require: Vec<Selector>,
    /// None may match.
    pub exclude: Vec<Selector>,
    /// Wins over the application's duration.
    pub session_duration_s: Option<u64>,
}

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    pub email: &'a str,
    pub groups: &'a [String],
    pub amr: &'a [String],
    pub source: IpAddr,
    /// ISO 3166-1 alpha-2, where known; an unknown country matches no country selector.
    pub country: Option<&'a str>,
}

/// What the policies say, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    pub allowed: bool,
    /// Name of the deciding policy; none when nothing matched.
    pub policy: Option<String>,
    /// Names the rule, e.g. `policy "staff" allows: include group "staff" matched`.
    pub reason: String,
    pub session_duration_s: Option<u64>,
}

/// Evaluates `policies` in order; the first that matches decides.
#[must_use]
pub fn decide(policies: &[Policy], subject: &Subject<'_>) -> Decision {
    let _ = (policies, subject);
    todo!()
}
