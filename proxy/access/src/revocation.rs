//! What was revoked, and since when.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Claims, UnixSeconds};

/// What was issued at or before a time is void. For a user and a login the time of the login counts,
/// which every token that descends from it carries: one that was being issued at that moment is void
/// too. Entries may be dropped once every token that they could concern has expired.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocations {
    /// By user id (`sub`).
    pub users: BTreeMap<String, UnixSeconds>,
    /// By login (`identity_nonce`): logout.
    pub logins: BTreeMap<String, UnixSeconds>,
    /// By application name.
    pub applications: BTreeMap<String, UnixSeconds>,
}

impl Revocations {
    /// Why `claims` are void, if they are. `application` is the one that they are to open; none
    /// for an organisation token.
    #[must_use]
    pub fn find(&self, claims: &Claims, application: Option<&str>) -> Option<String> {
        let covers =
            |since: Option<&UnixSeconds>, of: u64| since.is_some_and(|since| of <= since.0);
        if covers(self.logins.get(&claims.identity_nonce), claims.auth_time) {
            return Some("the login was ended".to_owned());
        }
        if covers(self.users.get(&claims.sub), claims.auth_time) {
            return Some("the user's logins were revoked".to_owned());
        }
        let name = application?;
        covers(self.applications.get(name), claims.iat)
            .then(|| format!("the tokens of application \"{name}\" were revoked"))
    }

    /// Drops what is older than `token_s_max`, the lifetime of the longest token.
    pub fn prune(&mut self, token_s_max: u64, now: UnixSeconds) {
        // A verifier forgives a clock difference; so long the tokens may still be shown.
        let kept_s = token_s_max.saturating_add(2 * crate::token::CLOCK_SKEW_S_MAX);
        for entries in [&mut self.users, &mut self.logins, &mut self.applications] {
            entries.retain(|_, since| since.plus(kept_s) > now);
        }
    }
}
