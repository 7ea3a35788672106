//! Verification keys by key id, from a JWKS.

use serde::{Deserialize, Serialize};

/// One public key [RFC 7517]; only EC P-256 (`ES256`) and OKP Ed25519 (`EdDSA`) are taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwk {
    pub kid: String,
    pub kty: String,
    pub crv: String,
    /// Base64url, 32 bytes.
    pub x: String,
    /// Base64url, 32 bytes; absent for OKP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub y: Option<String>,
    /// The one algorithm that this key verifies.
    pub alg: String,
    #[serde(rename = "use")]
    pub usage: String,
}

/// A published key set.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jwks {
    pub keys: Vec<Jwk>,
}

/// Verification keys, looked up by exact `kid`. Cannot sign.
#[derive(Clone, Default)]
pub struct KeySet {}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeySet").finish_non_exhaustive()
    }
}

/// Why a key set was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("key {kid}: {why}")]
pub struct KeySetError {
    pub kid: String,
    pub why: String,
}

impl KeySet {
    /// # Errors
    /// The first key that is of an unknown kind, malformed or a duplicate.
    pub fn from_jwks(jwks: &Jwks) -> Result<Self, KeySetError> {
        let _ = jwks;
        todo!()
    }
}
