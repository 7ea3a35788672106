//! Access tokens: claims and verification. ES256 by default; a key fixes its algorithm.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL;
use serde::{Deserialize, Serialize};

use crate::{KeySet, UnixSeconds, provider};

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenType {
    /// Opens one application.
    App,
    /// Says who is logged in to the organisation; opens nothing by itself.
    Org,
}

/// `typ` in the header of access tokens.
pub const TOKEN_JWS_TYPE: &str = "JWT";

/// `aud` of organisation tokens.
pub const ORGANISATION_AUDIENCE: &str = "org";

/// The claims of an access token; times are Unix seconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    pub iss: String,
    /// Stable user id.
    pub sub: String,
    pub email: String,
    pub aud: Vec<String>,
    pub iat: u64,
    pub nbf: u64,
    pub exp: u64,
    #[serde(rename = "type")]
    pub token_type: TokenType,
    /// Random id of the login that this token descends from; logout revokes it.
    pub identity_nonce: String,
    #[serde(default)]
    pub groups: Vec<String>,
    /// Authentication methods [RFC 8176], e.g. `pwd`.
    #[serde(default)]
    pub amr: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    /// When the user last proved who they are.
    pub auth_time: u64,
}

/// What a verified token must say.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    pub issuer: &'a str,
    pub audience: &'a str,
    pub token_type: TokenType,
}

/// Why a token was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the token is malformed")]
    Malformed,
    #[error("no key has the token's key id")]
    UnknownKey,
    #[error("the token's algorithm is not its key's")]
    Algorithm,
    #[error("the token's signature is wrong")]
    Signature,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    NotYetValid,
    #[error("the token is from another issuer")]
    Issuer,
    #[error("the token is for another audience")]
    Audience,
    #[error("the token is of another type")]
    Type,
}

/// Clock difference that is forgiven between the signer and a verifier.
pub const CLOCK_SKEW_S_MAX: u64 = 60;

/// Longest token that is looked at, in bytes.
pub const TOKEN_BYTES_MAX: usize = 4096;

/// Longest signed statement that is looked at, in bytes: an audit checkpoint of many chains.
pub const JWS_BYTES_MAX: usize = 1024 * 1024;

/// Verifies `token` with `keys`; checks algorithm, exact `kid`, signature, times, `iss`, `aud`, `type`.
///
/// # Errors
/// The first check that fails.
pub fn verify(
    keys: &KeySet,
    token: &str,
    expected: &Expected<'_>,
    now: UnixSeconds,
) -> Result<Claims, TokenError> {
    let claims = authenticate(keys, token)?;
    expected.check(&claims, now)?;
    Ok(claims)
}

/// The claims of a token that one of `keys` signed, whatever they say.
///
/// # Errors
/// When the token is malformed, of another kind, or its signature does not hold.
pub(crate) fn authenticate(keys: &KeySet, token: &str) -> Result<Claims, TokenError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(TokenError::Malformed);
    }
    let payload = verify_jws(keys, TOKEN_JWS_TYPE, token)?;
    serde_json::from_slice(&payload).map_err(|_| TokenError::Malformed)
}

/// [RFC 7515 §5.2] Verifies a compact JWS and returns its payload. The header's `typ` must be
/// `expected_type`, so that a statement of one kind never passes for another.
///
/// # Errors
/// The first check that fails.
pub fn verify_jws(keys: &KeySet, expected_type: &str, jws: &str) -> Result<Vec<u8>, TokenError> {
    if jws.len() > JWS_BYTES_MAX {
        return Err(TokenError::Malformed);
    }
    let (message, signature) = jws.rsplit_once('.').ok_or(TokenError::Malformed)?;
    let (header, payload) = message.split_once('.').ok_or(TokenError::Malformed)?;
    let header: Header = BASE64URL
        .decode(header)
        .ok()
        .and_then(|json| serde_json::from_slice(&json).ok())
        .ok_or(TokenError::Malformed)?;
    let payload = BASE64URL
        .decode(payload)
        .map_err(|_| TokenError::Malformed)?;

    let key = header
        .kid
        .and_then(|kid| keys.get(&kid))
        .ok_or(TokenError::UnknownKey)?;
    if header.alg != key.algorithm_name() {
        return Err(TokenError::Algorithm);
    }
    if header.typ.as_deref() != Some(expected_type) {
        return Err(TokenError::Type);
    }
    provider::install();
    // An error is a signature that is not base64url.
    match jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key.key, key.algorithm) {
        Ok(true) => Ok(payload),
        Ok(false) => Err(TokenError::Signature),
        Err(_) => Err(TokenError::Malformed),
    }
}

/// [RFC 7515 §4] All that a header of ours may hold. Anything else is refused: `crit` because
/// nothing critical is understood; `jku`, `jwk`, `x5u` and `x5c` because a key is never taken from
/// the token that it is to verify.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
}

impl Expected<'_> {
    /// Judges what a token says. An organisation token that comes as an application's fails by its
    /// type, before its audience.
    pub(crate) fn check(&self, claims: &Claims, now: UnixSeconds) -> Result<(), TokenError> {
        if claims.iss != self.issuer {
            return Err(TokenError::Issuer);
        }
        if claims.token_type != self.token_type {
            return Err(TokenError::Type);
        }
        if !claims.aud.iter().any(|audience| audience == self.audience) {
            return Err(TokenError::Audience);
        }
        let latest = now.plus(CLOCK_SKEW_S_MAX).0;
        if latest < claims.nbf || latest < claims.iat {
            return Err(TokenError::NotYetValid);
        }
        // [RFC 7519 §4.1.4] "on or after" the time it must not be accepted.
        if now >= UnixSeconds(claims.exp).plus(CLOCK_SKEW_S_MAX) {
            return Err(TokenError::Expired);
        }
        Ok(())
    }
}
