//! The proof that a connection was authorised; only [`crate::Rules::authorize`] makes one.

use std::net::IpAddr;
use std::sync::Arc;

use crate::{Application, Claims, UnixSeconds};

/// Authorises one session to one application. Without it nothing is dialled.
///
/// INVARIANT: fields are private and there is no public constructor. Outside this crate a permit
/// can be read:
///
/// ```
/// # use postern_access::{Permit, UnixSeconds};
/// fn read(permit: &mut Permit) -> UnixSeconds { permit.valid_until() }
/// ```
///
/// It can neither be altered, nor built, nor had from nothing:
///
/// ```compile_fail,E0616
/// # use postern_access::{Permit, UnixSeconds};
/// fn alter(permit: &mut Permit) { permit.valid_until = UnixSeconds(u64::MAX); }
/// ```
///
/// ```compile_fail,E0451
/// # use postern_access::{Permit, UnixSeconds};
/// fn build(other: Permit) -> Permit { Permit { valid_until: UnixSeconds(u64::MAX), ..other } }
/// ```
///
/// ```compile_fail,E0599
/// # use postern_access::Permit;
/// fn conjure() -> Permit { Permit::default() }
/// ```
///
/// ```compile_fail,E0277
/// # use postern_access::Permit;
/// fn parse(json: &str) -> Permit { serde_json::from_str(json).expect("a permit") }
/// ```
#[derive(Debug, Clone)]
pub struct Permit {
    pub(crate) application: Arc<Application>,
    pub(crate) claims: Arc<Claims>,
    pub(crate) policy: String,
    pub(crate) reason: String,
    pub(crate) source: IpAddr,
    pub(crate) country: Option<String>,
    pub(crate) valid_until: UnixSeconds,
    pub(crate) rules_version: u64,
}

impl Permit {
    #[must_use]
    pub fn application(&self) -> &Application {
        &self.application
    }

    #[must_use]
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// Name of the policy that allowed.
    #[must_use]
    pub fn policy(&self) -> &str {
        &self.policy
    }

    /// Why it allowed, naming the rules that matched.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    #[must_use]
    pub fn source(&self) -> IpAddr {
        self.source
    }

    /// ISO 3166-1 alpha-2 of the source, where known.
    #[must_use]
    pub fn country(&self) -> Option<&str> {
        self.country.as_deref()
    }

    /// The live session ends at this time at the latest.
    #[must_use]
    pub fn valid_until(&self) -> UnixSeconds {
        self.valid_until
    }

    /// Version of the rules that allowed.
    #[must_use]
    pub fn rules_version(&self) -> u64 {
        self.rules_version
    }
}
