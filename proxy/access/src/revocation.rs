//! What was revoked, and since when.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::UnixSeconds;

/// Tokens issued at or before a time are void. Entries may be dropped once every token that they
/// could concern has expired.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocations {
    /// By user id (`sub`).
    pub users: BTreeMap<String, UnixSeconds>,
    /// By login (`identity_nonce`): logout.
    pub logins: BTreeMap<String, UnixSeconds>,
    /// By application name.
    pub applications: BTreeMap<String, UnixSeconds>,
}
