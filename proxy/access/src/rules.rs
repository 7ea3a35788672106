//! The compiled rules of a node, and the one decision that yields a [`Permit`].

use std::net::IpAddr;

use crate::{Application, KeySet, Permit, Revocations, UnixSeconds};

/// Everything an upgrade is judged by. Immutable; a new snapshot makes a new one.
#[derive(Debug, Clone)]
pub struct Rules {
    pub issuer: String,
    /// Snapshot version, carried into audit records.
    pub version: u64,
    pub keys: KeySet,
    pub applications: Vec<Application>,
    pub revocations: Revocations,
}

/// What an upgrade request says of itself.
#[derive(Debug, Clone, Copy)]
pub struct UpgradeRequest<'a> {
    /// The application that host and path name.
    pub application: &'a Application,
    /// The `Origin` header, exactly as sent.
    pub origin: Option<&'a str>,
    /// The application token from the cookie.
    pub token: Option<&'a str>,
    pub source: IpAddr,
    /// ISO 3166-1 alpha-2, where known.
    pub country: Option<&'a str>,
    pub now: UnixSeconds,
}

/// Why an upgrade was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub kind: RefusalKind,
    /// Full sentence fragment for the audit record, naming the rule; never a secret.
    pub detail: String,
    /// `(sub, email, identity_nonce)` once the token's signature was verified.
    pub identity: Option<(String, String, String)>,
    /// Name of the policy that decided, where one did.
    pub policy: Option<String>,
}

/// The closed set of refusals; each has one metric label and one HTTP status (in `session`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RefusalKind {
    OriginMissing,
    OriginMismatch,
    TokenMissing,
    TokenMalformed,
    TokenUnknownKey,
    TokenAlgorithm,
    TokenSignature,
    TokenExpired,
    TokenNotYetValid,
    TokenIssuer,
    TokenAudience,
    TokenType,
    Revoked,
    PolicyBlocked,
    PolicyNoMatch,
}

impl Rules {
    /// The application whose WebSocket lives at `host` and `path`, if any.
    #[must_use]
    pub fn application_at(&self, host: &str, path: &str) -> Option<&Application> {
        let _ = (host, path);
        todo!()
    }

    /// Judges an upgrade: origin, token, revocation, policy, in this order.
    ///
    /// # Errors
    /// A [`Refusal`] for the first check that fails.
    pub fn authorize(&self, request: &UpgradeRequest<'_>) -> Result<Permit, Refusal> {
        let _ = request;
        todo!()
    }

    /// Judges a live session again under these rules (new snapshot): the application still exists
    /// with the same target, nothing was revoked, the policy still allows, the permit has not expired.
    ///
    /// # Errors
    /// A [`Refusal`] for the first check that fails.
    pub fn recheck(&self, permit: &Permit, now: UnixSeconds) -> Result<(), Refusal> {
        let _ = (permit, now);
        todo!()
    }
}
