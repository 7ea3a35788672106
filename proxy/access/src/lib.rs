//! Decisions: who may open what, and for how long. No I/O, no clock.
//!
//! The one way to a [`Permit`] is [`Rules::authorize`]; nothing in the workspace dials a
//! target without one.
#![forbid(unsafe_code)]

pub mod application;
pub mod duration;
pub mod keyset;
pub mod permit;
pub mod policy;
pub mod provider;
pub mod revocation;
pub mod rules;
pub mod selector;
pub mod time;
pub mod token;
pub mod verified;

pub use application::{
    Application, ApplicationError, CertificatePolicy, Fingerprint, PublicAddress, RdpSecurity,
    SessionLimits, Target,
};
pub use duration::Duration;
pub use keyset::{Jwk, Jwks, KeySet};
pub use permit::Permit;
pub use policy::{Action, Decision, Policy, Subject};
pub use revocation::Revocations;
pub use rules::{Refusal, RefusalKind, Rules, UpgradeRequest};
pub use selector::Selector;
pub use time::UnixSeconds;
pub use token::{Claims, TokenError, TokenType};
pub use verified::Verified;
